"""Settings: what the environment decides (folders, ports, URLs, secrets). Config decides the rest.

Read from environment variables and from ``LORAMILL_HOME/.env``. There is no module-level instance:
an entry point calls ``Settings.load()`` once and hands the result down.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from loramill.errors import ConfigError, Problem

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Everything loramill takes from the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        populate_by_name=True,
        env_prefix="LORAMILL_",  # a field's own name is read too, and HOME must not become LORAMILL_HOME
    )

    home: Path = Field(Path(), alias="LORAMILL_HOME", description="Folder that holds results/, data/ and .env.")
    database_url: str | None = Field(
        None, alias="DATABASE_URL", description="SQLAlchemy URL; default is SQLite at results/experiments.db."
    )
    redis_url: str | None = Field(
        None, alias="REDIS_URL", description="Queue server; default is an embedded one, started by loramill."
    )
    api_port: Port = Field(8000, alias="API_PORT", description="Port of the REST API.")
    ui_port: Port = Field(8501, alias="UI_PORT", description="Port of the web page.")
    inference_port: Port = Field(8002, alias="INFERENCE_PORT", description="Port of the inference service.")
    api_url: str | None = Field(
        None,
        alias="LORAMILL_API_URL",
        description="Where the web page finds the API; default is API_PORT of this machine.",
    )
    inference_url: str | None = Field(
        None,
        alias="LORAMILL_INFERENCE_URL",
        description="Where the web page finds the inference service; default is INFERENCE_PORT of this machine.",
    )
    redis_port: Port = Field(6379, alias="REDIS_PORT", description="Port of Redis in docker-compose.yml.")
    environment: Literal["local", "production"] = Field(
        "local", alias="LORAMILL_ENV", description="production refuses to start without a strong JWT_SECRET."
    )
    jwt_secret: SecretStr | None = Field(
        None, alias="JWT_SECRET", description="Signs access tokens (HS256); default is a random one kept in .loramill/."
    )
    audit_key: SecretStr | None = Field(
        None, alias="LORAMILL_AUDIT_KEY", description="Seals the audit log; default is a random one kept in .loramill/."
    )
    audit_anchor: Path | None = Field(
        None,
        alias="LORAMILL_AUDIT_ANCHOR",
        description="File that remembers every audit seal; default is results/audit.anchor.",
    )
    admin_user: str | None = Field(
        None, alias="LORAMILL_ADMIN_USER", description="First administrator, made once while there are no users."
    )
    admin_password: SecretStr | None = Field(
        None, alias="LORAMILL_ADMIN_PASSWORD", description="Password of LORAMILL_ADMIN_USER; not read after that."
    )
    new_password: SecretStr | None = Field(
        None, alias="LORAMILL_NEW_PASSWORD", description="Password for `loramill users` where nobody can type it."
    )
    inference_key: SecretStr | None = Field(
        None,
        alias="LORAMILL_INFERENCE_KEY",
        description="Opens the inference service; default is a random one in .loramill/, and none on 127.0.0.1.",
    )
    metrics_key: SecretStr | None = Field(
        None,
        alias="LORAMILL_METRICS_KEY",
        description="Opens the API's /metrics, as an administrator's token does; anyone may read them by default.",
    )
    submit_limit: str = Field(
        "60/minute", alias="LORAMILL_SUBMIT_LIMIT", description="Jobs that one user may submit, such as 60/minute."
    )
    job_seconds: float | None = Field(
        None, alias="LORAMILL_JOB_SECONDS", gt=0, description="Longest attempt at a job, in seconds; none by default."
    )
    worker_metrics_port: Port | None = Field(
        None,
        alias="LORAMILL_WORKER_METRICS_PORT",
        description="Port of a worker's /metrics; none by default.",
    )
    worker_metrics_address: str = Field(
        "127.0.0.1", alias="LORAMILL_WORKER_METRICS_ADDRESS", description="Address that a worker's /metrics listens on."
    )
    upload_limit_mb: int = Field(
        1024, alias="LORAMILL_UPLOAD_LIMIT_MB", ge=1, description="Largest file of a data set over the network, in MiB."
    )
    request_limit: str = Field(
        "6000/minute", alias="LORAMILL_REQUEST_LIMIT", description="Requests of one caller, such as 6000/minute."
    )

    @classmethod
    def load(cls) -> Settings:
        """Read the environment, then ``$LORAMILL_HOME/.env`` for what the environment leaves open.

        Raises:
            ConfigError: with every variable that is wrong, and without its value, which may be a secret.
        """
        dotenv = Path(os.environ.get("LORAMILL_HOME", ".")) / ".env"
        try:
            return cls(_env_file=dotenv)
        except ValidationError as error:
            problems = [
                Problem(str(detail["loc"][0]), None, detail["msg"][0].lower() + detail["msg"][1:])
                for detail in error.errors(include_input=False)
            ]
        except UnicodeDecodeError:
            problems = [Problem(str(dotenv), None, "is not UTF-8 text")]
        raise ConfigError(problems, source="settings", fix="See .env.example for every variable.")

    @property
    def results_folder(self) -> Path:
        return self.home / "results"

    @property
    def data_folder(self) -> Path:
        return self.home / "data"

    @property
    def secrets_folder(self) -> Path:
        """Keys that loramill made for itself; readable by the owner only, never committed or backed up with results."""
        return self.home / ".loramill"

    @property
    def effective_api_url(self) -> str:
        """``LORAMILL_API_URL``, or this machine's."""
        return (self.api_url or f"http://127.0.0.1:{self.api_port}").rstrip("/")

    @property
    def effective_inference_url(self) -> str:
        """``LORAMILL_INFERENCE_URL``, or this machine's."""
        return (self.inference_url or f"http://127.0.0.1:{self.inference_port}").rstrip("/")

    @property
    def effective_database_url(self) -> str:
        """``DATABASE_URL``, or the SQLite file beside the experiments."""
        return self.database_url or f"sqlite:///{(self.results_folder / 'experiments.db').absolute()}"
