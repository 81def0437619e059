"""What the pages say is so: the README's commands run, its tables are whole, its links lead on."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.domain.picturing import KINDS
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
PUBLISHED_ADDRESS = "http://127.0.0.1:8000"
HTTP_METHODS = {"get", "put", "post", "patch", "delete"}
# Served beside the contract, so not in it.
BESIDE_THE_CONTRACT = {("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/ui")}


@dataclass(frozen=True, slots=True)
class CurlLine:
    method: str
    path: str
    headers: dict[str, str]
    body: str | None


def blocks(language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)


def section(title: str) -> str:
    (text,) = re.findall(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README)
    return str(text)


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def parse_curl(line: str) -> CurlLine:
    words = iter(shlex.split(line)[1:])
    method, url, headers, body = "GET", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
        elif word == "-w":
            next(words)
        elif word != "-sS":
            url = word
    return CurlLine(method, url.removeprefix(PUBLISHED_ADDRESS), headers, body)


CURL_LINES = [
    parse_curl(line)
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("curl ")
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the service as a process of its own, on a free port."""
    command = [str(Path(sys.executable).with_name("gmm-service")), "serve", "--port", "0"]
    command += ["--registry-dir", str(tmp_path_factory.mktemp("registry"))]
    # The first fit compiles; on a busy machine that may take longer than a fit is waited for.
    environment = {**os.environ, "GMM_FIT_WAIT_SECONDS": "120"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603 (our own command)
    assert process.stdout is not None
    with process.stdout as said:
        try:
            (found,) = re.findall(r"http://127\.0\.0\.1:\d+", said.readline())
            yield found
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_the_curl_lines_of_the_readme_work_in_their_order(address: str) -> None:
    with httpx.Client(base_url=address, timeout=150) as client:
        answers = [
            client.request(line.method, line.path, headers=line.headers, content=line.body)
            for line in CURL_LINES
        ]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 200]
    fit, labels, proba, bic = (answer.json() for answer in answers[1:5])
    assert fit["converged"]
    assert sorted(labels["labels"]) == [0, 1]
    assert all(abs(sum(row) - 1) < 1e-12 for row in proba["probabilities"])
    assert bic["metric"] == "bic"
    assert answers[5].text.startswith("probabilities_0,probabilities_1\n")


def at(address: str, code: str) -> str:
    """Let the code ask this server; some clients take addresses without a scheme."""
    scheme = "http://"
    return code.replace(PUBLISHED_ADDRESS.removeprefix(scheme), address.removeprefix(scheme))


def test_the_python_of_the_readme_runs(address: str) -> None:
    outputs = []
    for code in blocks("python"):
        ran = subprocess.run(  # noqa: S603 (the README's own code)
            [sys.executable, "-c", at(address, code)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stderr == ""
        outputs.append(ran.stdout)

    over_http, model_server, engine_alone = outputs
    assert over_http.startswith("1 True ")
    assert model_server.startswith("[[")
    assert engine_alone.startswith("-")


def test_the_demo_reaches_the_published_numbers() -> None:
    ran = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("reached to 0.001") == 2
    assert "adjusted Rand" in ran.stdout
    drawn = {path.name for path in (ROOT / "demo-output" / "pictures").glob("*.svg")}
    assert drawn >= {f"{name}-{kind}.svg" for name in ("faithful", "iris") for kind in KINDS}


def test_the_settings_table_is_the_settings() -> None:
    documented = [row for row in table_rows(section("Settings")) if row[0].startswith("`GMM_")]

    assert documented == [
        [f"`GMM_{name.upper()}`", shown(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]


def shown(default: object) -> str:
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_api_table_is_the_contract() -> None:
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    offered = {
        (method.upper(), path)
        for path, operations in contract["paths"].items()
        for method in operations
        if method in HTTP_METHODS
    }
    documented = [
        (method, path)
        for row in table_rows(section("API"))
        for methods, paths in [row[0].strip("`").split(" ", 1)]
        for method in methods.split("/")
        for path in paths.split(", ")
    ]

    assert len(documented) == len(set(documented))
    assert (
        set(documented)
        == {operation for operation in offered if not is_put_to_one_version(operation, offered)}
        | BESIDE_THE_CONTRACT
    )


def is_put_to_one_version(operation: tuple[str, str], offered: set[tuple[str, str]]) -> bool:
    """Tell the second form of a question, which one sentence below the table documents."""
    method, path = operation
    short = path.replace("/versions/{n}/", "/", 1)
    return short != path and (method, short) in offered


def test_every_environment_variable_that_is_named_is_a_setting() -> None:
    known = {f"GMM_{name.upper()}" for name in Settings.model_fields}
    texts = [path.read_text(encoding="utf-8") for path in [*PAGES, *container_files()]]
    named = {name for text in texts for name in re.findall(r"\bGMM_[A-Z_]+[A-Z]\b", text)}

    assert named - known == set()


def container_files() -> list[Path]:
    return [ROOT / "Dockerfile", ROOT / "docker-compose.yml"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_to_what_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]

    assert [
        target for target in local if not (page.parent / target.partition("#")[0]).exists()
    ] == []


def test_the_files_and_commands_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"\bmake (?:[A-Z]+=\S+ )?([a-z]+)\b", " ".join(blocks("sh")))
    paths = re.findall(r"`((?:service|gmm_engine|tests)/[a-z_/.]*)`", README)

    assert [name for name in commands if f"\n{name}:" not in makefile] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
