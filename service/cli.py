"""The command ``gmm-service``: serve, write the OpenAPI document, read the audit trail.

The commands that look after a registry are in ``registry_commands``.
"""

import gc
import json
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, cast

import typer
import uvicorn

import gmm_engine
from service import __version__
from service.allocation import keep_freed_memory
from service.api import door
from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.door import Door, Entrance
from service.api.payloads import numerals
from service.api.services import Services
from service.api.short_way import ShortWay
from service.command_line import USAGE_ERROR, Overrides, RegistryDir, read_settings
from service.errors import ServiceError
from service.main import contract, create_app
from service.open_files import connections_within_limit
from service.registry_commands import registry
from service.settings import Settings
from service.telemetry import configure_logging
from service.wiring import MACHINE_COSTS, build_services, open_audit

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="gmm-service",
    help="Train, version and serve Gaussian mixture models over REST.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(registry, name="registry")

KEEP_ALIVE_SECONDS = 75
"""Longer than most clients keep an idle connection, so that they close it and not we."""

BACKLOG = 2048
GC_THRESHOLDS = (10_000, 20, 50)
SWITCH_SECONDS = 0.0005
"""After which a thread that computes lets go of the interpreter's lock. The loop asks for it with
every read of every connection: with Python's 5 ms large bodies come in a sixth more slowly."""

Host = Annotated[str | None, typer.Option(help="Address to listen on [GMM_HOST].")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one [GMM_PORT].")]
Last = Annotated[int, typer.Option(min=1, help="Entries to print at the most.")]
OfModel = Annotated[str | None, typer.Option("--model", help="Entries of this model only.")]
Output = Annotated[Path | None, typer.Option(help="File to write; standard output without it.")]


class Server(uvicorn.Server):
    """Begins to drain with the signal, so that requests that wait for a fit let go at once.

    A shutdown that was asked for is a success: the signal is not raised again at the end.
    """

    def __init__(self, config: uvicorn.Config, services: Services, door: Door) -> None:
        super().__init__(config)
        self._services = services
        self._door = door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        listeners = [each.dup() for each in sockets or ()]  # the loop closes those it is given
        await super().startup(sockets)
        for listener in listeners:
            self._door.open(Entrance(listener, self.servers, self._protocol, BACKLOG))
        # Before anyone asks; estimates wait for it.
        threading.Thread(target=MACHINE_COSTS, name="costs", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._door.close()
        await super().shutdown(sockets)

    def _protocol(self) -> BoundedProtocol:
        protocol = cast("type[BoundedProtocol]", self.config.http_protocol_class)
        return protocol(self.config, self.server_state, self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's
        self._services.lifecycle.begin_draining()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


@app.command()
def serve(host: Host = None, port: Port = None, registry_dir: RegistryDir = None) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; other settings are read from GMM_…."""
    overrides: Overrides = {}
    if host is not None:
        overrides["host"] = host
    if port is not None:
        overrides["port"] = port
    if registry_dir is not None:
        overrides["registry_dir"] = registry_dir
    settings = read_settings(overrides)
    # First, so that a busy port is told at once; who connects from now on is answered soon.
    with _listener(settings.host, settings.port) as listener:
        _make_ready(n_processes=1)
        with _usable(settings):
            services = build_services(settings)
        configure_logging(settings.log_level)
        _collect_seldom()
        keep_freed_memory()
        sys.setswitchinterval(SWITCH_SECONDS)
        entry = Door(services.threads)
        server = Server(_server_config(services, settings, entry), services, entry)
        _announce(settings, listener)
        server.run(sockets=[listener])


@app.command()
def openapi(output: Output = None) -> None:
    """Write the OpenAPI document."""
    if output is None:
        sys.stdout.buffer.write(contract())
    else:
        output.write_bytes(contract())


@app.command()
def warm_up() -> None:
    """Compile what is compiled, on all cores: a minute the first time, then a few seconds."""
    _make_ready(gmm_engine.thread_count())


@app.command()
def audit(last: Last = 100, model: OfModel = None, registry_dir: RegistryDir = None) -> None:
    """Print who changed what, and how it ended: lines of JSON, the newest last."""
    settings = read_settings({} if registry_dir is None else {"registry_dir": registry_dir})
    with _usable(settings), open_audit(settings) as trail:
        for entry in trail.newest(last, model_id=model):
            typer.echo(json.dumps(asdict(entry), default=datetime.isoformat))


@app.command()
def version() -> None:
    """Write the version."""
    typer.echo(__version__)


def _make_ready(n_processes: int) -> None:
    gmm_engine.warm_up(n_processes, others=(door.warm_up, numerals.warm_up))


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        typer.echo(f"can't listen on {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(USAGE_ERROR) from error


@contextmanager
def _usable(settings: Settings) -> Iterator[None]:
    """Tell in one sentence when the registry can't be opened."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"can't use the registry {settings.registry_dir}: {error.detail}", err=True)
        raise typer.Exit(USAGE_ERROR) from error


def _server_config(services: Services, settings: Settings, entry: Door) -> uvicorn.Config:
    limits = _connection_limits(settings)
    return uvicorn.Config(
        create_app(services),
        http=BoundedProtocol.bounded_by(limits, entry.let_in, ShortWay(services), entry.arrived),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )


def _connection_limits(settings: Settings) -> ConnectionLimits:
    n_connections = connections_within_limit(settings.max_connections)
    if n_connections < settings.max_connections:
        fewer = {"max_connections": n_connections, "asked_for": settings.max_connections}
        logger.warning("few_open_files_allowed", extra=fewer)
    return ConnectionLimits(
        max_connections=n_connections,
        head_seconds=settings.head_seconds,
        stall_seconds=settings.body_stall_seconds,
        min_bytes_per_second=settings.min_body_rate,
    )


def _collect_seldom() -> None:
    """Let the cyclic garbage collector neither look at rows often nor take long.

    Rows of a JSON body that become lists are in no cycle. With the defaults the collector looks at
    them for half of the time of decoding 300,000; with thousands to a collection, however many,
    for a fifth. But with 200,000 all requests waited 50 ms at a time, with these 3 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _announce(settings: Settings, listener: socket.socket) -> None:
    """Tell where the service listens: one JSON line on standard output, for people and scripts."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info("starting", extra={"settings": settings.model_dump(mode="json")})
    typer.echo(json.dumps({"event": "listening", "url": url}))
    sys.stdout.flush()
