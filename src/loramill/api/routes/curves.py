"""The curves of a run, while it goes on and afterwards, thinned to what a chart can show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from loramill.api.dependencies import OwnExperiment, folder_of
from loramill.api.services import Services
from loramill.experiments.curves import Curve, read_curves, read_resource_curves

router = APIRouter(prefix="/experiments", tags=["experiments"])


class CurvesReply(BaseModel):
    curves: dict[str, list[tuple[float, float]]] = Field(description="Metric -> (step, value) by step.")
    resources: dict[str, list[tuple[float, float]]] = Field(
        description="Percent or bytes -> (seconds since the start, value)."
    )


@router.get("/{experiment_id}/curves")
def curves(row: OwnExperiment, services: Services, points: Annotated[int, Query(ge=2, le=5000)] = 400) -> CurvesReply:
    """What was logged, evaluated and used so far; at most `points` of each curve, its ends among them."""
    events = folder_of(services, row).read_events()
    return CurvesReply(
        curves={name: thin(curve, points) for name, curve in read_curves(events).items()},
        resources={name: thin(curve, points) for name, curve in read_resource_curves(events).items()},
    )


def thin(curve: Curve, points: int) -> list[tuple[float, float]]:
    """So many points at most, evenly taken, with both ends."""
    if len(curve) <= points:
        return list(curve)
    last = len(curve) - 1
    return [curve[round(place * last / (points - 1))] for place in range(points)]
