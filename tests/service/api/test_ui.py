"""The files of the page at /ui: known names only, under a strict policy, what is brought along."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from service.api.ui import FILES, MEDIA_TYPES
from tests.service.client import Client

VENDOR = FILES / "vendor"
LOCK = json.loads((VENDOR / "lock.json").read_text(encoding="utf-8"))
BROUGHT = [(name, file) for package in LOCK["packages"] for name, file in package["files"].items()]
PAGE = (FILES / "index.html").read_text(encoding="utf-8")
OWN_TEXTS = [path for path in sorted(FILES.iterdir()) if path.suffix in {".html", ".css", ".js"}]


def test_the_page_comes_with_a_policy_that_allows_only_its_own_files(client: Client) -> None:
    answer = client.get("/ui")
    directives = dict(
        directive.strip().split(" ", 1)
        for directive in answer.headers["content-security-policy"].split(";")
    )

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert directives["default-src"] == "'none'"
    assert set(directives.values()) == {"'none'", "'self'"}


def test_everything_that_the_page_names_is_served(client: Client) -> None:
    named = re.findall(r'(?:href|src)="(ui/[^"]+)"', PAGE)
    imported = {
        f"ui/{name}"
        for path in OWN_TEXTS
        for name in re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8"))
    }
    answers = {name: client.get(f"/{name}") for name in {*named, *imported}}

    assert len(answers) > 10
    assert {name for name, answer in answers.items() if answer.status_code != 200} == set()
    assert {
        answer.headers["content-type"] for name, answer in answers.items() if name.endswith(".js")
    } == {"text/javascript; charset=utf-8"}


def test_a_browser_that_has_a_file_is_told_so(client: Client) -> None:
    first = client.get("/ui/app.js")
    again = client.get("/ui/app.js", headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/ui/app.js", headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["nothing.js", "vendor/lock.json", "../api/ui.py", "%2e%2e/api/ui.py", "", "vendor"]
)
def test_nothing_else_is_served(client: Client, path: str) -> None:
    answer = client.get(f"/ui/{path}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", PAGE) == []


@pytest.mark.parametrize("path", OWN_TEXTS, ids=lambda path: path.name)
def test_the_page_loads_nothing_from_elsewhere(path: Path) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'`]+", path.read_text(encoding="utf-8")))

    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address


@pytest.mark.parametrize("path", OWN_TEXTS, ids=lambda path: path.name)
def test_no_text_becomes_markup(path: Path) -> None:
    source = path.read_text(encoding="utf-8")

    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", source) == []
    )


@pytest.mark.parametrize(("name", "file"), BROUGHT, ids=[name for name, _ in BROUGHT])
def test_what_is_brought_along_is_what_the_lock_names(name: str, file: dict[str, str]) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == file["sha256"]


def test_nothing_is_brought_along_beside_the_lock_and_each_part_has_its_licence() -> None:
    kept = {path.name for path in VENDOR.iterdir()} - {"lock.json"}

    assert kept == {name for name, _ in BROUGHT}
    for package in LOCK["packages"]:
        assert package["integrity"].startswith("sha512-")
        assert any(name.endswith(".LICENSE") for name in package["files"])


def test_every_file_of_the_page_has_a_kind_that_is_served() -> None:
    files = {
        path.suffix for path in FILES.rglob("*") if path.is_file() and path.name != "lock.json"
    }

    assert files <= MEDIA_TYPES.keys()
