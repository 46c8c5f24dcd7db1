"""``/models``: what is served, and changes to it while requests go on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from loramill.errors import ConflictError, NotFoundError
from loramill.inference.model_host import ModelHost
from loramill.inference.routes.dependencies import Service
from loramill.inference.saved_model import LATEST
from loramill.inference.schemas import CanaryRequest, ModelReply, ModelsReply, RouteReply
from loramill.inference.served_model import ServedModel
from loramill.inference.serving_set import DEFAULT_ROUTE, Route

router = APIRouter(prefix="/models", tags=["models"])

ModelId = Annotated[str, Path(max_length=255, description="Experiment id.")]
Alias = Annotated[str, Path(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$", description="A name of this service.")]


@router.get("")
async def list_models(service: Service) -> ModelsReply:
    """Every model, and every name of this service."""
    host = service.host
    known = dict.fromkeys([*host.serving.models, *host.failures])
    names = {name: RouteReply(**vars(route)) for name, route in sorted(host.serving.routes.items())}
    return ModelsReply(models=[describe(host, experiment_id) for experiment_id in known], names=names)


@router.get("/{model}")
async def show_model(service: Service, model: ModelId) -> ModelReply:
    """One model, by any name; it is loaded if it is not in memory."""
    found = await service.host.get(model)
    return describe(service.host, found.saved.experiment_id)


@router.post("/{model}/load")
async def load_model(service: Service, model: ModelId) -> ModelReply:
    """Load a model, by any name, or load it again after its files changed; it is verified before anything changes."""
    loaded = await service.host.load(model)
    return describe(service.host, loaded.saved.experiment_id)


@router.post("/{model}/unload", status_code=204)
async def unload_model(service: Service, model: ModelId) -> None:
    """Drop a model that no name leads to. Requests that have reached it are answered."""
    await service.host.unload(model)


@router.post("/{model}/switch")
async def switch_model(service: Service, model: ModelId) -> RouteReply:
    """Make a model the default, without a pause; this ends a canary of the default."""
    return await _lead(service.host, DEFAULT_ROUTE, model)


@router.put("/{model}/alias/{alias}")
async def set_alias(service: Service, model: ModelId, alias: Alias) -> RouteReply:
    """Let a name lead to a model from now on; this ends a canary of the name."""
    if alias == LATEST or await service.host.is_experiment(alias):
        raise ConflictError(f"{alias!r} means an experiment of its own already.", fix="Choose another name.")
    return await _lead(service.host, alias, model)


@router.delete("/{model}/alias/{alias}", status_code=204)
async def remove_alias(service: Service, model: ModelId, alias: Alias) -> None:
    """Forget a name."""
    route = service.host.serving.routes.get(alias)
    if route is None or route.model != model:
        raise NotFoundError(f"{alias!r} does not lead to {model[:100]!r}.", fix="See GET /models.")
    if alias == DEFAULT_ROUTE:
        raise ConflictError("Requests without a model need the default.", fix="Switch to another model instead.")
    await service.host.remove_route(alias)


@router.put("/{model}/canary/{alias}")
async def set_canary(service: Service, model: ModelId, alias: Alias, body: CanaryRequest) -> RouteReply:
    """Give a model a share of the requests to a name; ``default`` stands for requests without a model."""
    host = service.host
    known = host.serving.routes.get(alias)
    if known is None:
        raise NotFoundError(f"This service has no name {alias!r}.", fix="See GET /models.")
    canary = await host.meant(model)
    if canary == known.model:
        raise ConflictError(f"{alias!r} leads to {model[:100]!r} already.", fix="Choose another model as the canary.")
    route = Route(known.model, canary, body.share) if body.share else Route(known.model)
    await host.set_route(alias, route)
    return RouteReply(**vars(route))


async def _lead(host: ModelHost, name: str, model: str) -> RouteReply:
    route = Route(await host.meant(model))
    await host.set_route(name, route)
    return RouteReply(**vars(route))


def describe(host: ModelHost, experiment_id: str) -> ModelReply:
    """A model as the service knows it."""
    names = host.serving.names_of(experiment_id)
    found = next((model for model in host.resident if model.saved.experiment_id == experiment_id), None)
    if found is not None:
        return _describe_resident(found, names)
    failure = host.failures.get(experiment_id)
    return ModelReply(
        experiment_id=experiment_id,
        version=host.serving.models.get(experiment_id, ""),
        state="failed" if failure else "disk",
        names=names,
        error=str(failure) if failure else None,
    )


def _describe_resident(model: ServedModel, names: list[str]) -> ModelReply:
    labels = model.saved.labels
    return ModelReply(
        experiment_id=model.saved.experiment_id,
        version=model.saved.version,
        state="memory",
        names=names,
        base_model=model.base.name,
        problem_type=labels.problem_type,
        label_names=list(labels.label_names),
        language=model.base.language,
        bytes=model.nbytes,
    )
