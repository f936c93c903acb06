"""Settings: a TOML file and `UPWELL_*` variables, checked on entry, with a source for each value.

A variable names section and key with two underscores between: `UPWELL_KAFKA__BOOTSTRAP`. It goes
before the file; the file goes before the default. The file is the one that `--config` names, else
`UPWELL_CONFIG`, else `upwell.toml` in the current folder where there is one. Seconds are `*_s`.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class SettingsError(ValueError):
    """A setting that cannot be used: its key, its value, and what is allowed."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class KafkaSettings(Section):
    bootstrap: str = Field("127.0.0.1:9092", description="brokers, HOST:PORT with commas between")
    plays: str = Field("plays", description="topic of plays, read by the sessions")
    coplays: str = Field("coplays", description="topic of co-plays, written by the sessions")
    catalog: str = Field("catalog", description="topic of catalog events (compacted)")
    partitions: Count = Field(4, description="partitions of a topic that we make ourselves")
    group: str = Field("upwell", description="prefix of our consumer groups")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = Field(None, description="read instead of sasl_password")
    ssl_ca_file: Path | None = Field(None, description="who signs the brokers' certificates (PEM)")
    ssl_certificate_file: Path | None = Field(None, description="of this client (PEM)")
    ssl_key_file: Path | None = Field(None, description="of that certificate (PEM)")
    ssl_key_password: SecretStr | None = None
    ssl_key_password_file: Path | None = Field(None, description="read instead of ssl_key_password")
    startup_timeout_s: Seconds = Field(30.0, description="then an unreachable broker is an error")
    max_batch: Count = Field(20_000, description="messages in one batch of the ingest")
    max_inflight_mb: Annotated[int, Field(ge=16, le=65_536)] = Field(
        256, description="MiB that the ingest may hold before it is folded in"
    )
    poll_s: Seconds = Field(0.05, description="longest wait for a batch")
    max_skew_s: Seconds = Field(3600.0, description="an event further in the future is dead")

    def client(self) -> dict[str, str]:
        """The settings of a librdkafka client beyond its brokers.

        Raises:
            SettingsError: a password file cannot be read.
        """
        given = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self._secret("sasl_password"),
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self._secret("ssl_key_password"),
        }
        return {key: str(value) for key, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """What half of a client's settings would mean, it would say late, or not at all."""
        if self.security_protocol.startswith("SASL"):
            for name in ("sasl_mechanism", "sasl_username"):
                if getattr(self, name) is None:
                    raise ValueError(f"{self.security_protocol} wants kafka.{name} too")
            if self.sasl_password is None and self.sasl_password_file is None:
                raise ValueError(
                    f"{self.security_protocol} wants kafka.sasl_password_file (or "
                    "UPWELL_KAFKA__SASL_PASSWORD) too"
                )
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError("kafka.ssl_certificate_file and kafka.ssl_key_file go together")
        names = {self.plays, self.coplays, self.catalog}
        if len(names) < 3:
            raise ValueError(
                f"kafka.plays, coplays and catalog are {self.plays!r}, {self.coplays!r} and "
                f"{self.catalog!r}: want three topics"
            )
        return self

    def _secret(self, name: str) -> str | None:
        """A secret from its file, else from its own setting."""
        file: Path | None = getattr(self, f"{name}_file")
        if file is not None:
            try:
                return file.read_text().strip()
            except OSError as error:
                raise SettingsError(
                    f"kafka.{name}_file = {file}: {error.strerror}; "
                    "name a file that this user can read"
                ) from error
        value: SecretStr | None = getattr(self, name)
        return None if value is None else value.get_secret_value()


class RedisSettings(Section):
    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="redis://[USER:PASSWORD@]HOST:PORT/DB"
    )
    timeout_s: Seconds = Field(2.0, description="longest wait for one reply")
    startup_timeout_s: Seconds = Field(30.0, description="then an unreachable Redis is an error")
    space: str = Field("main", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="embedding space")
    epsilon: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="a refresh sends a vector that moved by more of its length; 0: every one"
    )
    index: bool = Field(False, description="a search index beside the space, where Redis has one")
    keep_spaces: Count = Field(3, description="spaces kept for rollback, the live one among them")


class SessionsSettings(Section):
    previous: Count = Field(5, le=100, description="a play is paired with so many before it")
    gap_s: Seconds = Field(1800.0, description="plays further apart make no pair")
    max_per_hour: Count = Field(200, description="plays a user and hour that still make pairs")


class GraphSettings(Section):
    leaf_index: Literal["sums16", "fstable", "cstable"] = "sums16"
    leaf_capacity: Literal[64, 128, 256] = 256
    half_life_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="a co-play's weight halves in so long; none: never"
    )
    unknown_relations: Literal["accept", "refuse"] = Field(
        "accept", description="what becomes of a catalog event with a relation that is new"
    )
    threads: Count = Field(1, le=256, description="threads that share a large batch of changes")


class RefreshSettings(Section):
    interval_s: Seconds = Field(0.2, description="co-plays: dirty titles are re-embedded so often")
    max_titles: Count = Field(4096, description="titles in one refresh")


