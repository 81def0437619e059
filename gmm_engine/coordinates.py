"""Coordinates of the data's own, for data whose units make features nearly collinear.

A covariance in doubles says the variance along its flattest direction to eps·κ of itself, with κ
its condition number: where features are nearly collinear, digits are lost that the rows still
have. There a fit runs on z = T (x − m)/s, in which the data is one round cloud and no digits are
lost; what it hands out is mapped back: means, covariances, and the factors U with Σ⁻¹ = U Uᵀ, which
say √κ times more than covariances can.

T is found by whitening again and again what whitening has left (as Gram and Schmidt would, the
widest directions first), each time measured on the mapped rows themselves. A direction along which
these vary no more than numbers of their size are rounded is flat: it takes no part in the fit, and
in it every component has the floor's variance.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, solve_triangular

from gmm_engine import kernels
from gmm_engine.covariances import CovarianceFamily
from gmm_engine.kernels import Chunk, Extent
from gmm_engine.kernels.ranges import in_order
from gmm_engine.mixture import Mixture
from gmm_engine.regularization import FEATURE_FLOOR, ROUNDING, DataScale, VarianceFloor, total
from gmm_engine.samples import Samples, SampleSource

WELL_CONDITIONED = 1e-7
"""Where no eigenvalue of the correlations is smaller, covariances in the given units keep half of
their digits in every direction."""
UNCORRELATED = 1e-6
"""Directions whose correlations are below this are taken to be whitened by what was measured."""
MAX_ROUNDS = 6
PIVOT = 1e-14
"""Added, for each direction, to correlations of one with itself, so that they have a factor."""
COPIED_NUMBERS = 2**21
"""Rows of no more numbers are mapped once; of others a block at a time, at every pass."""
BLOCK_NUMBERS = 2**19
"""Of a block that is mapped."""
CACHED_NUMBERS = 2**15
"""Of what a thread maps at a time."""
COARSE = 1e-8
"""Rows are mapped with more digits where products in doubles would lose more than this, in units
of the data's spread along a coordinate."""
REACH = 16.0
"""Rows of which a feature is so many spreads from the mean are still mapped with all of these."""


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """An affine map of rows: first the directions that the data varies in, then the flat ones."""

    center: NDArray[np.float64]  # (D,)
    scale: NDArray[np.float64]  # (D,)
    matrix: NDArray[np.float64]  # (D, D)
    """T, in units of ``scale``; every coordinate has variance one, the data's or the floor's."""
    n_varying: int
    log_density: float
    """What it adds to log p(z), in the mean over all rows, to be log p(x)."""

    @classmethod
    def of(cls, samples: SampleSource, scale: DataScale) -> "Coordinates | None":
        """Find the coordinates of the data; None where the given ones are good enough."""
        is_constant, units = scale.floor.is_constant, scale.floor.scale
        varying = np.flatnonzero(~is_constant)
        correlation = (scale.covariance / units / units[:, np.newaxis])[np.ix_(varying, varying)]
        eigenvalues, vectors = np.linalg.eigh(correlation)
        if not len(varying) or eigenvalues[0] >= WELL_CONDITIONED:
            return None
        directions = np.zeros((len(varying), len(units)))
        directions[:, varying] = vectors.T[::-1]
        found = _whitened(samples, scale, directions)
        if found is None:
            return None
        return cls._completed(scale, found, np.eye(len(units))[is_constant])

    @classmethod
    def of_component(cls, mixture: Mixture) -> "Coordinates | None":
        """Return those in which the first component is round; None where covariances say enough."""
        family = mixture.family
        if not (family.has_given_factors and family.has_correlations):
            return None
        scale = np.sqrt(np.diagonal(mixture.to_dense()[0]))
        matrix = family.whitening[0].T * scale
        return cls(mixture.means[0], scale, matrix, len(scale), -0.5 * float(family.log_det[0]))

    @classmethod
    def _completed(
        cls, scale: DataScale, found: "_Directions", constant: NDArray[np.float64]
    ) -> "Coordinates":
        """Make flat directions orthonormal, and the others perpendicular to them."""
        varying, flat = found.varying, found.flat
        noise = np.zeros(len(constant) + len(flat))
        if len(flat):
            axes, mixing = np.linalg.qr(flat.T)
            turned = np.linalg.solve(mixing.T, found.flat_covariance)
            noise[: len(flat)] = np.diagonal(np.linalg.solve(mixing.T, turned.T))
            flat = axes.T
            varying = varying - (varying @ flat.T) @ flat
        variance = np.maximum(noise, FEATURE_FLOOR)
        held = np.vstack([flat, constant]) / np.sqrt(variance)[:, np.newaxis]
        matrix = np.vstack([varying, held])
        lengths = np.linalg.norm(matrix, axis=1)
        log_det = np.linalg.slogdet(matrix / lengths[:, np.newaxis])[1] + np.log(lengths).sum()
        of_flat = 0.5 * (np.log(2.0 * math.pi) + noise / variance).sum()
        return cls(
            center=scale.mean,
            scale=scale.floor.scale,
            matrix=matrix,
            n_varying=len(varying),
            log_density=float(log_det - np.log(scale.floor.scale).sum() - of_flat),
        )

    def is_same(self, other: "Coordinates") -> bool:
        """Tell whether both map rows to the same bits."""
        return self.n_varying == other.n_varying and all(
            np.array_equal(here, there)
            for here, there in (
                (self.center, other.center),
                (self.scale, other.scale),
                (self.matrix, other.matrix),
            )
        )

    @property
    def n_flat(self) -> int:
        return len(self.center) - self.n_varying

    def data_scale(self, given: DataScale) -> DataScale:
        """Return what the data is measured to be in these coordinates, but for the flat ones.

        ``given`` is what it is as it came.
        """
        d = self.n_varying
        moves = self.matrix[:d] * (given.floor.rounding / self.scale)
        whole = VarianceFloor.of_total(
            np.eye(d),
            np.ones(d),
            np.zeros(d, dtype=np.bool_),
            rounding=np.linalg.norm(moves, axis=1) + ROUNDING * np.finfo(float).eps,
        )
        return DataScale(np.zeros(d), np.eye(d), whole, constant_features=())

    def map(
        self, X: NDArray[np.floating], room: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:  # (n_samples, n_varying)
        """Return rows in these coordinates, but for the flat ones; in the first of ``room``.

        Equal rows are mapped to equal bits.
        """
        mapped = np.empty((len(X), self.n_varying)) if room is None else room[: len(X)]
        onto = np.ascontiguousarray((self.matrix[: self.n_varying] / self.scale).T)
        n_at_once = max(1, CACHED_NUMBERS // len(self.center))
        center = np.tile(self.center, (min(2 * n_at_once, len(X)), 1))  # twice as fast as a row
        loss = np.finfo(float).eps * np.linalg.norm(self.matrix[: self.n_varying], axis=1)
        product = _Product(onto) if loss.max() <= COARSE else _FineProduct(onto, self.scale)

        def fill(rows: slice) -> None:
            product.fill(X[rows], center[: rows.stop - rows.start], mapped[rows])

        # None is much shorter than the others: of a few rows products are added up otherwise.
        edges = [*range(0, len(X) - n_at_once + 1, n_at_once)] or [0]
        ranges = [slice(*ends) for ends in pairwise([*edges, len(X)])]
        deque(in_order(fill, ranges), maxlen=0)
        return mapped

    def undo(self, Z: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, D)
        """Return rows as they came; in flat directions they are where all rows are."""
        whole = np.zeros((len(Z), len(self.center)))
        whole[:, : self.n_varying] = Z
        return self.center + np.linalg.solve(self.matrix, whole.T).T * self.scale

    def mapped(self, samples: SampleSource) -> SampleSource:
        """Return the rows of a fit in these coordinates."""
        rows = MappedSamples(samples, self)
        is_small = samples.n_rows * self.n_varying <= COPIED_NUMBERS
        return rows.copied() if is_small and isinstance(samples, Samples) else rows

    def to_own(self, mixture: Mixture) -> Mixture:
        """Return a mixture in the given units in these coordinates, but for the flat ones."""
        n, d = mixture.family.n_sets, self.n_varying
        given = mixture.precisions_cholesky.reshape(n, *self.matrix.shape)
        upper = np.asarray(np.linalg.solve(self.matrix.T, given * self.scale[:, np.newaxis]))
        if self.n_flat:
            upper = np.stack([_marginal_factor(factor, d) for factor in upper])
        family = type(mixture.family)
        shape = family.shape(mixture.n_components, d)
        covariances = family.from_precisions_cholesky(upper.reshape(shape), mixture.n_components, d)
        return Mixture(mixture.weights, self.map(mixture.means), covariances)

    def to_given(self, mixture: Mixture) -> Mixture:
        """Return a mixture in these coordinates in the given units."""
        return Mixture(mixture.weights, self.undo(mixture.means), self._family(mixture.family))

    def _family(self, family: CovarianceFamily) -> CovarianceFamily:
        n, d, D = family.n_sets, self.n_varying, len(self.center)
        flat = np.eye(self.n_flat)
        lengths = np.linalg.norm(self.matrix, axis=1)
        back = np.linalg.inv(self.matrix / lengths[:, np.newaxis]) / lengths
        back *= self.scale[:, np.newaxis]
        onto = self.matrix.T / self.scale[:, np.newaxis]
        own = zip(
            family.to_array().reshape(n, d, d),
            family.precisions_cholesky.reshape(n, d, d),
            strict=True,
        )
        covariances, upper = np.empty((n, D, D)), np.empty((n, D, D))
        for k, (covariance, factor) in enumerate(own):
            covariances[k] = back @ block_diag(covariance, flat) @ back.T
            upper[k] = onto @ block_diag(factor, flat)
        return type(family).of_other_coordinates(covariances, upper, family.n_components)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A mixture in coordinates, as a fit found it there."""

    mixture: Mixture
    coordinates: Coordinates


@dataclass(frozen=True, slots=True)
class _Product:
    """What deviations are multiplied by, in doubles."""

    onto: NDArray[np.float64]  # (D, d)

    def fill(
        self, X: NDArray[np.floating], center: NDArray[np.float64], out: NDArray[np.float64]
    ) -> None:
        np.matmul(X - center, self.onto, out=out)


class _FineProduct:
    """The same with half as many digits again: what cancels is multiplied without rounding.

    Deviations and factors are cut in two. The products of the leading parts, of so few bits each,
    have a sum that is a double (Ozaki et al. 2012).
    """

    def __init__(self, onto: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        n_bits = (np.finfo(float).nmant + 1 - math.ceil(math.log2(len(onto)))) // 2
        unit = _power_above(REACH * scale)[:, np.newaxis]
        largest = _power_above(np.abs(onto * unit).max(axis=0))
        self._onto = onto
        self._grid = np.ldexp(unit[:, 0], -n_bits)
        self._leading = _on_grid(onto, np.ldexp(largest / unit, -n_bits))
        self._rest = onto - self._leading

    def fill(
        self, X: NDArray[np.floating], center: NDArray[np.float64], out: NDArray[np.float64]
    ) -> None:
        deviations = X - center
        moved = X - deviations  # the centre, but for what rounding has left of it
        lost = (X - (deviations + moved)) + (moved - center)
        leading = _on_grid(deviations, self._grid)
        rest = (deviations - leading) + lost
        np.matmul(leading, self._leading, out=out)
        out += leading @ self._rest + rest @ self._onto


def _power_above(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return powers of two that are larger."""
    return np.ldexp(1.0, np.frexp(numbers)[1])


def _on_grid(numbers: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round numbers to multiples of powers of two."""
    to_drop = 1.5 * 2.0 ** np.finfo(float).nmant * grid
    return np.asarray((numbers + to_drop) - to_drop)


class MappedSamples:
    """Rows in other coordinates, mapped block by block at every pass."""

    def __init__(self, source: SampleSource, coordinates: Coordinates) -> None:
        self.source, self.coordinates = source, coordinates

    @property
    def n_rows(self) -> int:
        return self.source.n_rows

    @property
    def n_features(self) -> int:
        return self.coordinates.n_varying

    @property
    def n_positive(self) -> int:
        return self.source.n_positive

    @property
    def total_weight(self) -> float:
        return self.source.total_weight

    @property
    def n_copies(self) -> int:
        return self.source.n_copies

    @property
    def precision(self) -> float:
        return self.source.precision

    @cached_property
    def extent(self) -> Extent:
        extents = [kernels.extent(Z, weight) for Z, weight in self.chunks()]
        return Extent(
            np.min([each.smallest for each in extents], axis=0),
            np.max([each.largest for each in extents], axis=0),
        )

    def chunks(self) -> Iterator[Chunk]:
        """Yield rows and weights; what was yielded lasts until the next."""
        return _mapped_chunks(self.source, self.coordinates)

    def drawn(self, n_rows: int, rng: np.random.Generator) -> Samples:
        part = self.source.drawn(n_rows, rng)
        return MappedSamples(part, self.coordinates).copied()

    def copied(self) -> Samples:
        """Return the rows of an array, all mapped at once: equal rows to equal bits."""
        [(X, weight)] = self.source.chunks()
        return Samples(_mapped_block(self.coordinates, X, weight), weight)


@dataclass(frozen=True, slots=True, eq=False)
class _Directions:
    """Of the data in units of its scale, by rows."""

    varying: NDArray[np.float64]  # (d, D)
    """Along them the data has covariance one."""
    flat: NDArray[np.float64]  # (D − d, D)
    flat_covariance: NDArray[np.float64]  # (D − d, D − d)


def _whitened(
    samples: SampleSource, scale: DataScale, directions: NDArray[np.float64]
) -> _Directions | None:
    """Whiten what is left of whitening by the given directions until nothing is left.

    There are none where all that varies is rounding.
    """
    rounding = scale.floor.rounding / scale.floor.scale
    for _ in range(MAX_ROUNDS):
        covariance = _covariance_along(samples, scale, directions)
        variance = np.diagonal(covariance)  # rounding may leave less than none
        deviations = np.sqrt(np.maximum(variance, 0.0))
        order = np.argsort(-deviations, kind="stable")
        is_flat = deviations <= np.abs(directions) @ rounding
        wide, flat = order[~is_flat[order]], order[is_flat[order]]
        if not len(wide):
            return None
        units = deviations[wide]
        correlation = covariance[np.ix_(wide, wide)] / units / units[:, np.newaxis]
        lower = np.linalg.cholesky(correlation + PIVOT * len(wide) * np.eye(len(wide)))
        white = solve_triangular(lower, directions[wide] / units[:, np.newaxis], lower=True)
        found = _Directions(white, directions[flat], covariance[np.ix_(flat, flat)])
        if np.abs(np.tril(correlation, -1)).max() <= UNCORRELATED:
            break
        lengths = np.linalg.norm(white, axis=1, keepdims=True)
        directions = np.vstack([white / lengths, found.flat])
    return found


def _covariance_along(
    samples: SampleSource, scale: DataScale, directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the covariance of the rows seen along some directions, measured on these rows."""
    seen = Coordinates(
        scale.mean, scale.floor.scale, directions, len(directions), log_density=0.0
    ).mapped(samples)
    whole = total(seen, np.zeros(len(directions)))
    return np.asarray(whole.central_scatter[0] / whole.n_samples)


def _mapped_chunks(source: SampleSource, coordinates: Coordinates) -> Iterator[Chunk]:
    n_at_once = max(1, BLOCK_NUMBERS // coordinates.n_varying)
    room = np.empty((min(n_at_once, source.n_rows), coordinates.n_varying))
    for X, weight in source.chunks():
        for begin in range(0, len(X), n_at_once):
            rows = slice(begin, begin + n_at_once)
            counted = None if weight is None else weight[rows]
            yield _mapped_block(coordinates, X[rows], counted, room), counted


def _mapped_block(
    coordinates: Coordinates,
    X: NDArray[np.floating],
    weight: NDArray[np.float64] | None,
    room: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Map rows; those of no weight, which may be out of reach, to where all others are."""
    if weight is None or weight.all():
        return coordinates.map(X, room)
    reached = np.where(weight[:, np.newaxis] > 0.0, X, coordinates.center)
    return coordinates.map(reached, room)


def _marginal_factor(upper: NDArray[np.float64], n_kept: int) -> NDArray[np.float64]:
    """Return V with (V Vᵀ)⁻¹ the first rows and columns of (U Uᵀ)⁻¹."""
    roots = np.linalg.inv(upper)[:, :n_kept]
    return np.asarray(np.linalg.inv(np.linalg.qr(roots)[1]))
