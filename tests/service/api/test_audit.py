"""The audit trail: every change over HTTP is in it, and nothing that a request carried."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.adapters.audit_memory import MemoryAuditTrail
from service.cli import app
from service.domain.records import AuditEntry
from service.errors import Unavailable
from service.settings import Settings
from service.wiring import build_services, open_audit
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS


def trail_of(client: Client) -> list[AuditEntry]:
    return list(client.services.audit.newest(100))


def test_every_change_and_every_refused_one_is_noted(client: Client) -> None:
    client.post("/models", {"n_components": 2, "description": "xqz7"}, {"X-Request-Id": "r-1"})
    model = client.get("/models").json()["models"][0]["id"]
    client.post(f"/models/{model}/fit", {"X": TWO_GROUPS})
    client.put(f"/models/{model}/aliases/champion", {"version": 1})
    client.patch(f"/models/{model}", {"n_components": 1})
    client.delete(f"/models/{model}/versions/1")
    client.post("/models/nowhere/fit", {"X": TWO_GROUPS})
    client.delete("/models/XQZ7")

    found = [
        (entry.action, entry.status, entry.code, entry.model_id, entry.version, entry.alias)
        for entry in trail_of(client)
    ]
    assert found == [
        ("create_model", 201, None, model, None, None),
        ("fit_model", 200, None, model, 1, None),
        ("put_alias", 200, None, model, 1, "champion"),
        ("update_model", 200, None, model, None, None),
        ("delete_version", 409, "version_aliased", model, 1, None),
        ("fit_model", 404, "model_not_found", "nowhere", None, None),
        ("delete_model", 404, "model_not_found", None, None, None),
    ]
    assert trail_of(client)[0].request_id == "r-1"
    assert {entry.actor for entry in trail_of(client)} == {"127.0.0.1"}
    assert "xqz7" not in str(trail_of(client)).lower()


def test_the_job_of_a_fit_is_noted(held_client: Client) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()["id"]
    held_client.post(f"/jobs/{job}/cancel")

    actions = [(entry.action, entry.job_id) for entry in trail_of(held_client)]
    assert actions[-2:] == [("fit_model", job), ("cancel_job", job)]


def test_a_cancellation_is_one_of_the_job_s_model(held_client: Client) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()["id"]
    held_client.post(f"/jobs/{job}/cancel")
    held_client.post("/jobs/nothing/cancel")

    of_model = held_client.services.audit.newest(9, model_id="groups")
    assert [entry.action for entry in of_model] == ["create_model", "fit_model", "cancel_job"]


def test_the_version_that_an_alias_is_led_to_is_noted(fitted: Client) -> None:
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})
    for version in (1, 2, 3):
        fitted.put("/models/groups/aliases/champion", {"version": version})
    fitted.post("/models/groups/aliases/champion/rollback")

    assert [(entry.action, entry.status, entry.version) for entry in trail_of(fitted)[-4:]] == [
        ("put_alias", 200, 1),
        ("put_alias", 200, 2),
        ("put_alias", 404, 3),
        ("rollback_alias", 200, 1),
    ]


def test_questions_are_not_noted(fitted: Client) -> None:
    before = len(trail_of(fitted))
    fitted.post("/models/groups/predict", {"X": TWO_GROUPS})
    fitted.post("/score/bic", {"X": TWO_GROUPS})
    fitted.post("/models/groups/sample", {"n_samples": 2})
    fitted.get("/models")
    fitted.put("/models/groups", {})

    assert len(trail_of(fitted)) == before


class Broken(MemoryAuditTrail):
    def note(self, entry: AuditEntry) -> None:
        raise Unavailable("storage_failed", "the storage failed")


def test_a_change_that_can_not_be_noted_is_still_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(audit=Broken()) as client:
        assert client.post("/models", {"id": "m"}).status_code == 201

    assert "audit_failed" in caplog.text


def test_the_command_prints_the_newest_entries_as_lines_of_json(tmp_path: Path) -> None:
    place = ["--registry-dir", str(tmp_path / "registry")]
    settings = Settings(registry_dir=tmp_path / "registry")
    build_services(settings).close(0.0)
    with open_audit(settings) as trail:
        for number in range(3):
            trail.note(AuditEntry("create_model", "127.0.0.1", 201, model_id=f"m{number}"))

    newest = CliRunner().invoke(app, ["audit", "--last", "2", *place])
    of_one = CliRunner().invoke(app, ["audit", "--model", "m0", *place])

    assert [json.loads(line)["model_id"] for line in newest.stdout.splitlines()] == ["m1", "m2"]
    (line,) = of_one.stdout.splitlines()
    assert json.loads(line)["action"] == "create_model"
    assert json.loads(line)["at"].endswith("+00:00")


def test_the_command_makes_no_trail_where_there_is_none(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["audit", "--registry-dir", str(tmp_path / "nowhere")])

    assert ended.exit_code == 2
    assert not (tmp_path / "nowhere").exists()
