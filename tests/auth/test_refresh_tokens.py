from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from loramill.auth.models import TokenFamily, User
from loramill.auth.refresh_tokens import Refusal, Rotation, end_family, revoke_all, rotate, start_family
from loramill.auth.users import UserStore
from loramill.database import Database

AddUser = Callable[..., User]


def begin(database: Database, user: User) -> str:
    with database.transaction() as session:
        return start_family(session, user)


def exchange(database: Database, token: str, received_at: datetime | None = None) -> Rotation:
    with database.transaction() as session:
        return rotate(session, token, received_at=received_at or datetime.now(UTC))


def must_exchange(database: Database, token: str) -> str:
    successor = exchange(database, token).token
    assert successor is not None
    return successor


def test_a_token_is_exchanged_for_its_successor_again_and_again(database: Database, add_user: AddUser) -> None:
    user = add_user("ada")
    token = begin(database, user)
    seen = {token}
    for _ in range(5):
        rotation = exchange(database, token)
        assert rotation.user is not None
        assert rotation.user.id == user.id
        assert rotation.token is not None
        token = rotation.token
        seen.add(token)
    assert len(seen) == 6


def test_using_a_token_again_ends_the_whole_sign_in(database: Database, add_user: AddUser) -> None:
    first = begin(database, add_user("ada"))
    second = must_exchange(database, first)
    third = must_exchange(database, second)
    assert exchange(database, first).refusal == Refusal.REUSED
    assert exchange(database, third).refusal == Refusal.ENDED


def test_another_sign_in_of_the_same_user_goes_on(database: Database, add_user: AddUser) -> None:
    user = add_user("ada")
    stolen, other = begin(database, user), begin(database, user)
    must_exchange(database, stolen)
    exchange(database, stolen)
    must_exchange(database, other)


def test_a_hundred_at_once_get_one_successor_and_it_stays_good(database: Database, add_user: AddUser) -> None:
    token = begin(database, add_user("ada"))
    outcomes: list[Rotation] = []
    gate = threading.Barrier(100)
    received_at = datetime.now(UTC)  # all requests are here before any is answered

    def refresh() -> None:
        gate.wait()
        outcomes.append(exchange(database, token, received_at))

    threads = [threading.Thread(target=refresh) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcome.refusal for outcome in outcomes) == {None: 1, Refusal.RACED: 99}
    (winner,) = [outcome.token for outcome in outcomes if outcome.token]
    must_exchange(database, winner)


def test_a_request_that_came_after_the_answer_is_reuse_also_within_a_moment(
    database: Database, add_user: AddUser
) -> None:
    token = begin(database, add_user("ada"))
    received_at = datetime.now(UTC)
    must_exchange(database, token)
    assert exchange(database, token, received_at).refusal == Refusal.RACED
    assert exchange(database, token).refusal == Refusal.REUSED


def test_only_hashes_are_stored(database: Database, add_user: AddUser) -> None:
    token = must_exchange(database, begin(database, add_user("ada")))
    with database.reading() as session:
        family = session.scalars(select(TokenFamily)).one()
    secret = token.split("_", 2)[2]
    assert all(secret not in str(value) for value in vars(family).values())
    assert len(family.token_hash) == 64


def test_an_expired_family_is_over_and_forgotten_at_the_next_sign_in(database: Database, add_user: AddUser) -> None:
    user = add_user("ada")
    token = begin(database, user)
    with database.transaction() as session:
        session.execute(update(TokenFamily).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert exchange(database, token).refusal == Refusal.ENDED
    begin(database, user)
    with database.reading() as session:
        assert len(session.scalars(select(TokenFamily)).all()) == 1


def test_rotation_does_not_extend_the_sign_in(database: Database, add_user: AddUser) -> None:
    token = begin(database, add_user("ada"))
    ends = []
    for _ in range(2):
        with database.reading() as session:
            ends.append(session.scalars(select(TokenFamily.expires_at)).one())
        token = must_exchange(database, token)
    assert ends[0] == ends[1]


def test_signing_out_works_with_any_token_of_the_sign_in(database: Database, add_user: AddUser) -> None:
    user = add_user("ada")
    old = begin(database, user)
    new = must_exchange(database, old)
    with database.transaction() as session:
        ended = end_family(session, old)
    assert ended is not None
    assert ended.id == user.id
    assert exchange(database, new).refusal == Refusal.ENDED


def test_a_disabled_user_gets_no_successor(database: Database, add_user: AddUser) -> None:
    user = add_user("ada")
    token = begin(database, user)
    with database.transaction() as session:
        UserStore(session).lock(user.id).disabled = True
    assert exchange(database, token).refusal == Refusal.ENDED


def test_revoking_everything_ends_all_sign_ins_and_access_tokens_of_one_user(
    database: Database, add_user: AddUser
) -> None:
    ada, bob = add_user("ada"), add_user("bob")
    tokens = [begin(database, ada), begin(database, ada)]
    kept = begin(database, bob)
    with database.transaction() as session:
        revoke_all(session, UserStore(session).get("ada"))
    assert [exchange(database, token).refusal for token in tokens] == [Refusal.ENDED] * 2
    must_exchange(database, kept)
    with database.reading() as session:
        versions = {user.username: user.token_version for user in UserStore(session).everybody()}
    assert versions == {"ada": 2, "bob": 1}


@pytest.mark.parametrize(
    "token",
    ["", "lmr", "lmr_", "lmr__", "lmr_zz_secret", f"lmr_{'0' * 32}_secret", f"xyz_{'0' * 32}_s", "\ud800", "lmr_\x00_"],
)
def test_what_is_no_token_is_unknown(token: str, database: Database) -> None:
    assert exchange(database, token).refusal == Refusal.UNKNOWN
    with database.transaction() as session:
        assert end_family(session, token) is None


def test_the_right_family_with_a_made_up_secret_counts_as_theft(database: Database, add_user: AddUser) -> None:
    token = begin(database, add_user("ada"))
    guessed = token.rpartition("_")[0] + "_" + "A" * 43
    assert exchange(database, guessed).token is None
    assert exchange(database, token).refusal == Refusal.ENDED
