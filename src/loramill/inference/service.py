"""The inference service: a FastAPI app of its own, without module-level state.

``loramill serve`` runs it; ``create_app`` is for tests and for other ASGI servers.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib import metadata

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from loramill.errors import LoramillError, Problem, RequestInvalidError
from loramill.inference.access import Access
from loramill.inference.edge import Edge
from loramill.inference.kserve import BINARY_HEADER, binary_refused, error_member
from loramill.inference.model_service import ModelService
from loramill.inference.routes import health, kserve, models, predict
from loramill.inference.schemas import ProblemReply
from loramill.problem_json import problem, problem_response

JSON = "application/json"
DESCRIPTION = """Classify texts with LoRA adapters on shared base models.

`POST /predict` is all that most callers need. `/models` loads, unloads and switches adapters while requests go on.
`/v2` speaks the Open Inference Protocol of KServe."""


def create_app(service: ModelService, access: Access | None = None) -> FastAPI:
    """The app around a service; it starts the service, and drains it at the end.

    Args:
        access: who may come in; everybody by default.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="loramill inference",
        version=metadata.version("loramill"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses={"4XX": {"model": ProblemReply}, "5XX": {"model": ProblemReply}},
        strict_content_type=False,  # tritonclient does not say so; pages of other sites are refused anyway
    )
    app.state.service = service
    for routes in (predict, models, kserve, health):
        app.include_router(routes.router)
    app.add_exception_handler(LoramillError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid_body)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(
        Edge, access=access or Access(), telemetry=service.telemetry, body_bytes=service.limits.body_bytes
    )
    return app


async def _expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, LoramillError):
        raise error
    return problem_response(error, error_member(request.url.path, str(error)))


async def _invalid_body(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    if BINARY_HEADER in request.headers:
        return await _expected(request, binary_refused())
    declared = request.headers.get("content-type", JSON)
    if "json" not in declared.lower():
        problems = [Problem("body", declared[:100], "is not declared as JSON")]
        return await _expected(request, RequestInvalidError(problems, fix=f"Send the header Content-Type: {JSON}."))
    messages: dict[str, list[str]] = {}
    for detail in error.errors():
        messages.setdefault(_field(detail["loc"]), []).append(detail["msg"])
    problems = [Problem(key, None, " or ".join(dict.fromkeys(said))) for key, said in messages.items()]
    return await _expected(request, RequestInvalidError(problems, fix="See /docs for examples."))


def _field(location: Sequence[int | str]) -> str:
    """The field of a body that pydantic means, without the names that it adds for the types that a field may have.

    Of a body that is no JSON, the second part is the character where reading stopped.
    """
    if len(location) > 1 and isinstance(location[1], int):
        return "body"
    parts = [str(part) for part in location[1:] if part != "str" and "[" not in str(part)]
    return ".".join(parts) or "body"


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = {400: "request_invalid", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    body = {"code": code, "detail": error.detail, **error_member(request.url.path, error.detail)}
    return problem(error.status_code, body, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    failed = f"The service failed: {type(error).__name__}."
    body = {"code": "internal_error", "detail": failed, "fix": "See its log."}
    return problem(500, {**body, **error_member(request.url.path, failed)})
