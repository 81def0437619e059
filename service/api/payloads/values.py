"""What a codec turns bytes into, and what it turns into bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.api.payloads.spool import ANYWHERE, SpoolPlace
from service.domain.data import Label, Table, repeated_names
from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue

JsonSchema = Mapping[str, object]
Value = NDArray[np.float64] | NDArray[np.int64] | float | str
"""One field of an answer."""
Body = bytes | bytearray | memoryview


def lies_in(chunk: Body, whole: NDArray[np.uint8]) -> bool:
    """Say whether bytes were received into this array, and so need no copy."""
    owner: object = chunk.obj if isinstance(chunk, memoryview) else chunk
    return owner is whole


TRAINING_FIELDS = frozenset({"sample_weight", "feature_names"})
"""What a fit takes besides the rows."""
BARE_FIELDS = frozenset({"model"})
"""What the bare forms take besides the rows."""

LABELLED_FIELDS = frozenset({"labels", "feature_names"})
"""What diagnostics take besides the rows."""


def admit_all(n_rows: int, n_columns: int) -> None:
    """Let a table of any size in."""


def admit_any(head: Table, n_rows: int) -> None:
    """Let rows of any columns in."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a body may be besides its bytes."""

    extra_fields: frozenset[str] = frozenset()
    """Allowed besides the rows; a format without names for them has none of them."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the media type, such as ``header=absent``."""
    admit: Callable[[int, int], None] = admit_all
    """Told how many rows and columns there are, as soon as that is known; refuses too many."""
    spool: SpoolPlace = ANYWHERE
    """Where to keep what can't be read as it arrives."""
    label_column: str | None = None
    """The column that holds true labels, and is no feature."""
    n_bytes: int | None = None
    """Of the whole body, where that is known before it is there."""
    admit_like: Callable[[Table, int], None] = admit_any
    """Told the columns, as a table without rows, and the number of rows, by a format that knows
    both before it decodes any; refuses what is no question for its model."""

    def label_place(self, names: Sequence[str] | None, member: str = "columns") -> int | None:
        """Return which of the columns of these names holds the labels; None where none is to.

        ``member`` is that of the body that has the names. Raises ``InvalidInput`` where there is
        none of that name, nothing beside it, or another one.
        """
        if self.label_column is None:
            return None
        if names is None or self.label_column not in names or len(names) < 2:
            detail = "there is no column of that name beside others"
            raise InvalidInput(
                "invalid_parameter",
                detail,
                issues=[Issue("#/query/label_column", "unknown_feature", detail)],
            )
        place, *others = [at for at, name in enumerate(names) if name == self.label_column]
        if others:
            raise repeated_names(member, others)
        return place


@dataclass(frozen=True, slots=True)
class DataPayload:
    """The data of one request."""

    table: Table
    sample_weight: NDArray[np.float64] | None = None  # (n_samples,)
    model: str | None = None
    """The model as the body names it; on the bare forms only."""


@dataclass(frozen=True, slots=True)
class DataAnswer:
    """The answer of one version, by field."""

    model: str
    version: int
    values: Mapping[str, Value]
    feature_names: Sequence[str] | None = None
    """Of the columns of ``X``, where an answer has rows."""

    def part(self, rows: slice) -> "DataAnswer":
        """Return these rows of every array."""
        values = {
            name: value[rows] if isinstance(value, np.ndarray) else value
            for name, value in self.values.items()
        }
        return DataAnswer(self.model, self.version, values, self.feature_names)

    @property
    def n_rows(self) -> int:
        arrays = [value for value in self.values.values() if isinstance(value, np.ndarray)]
        return len(arrays[0]) if arrays else 1

    @property
    def n_numbers(self) -> int:
        return sum(value.size for value in self.values.values() if isinstance(value, np.ndarray))


class Codec(Protocol):
    """One media type, both ways. Plain functions: callers choose the thread."""

    media_type: str
    is_text: bool
    """Bounded like JSON, and not like the denser binary formats."""
    unfolds: bool
    """A few bytes may hold many rows, so that they don't tell how long it takes to decode them."""

    def decode(self, body: Body, expected: Expected) -> DataPayload:
        """Return the data; raise ``MalformedRequest`` or ``InvalidInput``."""

    def encode(self, answer: DataAnswer) -> bytes:
        """Return the answer; what is not finite becomes the format's missing value, if it has one.

        A field that is a table becomes columns ``name_0``, ``name_1`` and so on where the format
        has no tables in columns; the columns of ``X`` have their features' names.
        """

    def pieces(self, answer: DataAnswer) -> Sequence[Body]:
        """Return the same as ``encode`` in pieces, where joining them would copy large ones."""

    def encode_in_parts(self, answer: DataAnswer) -> Iterator[bytes]:
        """Yield the same answer in parts, each made in a few milliseconds.

        For large answers: hundreds of megabytes need not be in memory together, nor should anything
        else wait for an encoder that holds the interpreter's lock.
        """

    def reader(self, expected: Expected) -> "RowReader | None":
        """Return what reads a body as it arrives; None where only a whole one can be read."""

    def writer(self) -> "RowWriter | None":
        """Return what writes an answer as it is found; None where only a whole one can be."""


