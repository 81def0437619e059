"""What the commands share: options, and settings read from options and environment."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, TypedDict

import typer
from pydantic import ValidationError

from service.settings import Settings

USAGE_ERROR = 2
OF_A_CLUSTER = re.compile(r"GMM_(SERVICE_(HOST|PORT)|PORT_\d+_)", re.IGNORECASE)
"""Set by Kubernetes and Docker links in every container beside a service that is called gmm."""

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
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "".join(f"GMM_{part}: ".upper() for part in problem["loc"])
            typer.echo(name + problem["msg"].removeprefix("Value error, "), err=True)
        raise typer.Exit(USAGE_ERROR) from error


def _refuse_unknown_variables() -> None:
    """Refuse a misspelt setting: the service would run without what its operator meant."""
    known = [f"GMM_{name}".upper() for name in Settings.model_fields]
    unknown = [
        name
        for name in sorted(os.environ)
        if name.upper().startswith("GMM_")
        and name.upper() not in known
        and not OF_A_CLUSTER.match(name)
    ]
    for name in unknown:
        similar = get_close_matches(name.upper(), known, n=1)
        hint = f"did you mean {similar[0]}?" if similar else "the README lists those there are"
        typer.echo(f"{name}: there is no such setting; {hint}", err=True)
    if unknown:
        raise typer.Exit(USAGE_ERROR)
