"""The REST API: ``create_app(settings)`` makes one; nothing lives at module level, and torch is never imported."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI

from loramill.api.limits import RequestLimits
from loramill.api.problems import install_problems
from loramill.api.routes import (
    audit,
    configs,
    curves,
    datasets,
    experiments,
    health,
    models,
    quotas,
    sessions,
    suspects,
    sweeps,
    tasks,
    users,
)
from loramill.api.schemas import ProblemReply
from loramill.api.services import AppServices
from loramill.auth.authentication import Authentication
from loramill.auth.first_admin import ensure_first_admin
from loramill.database import Database
from loramill.jobs.data_work import DataWork
from loramill.jobs.datasets import Datasets
from loramill.settings import Settings
from loramill.tasks.broker import open_broker
from loramill.tasks.celery_app import Publisher, create_celery

DESCRIPTION = """Train LoRA adapters, watch them, and keep every experiment.

`POST /login` gives a token; send it as `Authorization: Bearer <token>`. `POST /train` gives a task; `GET
/task/{task_id}/events` follows it. Every error is a problem of RFC 9457 with a stable `code`."""

ROUTES = (
    sessions,
    tasks,
    sweeps,
    configs,
    experiments,
    curves,
    suspects,
    datasets,
    models,
    users,
    quotas,
    audit,
    health,
)
PROBLEMS = (401, 403, 404, 409, 413, 422, 429, 500, 503)


def create_app(settings: Settings) -> FastAPI:
    """The app of one ``LORAMILL_HOME``. It opens the database and the queue when it starts.

    Raises:
        ConfigError: (at start) a secret or a limit of the environment cannot be used.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.effective_database_url)
        with contextlib.closing(database), open_broker(settings) as broker:
            database.upgrade()
            auth = Authentication.from_settings(settings, database, limits_url=broker.limits_url)
            ensure_first_admin(settings, auth)
            publisher = Publisher(create_celery(broker))
            data = Datasets(settings, database, auth.audit, DataWork(settings))
            app.state.services = AppServices(settings, database, auth, broker, publisher, data)
            yield

    app = FastAPI(
        title="loramill",
        version=metadata.version("loramill"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses={status: {"model": ProblemReply} for status in PROBLEMS},
    )
    for routes in ROUTES:
        app.include_router(routes.router)
    install_problems(app)
    app.add_middleware(RequestLimits, upload_bytes=settings.upload_limit_mb * 2**20)
    return app