class RowReader(Protocol):
    """Bytes in, as they arrive; rows out, as soon as they are whole."""

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes are best written before they are fed; None where it is all one."""

    def feed(self, data: Body) -> Iterator[Table]:
        """Take the next bytes; yield the rows that are whole by now, in portions."""

    def end(self) -> Iterator[Table]:
        """Yield the last rows; raise when the body is not whole."""


class RowWriter(Protocol):
    """Answers in, portion by portion; bytes out."""

    def write(self, answer: DataAnswer) -> bytes:
        """Return the next bytes, before the first portion what a body begins with."""

    def end(self) -> bytes:
        """Return what marks the answer as whole."""


def whole_table(tables: Iterable[Table]) -> Table:
    """Join the portions of one body."""
    portions = list(tables)
    if not portions:
        raise InvalidInput("empty_data", "there must be at least one row and one column")
    if len(portions) == 1:
        return portions[0]
    labels = [each.labels for each in portions if each.labels is not None]
    return Table(
        np.concatenate([each.X for each in portions]),
        portions[0].feature_names,
        labels=[*chain.from_iterable(labels)] if labels else None,
        origin=portions[0].origin,
    )


def require_labels(values: Sequence[object], pointer_of: Callable[[int], str]) -> list[Label]:
    """Return what can be labels; refuse everything else, with the places of the first."""
    wrong = [index for index, value in enumerate(values) if not _is_label(value)]
    if wrong:
        detail = (
            "a label must be a number, a text that is not empty, true or false; "
            "a number of more digits than a double has goes as a text"
        )
        raise InvalidInput(
            "invalid_parameter",
            f"{pointer_of(wrong[0])}: {detail}",
            issues=[
                Issue(pointer_of(index), "wrong_type", detail) for index in wrong[:MAX_NAMED_ISSUES]
            ],
        )
    return [value for value in values if isinstance(value, int | float | str)]


def read_whole(reader: RowReader, body: Body) -> DataPayload:
    """Read a body that is there already."""

    def portions() -> Iterator[Table]:
        yield from reader.feed(body)
        yield from reader.end()

    return DataPayload(whole_table(portions()))


LEAST_AMBIGUOUS = 2.0**53


def _is_label(value: object) -> bool:
    if isinstance(value, float):
        return abs(value) < LEAST_AMBIGUOUS  # beyond, different numbers are one double; no NaN
    return isinstance(value, int | str) and value != ""


PART_NUMBERS = 50_000
"""Of one part of a large answer: about a megabyte, written in some three milliseconds."""


def written_in_parts(writer: RowWriter, answer: DataAnswer) -> Iterator[bytes]:
    step = max(1, PART_NUMBERS * answer.n_rows // max(1, answer.n_numbers))
    for begin in range(0, answer.n_rows, step):
        yield writer.write(answer.part(slice(begin, begin + step)))
    yield writer.end()


def columns_of(answer: DataAnswer) -> dict[str, Value]:
    """Return the answer as columns of numbers, each with a name of its own."""
    columns: dict[str, Value] = {}
    for name, value in answer.values.items():
        if isinstance(value, np.ndarray) and value.ndim == 2:
            given = answer.feature_names if name == "X" else None
            names = given or [f"{name}_{column}" for column in range(value.shape[1])]
            columns.update(zip(names, np.ascontiguousarray(value.T), strict=True))
        else:
            columns[_free(name, columns)] = value
    return columns


def _free(name: str, taken: Mapping[str, Value]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


@dataclass(frozen=True)
class StreamCodec:
    """The codec of a format whose bodies are read and written portion by portion."""

    media_type: str
    new_reader: Callable[[Expected], RowReader]
    new_writer: Callable[[], RowWriter]
    is_text: bool = False
    unfolds: bool = False

    def decode(self, body: Body, expected: Expected) -> DataPayload:
        return read_whole(self.reader(expected), body)

    def reader(self, expected: Expected) -> RowReader:
        return self.new_reader(expected)

    def writer(self) -> RowWriter:
        return self.new_writer()

    def encode(self, answer: DataAnswer) -> bytes:
        return b"".join(self.pieces(answer))

    def pieces(self, answer: DataAnswer) -> Sequence[Body]:
        writer = self.writer()
        return writer.write(answer), writer.end()

    def encode_in_parts(self, answer: DataAnswer) -> Iterator[bytes]:
        return written_in_parts(self.writer(), answer)
