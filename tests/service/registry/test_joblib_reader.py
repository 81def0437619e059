"""The reader of joblib files reads what joblib writes and can't be made to do anything else.

The files here are not protected by a digest: they are what an attacker could put in place of a
version together with a manifest that fits.
"""

import io
import pickle
import pickletools
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from joblib.numpy_pickle import NumpyArrayWrapper
from numpy.typing import NDArray

from service.adapters.joblib_reader import UnreadableFileError, read_joblib


def dumped(value: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, **{"protocol": 4, **options})
    return stream.getvalue()


def a_file() -> bytes:
    arrays = {"weights": np.full(2, 0.5), "means": np.arange(6.0).reshape(2, 3)}
    return dumped({"schema": 1, "name": "x", **arrays})


class Planted:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def wrapper(**changes: object) -> bytes:
    """Return a file whose array is described as no joblib would."""
    described = NumpyArrayWrapper(np.ndarray, (2,), "C", np.dtype("<f8"), allow_mmap=True)
    for name, value in changes.items():
        setattr(described, name, value)
    return pickle.dumps({"weights": described}, protocol=4)[:-2]


@given(
    content=st.dictionaries(
        st.text(st.characters(codec="ascii"), max_size=20),
        st.one_of(
            st.integers(-(2**31), 2**31 - 1),
            st.booleans(),
            st.text(st.characters(codec="utf-8"), max_size=40),
            hnp.arrays("<f8", hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)),
        ),
        max_size=6,
    )
)
@settings(deadline=None, max_examples=60)
def test_what_joblib_writes_is_read_to_the_last_bit(content: dict[str, object]) -> None:
    found = read_joblib(dumped(content))
    assert list(found) == list(content)
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            read = found[name]
            assert isinstance(read, np.ndarray)
            assert (read.shape, read.dtype) == (value.shape, np.dtype("<f8"))
            assert read.tobytes() == value.tobytes()
        else:
            assert found[name] == value


