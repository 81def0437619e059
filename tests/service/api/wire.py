"""Tables as the usual libraries write and read them, by media type."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

JSON = "application/json"
NDJSON = "application/x-ndjson"
NPY = "application/x-npy"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

Names = Sequence[str] | None
Columns = Mapping[str, list[object]]


def to_npy(X: NDArray[np.float64], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, X, allow_pickle=allow_pickle)
    return file.getvalue()


def to_json(X: NDArray[np.float64], names: Names = None) -> bytes:
    rows = np.ascontiguousarray(X)
    named = {"columns": list(names), "data": rows} if names else {"X": rows}
    return orjson.dumps(named, option=orjson.OPT_SERIALIZE_NUMPY)


def to_ndjson(X: NDArray[np.float64], names: Names = None) -> bytes:
    rows = X.tolist()
    lines = [dict(zip(names, row, strict=True)) for row in rows] if names else rows
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def to_csv(X: NDArray[np.float64], names: Names = None) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    if names:
        writer.writerow(names)
    writer.writerows(X.tolist())
    return text.getvalue().encode()


def table_of(X: NDArray[np.float64], names: Names = None) -> pa.Table:
    chosen = names or [f"c{column}" for column in range(X.shape[1])]
    return pa.table(dict(zip(chosen, X.T, strict=True)))


def to_arrow(
    X: NDArray[np.float64], names: Names = None, *, batch_rows: int | None = None
) -> bytes:
    table = table_of(X, names)
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, batch_rows)
    return file.getvalue()


def to_parquet(X: NDArray[np.float64], names: Names = None) -> bytes:
    file = io.BytesIO()
    pq.write_table(table_of(X, names), file)
    return file.getvalue()


TO_BYTES: Mapping[str, Callable[[NDArray[np.float64]], bytes]] = {
    JSON: to_json,
    NDJSON: to_ndjson,
    NPY: to_npy,
    CSV: to_csv,
    ARROW: to_arrow,
    PARQUET: to_parquet,
}
TO_NAMED_BYTES: Mapping[str, Callable[[NDArray[np.float64], Names], bytes]] = {
    JSON: to_json,
    NDJSON: to_ndjson,
    CSV: to_csv,
    ARROW: to_arrow,
    PARQUET: to_parquet,
}


def columns_in(media_type: str, content: bytes) -> Columns:
    """Return the columns of an answer that is no JSON."""
    match media_type:
        case "application/x-ndjson":
            rows = [json.loads(line) for line in content.splitlines()]
            return flattened({name: [row[name] for row in rows] for name in rows[0]})
        case "application/x-npy":
            array = np.load(io.BytesIO(content))
            if array.dtype.names is None:
                return flattened({"": array.tolist()})
            return flattened({name: array[name].tolist() for name in array.dtype.names})
        case "text/csv":
            return dict(pa_csv.read_csv(io.BytesIO(content)).to_pydict())
        case "application/vnd.apache.arrow.stream":
            return dict(pa.ipc.open_stream(content).read_all().to_pydict())
    return dict(pq.read_table(io.BytesIO(content)).to_pydict())


def flattened(columns: Columns) -> Columns:
    flat: dict[str, list[object]] = {}
    for name, values in columns.items():
        if isinstance(values[0], list):
            for place, column in enumerate(zip(*map(as_list, values), strict=True)):
                flat[f"{name}_{place}"] = list(column)
        else:
            flat[name] = values
    return flat


def as_list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
