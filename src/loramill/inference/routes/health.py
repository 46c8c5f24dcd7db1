"""Health for people and probes, and metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from loramill.errors import UnavailableError
from loramill.inference.routes.dependencies import Service

router = APIRouter(tags=["health"])


@router.get("/health/live")
@router.get("/v2/health/live")
async def live() -> dict[str, Any]:
    """Whether the process answers at all."""
    return {"live": True}


@router.get("/health/ready")
@router.get("/v2/health/ready")
async def ready(service: Service) -> dict[str, Any]:
    """Whether requests are taken."""
    if not service.ready:
        raise UnavailableError("The service is starting or stopping.", fix="Ask again in a moment.")
    return {"ready": True}


@router.get("/health")
async def health(service: Service) -> dict[str, Any]:
    """What a person wants to know first."""
    default = service.host.find()
    return {
        "status": "ok" if service.ready else "starting or stopping",
        "experiment_id": default.saved.experiment_id if default else None,
        "adapter_version": default.saved.version if default else None,
        "base_model": default.base.name if default else None,
        "language": default.base.language if default else None,
        "models": len(service.host.serving.models),
    }


@router.get("/metrics")
async def metrics(service: Service) -> Response:
    """Prometheus text format."""
    return Response(service.telemetry.render(), media_type=CONTENT_TYPE_LATEST)