@given(data=st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_refused_in_an_orderly_way(data: bytes) -> None:
    for file in (data, b"\x80\x04" + data + b"Q."):
        with pytest.raises(UnreadableFileError):
            read_joblib(file)


@given(
    edits=st.lists(st.tuples(st.integers(0, len(a_file()) - 1), st.integers(0, 255)), max_size=4),
    length=st.integers(0, len(a_file())),
)
@settings(deadline=None, max_examples=300)
def test_a_mutilated_file_is_read_or_refused_but_never_breaks(
    edits: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(a_file())
    for position, value in edits:
        data[position] = value
    try:
        found = read_joblib(bytes(data[:length] if length % 2 else data))
    except UnreadableFileError:
        return
    assert all(isinstance(name, str) for name in found)


def test_every_truncation_is_refused() -> None:
    for length in range(len(a_file())):
        with pytest.raises(UnreadableFileError):
            read_joblib(a_file()[:length])


@pytest.mark.parametrize(
    "trailer", [b"\0", b".", a_file()], ids=["a zero", "another end", "another file"]
)
def test_trailing_bytes_are_refused(trailer: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="follow the end"):
        read_joblib(a_file() + trailer)


def test_a_file_that_names_a_command_does_not_run_it(tmp_path: Path) -> None:
    import os  # noqa: PLC0415 - named here only to be refused

    marker = tmp_path / "ran"
    bombs: list[object] = [
        Planted(os.system, f"touch {marker}"),
        Planted(eval, f"open({str(marker)!r}, 'w')"),
        Planted(getattr, marker, "touch"),
        Planted(np.fromfile, str(marker)),
        Planted(joblib.load, str(marker)),
    ]
    for bomb in bombs:
        for data in (dumped(bomb), dumped({"weights": bomb}), pickle.dumps(bomb, protocol=0)):
            with pytest.raises(UnreadableFileError):
                read_joblib(data)
    assert not marker.exists()


@pytest.mark.parametrize(
    "planted",
    [
        Planted(np.ndarray, (2**33,)),
        Planted(np.dtype, "O"),
        Planted(np.dtype, "f8", False, 1),
        Planted(NumpyArrayWrapper, np.ndarray, (2,), "C", np.dtype("<f8")),
        OrderedDict(a=1),
        np.float64(1.0),
        {1, 2},
        [1, 2],
        b"bytes",
        2**40,
        1.5,
        print,
        dict,
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_other_than_plain_ones_are_refused(planted: object) -> None:
    with pytest.raises(UnreadableFileError):
        read_joblib(dumped({"weights": planted}))


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}], dtype=object),
        np.array([1.0, 2.0], dtype=">f8"),
        np.array([1.0, 2.0], dtype="<f4"),
        np.array([1, 2]),
        np.array(["a", "b"]),
        np.array([(1.0, 2)], dtype=[("a", "f8"), ("b", "i4")]),
        np.array(1.0),
        np.zeros((0,)),
        np.zeros((2, 0)),
        np.zeros((1, 1, 1, 1)),
        np.asfortranarray(np.ones((2, 3))),
        np.ones((2, 3)).view(np.matrix),
    ],
    ids=lambda array: f"{type(array).__name__} {array.dtype} {array.shape}",
)
def test_arrays_other_than_plain_ones_of_doubles_are_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(UnreadableFileError):
        read_joblib(dumped({"weights": array}))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (2**29,)},
        {"shape": (2**31, 2**31, 2**31)},
        {"shape": (2**32, 2**32)},
        {"shape": (-2,)},
        {"shape": (-1, -2)},
        {"shape": (True, True)},
        {"shape": (2.0,)},
        {"shape": [2]},
        {"shape": ()},
        {"shape": 2},
        {"shape": None},
        {"order": "K"},
        {"subclass": np.memmap},
        {"subclass": "ndarray"},
        {"dtype": "O"},
        {"dtype": np.dtype("O")},
        {"numpy_array_alignment_bytes": 1},
        {"numpy_array_alignment_bytes": None},
        {"filename": "/etc/passwd"},
        {"__class__": NumpyArrayWrapper, "read": 1},
    ],
    ids=str,
)
def test_a_lying_description_of_an_array_is_refused_before_anything_is_allocated(
    changes: dict[str, object],
) -> None:
    head = wrapper(**changes)
    padding = 16 - (len(head) + 1) % 16
    data = head + bytes([padding]) + b"\xff" * padding + bytes(16) + b"s."
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFileError):
            read_joblib(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_the_same_description_is_read_when_it_tells_the_truth() -> None:
    head = wrapper()
    padding = 16 - (len(head) + 1) % 16
    data = head + bytes([padding]) + b"\xff" * padding + np.array([1.5, 2.5]).tobytes() + b"s."
    assert read_joblib(data)["weights"].tolist() == [1.5, 2.5]  # type: ignore[union-attr] # an array


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_a_compressed_file_is_refused(method: str) -> None:
    with pytest.raises(UnreadableFileError):
        read_joblib(dumped({"weights": np.ones(2)}, compress=(method, 3)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_older_pickle_protocols_are_refused(protocol: int) -> None:
    with pytest.raises(UnreadableFileError):
        read_joblib(dumped({"weights": np.ones(2)}, protocol=protocol))


def test_doubling_tuples_cost_no_time() -> None:
    memo_and_double = b"".join(
        b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(200)
    )
    as_key = b"\x80\x04}(" + b")\x94" + memo_and_double + b"K\x01u."
    as_state = b"\x80\x04" + b")\x94" + memo_and_double + b"b."
    begun = time.perf_counter()
    for data in (as_key, as_state):
        with pytest.raises(UnreadableFileError):
            read_joblib(data)
    assert time.perf_counter() - begun < 2


def test_a_flood_of_opcodes_is_cut_off() -> None:
    with pytest.raises(UnreadableFileError, match="too many opcodes"):
        read_joblib(b"\x80\x04" + b"N" * 1_000_000 + b".")


def test_a_dict_within_itself_is_refused_as_no_plain_value_or_harmless() -> None:
    assert read_joblib(b"\x80\x04}\x94\x8c\x01ah\x00s.").keys() == {"a"}


@pytest.mark.parametrize(
    "body",
    [
        b".",
        b"N.",
        b"}}.",
        b"0.",
        b"(.",
        b"t.",
        b"\x94.",
        b"h\x00.",
        b"s.",
        b"u.",
        b"b.",
        b"R.",
        b"\x81.",
        b"\x93.",
        b"}K\x01K\x02s.",
        b"}(\x8c\x01aK\x01\x8c\x01bu.",
        b"}(\x8c\x01aK\x01\x8c\x01aK\x02u.",
        b"(K\x01u.",
        b"Q.",
        b"cos\nsystem\n.",
        b"ios\nsystem\n.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"\x82\x01.",
        b"\x97.",
    ],
    ids=repr,
)
def test_malformed_programs_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        read_joblib(b"\x80\x04" + body)


def test_every_opcode_of_pickle_is_either_known_or_refused() -> None:
    for opcode in pickletools.opcodes:
        with pytest.raises(UnreadableFileError):
            read_joblib(b"\x80\x04" + opcode.code.encode("latin-1") + bytes(16))
