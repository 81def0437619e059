"""How many files the process may have open, and how many connections these are enough for.

A process that has none left can accept nobody, lay nothing onto the disk and read no model.
"""

import resource

OWN_FILES = 128
"""Of the registry, its databases, the workers that fit, and what is loaded."""
FILES_EACH = 4
"""Of a connection at the most: its own, the rows it sends, the answer it has not read, a model."""
MET_AT_THE_DOOR = 1024
"""Connections that are refused, or not known yet, beyond those that are served."""
FEWEST_CONNECTIONS = 4


def connections_within_limit(n_connections: int) -> int:
    """Have as many files allowed as the connections need, as far as the system lets us.

    Return for how many connections the files are enough; ``n_connections`` as a rule.
    """
    needed = OWN_FILES + MET_AT_THE_DOOR + FILES_EACH * n_connections
    allowed, at_most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_less(allowed, needed):
        allowed = min(needed, at_most) if at_most != resource.RLIM_INFINITY else needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, at_most))
    if not _is_less(allowed, needed):
        return n_connections
    # Whoever is only refused has what is left of our own.
    return min(n_connections, max(FEWEST_CONNECTIONS, (allowed - OWN_FILES) // (FILES_EACH + 1)))


def _is_less(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed
