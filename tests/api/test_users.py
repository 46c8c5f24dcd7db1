from __future__ import annotations

from fastapi.testclient import TestClient

from api_people import SignIn
from loramill.api.services import AppServices
from loramill.auth.audit_log import AuditEntry

OLD, NEW, NEWEST = "correct horse battery", "a horse of another colour", "yet another long one"


def sign_in_as(client: TestClient, username: str, password: str) -> int:
    return client.post("/login", json={"username": username, "password": password}).status_code


def newest_entry(services: AppServices) -> AuditEntry:
    return services.auth.audit.query(limit=1)[0]


def test_the_audit_log_says_what_of_a_user_was_changed(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    """As the commands do: who was made an administrator is the first thing that anybody looks for."""
    root, _ = sign_in("root"), sign_in("pia")
    for body, action in (
        ({"role": "admin"}, "user.set_role.admin"),
        ({"disabled": True}, "user.disable"),
        ({"disabled": False, "role": "user"}, "user.set_role.user, user.enable"),
        ({"password": NEW}, "user.set_password"),
        ({}, "user.change"),
    ):
        assert client.patch("/users/pia", json=body, headers=root).status_code == 200
        assert (newest_entry(services).action, newest_entry(services).target) == (action, "pia")
    assert client.patch("/users/pia/quota", json={"max_daily_submits": 5}, headers=root).status_code == 200
    assert newest_entry(services).target == "pia max_daily_submits=5"


def test_a_password_is_changed_by_who_knows_it_and_by_administrators(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    pam, root = sign_in("pam"), sign_in("root")
    path = "/users/me/password"
    wrong = client.post(path, json={"password": "stolen token only", "new_password": NEW}, headers=pam)
    assert (wrong.status_code, wrong.json()["code"]) == (403, "permission_denied")
    short = client.post(path, json={"password": OLD, "new_password": "short"}, headers=pam)
    assert (short.status_code, short.json()["errors"][0]["key"]) == (422, "password")
    assert client.post(path, json={"password": OLD, "new_password": NEW}, headers=pam).status_code == 204
    assert (newest_entry(services).action, newest_entry(services).result) == ("user.set_password", "ok")
    assert client.get("/users/me", headers=pam).status_code == 401, "every sign-in with the old one has ended"
    assert [sign_in_as(client, "pam", password) for password in (OLD, NEW)] == [401, 200]
    assert client.patch("/users/pam", json={"password": NEWEST}, headers=root).status_code == 200
    assert [sign_in_as(client, "pam", password) for password in (NEW, NEWEST)] == [401, 200]


def test_guessing_the_present_password_is_counted_as_signing_in_is(client: TestClient, sign_in: SignIn) -> None:
    body = {"password": "a guess", "new_password": NEW}
    statuses = [client.post("/users/me/password", json=body, headers=sign_in("pim")).status_code for _ in range(11)]
    assert statuses == [403] * 10 + [429]
