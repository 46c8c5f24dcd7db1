"""Signing in, staying signed in, signing out."""

from __future__ import annotations

from fastapi import APIRouter, Request

from loramill.api.dependencies import Address
from loramill.api.schemas import LoginRequest, RefreshRequest
from loramill.api.services import Services
from loramill.auth.authentication import SignedIn

router = APIRouter(tags=["sessions"])


@router.post("/login")
def login(body: LoginRequest, services: Services, address: Address) -> SignedIn:
    """Exchange name and password for tokens."""
    return services.auth.sign_in(body.username, body.password.get_secret_value(), address=address)


@router.post("/token/refresh")
def refresh(body: RefreshRequest, request: Request, services: Services, address: Address) -> SignedIn:
    """Exchange a refresh token, once; using it again ends the sign-in."""
    services.auth.limits.check_request(address)
    return services.auth.refresh(body.refresh_token, address=address, received_at=request.state.received_at)


@router.post("/logout", status_code=204)
def logout(body: RefreshRequest, services: Services, address: Address) -> None:
    """End the sign-in of a refresh token."""
    services.auth.limits.check_request(address)
    services.auth.sign_out(body.refresh_token, address=address)
