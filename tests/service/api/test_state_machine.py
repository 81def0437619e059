"""The public API against a model of it: whatever is done in whatever order, both say the same."""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.adapters.registry_files import FileRegistry
from tests.service.client import Client, serving

MODELS = st.sampled_from(["a", "b"])
ALIASES = st.sampled_from(["champion", "challenger"])
VERSIONS = st.integers(1, 5)
SEEDS = st.integers(0, 99)
OFFSETS = (-0.5, -0.25, 0.25, 0.5)


@dataclass(slots=True)
class Reference:
    """What a model is, said in the plainest way."""

    seeds: dict[int, int] = field(default_factory=dict)
    """Of the versions that are there; the mean of the rows that a version was fitted to."""
    last_number: int = 0
    description: str = ""
    trails: dict[str, list[int | None]] = field(default_factory=dict)
    """Versions that each alias came by; the last is what it names, None once deleted."""

    @property
    def targets(self) -> dict[str, int]:
        return {name: trail[-1] for name, trail in self.trails.items() if trail[-1] is not None}

    def default(self) -> int | None:
        return self.targets.get("champion", max(self.seeds, default=None))


class PublicApi(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.models: dict[str, Reference] = {}
        self.is_open = False
        self.restart()

    @rule()
    def restart(self) -> None:
        self.stop()
        self.stack = ExitStack()
        registry = FileRegistry(self.directory / "registry", min_free_bytes=0)
        self.client: Client = self.stack.enter_context(serving(registry=registry))
        self.is_open = True

    @rule(model=MODELS)
    def create(self, model: str) -> None:
        answer = self.client.post("/models", {"id": model, "covariance_type": "spherical"})
        if model in self.models:
            self.refused(answer, 409, "model_exists")
        else:
            assert answer.status_code == 201
            self.models[model] = Reference()

    @rule(model=MODELS, text=st.text("xyz", max_size=3))
    def describe(self, model: str, text: str) -> None:
        answer = self.client.patch(f"/models/{model}", {"description": text})
        if self.is_there(model, answer):
            self.models[model].description = text

    @rule(model=MODELS, seed=SEEDS)
    def fit(self, model: str, seed: int) -> None:
        X = [[seed + offset, offset] for offset in OFFSETS]
        answer = self.client.post(f"/models/{model}/fit", {"X": X})
        if self.is_there(model, answer):
            reference = self.models[model]
            reference.last_number += 1
            assert answer.json()["version"] == reference.last_number
            reference.seeds[reference.last_number] = seed

    @rule(model=MODELS, seed=SEEDS)
    def fit_sent_twice(self, model: str, seed: int) -> None:
        """Under one key: the second answer is the first, and there is one version more."""
        X = [[seed + offset, offset] for offset in OFFSETS]
        key = {"Idempotency-Key": uuid4().hex}
        answers = [
            self.client.post(f"/models/{model}/fit?on_conflict=reject", {"X": X}, key)
            for _ in range(2)
        ]
        if self.is_there(model, answers[0]):
            assert answers[1].content == answers[0].content
            reference = self.models[model]
            reference.last_number += 1
            assert answers[0].json()["version"] == reference.last_number
            reference.seeds[reference.last_number] = seed
        else:
            self.is_there(model, answers[1])

    @precondition(lambda self: any(reference.seeds for reference in self.models.values()))
    @rule(model=MODELS, alias=ALIASES, version=VERSIONS)
    def name(self, model: str, alias: str, version: int) -> None:
        answer = self.client.put(f"/models/{model}/aliases/{alias}", {"version": version})
        reference = self.models.get(model)
        if reference is not None and version not in reference.seeds:
            self.refused(answer, 404, "version_not_found")
        elif self.is_there(model, answer) and reference is not None:
            assert answer.json()["version"] == version
            trail = reference.trails.setdefault(alias, [])
            if trail[-1:] != [version]:
                trail.append(version)

    @rule(model=MODELS, alias=ALIASES)
    def roll_back(self, model: str, alias: str) -> None:
        answer = self.client.post(f"/models/{model}/aliases/{alias}/rollback")
        trail = self.trail(model, alias, answer)
        if trail is None:
            return
        current, seeds = trail[-1], self.models[model].seeds
        for place in range(len(trail) - 2, -1, -1):
            if trail[place] in seeds and trail[place] != current:
                assert (answer.status_code, answer.json()["version"]) == (200, trail[place])
                del trail[place + 1 :]
                return
        self.refused(answer, 409, "nothing_to_roll_back_to")

    @rule(model=MODELS, alias=ALIASES)
    def unname(self, model: str, alias: str) -> None:
        answer = self.client.delete(f"/models/{model}/aliases/{alias}")
        trail = self.trail(model, alias, answer)
        if trail is None:
            return
        if trail[-1] is None:
            self.refused(answer, 404, "alias_not_found")
        else:
            assert answer.status_code == 204
            trail.append(None)

    @rule(model=MODELS, version=VERSIONS)
    def delete_version(self, model: str, version: int) -> None:
        answer = self.client.delete(f"/models/{model}/versions/{version}")
        reference = self.models.get(model)
        if reference is not None and version not in reference.seeds:
            self.refused(answer, 404, "version_not_found")
        elif reference is not None and version in reference.targets.values():
            self.refused(answer, 409, "version_aliased")
        elif self.is_there(model, answer) and reference is not None:
            del reference.seeds[version]

    @rule(model=MODELS)
    def delete_model(self, model: str) -> None:
        answer = self.client.delete(f"/models/{model}")
        if self.is_there(model, answer):
            del self.models[model]

    @rule(model=MODELS, query=st.sampled_from(["", "?alias=latest", "?alias=challenger"]))
    def ask(self, model: str, query: str) -> None:
        answer = self.client.get(f"/models/{model}/parameters{query}")
        reference = self.models.get(model)
        if reference is None:
            self.refused(answer, 404, "model_not_found")
            return
        named = reference.targets.get("challenger")
        meant = {
            "": reference.default(),
            "?alias=latest": max(reference.seeds, default=None),
            "?alias=challenger": named,
        }[query]
        if meant is None and query == "?alias=challenger":
            self.refused(answer, 404, "alias_not_found")
        elif meant is None:
            self.refused(answer, 409, "model_not_fitted")
        else:
            assert answer.json()["version"] == meant
            assert answer.json()["means"][0][0] == pytest.approx(reference.seeds[meant], abs=1e-9)

    @invariant()
    def everything_is_there_and_nothing_else(self) -> None:
        if not self.is_open:
            return
        listed = self.client.get("/models").json()["models"]
        assert {
            entry["id"]: (entry["description"], entry["latest_version"], entry["aliases"])
            for entry in listed
        } == {
            name: (reference.description, max(reference.seeds, default=None), reference.targets)
            for name, reference in self.models.items()
        }
        for name, reference in self.models.items():
            versions = self.client.get(f"/models/{name}/versions").json()["versions"]
            assert [entry["version"] for entry in versions] == sorted(reference.seeds)

    def is_there(self, model: str, answer: httpx.Response) -> bool:
        """Hold that a change of a model that is there succeeds, of another is refused."""
        if model in self.models:
            assert answer.is_success, answer.text
            return True
        self.refused(answer, 404, "model_not_found")
        return False

    def trail(self, model: str, alias: str, answer: httpx.Response) -> list[int | None] | None:
        if model not in self.models:
            self.refused(answer, 404, "model_not_found")
            return None
        if alias not in self.models[model].trails:
            self.refused(answer, 404, "alias_not_found")
            return None
        return self.models[model].trails[alias]

    def refused(self, answer: httpx.Response, status: int, code: str) -> None:
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    def stop(self) -> None:
        if self.is_open:
            self.stack.close()
            self.is_open = False

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.stop()
            shutil.rmtree(self.directory)


PublicApi.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestPublicApi = PublicApi.TestCase