class TrainingSettings(Section):
    enabled: bool = True
    cycle_s: Seconds = Field(60.0, description="pause from one cycle's start to the next one's")
    steps: Count = Field(16, description="gradient steps in one cycle")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        7.5e-4, description="of all but the titles' own embeddings, which learn 50 times as fast"
    )
    replay: Share = Field(0.3, description="share of a step's edges drawn from the past")
    distillation: Annotated[float, Field(ge=0)] = Field(
        15.0, description="pull to the last vectors, their directions and lengths"
    )
    parts: Count = Field(1, description="HASP parts: one cycle trains on one of them a trainer")
    trainers: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="processes that train in a cycle, each on a part of its own"
    )
    cutter: Literal["auto", "metis", "kaminpar"] = Field("auto", description="what cuts them")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where steps are made; auto: on a GPU where there is one"
    )
    precision: Literal["float32", "bf16", "auto"] = Field(
        "float32",
        description="of a cycle's matrix products; auto: bfloat16 where the machine has it",
    )
    recut_loss: Share = Field(
        0.1, description="parts that keep so much less than when they were cut are cut anew"
    )
    min_fresh: Count = Field(256, description="fewer fresh co-plays: the cycle is skipped")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        if self.parts % self.trainers:
            raise ValueError(
                f"{self.trainers} trainers cannot share {self.parts} parts evenly: want "
                "training.parts to be a multiple of training.trainers"
            )
        return self


class CheckpointSettings(Section):
    folder: Path = Path("checkpoints")
    interval_s: Seconds = 60.0
    keep: Count = Field(3, description="older ones are deleted")


class WorkerSettings(Section):
    id: str = Field("worker-0", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    threads: Count = Field(1, le=256, description="threads of torch")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class OperateSettings(Section):
    host: str = Field("127.0.0.1", description="where the worker's page, health and metrics answer")
    port: Port = Field(0, description="of the same; 0: no server")
    broker_down_s: Seconds = Field(60.0, description="a broker silent for longer fails /livez")
    stalled_s: Seconds = Field(
        120.0, description="a lane or a partition that stands still for longer fails /livez"
    )
    page: bool = Field(True, description="serve the live page beside health and metrics")


class LogsSettings(Section):
    format: Literal["text", "json"] = Field("text", description="json: one object a line")


class TracesSettings(Section):
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="OTLP over HTTP, http://HOST:4318; none: no traces; needs the extra otel",
    )
    share: Share = Field(0.1, description="of batches that are traced")


class CanarySettings(Section):
    interval_s: Seconds = Field(5.0, description="a heartbeat title goes in so often")
    patience_s: Seconds = Field(60.0, description="one not seen for so long counts as lost")
    host: str = Field("127.0.0.1", description="where the canary's metrics answer")
    port: Port = Field(0, description="of the same; 0: no server")


class Settings(BaseSettings):
    """All settings, by section."""

    model_config = SettingsConfigDict(
        env_prefix="UPWELL_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    sessions: SessionsSettings = SessionsSettings()
    graph: GraphSettings = GraphSettings()
    refresh: RefreshSettings = RefreshSettings()
    training: TrainingSettings = TrainingSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    worker: WorkerSettings = WorkerSettings()
    operate: OperateSettings = OperateSettings()
    logs: LogsSettings = LogsSettings()
    traces: TracesSettings = TracesSettings()
    canary: CanarySettings = CanarySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the file comes in as `init`: variables go before it


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it stands: `source` is `default`, a file's path, or a variable's name."""

    key: str
    value: str
    source: str
    description: str


def config_file(path: Path | None) -> Path | None:
    """The TOML file in force: `path`, else `UPWELL_CONFIG`, else `upwell.toml` if it is here."""
    if path is not None:
        return path
    if named := os.environ.get("UPWELL_CONFIG"):
        return Path(named)
    here = Path("upwell.toml")
    return here if here.is_file() else None


def load_settings(path: Path | None = None) -> Settings:
    """The effective settings.

    Raises:
        SettingsError: a file that cannot be read, an unknown key, or a value that is not allowed.
    """
    values = _read_toml(config_file(path))
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(one) for one in error.errors())) from None


def effective(settings: Settings, path: Path | None = None) -> Iterator[Effective]:
    """Each setting with its source; secrets are masked."""
    file = config_file(path)
    in_file = _read_toml(file)
    for section_name in Settings.model_fields:
        section: Section = getattr(settings, section_name)
        for key, field in type(section).model_fields.items():
            variable = f"UPWELL_{section_name}__{key}".upper()
            if variable in os.environ:
                source = variable
            elif key in in_file.get(section_name, {}):
                source = str(file)
            else:
                source = "default"
            value = masked(getattr(section, key))
            yield Effective(f"{section_name}.{key}", value, source, field.description or "")


def masked(value: object) -> str:
    """`value` for the eye: a secret is starred, of a secret URL only its password."""
    if not isinstance(value, SecretStr):
        return str(value)
    plain = value.get_secret_value()
    if "://" in plain:
        return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", plain)
    return "***"


def _read_toml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise SettingsError(
            f"settings file {file}: {error.strerror}; name another with --config"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error


def _refuse_unknown_variables() -> None:
    """A misspelt variable would else be silently without effect."""
    known = {"UPWELL_CONFIG", "UPWELL_FAILPOINT"}  # the latter is for tests: streams/failpoints.py
    for section_name, section in Settings.model_fields.items():
        kind: Any = section.annotation
        known |= {f"UPWELL_{section_name}__{key}".upper() for key in kind.model_fields}
    for name in os.environ:
        if name.startswith("UPWELL_") and name not in known:
            raise SettingsError(
                f"{name} names no setting; `upwell config` lists them "
                "(UPWELL_SECTION__KEY, two underscores between)"
            )


def _explain(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key} is no setting; `upwell config` lists them"
    if error["type"] == "value_error":  # of a whole section, which may hold secrets
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    value = error.get("input")
    secret = "password" in key or key.endswith("url")
    return f"{key} = {'***' if secret else repr(value)}: {error['msg']}"
