"""How many connections the files that a process may open are enough for; each in a process."""

import subprocess
import sys

import pytest

ASK = """
import resource, sys
from service.open_files import connections_within_limit

soft, hard, asked = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(connections_within_limit(asked), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def connections(soft: int, hard: int, asked: int) -> tuple[int, int, int]:
    command = [sys.executable, "-c", ASK, *map(str, (soft, hard, asked))]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # our own
    allowed, soft, hard = map(int, told.split())
    return allowed, soft, hard


def test_as_many_files_are_allowed_as_the_connections_need() -> None:
    n_connections, soft, hard = connections(256, 4096, 512)
    assert (n_connections, hard) == (512, 4096)
    assert 4 * 512 < soft < 4096


def test_a_limit_that_is_enough_is_left_as_it_is() -> None:
    assert connections(4000, 4096, 512) == (512, 4000, 4096)


@pytest.mark.parametrize("at_most", [64, 256, 1024])
def test_with_few_files_there_are_fewer_connections(at_most: int) -> None:
    n_connections, soft, _ = connections(64, at_most, 512)
    assert soft == at_most
    assert 1 <= n_connections <= max(4, at_most // 4)
