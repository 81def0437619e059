"""Nothing damaged or forged is ever served, and nothing else in its place."""

import io
import itertools
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import joblib
import numpy as np
import pytest

from service.adapters.artifact import artifact_of
from service.adapters.manifest import Manifest, manifest_of
from service.adapters.mixture_cache import MixtureCache
from service.adapters.record_json import sealed
from service.adapters.registry_files import FileRegistry, StoredModel
from service.domain.inference import Inference
from service.domain.limits import Limits
from service.domain.records import ModelRecord, VersionRecord
from service.errors import StorageFull
from tests.support.records import SMALL_MIXTURE, a_draft, a_model, is_same_mixture
from tests.support.registries import code_of, place_of


def test_every_flipped_bit_of_the_parameters_is_noticed(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    file = place_of(path, version) / "params.joblib"
    good = file.read_bytes()
    for position, bit in itertools.product(range(len(good)), range(8)):
        file.write_bytes(flipped(good, position, bit))
        assert code_of(lambda: registry.load_mixture(version)) == "model_corrupt"
    file.write_bytes(good)
    assert is_same_mixture(registry.load_mixture(version), SMALL_MIXTURE)


def test_a_flipped_bit_of_the_manifest_is_noticed(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    file = place_of(path, version) / "manifest.json"
    good = file.read_bytes()
    for position, bit in itertools.product(range(0, len(good), 9), range(8)):
        file.write_bytes(flipped(good, position, bit))
        assert code_of(lambda: registry.get_version("iris", 1)) == "model_corrupt"
    file.write_bytes(good)
    assert registry.get_version("iris", 1) == version


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


@pytest.mark.parametrize("name", ["params.joblib", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes() + b"\0"),
        lambda file: file.unlink(),
        lambda file: (file.unlink(), file.mkdir()),
        replace_by_pipe,
        lambda file: (shutil.move(file, file.parents[4] / "away"), file.symlink_to("/dev/zero")),
        lambda file: (
            shutil.move(file, file.parents[4] / "away"),
            file.symlink_to(file.parents[4] / "away"),
        ),
        lambda file: os.truncate(file, 2**40),
    ],
    ids=[
        "emptied",
        "cut short",
        "lengthened",
        "missing",
        "a directory",
        "a pipe",
        "a link to a device",
        "a link to the good file",
        "a sparse giant",
    ],
)
def test_a_damaged_file_makes_the_version_corrupt_and_no_other_takes_its_place(
    path: Path,
    registry: FileRegistry,
    version: VersionRecord,
    name: str,
    damage: Callable[[Path], object],
) -> None:
    model = registry.get_model("iris")
    second = registry.commit_version(a_draft(model, SMALL_MIXTURE, job_id="job-2"), SMALL_MIXTURE)
    damage(place_of(path, second) / name)
    assert code_of(lambda: registry.load_mixture(second)) == "model_corrupt"
    assert code_of(lambda: registry.read_artifact(second)) == "model_corrupt"
    assert is_same_mixture(registry.load_mixture(version), SMALL_MIXTURE)
    assert code_of(lambda: registry.require_sound(version)) == "done"
    if name == "params.joblib":
        assert code_of(lambda: registry.require_sound(second)) == "model_corrupt"
    if name == "manifest.json":
        assert code_of(lambda: registry.latest_version("iris")) == "model_corrupt"
        assert list(registry.list_versions("iris")) == [version]
    assert registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE).number == 3


