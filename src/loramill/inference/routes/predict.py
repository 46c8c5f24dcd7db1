"""``POST /predict``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse

from loramill.inference.request_limits import read_texts
from loramill.inference.routes.dependencies import Service, model_headers
from loramill.inference.schemas import REQUEST_EXAMPLES, PredictReply, PredictRequest, prediction_body

router = APIRouter(tags=["predict"])


@router.post("/predict", response_model=PredictReply | list[PredictReply])
async def predict(
    service: Service,
    body: Annotated[PredictRequest, Body(openapi_examples=REQUEST_EXAMPLES)],
) -> JSONResponse:
    """Classify a text, or every text of a list. All answers of one reply come from one version of one model."""
    texts = read_texts(body.text, body.text_pair, service.limits)
    found = await service.predict(body.model, texts)
    replies = [prediction_body(one) for one in found]
    return JSONResponse(replies[0] if isinstance(body.text, str) else replies, headers=model_headers(found[0].model))
