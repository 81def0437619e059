"""The cache of decoded files keeps what can't have changed, within its bound."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.adapters import file_cache
from service.adapters.durable_files import Directory
from service.adapters.file_cache import FileCache


class Decoder:
    """Counts what it decodes."""

    def __init__(self) -> None:
        self.n_decoded = 0

    def __call__(self, data: bytes) -> str:
        self.n_decoded += 1
        return data.decode()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with Directory.at(tmp_path) as opened:
        yield opened


def read(cache: FileCache[str], directory: Directory, name: str) -> str:
    return cache.read(directory, name, key=(name,), max_bytes=100)


def all_files_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cache, "SETTLED_NS", -1)


def test_a_file_that_was_just_written_is_not_kept(directory: Directory) -> None:
    decoder = Decoder()
    cache = FileCache(decoder, max_bytes=100)
    directory.write_new("a", b"text")
    assert [read(cache, directory, "a") for _ in range(3)] == ["text"] * 3
    assert decoder.n_decoded == 3


def test_a_settled_file_is_decoded_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_files_are_old(monkeypatch)
    decoder = Decoder()
    cache = FileCache(decoder, max_bytes=100)
    directory.write_new("a", b"text")
    assert [read(cache, directory, "a") for _ in range(3)] == ["text"] * 3
    assert decoder.n_decoded == 1


def test_a_replaced_file_is_decoded_anew(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_files_are_old(monkeypatch)
    cache = FileCache(Decoder(), max_bytes=100)
    directory.write_new("a", b"old")
    assert read(cache, directory, "a") == "old"
    directory.write_new("b", b"new")
    directory.move("b", directory, "a")
    assert read(cache, directory, "a") == "new"


def test_a_missing_file_is_missing_though_it_was_kept(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_files_are_old(monkeypatch)
    cache = FileCache(Decoder(), max_bytes=100)
    directory.write_new("a", b"text")
    read(cache, directory, "a")
    directory.remove_file("a")
    with pytest.raises(FileNotFoundError):
        read(cache, directory, "a")


def test_the_least_recently_used_goes_first_when_the_bound_is_reached(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_files_are_old(monkeypatch)
    decoder = Decoder()
    cache = FileCache(decoder, max_bytes=80)
    for name in "abc":
        directory.write_new(name, name.encode() * 40)
    for name in "abac":  # c takes the place of b
        read(cache, directory, name)
    decoder.n_decoded = 0
    read(cache, directory, "a")
    read(cache, directory, "c")
    assert decoder.n_decoded == 0
    read(cache, directory, "b")
    assert decoder.n_decoded == 1


def test_a_file_larger_than_the_bound_is_read_and_not_kept(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_files_are_old(monkeypatch)
    cache = FileCache(Decoder(), max_bytes=3)
    directory.write_new("a", b"text")
    assert [read(cache, directory, "a") for _ in range(2)] == ["text"] * 2