def test_a_version_that_is_a_link_is_corrupt(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    place = place_of(path, version)
    shutil.move(place, path / "away")
    place.symlink_to(path / "away")
    assert code_of(lambda: registry.get_version("iris", 1)) == "model_corrupt"


def test_a_version_copied_to_another_number_is_corrupt(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    place = place_of(path, version)
    shutil.copytree(place, place.with_name("000002"))
    assert code_of(lambda: registry.get_version("iris", 2)) == "model_corrupt"


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(flipped(file.read_bytes(), 100, 3)),
        lambda file: file.unlink(),
        lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
        lambda file: file.write_bytes(sealed(StoredModel(1, a_model("another")))),
        lambda file: file.write_bytes(sealed(StoredModel(2, a_model()))),
    ],
    ids=["flipped", "missing", "a link", "of another model", "of another format"],
)
def test_a_damaged_record_is_refused_and_the_other_models_are_listed(
    path: Path,
    registry: FileRegistry,
    model: ModelRecord,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = a_model("other")
    registry.create_model(other)
    damage(path / "models" / "iris" / "model.json")
    with caplog.at_level(logging.ERROR):
        assert code_of(lambda: registry.get_model("iris")) == "model_corrupt"
    assert "model_corrupt" in caplog.messages
    assert list(registry.list_models()) == [other]
    registry.delete_model("iris")
    registry.create_model(model)
    assert registry.get_model("iris") == model


def test_a_flipped_bit_of_the_aliases_is_noticed_and_nothing_answers_in_their_place(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    model = registry.get_model("iris")
    registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    book = registry.update_aliases(
        "iris", lambda book: book.with_alias(book.alias("champion").moved("set", 1))
    )
    mixtures = MixtureCache(registry.load_mixture, max_bytes=0)
    inference = Inference(registry, mixtures, limits=Limits())
    file = path / "models" / "iris" / "aliases.json"
    good = file.read_bytes()
    for position, bit in itertools.product(range(len(good)), range(8)):
        file.write_bytes(flipped(good, position, bit))
        assert code_of(lambda: registry.get_aliases("iris")) == "model_corrupt"
    assert code_of(lambda: inference.open("iris")) == "model_corrupt"
    assert code_of(lambda: registry.delete_version("iris", 1)) == "model_corrupt"
    assert inference.open("iris", 2).version.number == 2
    file.write_bytes(good)
    assert registry.get_aliases("iris") == book
    assert inference.open("iris").version == version


def test_a_model_that_is_a_link_is_refused(
    path: Path, registry: FileRegistry, model: ModelRecord
) -> None:
    shutil.move(path / "models" / "iris", path / "away")
    (path / "models" / "iris").symlink_to(path / "away")
    assert code_of(lambda: registry.get_model("iris")) == "model_corrupt"
    assert list(registry.list_models()) == []


def forge(path: Path, version: VersionRecord, entries: dict[str, object]) -> VersionRecord:
    """Put other parameters in a version's place, with a manifest that fits them."""
    content = {"schema": 1, "covariance_type": "full", **SMALL_MIXTURE.to_arrays(), **entries}
    stream = io.BytesIO()
    joblib.dump(content, stream, protocol=4)
    data = stream.getvalue()
    forged = replace(version, artifact_digest=sha256(data).hexdigest(), artifact_bytes=len(data))
    table = tuple(
        replace(line, shape=getattr(content[line.name], "shape", ()))
        for line in artifact_of(SMALL_MIXTURE).arrays
    )
    (place_of(path, version) / "params.joblib").write_bytes(data)
    (place_of(path, version) / "manifest.json").write_bytes(sealed(Manifest(1, forged, table)))
    return forged


@pytest.mark.parametrize(
    "entries",
    [
        {"weights": np.array([0.5])},
        {"weights": np.array([np.nan])},
        {"weights": np.array([0.5, 0.5])},
        {"weights": np.array([2.0, -1.0]), "means": np.zeros((2, 1))},
        {"means": np.array([[np.inf]])},
        {"means": np.zeros((1, 2))},
        {"means": np.zeros(1)},
        {"covariances": np.array([[[0.0]]])},
        {"covariances": np.array([[[-1.0]]])},
        {"covariances": np.array([[[np.nan]]])},
        {"covariances": np.ones((1, 1))},
        {
            "means": np.zeros((1, 2)),
            "covariances": np.array([[[1.0, 2.0], [2.0, 1.0]]]),
        },
        {
            "means": np.zeros((1, 2)),
            "covariances": np.array([[[1.0, 0.5], [0.0, 1.0]]]),
        },
        {"covariance_type": "tied"},
        {"covariance_type": np.zeros(1)},
        {"schema": 2},
        {"schema": np.zeros(2), "weights": 1},
        {"weights": "0.5"},
        {"weights": np.array([1.0], dtype=object)},
        {"weights": np.array([1.0], dtype="f4")},
        {"extra": 1},
        {"means": os.system},
    ],
    ids=str,
)
def test_parameters_that_are_no_mixture_are_refused_even_with_a_manifest_that_fits(
    path: Path, registry: FileRegistry, version: VersionRecord, entries: dict[str, object]
) -> None:
    forged = forge(path, version, entries)
    assert registry.get_version("iris", 1) == forged
    assert code_of(lambda: registry.load_mixture(forged)) == "model_corrupt"


def test_a_forgery_that_is_a_mixture_is_served_so_the_refusals_above_are_for_their_reasons(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    forged = forge(path, version, {"means": np.array([[7.0]])})
    assert registry.load_mixture(forged).means.tolist() == [[7.0]]
    assert code_of(lambda: registry.load_mixture(version)) == "model_corrupt"


def test_arrays_other_than_the_manifest_lists_are_refused(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    manifest = manifest_of(a_draft(a_model(), SMALL_MIXTURE), 1, artifact_of(SMALL_MIXTURE))
    genuine = replace(manifest.version, created_at=version.created_at)
    lying = Manifest(1, genuine, tuple(replace(line, shape=(9,)) for line in manifest.arrays))
    (place_of(path, version) / "manifest.json").write_bytes(sealed(lying))
    assert code_of(lambda: registry.load_mixture(genuine)) == "model_corrupt"


def test_parameters_past_the_limit_are_neither_stored_nor_read(
    path: Path, registry: FileRegistry, version: VersionRecord, model: ModelRecord
) -> None:
    small = FileRegistry(path, max_artifact_bytes=version.artifact_bytes - 1)
    with pytest.raises(StorageFull):
        small.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    assert code_of(lambda: small.load_mixture(version)) == "model_corrupt"
