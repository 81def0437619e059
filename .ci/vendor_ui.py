"""Fetch what the page at /ui brings along, as ``service/ui/vendor/lock.json`` pins it.

The packages come from npm and are taken only when their content has the digest that the lock
names. The files are kept in the repository, so nothing is fetched when the service is built or run;
this is for taking another version: change the lock, run it, commit both.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "service" / "ui" / "vendor"


def main() -> None:
    for package in json.loads((VENDOR / "lock.json").read_text(encoding="utf-8"))["packages"]:
        with tempfile.TemporaryDirectory() as directory:
            archive = fetched(f"{package['name']}@{package['version']}", Path(directory))
            require_integrity(archive, package["integrity"])
            unpack(archive, package["files"])


def fetched(package: str, directory: Path) -> Path:
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(directory)]
    subprocess.run(command, check=True)  # noqa: S603  # the words are the lock's
    (archive,) = directory.glob("*.tgz")
    return archive


def require_integrity(archive: Path, integrity: str) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if integrity != f"sha512-{digest}":
        raise SystemExit(f"{archive.name} is not what the lock names: sha512-{digest}")


def unpack(archive: Path, files: dict[str, dict[str, str]]) -> None:
    with tarfile.open(archive) as content:
        for name, file in files.items():
            member = content.extractfile(f"package/{file['path']}")
            if member is None:
                raise SystemExit(f"{archive.name} has no file {file['path']}")
            kept = member.read()
            (VENDOR / name).write_bytes(kept)
            print(f"{name}  sha256 {hashlib.sha256(kept).hexdigest()}")


if __name__ == "__main__":
    main()
