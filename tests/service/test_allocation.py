"""What the server asks of the C library's allocator, in a process of its own."""

import platform
import subprocess
import sys

import pytest

CYCLES = 200
COUNT_FAULTS = f"""
import resource, sys
from service.allocation import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    assert keep_freed_memory()
bytearray(4 * 2**20)
begun = faults()
for _ in range({CYCLES}):
    bytearray(2**20), bytearray(2**20)
print(faults() - begun)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603  # our own


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_pieces_that_come_and_go_are_not_fetched_anew_from_the_system() -> None:
    assert faults("kept") < CYCLES < faults("given back")
