"""What the commands share: options, and settings read from options and environment."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer
from pydantic import ValidationError

from service.settings import Settings

USAGE_ERROR = 2

RegistryDir = Annotated[
    Path | None, typer.Option(help="Directory of models and versions [GMM_REGISTRY_DIR].")
]


class Overrides(TypedDict, total=False):
    """Settings that options give; the rest comes from the environment."""

    host: str
    port: int
    registry_dir: Path
    max_versions: int


def read_settings(overrides: Overrides) -> Settings:
    try:
        return Settings(**overrides)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "".join(f"GMM_{part}: ".upper() for part in problem["loc"])
            typer.echo(name + problem["msg"].removeprefix("Value error, "), err=True)
        raise typer.Exit(USAGE_ERROR) from error
