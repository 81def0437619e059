"""A model file comes back equal; damaged, lying and forged ones are refused and run nothing."""

import io
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.artifact import artifact_of
from service.adapters.manifest import manifest_of
from service.adapters.model_file import (
    DIGEST_LENGTH,
    Contents,
    ModelBundle,
    ModelFileError,
    bundle_of,
    model_file_of,
)
from service.adapters.record_json import sealed
from service.domain.records import AliasBook, AliasRecord
from tests.support.records import SMALL_MIXTURE, a_draft, a_model, is_same_mixture

MODEL = a_model()
VERSION = manifest_of(a_draft(MODEL, SMALL_MIXTURE), 1, artifact_of(SMALL_MIXTURE)).version
BOOK = AliasBook().with_alias(AliasRecord("champion").moved("set", 1))
BUNDLE = ModelBundle(MODEL, BOOK, [(VERSION, SMALL_MIXTURE)])
FILE = model_file_of(BUNDLE)
MEANS = "versions/000001/means.npy"


def test_a_model_comes_back_equal() -> None:
    found = bundle_of(FILE)

    assert (found.record, found.book) == (MODEL, BOOK)
    ((version, mixture),) = found.versions
    assert version == VERSION
    assert is_same_mixture(mixture, SMALL_MIXTURE)
    assert model_file_of(found) == FILE


def test_every_flipped_bit_and_every_truncation_is_refused() -> None:
    for position in range(len(FILE)):
        flipped = bytearray(FILE)
        flipped[position] ^= 1 << position % 8
        for damaged in (bytes(flipped), FILE[:position]):
            with pytest.raises(ModelFileError):
                bundle_of(damaged)


def forged(entries: dict[str, bytes | None], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return the file with other entries and with digests that fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FILE)) as good:
        content: dict[str, bytes | None] = {name: good.read(name) for name in good.namelist()}
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in {**content, **entries}.items():
            if data is not None:
                archive.writestr(name, data)
        archive.comment = bytes(DIGEST_LENGTH)
    unsigned = stream.getvalue()[:-DIGEST_LENGTH]
    return unsigned + sha256(unsigned).hexdigest().encode()


def npy(array: object, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=allow_pickle)
    return stream.getvalue()


def contents(**changes: object) -> bytes:
    good = Contents(1, MODEL, BOOK, [VERSION])
    return sealed(replace(good, **changes))  # type: ignore[arg-type] # any field


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "entries",
    [
        {MEANS: None},
        {"more.npy": b""},
        {MEANS: b""},
        {MEANS: b"\x93NUMPY\x01\x00\xff\xff"},
        {MEANS: npy([[Bomb()]], allow_pickle=True)},
        {MEANS: npy([[1]])},
        {MEANS: npy([[np.nan]])},
        {MEANS: npy([[1.0, 2.0]])},
        {MEANS: npy([[1.0]]) + b"\0"},
        {MEANS: npy([[1.0]]).replace(b"(1, 1)", b"(9, 9)")},
        {MEANS: npy([[1.0]]).replace(b"(1, 1)", b"(-1,1)")},
        {MEANS: npy([[1.0]]).replace(b"(1, 1)", b"(-1,-1)").replace(b" \n", b"\n")},
        {"model.json": b"{}"},
        {"model.json": contents(format=2)},
        {"model.json": contents(versions=[])},
        {"model.json": contents(versions=[VERSION, VERSION])},
        {"model.json": contents(versions=[replace(VERSION, number=2)])},
        {"model.json": contents(versions=[replace(VERSION, model_id="other")])},
        {"model.json": contents(versions=[replace(VERSION, feature_names=("a", "b"))])},
        {"model.json": contents(record=replace(MODEL, id="../../etc"))},
        {"model.json": contents(book=BOOK.with_alias(AliasRecord("x").moved("set", 9)))},
        {"model.json": contents(book=BOOK.with_alias(AliasRecord("latest").moved("set", 1)))},
        {"model.json": contents(book=AliasBook({"x": AliasRecord("y")}))},
    ],
    ids=[  # given, since the contents hold the time and each test process makes its own
        "array missing",
        "array too many",
        "array empty",
        "array with a false head",
        "array of objects",
        "array of integers",
        "array not finite",
        "array too wide",
        "array with bytes behind it",
        "array shorter than it says",
        "array of a negative size",
        "array of two negative sizes",
        "record without fields",
        "record of another format",
        "version missing",
        "version twice",
        "version of another number",
        "version of another model",
        "feature names too many",
        "id that is a path",
        "alias of no version",
        "alias with a reserved name",
        "alias under another name",
    ],
)
def test_a_forged_file_is_refused(entries: dict[str, bytes | None]) -> None:
    with pytest.raises(ModelFileError):
        bundle_of(forged(entries))


def test_a_forgery_that_is_a_model_is_taken_so_the_refusals_above_are_for_their_reasons() -> None:
    ((_, mixture),) = bundle_of(forged({MEANS: npy([[7.0]])})).versions

    assert mixture.means.tolist() == [[7.0]]


@given(
    edits=st.lists(st.tuples(st.integers(0, len(FILE) - 65), st.integers(0, 255)), min_size=1),
    length=st.integers(0, len(FILE) - 64),
)
@settings(deadline=None, max_examples=200)
def test_a_mutilated_file_whose_digest_fits_is_read_or_refused_but_never_breaks(
    edits: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(FILE[:-DIGEST_LENGTH])
    for position, value in edits:
        data[position] = value
    unsigned = bytes(data[:length] if length % 2 else data)
    with suppress(ModelFileError):
        bundle_of(unsigned + sha256(unsigned).hexdigest().encode())


def test_a_compressed_file_is_refused_before_it_is_unpacked() -> None:
    file = forged({"more": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            bundle_of(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
