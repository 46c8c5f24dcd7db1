"""What the routes work with; made once for an app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from loramill.auth.authentication import Authentication
from loramill.database import Database
from loramill.jobs.datasets import Datasets
from loramill.settings import Settings
from loramill.tasks.broker import Broker
from loramill.tasks.celery_app import Publisher


@dataclass(frozen=True)
class AppServices:
    settings: Settings
    database: Database
    auth: Authentication
    broker: Broker
    publisher: Publisher
    datasets: Datasets


def services_of(request: Request) -> AppServices:
    """The services of the app that answers a request."""
    services: AppServices = request.app.state.services
    return services


Services = Annotated[AppServices, Depends(services_of)]
