"""What routes need of the app that they are part of."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request

from loramill.inference.model_service import ModelService
from loramill.inference.served_model import ServedModel


async def get_service(request: Request) -> ModelService:
    """Async: FastAPI sends what is not through a thread pool, at every request."""
    service: ModelService = request.app.state.service
    return service


Service = Annotated[ModelService, Depends(get_service)]


def model_headers(model: ServedModel) -> dict[str, str]:
    """Which experiment answered, and which version of it: from here a reply is traced back to its data.

    A header is ASCII; other letters of a name are written as in a URL.
    """
    return {
        "X-Loramill-Experiment": quote(model.saved.experiment_id, safe=" "),
        "X-Loramill-Adapter-Version": model.saved.version,
    }
