"""What was asked of a registry, what it acknowledged, and what must therefore be there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from service.domain.ports import ModelRegistry
from service.domain.records import ModelRecord
from tests.support.records import a_draft, a_mixture, a_model, is_same_mixture

Verb = Literal["create", "describe", "commit", "name", "delete_version", "delete_model"]

COMMITS: list[Verb] = ["commit"] * 6
MODELS = ("a", "b", "c")
ALIAS = "champion"
MANY_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class Change:
    verb: Verb
    model: str
    value: int = 0
    """Of ``commit`` the seed, of ``describe`` the text, otherwise the number of a version."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One model as it must be found."""

    description: str = ""
    versions: Mapping[int, int] = field(default_factory=dict)
    """Seeds by number."""
    champion: int | None = None
    last_number: int = field(default=0, compare=False)  # can't be seen from outside


State = Mapping[str, Expected]


def after(state: State, change: Change) -> State:
    """Return what a registry holds once it has acknowledged this change."""
    model = state.get(change.model, Expected())
    match change.verb:
        case "delete_model":
            return {name: kept for name, kept in state.items() if name != change.model}
        case "describe":
            model = replace(model, description=str(change.value))
        case "commit":
            number = model.last_number + 1
            versions = {**model.versions, number: change.value}
            model = replace(model, versions=versions, last_number=number)
        case "name":
            model = replace(model, champion=change.value)
        case "delete_version":
            kept = {n: seed for n, seed in model.versions.items() if n != change.value}
            model = replace(model, versions=kept)
    return {**state, change.model: model}


def drawn(state: State, rng: Random, names: Sequence[str] = MODELS) -> Change:
    """Draw a change that a registry in this state accepts."""
    name = rng.choice(names)
    if name not in state:
        return Change("create", name)
    model = state[name]
    free = [number for number in model.versions if number != model.champion]
    if len(model.versions) >= MANY_VERSIONS and free:
        return Change("delete_version", name, rng.choice(free))
    verbs: list[Verb] = [*COMMITS, "describe"]
    if model.versions:
        verbs += ["name", "name"]
    if free:
        verbs += ["delete_version"]
    if rng.random() < 0.05:
        return Change("delete_model", name)
    verb = rng.choice(verbs)
    if verb == "name":
        return Change(verb, name, rng.choice(list(model.versions)))
    if verb == "delete_version":
        return Change(verb, name, rng.choice(free))
    return Change(verb, name, rng.randrange(1000))


def perform(registry: ModelRegistry, change: Change) -> None:
    match change.verb:
        case "create":
            registry.create_model(replace(a_model(change.model), description=""))
        case "describe":
            registry.replace_model(
                registry.get_model(change.model).updated(description=str(change.value))
            )
        case "commit":
            mixture = a_mixture(seed=change.value)
            model = registry.get_model(change.model)
            registry.commit_version(a_draft(model, mixture, job_id=f"job-{change.value}"), mixture)
        case "name":
            registry.update_aliases(
                change.model,
                lambda book: book.with_alias(book.alias(ALIAS).moved("set", change.value)),
            )
        case "delete_version":
            registry.delete_version(change.model, change.value)
        case "delete_model":
            registry.delete_model(change.model)


def found(registry: ModelRegistry) -> State:
    """Return what is there; every version is loaded and held against what was committed."""
    return dict(_found(registry))


def _found(registry: ModelRegistry) -> Iterator[tuple[str, Expected]]:
    for record in registry.list_models():
        yield (
            record.id,
            Expected(
                description=record.description,
                versions=_versions(registry, record),
                champion=registry.get_aliases(record.id).targets.get(ALIAS),
            ),
        )


def _versions(registry: ModelRegistry, record: ModelRecord) -> Mapping[int, int]:
    seeds = {}
    for version in registry.list_versions(record.id):
        seed = int(version.job_id.removeprefix("job-"))
        if not is_same_mixture(registry.load_mixture(version), a_mixture(seed=seed)):
            raise AssertionError(f"version {version.number} of '{record.id}' is not what was kept")
        seeds[version.number] = seed
    return seeds
