"""``/v2``: the Open Inference Protocol, for clients and gateways that speak it."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from loramill.inference.kserve import InferRequest, infer_reply, model_metadata, read_inputs
from loramill.inference.model_service import ModelService
from loramill.inference.request_limits import read_texts
from loramill.inference.routes.dependencies import Service, model_headers

router = APIRouter(prefix="/v2", tags=["KServe v2"])

Model = Annotated[str, Path(max_length=255, description="Any name that `model` of /predict may have.")]
Version = Annotated[str, Path(max_length=255, description="`adapter_version` of a reply of /predict.")]


@router.get("")
async def server_metadata() -> dict[str, Any]:
    return {"name": "loramill", "version": metadata.version("loramill"), "extensions": []}


@router.get("/models/{model}")
async def metadata_of_model(service: Service, model: Model) -> dict[str, Any]:
    return model_metadata(model, await service.model(model))


@router.get("/models/{model}/versions/{version}")
async def metadata_of_version(service: Service, model: Model, version: Version) -> dict[str, Any]:
    return model_metadata(model, await service.model(model, version))


@router.get("/models/{model}/ready")
async def model_ready(service: Service, model: Model) -> dict[str, Any]:
    await service.model(model)
    return {"name": model, "ready": True}


@router.get("/models/{model}/versions/{version}/ready")
async def version_ready(service: Service, model: Model, version: Version) -> dict[str, Any]:
    await service.model(model, version)
    return {"name": model, "ready": True}


@router.post("/models/{model}/infer")
async def infer(service: Service, model: Model, body: InferRequest) -> JSONResponse:
    """Classify the texts of a BYTES tensor ``text``, with the second texts of pairs in ``text_pair``."""
    return await _infer(service, model, None, body)


@router.post("/models/{model}/versions/{version}/infer")
async def infer_version(service: Service, model: Model, version: Version, body: InferRequest) -> JSONResponse:
    """The same, by this version or not at all."""
    return await _infer(service, model, version, body)


async def _infer(service: ModelService, model: str, version: str | None, body: InferRequest) -> JSONResponse:
    firsts, seconds = read_inputs(body)
    found = await service.predict(model, read_texts(firsts, seconds, service.limits), version)
    served = found[0].model
    return JSONResponse(infer_reply(body, model, served, found), headers=model_headers(served))
