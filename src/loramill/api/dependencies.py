"""Who is asking, and for what: checked before a route begins."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from loramill.api.problems import client_address
from loramill.api.services import AppServices, Services
from loramill.auth.permissions import CurrentUser, check_admin, check_task_owner
from loramill.errors import AuthenticationError, NotFoundError
from loramill.experiments.folder import ExperimentFolder, results_holding
from loramill.experiments.models import Experiment
from loramill.experiments.store import ExperimentStore
from loramill.jobs.submit import find_task

NAME = r"^[^\x00-\x1f/\\]{1,255}$"

Address = Annotated[str, Depends(client_address)]
Token = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def signed_in(request: Request, services: Services, address: Address, token: Token) -> CurrentUser:
    """The user behind the bearer token; counts the request."""
    limits = services.auth.limits
    try:
        user = services.auth.current_user(token.credentials if token else None)
    except AuthenticationError:
        limits.check_request(address)
        raise
    request.state.actor = user.actor(address)
    limits.check_request(user.id)
    return user


User = Annotated[CurrentUser, Depends(signed_in)]


def administrator(user: User) -> CurrentUser:
    check_admin(user)
    return user


Admin = Annotated[CurrentUser, Depends(administrator)]


def may_read_metrics(services: Services, address: Address, token: Token) -> None:
    """Anybody; when there is a key for them, who sends it, and administrators. Counts the request."""
    services.auth.limits.check_request(address)
    key, sent = services.settings.metrics_key, token.credentials if token else None
    if key is None or hmac.compare_digest(key.get_secret_value().encode(), (sent or "").encode()):
        return
    check_admin(services.auth.current_user(sent))


def own_experiment(
    services: Services, user: User, experiment_id: Annotated[str, Path(pattern=NAME, examples=["quickstart_1"])]
) -> Experiment:
    """The row of an experiment that the user may see."""
    with services.database.reading() as session:
        experiment = ExperimentStore(session).get(experiment_id)
    check_task_owner(user, experiment.owner)
    return experiment


OwnExperiment = Annotated[Experiment, Depends(own_experiment)]


def own_task(services: Services, user: User, task_id: Annotated[str, Path(pattern=NAME)]) -> Experiment:
    """The row behind a task that the user may see."""
    with services.database.reading() as session:
        experiment = find_task(session, task_id)
    if experiment is None:
        raise NotFoundError("There is no such task.", fix="List yours: GET /tasks")
    check_task_owner(user, experiment.owner)
    return experiment


OwnTask = Annotated[Experiment, Depends(own_task)]


def folder_of(services: AppServices, experiment: Experiment) -> ExperimentFolder:
    """The files of an experiment. Raises ``NotFoundError`` when there are none any more."""
    results = services.settings.results_folder
    if not (results / experiment.folder).is_dir():  # a run of the shell may lie elsewhere, as its config says
        with services.database.reading() as session:
            results = results_holding(results, experiment.id, ExperimentStore(session).get(experiment.id).config)
    return ExperimentFolder.open(results, experiment.folder)
