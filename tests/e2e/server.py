"""A real server process for tests: started by its command, asked over real HTTP, stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> int:
        """Ask for a shutdown as an operator does, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def running(
    registry: Path, settings: Mapping[str, str] | None = None, *, is_ready: bool = True
) -> Iterator[Server]:
    """Run ``gmm-service serve`` on a free port; it says of itself whether it is ready."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    log = registry.with_suffix(".log")
    with (
        log.open("ab") as errors,
        subprocess.Popen(  # noqa: S603  # our own command
            [*command, "--registry-dir", str(registry)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(settings or {})},
        ) as process,
    ):
        try:
            yield Server(process, _url_of(process, log, is_ready=is_ready), log)
        finally:
            if process.poll() is None:
                process.kill()


def _url_of(process: subprocess.Popen[bytes], log: Path, *, is_ready: bool) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the server did not start: {log.read_text()}"
    url = json.loads(line)["url"]
    with httpx.Client(transport=httpx.HTTPTransport(retries=5), timeout=START_SECONDS) as client:
        assert client.get(f"{url}/readyz").status_code == (200 if is_ready else 503)
    assert isinstance(url, str)
    return url
