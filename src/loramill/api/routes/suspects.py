"""The evaluated rows that a model contradicts most: often it is the label that is wrong."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from loramill.api.dependencies import OwnExperiment, folder_of
from loramill.api.services import Services
from loramill.experiments.predictions import read_predictions

router = APIRouter(prefix="/experiments", tags=["experiments"])


class SuspectReply(BaseModel):
    row: int = Field(description="In the evaluated version of the data.")
    label: str
    prediction: str
    loss: float
    text: str | None = Field(description="Its beginning, where the run saved it.")


@router.get("/{experiment_id}/suspects")
def suspects(
    row: OwnExperiment, services: Services, count: Annotated[int, Query(ge=1, le=200)] = 20
) -> list[SuspectReply]:
    """The rows of one label each that were predicted wrongly, the surest contradictions first."""
    folder = folder_of(services, row)
    found = read_predictions(folder)
    if found is None or not found.is_classification or found.label.ndim != 1:
        return []
    names = [str(name) for name in folder.read_data().get("label_names", [])]
    worst = [place for place in np.argsort(-found.loss, kind="stable") if not found.right[place]][:count]
    return [
        SuspectReply(
            row=int(found.row[place]),
            label=_name_of(int(found.label[place]), names),
            prediction=_name_of(int(found.prediction[place]), names),
            loss=float(found.loss[place]),
            text=found.text[place] if found.text is not None else None,
        )
        for place in worst
    ]


def _name_of(label: int, names: list[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)
