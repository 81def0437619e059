"""What every registry promises, held over each implementation."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import cast

import joblib
import numpy as np
import pytest

from gmm_engine import FitOptions, Mixture, fit
from service.adapters.registry_files import FileRegistry
from service.adapters.registry_memory import MemoryRegistry
from service.domain.ports import ModelRegistry
from service.domain.records import AliasBook, ModelRecord, VersionRecord
from service.errors import Conflict, NotFound, PreconditionFailed
from tests.support.records import FAMILIES, a_draft, a_mixture, a_model, is_same_mixture
from tests.support.registries import code_of

SOON_SECONDS = 20


class ReopenedEachTime:
    """A file registry that is opened anew, as by another process, for every call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, verb: str) -> object:
        return getattr(FileRegistry(self._path), verb)


@pytest.fixture(params=["memory", "files", "files reopened"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> ModelRegistry:
    makers: dict[str, Callable[[], ModelRegistry]] = {
        "memory": MemoryRegistry,
        "files": lambda: FileRegistry(tmp_path / "registry"),
        "files reopened": lambda: cast("ModelRegistry", ReopenedEachTime(tmp_path / "registry")),
    }
    return makers[request.param]()


@pytest.fixture
def model(registry: ModelRegistry) -> ModelRecord:
    record = a_model()
    registry.create_model(record)
    return record


def commit(registry: ModelRegistry, model: ModelRecord, *, seed: int = 0) -> VersionRecord:
    mixture = a_mixture(seed=seed)
    return registry.commit_version(a_draft(model, mixture, job_id=f"job-{seed}"), mixture)


def name(
    registry: ModelRegistry, alias: str, version: int | None, *, model_id: str = "iris"
) -> AliasBook:
    return registry.update_aliases(
        model_id, lambda book: book.with_alias(book.alias(alias).moved("set", version))
    )


def at_once(calls: Sequence[Callable[[], object]]) -> list[str]:
    """Let every call start at the same moment in a thread of its own; return their codes."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> str:
        barrier.wait(SOON_SECONDS)
        return code_of(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls, timeout=SOON_SECONDS))


# Models


def test_a_created_model_is_got_back_equal(registry: ModelRegistry, model: ModelRecord) -> None:
    assert registry.get_model("iris") == model


def test_a_second_model_of_the_same_id_is_a_conflict_and_changes_nothing(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    with pytest.raises(Conflict) as refusal:
        registry.create_model(a_model(n_components=5))
    assert refusal.value.code == "model_exists"
    assert registry.get_model("iris") == model


@pytest.mark.parametrize(
    "model_id",
    ["nobody", "", ".", "..", "../iris", "iris/versions", "IRIS", "iris\n", "i\0", "stats", "é"],
)
def test_what_is_no_model_is_not_found(
    registry: ModelRegistry, model: ModelRecord, model_id: str
) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: registry.get_model(model_id),
        lambda: registry.list_versions(model_id),
        lambda: registry.latest_version(model_id),
        lambda: registry.get_version(model_id, 1),
        lambda: registry.delete_version(model_id, 1),
        lambda: registry.delete_model(model_id),
        lambda: registry.get_aliases(model_id),
        lambda: name(registry, "champion", 1, model_id=model_id),
        lambda: registry.replace_model(a_model(model_id).updated()),
        lambda: commit(registry, a_model(model_id)),
    ]
    assert [code_of(verb) for verb in verbs] == ["model_not_found"] * len(verbs)


def test_models_are_listed_by_id(registry: ModelRegistry) -> None:
    assert list(registry.list_models()) == []
    for model_id in ("b", "a.1", "c-", "a"):
        registry.create_model(a_model(model_id))
    assert [record.id for record in registry.list_models()] == ["a", "a.1", "b", "c-"]


def test_a_replaced_model_is_got_back(registry: ModelRegistry, model: ModelRecord) -> None:
    changed = model.updated(description="new", labels={}, options=FitOptions(n_components=7))
    registry.replace_model(changed)
    assert registry.get_model("iris") == changed
    assert list(registry.list_models()) == [changed]


def test_a_change_of_an_outdated_copy_is_refused(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    first, second = model.updated(description="first"), model.updated(description="second")
    registry.replace_model(first)
    with pytest.raises(PreconditionFailed) as refusal:
        registry.replace_model(second)
    assert refusal.value.code == "revision_mismatch"
    assert registry.get_model("iris") == first


def test_a_change_meant_for_a_deleted_model_does_not_reach_its_successor(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    registry.delete_model("iris")
    successor = a_model()
    registry.create_model(successor)
    assert code_of(lambda: registry.replace_model(model.updated())) == "revision_mismatch"
    assert registry.get_model("iris") == successor


def test_a_deleted_model_is_gone_with_its_versions(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    version = commit(registry, model)
    registry.delete_model("iris")
    assert code_of(lambda: registry.get_model("iris")) == "model_not_found"
    assert code_of(lambda: registry.load_mixture(version)) == "model_not_found"
    assert list(registry.list_models()) == []


def test_a_model_that_has_changed_since_it_was_seen_is_not_deleted(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    changed = model.updated()
    registry.replace_model(changed)
    assert code_of(lambda: registry.delete_model("iris", seen=model)) == "revision_mismatch"
    assert registry.get_model("iris") == changed
    registry.delete_model("iris", seen=changed)
    assert list(registry.list_models()) == []


# Versions


def test_versions_are_numbered_from_one_and_listed_oldest_first(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    assert list(registry.list_versions("iris")) == []
    assert registry.latest_version("iris") is None
    committed = [commit(registry, model, seed=seed) for seed in range(12)]
    assert [version.number for version in committed] == list(range(1, 13))
    assert list(registry.list_versions("iris")) == committed
    assert registry.latest_version("iris") == committed[-1]
    assert registry.get_version("iris", 3) == committed[2]


def test_a_version_keeps_every_field_of_its_draft(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    mixture = a_mixture()
    draft = a_draft(model, mixture)
    version = registry.commit_version(draft, mixture)
    assert (version.model_id, version.number, version.job_id) == ("iris", 1, draft.job_id)
    assert version.options == draft.options
    assert version.summary == draft.summary  # aicc is infinite, and that is kept too
    assert version.feature_names == draft.feature_names
    assert (version.covariance_type, version.data_digest) == ("full", draft.data_digest)
    assert "numpy" in version.libraries


def test_a_draft_of_lists_and_numpy_numbers_reads_back_as_it_was_returned(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    mixture = a_mixture()
    draft = a_draft(model, mixture, log_likelihood_history=list(np.linspace(-9, -1, 7)))
    returned = registry.commit_version(draft, mixture)
    assert registry.get_version("iris", 1) == returned


@pytest.mark.parametrize("covariance_type", FAMILIES)
def test_a_mixture_comes_back_to_the_last_bit(
    registry: ModelRegistry, model: ModelRecord, covariance_type: str
) -> None:
    mixture = a_mixture(covariance_type=covariance_type, n_components=3, n_features=4)
    version = registry.commit_version(a_draft(model, mixture), mixture)
    assert is_same_mixture(registry.load_mixture(version), mixture)


@pytest.mark.parametrize("covariance_type", FAMILIES)
def test_a_fitted_mixture_answers_the_same_from_the_registry(
    registry: ModelRegistry, model: ModelRecord, covariance_type: str
) -> None:
    X = np.random.default_rng(1).normal(size=(60, 3)) * [1.0, 1e3, 1e-3]
    options = FitOptions(n_components=2, covariance_type=covariance_type, random_state=0)
    mixture = fit(X, options).mixture
    stored = registry.load_mixture(registry.commit_version(a_draft(model, mixture), mixture))
    assert is_same_mixture(stored, mixture)
    assert stored.score_samples(X).tobytes() == mixture.score_samples(X).tobytes()


def test_the_artifact_is_the_declared_joblib_file(
    registry: ModelRegistry, model: ModelRecord, tmp_path: Path
) -> None:
    version = commit(registry, model)
    data = registry.read_artifact(version)
    assert (len(data), sha256(data).hexdigest()) == (
        version.artifact_bytes,
        version.artifact_digest,
    )
    (tmp_path / "params.joblib").write_bytes(data)
    content = joblib.load(tmp_path / "params.joblib")
    np.testing.assert_array_equal(content["means"], a_mixture().means)


def test_equal_mixtures_have_equal_digests(registry: ModelRegistry, model: ModelRecord) -> None:
    digests = {commit(registry, model).artifact_digest for _ in range(2)}
    assert len(digests) == 1


def test_a_deleted_version_is_gone_and_the_others_stay(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    first, second = (commit(registry, model, seed=seed) for seed in range(2))
    registry.delete_version("iris", 1)
    verbs: list[Callable[[], object]] = [
        lambda: registry.get_version("iris", 1),
        lambda: registry.delete_version("iris", 1),
        lambda: registry.load_mixture(first),
        lambda: registry.read_artifact(first),
    ]
    assert [code_of(verb) for verb in verbs] == ["version_not_found"] * 4
    assert list(registry.list_versions("iris")) == [second]


@pytest.mark.parametrize("number", [0, -1, 2, 10**6, 10**12, 10**400])
def test_a_number_that_was_never_given_is_not_found(
    registry: ModelRegistry, model: ModelRecord, number: int
) -> None:
    commit(registry, model)
    assert code_of(lambda: registry.get_version("iris", number)) == "version_not_found"
    assert code_of(lambda: registry.delete_version("iris", number)) == "version_not_found"


def test_a_number_is_never_given_twice(registry: ModelRegistry, model: ModelRecord) -> None:
    for expected in range(1, 6):
        assert commit(registry, model).number == expected
        registry.delete_version("iris", expected)
    assert list(registry.list_versions("iris")) == []
    assert registry.latest_version("iris") is None
    assert commit(registry, model).number == 6
    assert commit(registry, model).number == 7
    registry.delete_version("iris", 6)
    assert commit(registry, model).number == 8


# Aliases


def test_aliases_are_got_back_with_their_history(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    assert registry.get_aliases("iris") == AliasBook()
    for version in (1, 2, 1):
        name(registry, "champion", version)
    book = name(registry, "challenger", 2)
    assert registry.get_aliases("iris") == book
    assert book.targets == {"challenger": 2, "champion": 1}
    assert [change.version for change in book.alias("champion").history] == [1, 2, 1]


def test_a_change_of_aliases_that_is_given_up_changes_nothing(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    book = name(registry, "champion", 1)

    def give_up(_book: AliasBook) -> AliasBook:
        raise PreconditionFailed("precondition_failed", "another copy")

    assert code_of(lambda: registry.update_aliases("iris", give_up)) == "precondition_failed"
    assert registry.get_aliases("iris") == book


def test_a_change_of_aliases_may_look_at_versions(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    commit(registry, model)
    seen: list[VersionRecord] = []

    def look(book: AliasBook) -> AliasBook:
        seen.append(registry.get_version("iris", 1))
        return book

    registry.update_aliases("iris", look)
    assert seen == [registry.get_version("iris", 1)]


def test_a_version_that_an_alias_names_is_not_deleted(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    for seed in range(2):
        commit(registry, model, seed=seed)
    name(registry, "champion", 1)
    assert code_of(lambda: registry.delete_version("iris", 1)) == "version_aliased"
    name(registry, "champion", 2)
    registry.delete_version("iris", 1)
    assert [version.number for version in registry.list_versions("iris")] == [2]


def test_aliases_go_with_their_model(registry: ModelRegistry, model: ModelRecord) -> None:
    name(registry, "champion", 1)
    registry.delete_model("iris")
    registry.create_model(a_model())
    assert registry.get_aliases("iris") == AliasBook()


def test_of_parallel_changes_of_aliases_none_is_lost(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    calls = [partial(name, registry, f"a{number % 3}", number) for number in range(1, 19)]
    assert at_once(calls) == ["done"] * 18
    book = registry.get_aliases("iris")
    named = [change.version for alias in book.aliases.values() for change in alias.history]
    assert sorted(named, key=str) == sorted(range(1, 19), key=str)


def test_a_version_is_never_both_deleted_and_named(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    def name_if_there(number: int) -> None:
        def change(book: AliasBook) -> AliasBook:
            registry.get_version("iris", number)
            return book.with_alias(book.alias("champion").moved("set", number))

        registry.update_aliases("iris", change)

    for number in range(1, 9):
        commit(registry, model)
        delete = partial(registry.delete_version, "iris", number)
        codes = at_once([partial(name_if_there, number), delete])
        assert codes in (["done", "version_aliased"], ["version_not_found", "done"])


def test_a_fit_of_a_deleted_model_does_not_land_in_its_successor(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    registry.delete_model("iris")
    registry.create_model(a_model())
    assert code_of(lambda: commit(registry, model)) == "model_not_found"
    assert list(registry.list_versions("iris")) == []


def test_a_version_of_a_deleted_model_is_not_taken_for_that_of_its_successor(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    old = commit(registry, model)
    registry.delete_model("iris")
    successor = a_model()
    registry.create_model(successor)
    commit(registry, successor)
    assert code_of(lambda: registry.load_mixture(old)) == "version_not_found"


def test_a_registry_says_that_it_is_usable(registry: ModelRegistry) -> None:
    registry.check_usable()


# Races


def test_of_fifty_creates_of_one_id_one_wins(registry: ModelRegistry) -> None:
    contenders = [replace(a_model(), description=str(number)) for number in range(50)]
    codes = at_once([partial(registry.create_model, record) for record in contenders])
    assert sorted(codes) == ["done"] + ["model_exists"] * 49
    assert registry.get_model("iris") == contenders[codes.index("done")]


def test_parallel_commits_get_the_numbers_one_to_n(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    codes = at_once([partial(commit, registry, model, seed=seed) for seed in range(16)])
    assert codes == ["done"] * 16
    versions = registry.list_versions("iris")
    assert [version.number for version in versions] == list(range(1, 17))
    for version in versions:
        seed = int(version.job_id.removeprefix("job-"))
        assert is_same_mixture(registry.load_mixture(version), a_mixture(seed=seed))


def test_of_parallel_changes_of_one_revision_one_wins(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    changes = [model.updated(description=str(number)) for number in range(12)]
    codes = at_once([partial(registry.replace_model, record) for record in changes])
    assert sorted(codes) == ["done"] + ["revision_mismatch"] * 11
    assert registry.get_model("iris") == changes[codes.index("done")]


def test_of_parallel_deletes_one_wins(registry: ModelRegistry, model: ModelRecord) -> None:
    codes = at_once([lambda: registry.delete_model("iris")] * 12)
    assert sorted(codes) == ["done"] + ["model_not_found"] * 11


def test_a_model_deleted_under_its_commits_is_not_resurrected(registry: ModelRegistry) -> None:
    for _ in range(5):
        record = a_model()
        registry.create_model(record)
        commits = [partial(commit, registry, record)] * 6
        codes = at_once([*commits, partial(registry.delete_model, "iris")])
        assert codes[-1] == "done"
        assert set(codes) <= {"done", "model_not_found"}
        assert code_of(lambda: registry.get_model("iris")) == "model_not_found"


def test_readers_see_only_whole_versions_while_others_commit_and_delete(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    commit(registry, model)
    expected = a_mixture()

    def write() -> None:
        for _ in range(8):
            registry.delete_version("iris", commit(registry, model).number)

    def read() -> None:
        for _ in range(30):
            latest = registry.latest_version("iris")
            assert latest is not None
            with suppress(NotFound):  # deleted since
                assert is_same_mixture(registry.load_mixture(latest), expected)
            registry.list_versions("iris")

    assert at_once([write, write, read, read, read]) == ["done"] * 5


def test_a_mixture_that_was_loaded_outlives_its_model(
    registry: ModelRegistry, model: ModelRecord
) -> None:
    mixture: Mixture = registry.load_mixture(commit(registry, model))
    registry.delete_model("iris")
    assert mixture.predict([[0.0, 0.0]]).shape == (1,)
