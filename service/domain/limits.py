"""How much one request may ask for. The values come from the settings; what is over is refused."""

from dataclasses import dataclass

from gmm_engine import FitOptions
from gmm_engine.preprocessing import Preprocessing
from service.errors import InvalidInput, Issue

BYTES_PER_NUMBER = 8
RESPONSIBILITY_TABLES = 3
"""Tables of (rows, components) doubles alive at once: log-probabilities, their exponentials, the
answer."""
DRAWN_TABLES = 3
"""Tables of (rows, features + 1) doubles alive at once while rows are drawn: the rows and their
labels, those of one component, and those before they are scaled (measured: 2.9 with one component).
"""


@dataclass(frozen=True, slots=True)
class Limits:
    max_rows: int = 10_000_000
    max_features: int = 1024
    max_components: int = 1024
    max_n_init: int = 100
    max_iterations: int = 100_000
    max_candidates: int = 256
    max_analysed_rows: int = 100_000
    max_memory_bytes: int = 2 * 1024**3
    """An estimate of the arrays that one fit or one answer needs at once."""

    def require_options(self, options: FitOptions, *, place: str = "#") -> None:
        """Refuse what is too much; ``place`` points to where the options stand in the request."""
        for name, value, bound in (
            ("n_components", options.n_components, self.max_components),
            ("n_init", options.n_init, self.max_n_init),
            ("max_iter", options.max_iter, self.max_iterations),
        ):
            if value > bound:
                raise _beyond(bound, name, place)

    def require_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Refuse more axes than rows may have features."""
        if (preprocessing.pca_components or 0) > self.max_features:
            raise _beyond(self.max_features, "pca_components", "#")

    def require_candidates(self, n_candidates: int) -> None:
        if n_candidates > self.max_candidates:
            detail = (
                f"{n_candidates} candidates were asked for; a selection has {self.max_candidates} "
                "at the most"
            )
            pointer = "#/query/n_components"
            raise InvalidInput(
                "work_budget_exceeded",
                detail,
                issues=[Issue(pointer, "work_budget_exceeded", detail)],
            )

    def require_analysed(self, n_rows: int) -> None:
        if n_rows > self.max_analysed_rows:
            raise _over_budget(
                f"an analysis looks at {self.max_analysed_rows} rows at the most; send a part"
            )

    def require_table(self, n_rows: int, n_features: int) -> None:
        """Refuse rows that would not fit into memory; for whoever knows their number first."""
        self.require_work(n_rows, n_features, 0)

    def require_shape(self, n_rows: int, n_features: int) -> None:
        """Refuse rows that are too many wherever they are kept."""
        if n_rows > self.max_rows:
            raise _over_budget(f"at most {self.max_rows} rows are taken at once")
        if n_features > self.max_features:
            raise _over_budget(f"at most {self.max_features} features are taken")

    def require_blocks(self, n_rows: int, n_features: int, n_components: int) -> None:
        """Refuse what would not fit into memory when the rows are read a few at a time."""
        self.require_shape(n_rows, n_features)
        self.require_work(1, n_features, n_components)

    def require_work(self, n_rows: int, n_features: int, n_components: int) -> None:
        """Refuse what would not fit into memory, before anything is allocated for it."""
        self.require_shape(n_rows, n_features)
        if estimated_bytes(n_rows, n_features, n_components) > self.max_memory_bytes:
            raise _over_budget(
                f"this would need more than the {self.max_memory_bytes} bytes of memory that one "
                "request may use; send fewer rows or use fewer components"
            )

    def require_draw(self, n_rows: int, n_features: int) -> None:
        n_bytes = BYTES_PER_NUMBER * DRAWN_TABLES * n_rows * (n_features + 1)
        if n_rows > self.max_rows or n_bytes > self.max_memory_bytes:
            most = self.max_memory_bytes // (BYTES_PER_NUMBER * DRAWN_TABLES * (n_features + 1))
            detail = f"at most {min(most, self.max_rows)} rows of this model are drawn at once"
            raise InvalidInput(
                "work_budget_exceeded",
                detail,
                issues=[Issue("#/n_samples", "work_budget_exceeded", detail)],
            )


def estimated_bytes(n_rows: int, n_features: int, n_components: int) -> int:
    numbers = n_rows * (n_features + RESPONSIBILITY_TABLES * n_components)
    return BYTES_PER_NUMBER * (numbers + n_components * n_features**2)


def _beyond(bound: int, name: str, place: str) -> InvalidInput:
    detail = f"{name} is limited to {bound} by this service"
    issue = Issue(f"{place}/{name}", "invalid_parameter", detail)
    return InvalidInput("invalid_parameter", detail, issues=[issue])


def _over_budget(detail: str) -> InvalidInput:
    return InvalidInput("work_budget_exceeded", detail)
