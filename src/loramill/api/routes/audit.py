"""The audit log; for administrators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from loramill.api.dependencies import Admin
from loramill.api.schemas import AuditQuery
from loramill.api.services import Services

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("/logs")
def audit_logs(query: Annotated[AuditQuery, Query()], _admin: Admin, services: Services) -> list[dict[str, Any]]:
    """The newest rows that fit, newest first."""
    return [entry.as_dict() for entry in services.auth.audit.query(**query.model_dump())]
