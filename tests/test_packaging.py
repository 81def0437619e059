"""The lock, the image and the compose file agree with the project and with each other."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICE = COMPOSE["services"]["gmm-service"]


def pins_in(lock: str) -> Mapping[str, Version]:
    """Read the pins that apply to this Python, by name."""
    lines = re.findall(r"(?m)^([A-Za-z0-9][^\\\n]*)\\$", lock)
    pins = [Requirement(line) for line in lines]
    return {
        canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("=="))
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def subset_of_the_lock(*extras: str) -> str:
    command = [sys.executable, str(ROOT / ".ci" / "lock_subset.py"), *extras]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 (our own script)


def closure_of(requirements: list[str]) -> set[str]:
    """Follow the metadata of what is installed: the truth that the subset is compared with."""
    reached: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            if (canonicalize_name(wanted.name), extra) in reached:
                continue
            reached.add((canonicalize_name(wanted.name), extra))
            texts = importlib.metadata.requires(wanted.name) or []
            waiting += [r for r in map(Requirement, texts) if is_needed(r, extra)]
    return {name for name, _ in reached}


def is_needed(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def arguments_of(instruction: str) -> list[str]:
    prefix = f"{instruction} "
    return [line.removeprefix(prefix) for line in INSTRUCTIONS if line.startswith(prefix)]


@pytest.mark.parametrize("group", ["dependencies", *EXTRAS])
def test_the_lock_satisfies_what_the_project_asks_for(group: str) -> None:
    pins = pins_in(LOCK)
    asked = [Requirement(text) for text in EXTRAS.get(group, PROJECT["dependencies"])]

    assert [str(r) for r in asked if pins[canonicalize_name(r.name)] not in r.specifier] == []


def test_every_pin_of_the_lock_has_hashes() -> None:
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK)[1:]

    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_host() -> None:
    assert re.findall(r".*(?:://|--index|--find-links| @ ).*", LOCK) == []


def test_the_base_part_of_the_lock_is_what_the_service_needs_and_no_more() -> None:
    assert pins_in(subset_of_the_lock()).keys() == closure_of(PROJECT["dependencies"])


def test_the_build_part_of_the_lock_is_what_the_wheel_is_built_with() -> None:
    assert pins_in(subset_of_the_lock("build")).keys() == closure_of(EXTRAS["build"])


def test_the_image_is_built_on_an_exact_python() -> None:
    (base,) = [text for text in arguments_of("ARG") if text.startswith("PYTHON_IMAGE=")]

    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    assert {text.split()[0] for text in arguments_of("FROM")} == {"${PYTHON_IMAGE}"}


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert arguments_of("USER") == ["10001:10001"]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for text in arguments_of("COPY")
        if not text.startswith("--from")
        for source in text.split()[:-1]
    }

    assert copied == kept
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_compose_service_is_reachable_from_this_machine_only() -> None:
    assert SERVICE["ports"] == ["127.0.0.1:8000:8000"]


def test_the_compose_service_can_do_little_beyond_its_volumes() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert SERVICE["volumes"] == ["registry:/var/lib/gmm", "kernels:/var/cache/gmm"]
    assert {"mem_limit", "cpus", "pids_limit"} <= SERVICE.keys()
    assert COMPOSE["volumes"].keys() == {"registry", "kernels"}


def test_image_and_compose_ask_the_same_question_for_health() -> None:
    (check,) = re.findall(r"CMD (\[\"python\".*\])$", DOCKERFILE, re.MULTILINE)

    assert SERVICE["healthcheck"]["test"] == ["CMD", *ast.literal_eval(check)]
