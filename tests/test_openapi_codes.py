"""Every code that a refusal can have is in the contract, under the responses that can have it."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from gmm_engine.errors import GmmEngineError
from service import errors
from service.api import problems
from service.api.codes import KINDS, PLACES
from service.api.problems import STATUS_OF, problem_of
from service.domain.fitting import FAILURE_KINDS
from service.domain.records import JobStatus
from service.errors import ServiceError
from service.main import contract

ROOT = Path(__file__).parent.parent
DOCUMENT = orjson.loads(contract())
EXAMPLES = DOCUMENT["components"]["examples"]
REFUSALS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ServiceError)
}

UNDER_V2 = {"cross_site", "model_unloaded", "not_supported"}
"""Refused under the Open Inference Protocol alone, whose answers have no codes."""
AT_THE_COMMAND_LINE = {"model_file_invalid", "database_unknown"}
OF_NO_PATH = {"not_found", "method_not_allowed", "internal_error"}
"""In the description of the whole."""
IN_PYTHON_ALONE = {"engine_error", "not_fitted"}
"""The engine's own; the service asks it for nothing that has them."""
ELSEWHERE = {
    "error.code",
    "broken.code",
    "code",
    "issue.code",
    "issues[0].code",
    "job.failure.code",
    "f'fit_{job.status}'",
    "*_code_and_detail(error)",
    "*_code_and_detail(wrong)",
    "tuple(supported)",
    "READ_ONLY",
    "MODEL_CORRUPT",
    "WORKER_DIED",
}
"""Codes that are no literal where a refusal is made: of a class, a table or a job, told below."""


def calls() -> Iterator[tuple[str, ast.expr]]:
    """Yield who is called and what its code is, wherever a refusal or a place is made."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            is_own = name == "cls" and path.name == "errors.py"
            if (name in REFUSALS or name == "_Broken" or is_own) and node.args:
                yield name, node.args[0]
            elif name == "Issue" or (name == "_invalid" and len(node.args) == 3):
                yield "Issue", node.args[1]


def literal(code: ast.expr) -> str | None:
    return code.value if isinstance(code, ast.Constant) and isinstance(code.value, str) else None


def raised(*, places: bool) -> set[str]:
    found = {literal(code) for name, code in calls() if (name == "Issue") is places}
    return {code for code in found if code is not None}


def engine_codes(kind: type[GmmEngineError] = GmmEngineError) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        yield from engine_codes(below)


def documented() -> set[str]:
    return {
        code
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for code in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    }


MEDIA_TYPE = "application/problem+json"


def test_every_code_is_a_literal_or_known_to_come_from_elsewhere() -> None:
    others = {ast.unparse(code) for _, code in calls() if literal(code) is None}

    assert others <= ELSEWHERE


def test_every_code_that_is_raised_is_under_a_response() -> None:
    ends = {f"fit_{status}" for status in JobStatus if status.is_done}
    ends -= {"fit_succeeded", "fit_failed"}  # these have a result, or a code of their own
    all_codes = {
        *raised(places=False),
        *engine_codes(),
        *FAILURE_KINDS,
        *problems.NOT_FOUND_CODES.values(),
        *ends,
        "registry_read_only",
        errors.MODEL_CORRUPT,
        "unsupported_encoding",
    }
    not_there = UNDER_V2 | AT_THE_COMMAND_LINE | OF_NO_PATH | IN_PYTHON_ALONE

    assert len(all_codes) > 70
    assert all_codes - documented() <= not_there
    assert all(f"`{code}`" in DOCUMENT["info"]["description"] for code in OF_NO_PATH)


def test_every_code_is_in_the_table_of_its_kind() -> None:
    for name, code in calls():
        kind, text = REFUSALS.get(name), literal(code)
        if kind is not None and text is not None:
            elsewhere = UNDER_V2 | AT_THE_COMMAND_LINE | OF_NO_PATH
            assert text in KINDS.get(kind, {}) or text in elsewhere, (name, text)


def test_every_code_in_the_table_is_raised_and_under_a_response() -> None:
    in_table = {code for codes in KINDS.values() for code in codes}

    assert in_table == documented()
    sources = "".join(path.read_text() for path in sources_of_codes())
    named = raised(places=False) | set(engine_codes()) | set(FAILURE_KINDS)
    computed = {"fit_cancelled", "fit_interrupted", *problems.NOT_FOUND_CODES.values()}
    assert {code for code in in_table - named - computed if f'"{code}"' not in sources} == set()


def sources_of_codes() -> Iterator[Path]:
    for path in (ROOT / "service").rglob("*.py"):
        if path.name != "codes.py":
            yield path


def test_every_code_of_a_place_is_named() -> None:
    of_fields = {code for code, _ in problems.SENTENCES.values()}
    of_engine = {code for code in engine_codes() if code in PLACES}
    properties = DOCUMENT["components"]["schemas"]["ProblemIssue"]["properties"]

    assert properties["code"]["examples"] == list(PLACES)
    assert raised(places=True) | of_fields | of_engine == set(PLACES)


def test_a_new_code_would_break_no_client() -> None:
    code = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]

    assert code["type"] == "string"
    assert "enum" not in code
    assert set(code["examples"]) == documented()


def test_every_refusal_names_its_codes_in_words_and_as_examples() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                examples = response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
                assert bool(examples) is (status >= "400" and not path.startswith("/v2"))
                for code, reference in examples.items():
                    example = EXAMPLES[reference["$ref"].rpartition("/")[2]]["value"]
                    assert f"`{code}`" in response["description"]
                    assert (example["code"], str(example["status"])) == (code, status)


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_an_example_is_what_would_be_answered(example: Mapping[str, Mapping[str, object]]) -> None:
    value = example["value"]
    (kind,) = [
        kind
        for kind, codes in KINDS.items()
        if value["code"] in codes and STATUS_OF[kind].value == value["status"]
    ]
    error = ServiceError.__new__(kind)  # some kinds know their codes themselves
    ServiceError.__init__(error, str(value["code"]), str(value["detail"]))

    assert value == problem_of(error, "0f5b2c")
