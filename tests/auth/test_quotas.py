from __future__ import annotations

from dataclasses import fields

import pytest

from loramill.auth.models import Role, User
from loramill.auth.quotas import DEFAULT_QUOTA, Quota, Usage, check_quota, quota_of
from loramill.errors import QuotaExceededError

QUOTA = Quota(max_concurrent_jobs=2, max_daily_submits=10, max_stored_experiments=5, max_stored_bytes=1000)


def test_every_limit_has_its_use() -> None:
    assert [f"max_{use.name}" for use in fields(Usage)] == [limit.name for limit in fields(Quota)]


def test_below_every_limit_one_more_job_is_fine() -> None:
    check_quota(QUOTA, Usage(concurrent_jobs=1, daily_submits=9, stored_experiments=4, stored_bytes=999))


@pytest.mark.parametrize("use", [use.name for use in fields(Usage)])
def test_a_limit_that_is_reached_refuses(use: str) -> None:
    limit = getattr(QUOTA, f"max_{use}")
    with pytest.raises(QuotaExceededError) as caught:
        check_quota(QUOTA, Usage(**{use: limit}))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == (f"max_{use}", limit)


def test_all_limits_that_are_reached_are_named_at_once() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        check_quota(QUOTA, Usage(5, 50, 50, 5_000))
    assert len(caught.value.problems) == 4
    assert "max_stored_bytes: at most 1,000, and 5,000 used" in caught.value.message


def test_a_quota_of_zero_allows_nothing() -> None:
    with pytest.raises(QuotaExceededError):
        check_quota(Quota(0, 10, 10, 10), Usage())


def test_limits_that_are_not_set_are_the_defaults() -> None:
    user = User(username="ada", role=Role.USER, max_daily_submits=3, max_stored_bytes=0)
    quota = quota_of(user)
    assert (quota.max_daily_submits, quota.max_stored_bytes) == (3, 0)
    assert quota.max_concurrent_jobs == DEFAULT_QUOTA.max_concurrent_jobs
