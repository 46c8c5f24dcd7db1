"""The registry: every experiment that succeeded is a model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from loramill.api.dependencies import Address, OwnExperiment, User
from loramill.api.schemas import ExperimentListQuery, StageRequest
from loramill.api.services import Services
from loramill.auth.permissions import check_admin
from loramill.experiments.record_file import changing
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.search import ExperimentPage
from loramill.experiments.store import ExperimentStore
from loramill.experiments.summaries import ExperimentSummary

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def list_models(query: Annotated[ExperimentListQuery, Query()], user: User, services: Services) -> ExperimentPage:
    """One page of models; users ask with `owner=me`, administrators see all."""
    if query.owner not in ("me", user.id):
        check_admin(user)
    with services.database.reading() as session:
        return ModelRegistry(session).search(
            query.filter_for(user.id), order=query.order, limit=query.limit, cursor=query.cursor
        )


@router.get("/{experiment_id}/history")
def history(row: OwnExperiment, services: Services) -> list[dict[str, str | None]]:
    """Every move of a model: who, when, why."""
    with services.database.reading() as session:
        return [move.as_dict() for move in ModelRegistry(session).history(row.id)]


@router.post("/{experiment_id}/stage")
def set_stage(
    body: StageRequest, row: OwnExperiment, user: User, services: Services, address: Address
) -> ExperimentSummary:
    """Move a model to a stage."""
    with changing(services.database, services.settings.results_folder, row.id) as (store, registry):
        registry.set_stage(row.id, body.stage, by=user.id, reason=body.reason)
        services.auth.audit.record(store.session, user.actor(address), "model.stage", f"{row.id} {body.stage}")
    with services.database.reading() as session:
        return ExperimentStore(session).get_summary(row.id)
