"""Ids of models and jobs, names of aliases: which are legal, and new ones."""

import re

ID_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
ID_RULE = (
    "an id has 1 to 63 lower-case letters, digits, dots, underscores and hyphens, begins with a "
    "letter or digit, and is not 'stats'"
)
RESERVED_IDS = frozenset({"stats"})
"""A fixed path of another protocol stands where this id would."""

_LEGAL = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")


def is_legal_id(text: str) -> bool:
    return _LEGAL.match(text) is not None and text not in RESERVED_IDS


LATEST = "latest"
"""The alias that moves by itself."""

CHAMPION = "champion"
"""The alias that answers when a request names no version."""


def is_legal_alias(text: str) -> bool:
    return _LEGAL.match(text) is not None


def model_id_of(token: str) -> str:
    """Return the id of the model that is made under a token (32 hexadecimal digits)."""
    return f"model-{token[:12]}"


def job_id_of(token: str) -> str:
    return f"job-{token[:20]}"
