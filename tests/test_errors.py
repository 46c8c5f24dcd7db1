from __future__ import annotations

import inspect
import json
import pickle
import re

import pytest

import loramill.errors
from loramill.errors import ConfigError, LoramillError, Problem, QuotaExceededError, RateLimitedError

ERRORS = [
    error
    for _, error in inspect.getmembers(loramill.errors, inspect.isclass)
    if issubclass(error, LoramillError) and error.__module__ == "loramill.errors"
]


def test_every_error_has_its_own_stable_code() -> None:
    codes = [error.code for error in ERRORS]
    assert len(set(codes)) == len(codes) > 20
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    assert all("code" in vars(error) for error in ERRORS)


def test_the_module_shows_its_whole_tree() -> None:
    tree = inspect.getdoc(loramill.errors) or ""
    drawn = re.findall(r"(?:[├└]── |^    )(\w+Error)\b", tree, re.MULTILINE)
    assert sorted(drawn) == sorted(error.__name__ for error in ERRORS)


def test_the_tree_is_drawn_as_it_is() -> None:
    ancestors: list[str] = []
    for line in (inspect.getdoc(loramill.errors) or "").splitlines():
        match = re.match(r"    ((?:│   |    )*)(?:[├└]── )?(\w+Error)\b", line)
        if not match:
            continue
        depth = (len(match.group(1)) // 4) + ("── " in line)
        ancestors[depth:] = [match.group(2)]
        error = getattr(loramill.errors, match.group(2))
        assert error.__base__.__name__ == (ancestors[-2] if depth else "Exception")


def test_an_error_says_what_failed_and_what_to_do() -> None:
    error = LoramillError("The disk is gone.", fix="Plug it in.")
    assert (error.message, error.fix, str(error)) == (
        "The disk is gone.",
        "Plug it in.",
        "The disk is gone. Plug it in.",
    )
    assert str(LoramillError("The disk is gone.")) == "The disk is gone."


def test_a_config_error_counts_its_problems() -> None:
    one = ConfigError([Problem("lora.r", 0, "must be at least 1, not 0")], source="my.yaml")
    assert str(one) == "my.yaml: 1 problem\n  - lora.r: must be at least 1, not 0"
    two = ConfigError([Problem("a", 1, "unknown key", "b"), Problem("c", 2, "unknown key")], fix="Mend them.")
    assert str(two).splitlines() == [
        "config: 2 problems",
        "  - a: unknown key (did you mean b?)",
        "  - c: unknown key",
        "Mend them.",
    ]


def test_problems_are_data() -> None:
    problem = Problem("lora.r", 0, "must be at least 1, not 0", None)
    assert json.loads(json.dumps(problem.as_dict())) == {
        "key": "lora.r",
        "value": 0,
        "message": "must be at least 1, not 0",
        "suggestion": None,
    }


def test_limits_say_how_long_and_how_much() -> None:
    assert RateLimitedError("Too many.", retry_after=7).fix == "Try again in 7 s."
    quota = QuotaExceededError([Problem("jobs", 3, "at most 3 jobs"), Problem("bytes", 9, "at most 8 bytes")])
    assert quota.message == "jobs: at most 3 jobs; bytes: at most 8 bytes"


@pytest.mark.parametrize(
    "error",
    [
        LoramillError("failed", fix="mend"),
        ConfigError([Problem("lora.r", 0, "wrong")], source="x.yaml", fix="mend"),
        RateLimitedError("Too many.", retry_after=7),
        QuotaExceededError([Problem("jobs", 3, "at most 3 jobs")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_from_a_child_process(error: LoramillError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
