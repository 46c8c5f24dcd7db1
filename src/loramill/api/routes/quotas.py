"""What one user may use; for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from loramill.api.dependencies import NAME, Address, Admin
from loramill.api.schemas import Body
from loramill.api.services import Services
from loramill.auth.users import UserInfo, UserStore

router = APIRouter(prefix="/users", tags=["users"])

Limit = Annotated[int | None, Field(ge=0, le=2**53)]


class ChangeQuota(Body):
    """Only limits that are given change; ``null`` goes back to the default."""

    max_concurrent_jobs: Limit = None
    max_daily_submits: Limit = None
    max_stored_experiments: Limit = None
    max_stored_bytes: Limit = None


@router.patch("/{user_id}/quota")
def change_quota(
    user_id: Annotated[str, Path(pattern=NAME)], body: ChangeQuota, admin: Admin, services: Services, address: Address
) -> UserInfo:
    """Change how much one user may use."""
    limits = body.model_dump(exclude_unset=True)
    target = " ".join([user_id, *(f"{name}={value}" for name, value in limits.items())])
    with services.auth.audit.transaction(admin.actor(address), "user.quota", target) as session:
        return UserInfo.of(UserStore(session).set_quota(user_id, limits))
