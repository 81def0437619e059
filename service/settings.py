"""Every setting of the service: one field each, read from ``GMM_…`` in the environment.

Values are bounded here; what they bound is told in the field's description.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.domain.identifiers import ID_PATTERN
from service.domain.limits import Limits

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="GMM_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    registry_dir: Path = Field(Path("registry"), description="Directory of models and versions.")
    min_free_bytes: int = Field(
        32 * MEBIBYTE,
        ge=0,
        le=1024 * GIBIBYTE,
        description="Bytes of the registry's disk that are kept free: what would leave less is "
        "refused; 0 keeps none.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="SQL database of jobs, such as `postgresql://user@host/name`; a file in the "
        "registry's directory without it.",
    )
    allow_unauthenticated: bool = Field(
        False, description="Listen beyond this machine although no one has to authenticate."
    )
    default_model: str | None = Field(
        None, pattern=ID_PATTERN, description="Model of the bare forms when a request names none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe events that are logged."
    )
    fit_wait_seconds: float = Field(
        10.0, ge=0, le=600, description="How long a fit is waited for without a preference."
    )
    max_wait_seconds: float = Field(
        300.0, ge=0, le=3600, description="The longest wait that a request may ask for."
    )
    drain_seconds: float = Field(
        25.0, ge=0, le=3600, description="What a shutdown leaves requests and fits to end in."
    )
    fit_processes: int = Field(
        2, ge=1, le=64, description="Fits that run at once, each in a process of its own."
    )
    fit_threads: int = Field(
        0,
        ge=0,
        le=64,
        description="Threads of each fit; 0 shares the cores out among those that run.",
    )
    fit_max_seconds: float = Field(
        3600.0,
        gt=0,
        le=7 * 86_400,
        description="Time after which a fit ends with the best parameters it has found.",
    )
    fit_memory_bytes: int = Field(
        4 * GIBIBYTE,
        ge=16 * MEBIBYTE,
        le=1024 * GIBIBYTE,
        description="Memory that one fit may take; one that needs more fails.",
    )
    fit_checkpoint_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How often a fit's state is written down, to go on from there after a restart.",
    )
    recovery_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="How often it is looked for jobs that another service process left at its "
        "death.",
    )
    fit_queue_size: int = Field(16, ge=0, le=10_000, description="Fits that may wait.")
    max_event_streams: int = Field(
        100, ge=1, le=100_000, description="Clients that may follow jobs at once."
    )
    max_body_bytes: int = Field(
        32 * MEBIBYTE, ge=1024, le=GIBIBYTE, description="Largest body of JSON or other text."
    )
    max_binary_body_bytes: int = Field(
        512 * MEBIBYTE,
        ge=1024,
        le=64 * GIBIBYTE,
        description="Largest body in a binary format: NPY, Arrow, Parquet, tensors.",
    )
    max_held_body_bytes: int = Field(
        2 * GIBIBYTE,
        ge=MEBIBYTE,
        le=1024 * GIBIBYTE,
        description="Bytes of bodies that are held whole, all together; one alone may be larger.",
    )
    compute_queue_size: int = Field(
        64, ge=0, le=100_000, description="Large questions that may wait; four small ones for each."
    )
    compute_wait_seconds: float = Field(
        10.0, gt=0, le=3600, description="How long a question may wait for its turn."
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="Connections that are open at once; fewer where the system allows too few "
        "open files.",
    )
    head_seconds: float = Field(
        10.0, gt=0, le=3600, description="How long the head of a request may take to come in."
    )
    body_stall_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How long a body may bring no byte, and an answer wait for its client to "
        "take any.",
    )
    min_body_rate: float = Field(
        1024.0,
        ge=0,
        le=GIBIBYTE,
        description="Bytes a second that a body brings on average, once it may have stalled, and "
        "that a client takes of an answer.",
    )
    max_stream_bytes: int = Field(
        16 * GIBIBYTE,
        ge=1024,
        le=1024 * GIBIBYTE,
        description="Largest body whose rows are answered as they arrive, or go to the disk for a "
        "fit.",
    )
    max_rows: int = Field(10_000_000, ge=1, le=1_000_000_000, description="Rows of one request.")
    max_features: int = Field(1024, ge=1, le=65_536, description="Features of a model.")
    max_components: int = Field(1024, ge=1, le=65_536, description="Components of a model.")
    max_n_init: int = Field(100, ge=1, le=10_000, description="Restarts of a fit.")
    max_iterations: int = Field(
        100_000, ge=1, le=100_000_000, description="EM steps of each restart."
    )
    max_candidates: int = Field(
        256, ge=1, le=1024, description="Candidates of a selection: sizes times families."
    )
    preload_extras: bool = Field(
        False,
        description="Load what analyses and pictures need right after the start, beside other "
        "work: some 100 MB and seconds that the first such request waits for otherwise.",
    )
    max_analysed_rows: int = Field(
        100_000, ge=1, le=10_000_000, description="Rows of one analysis: diagnostics, comparisons."
    )
    max_memory_bytes: int = Field(
        2 * GIBIBYTE,
        ge=MEBIBYTE,
        le=1024 * GIBIBYTE,
        description="Estimated memory that the arrays of one fit or answer may take.",
    )
    max_versions: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Versions kept of a model: the oldest that no alias names go; 0 keeps all.",
    )
    max_audit_entries: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Entries kept of the audit trail; the oldest go first.",
    )
    mixture_cache_bytes: int = Field(
        256 * MEBIBYTE, ge=0, le=1024 * GIBIBYTE, description="Loaded parameters kept in memory."
    )

    @property
    def database(self) -> str | None:
        return None if self.database_url is None else self.database_url.get_secret_value()

    @property
    def limits(self) -> Limits:
        return Limits(
            max_rows=self.max_rows,
            max_features=self.max_features,
            max_components=self.max_components,
            max_n_init=self.max_n_init,
            max_iterations=self.max_iterations,
            max_candidates=self.max_candidates,
            max_analysed_rows=self.max_analysed_rows,
            max_memory_bytes=self.max_memory_bytes,
        )

    @model_validator(mode="after")
    def require_explicit_exposure(self) -> Self:
        if not self.allow_unauthenticated and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets anyone who reaches it fit and delete models: "
                "set GMM_ALLOW_UNAUTHENTICATED=true if something in front decides who may, "
                "or listen on 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
