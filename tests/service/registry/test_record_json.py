"""Records come back equal from their files, and damaged files are refused."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_engine import FitOptions
from service.adapters.artifact import artifact_of
from service.adapters.manifest import Manifest, manifest_of
from service.adapters.record_json import (
    DamagedRecordError,
    JsonValue,
    from_json,
    sealed,
    to_json,
    unsealed,
)
from service.domain.records import FitSummary, FitWarningRecord, ModelRecord
from tests.support.records import SMALL_MIXTURE, a_draft, a_model

ANY_FLOAT = st.floats(allow_nan=False)
TEXT = st.text(max_size=20)  # lone surrogates too: whatever Python can hold
SUMMARIES = st.builds(
    FitSummary,
    converged=st.booleans(),
    stop_reason=TEXT,
    n_iter=st.integers(),
    n_samples=ANY_FLOAT,
    n_features=st.integers(),
    n_parameters=st.integers(),
    log_likelihood=ANY_FLOAT,
    mean_log_likelihood=ANY_FLOAT,
    bic=ANY_FLOAT,
    aic=ANY_FLOAT,
    aicc=ANY_FLOAT,
    icl=ANY_FLOAT,
    log_likelihood_history=st.lists(ANY_FLOAT, max_size=5).map(tuple),
    weights=st.lists(ANY_FLOAT, max_size=5).map(tuple),
    warnings=st.lists(st.builds(FitWarningRecord, code=TEXT, detail=TEXT), max_size=3).map(tuple),
    duration_seconds=ANY_FLOAT,
)
MODELS = st.builds(
    ModelRecord,
    id=TEXT,
    options=st.builds(
        FitOptions,
        n_components=st.integers(1, 1000),
        tol=st.floats(1e-12, 1.0),
        reg_covar=st.one_of(st.just("auto"), st.floats(0, 1)),
        random_state=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    ),
    description=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    created_at=st.datetimes(timezones=st.just(UTC)),
    updated_at=st.datetimes(timezones=st.just(UTC)),
    revision=st.integers(1),
)


@given(record=SUMMARIES)
@settings(deadline=None)
def test_a_summary_comes_back_with_every_bit_of_every_number(record: FitSummary) -> None:
    back = unsealed(FitSummary, sealed(record))
    assert back == record
    for field in fields(record):  # zero has a sign that equality doesn't see
        assert repr(getattr(back, field.name)) == repr(getattr(record, field.name))


@given(record=MODELS)
@settings(deadline=None)
def test_a_model_comes_back_equal(record: ModelRecord) -> None:
    assert unsealed(ModelRecord, sealed(record)) == record


def test_a_manifest_comes_back_equal() -> None:
    manifest = manifest_of(a_draft(a_model(), SMALL_MIXTURE), 7, artifact_of(SMALL_MIXTURE))
    assert unsealed(Manifest, sealed(manifest)) == manifest


def test_what_is_written_is_json_even_for_infinity_and_nan() -> None:
    summary = replace(a_draft(a_model(), SMALL_MIXTURE).summary, icl=math.nan, bic=-math.inf)

    def refuse(name: str) -> float:
        raise AssertionError(name)

    body = json.loads(sealed(summary), parse_constant=refuse)["body"]
    assert (body["aicc"], body["bic"], body["icl"]) == ("inf", "-inf", "nan")
    assert math.isnan(unsealed(FitSummary, sealed(summary)).icl)


def test_numbers_of_numpy_are_stored_as_numbers() -> None:
    assert to_json([np.float64(0.1), np.int64(3), np.float32(0.5)]) == [0.1, 3, 0.5]


def test_what_is_no_record_is_not_stored() -> None:
    for stranger in (object(), {1, 2}, 1j, np.zeros(3)):
        with pytest.raises(TypeError, match="can't be stored"):
            to_json(stranger)


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    good = sealed(a_model())
    for position, bit in itertools.product(range(len(good)), range(8)):
        bad = good[:position] + bytes([good[position] ^ 1 << bit]) + good[position + 1 :]
        with pytest.raises(DamagedRecordError):
            unsealed(ModelRecord, bad)
    for length in range(len(good)):
        with pytest.raises(DamagedRecordError):
            unsealed(ModelRecord, good[:length])


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_in_an_orderly_way(data: bytes) -> None:
    with pytest.raises(DamagedRecordError):
        unsealed(ModelRecord, data)


@dataclass(frozen=True, slots=True)
class Example:
    number: float
    count: int
    choice: Literal["a", "b"] | int | None
    many: Sequence[int]
    named: Mapping[str, float]
    when: datetime
    inner: FitWarningRecord
    later: str = "default"


GOOD: Mapping[str, JsonValue] = {
    "number": 1,
    "count": 2,
    "choice": "a",
    "many": [1, 2],
    "named": {"x": "-inf"},
    "when": "2026-11-23T10:00:00.000001+00:00",
    "inner": {"code": "c", "detail": "d"},
}


def test_a_field_that_an_older_file_lacks_takes_its_default() -> None:
    example = from_json(Example, dict(GOOD))
    assert example.later == "default"
    assert (type(example.number), example.many, example.named) == (float, (1, 2), {"x": -math.inf})
    assert example.when == datetime(2026, 11, 23, 10, 0, 0, 1, tzinfo=UTC)


def test_a_field_that_a_newer_file_has_besides_is_passed_over() -> None:
    assert from_json(Example, {**GOOD, "unknown": [1]}) == from_json(Example, dict(GOOD))


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1"},
        {"number": True},
        {"number": None},
        {"number": []},
        {"number": {}},
        {"count": 1.0},
        {"count": True},
        {"choice": "c"},
        {"choice": 1.5},
        {"choice": []},
        {"many": "12"},
        {"many": {"0": 1}},
        {"many": [1, "2"]},
        {"named": [1]},
        {"named": {"x": "1"}},
        {"when": 0},
        {"when": "yesterday"},
        {"inner": None},
        {"inner": {"code": "c"}},
        {"later": None},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused(change: dict[str, JsonValue]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(Example, {**GOOD, **change})


def test_a_missing_field_is_refused() -> None:
    for name in GOOD:
        with pytest.raises(DamagedRecordError, match=f"{name} is missing"):
            from_json(Example, {key: value for key, value in GOOD.items() if key != name})


def test_options_that_the_engine_refuses_are_refused() -> None:
    stored = to_json(a_model())
    assert isinstance(stored, dict)
    options = stored["options"]
    assert isinstance(options, dict)
    options["n_components"] = 0
    with pytest.raises(ValueError, match="n_components"):
        from_json(ModelRecord, stored)
