from __future__ import annotations

from pathlib import Path

import pytest

from loramill.cli.api import api, prepare_environment
from loramill.cli.listening import bind, listen
from loramill.cli.up import up
from loramill.errors import ConfigError
from loramill.settings import Settings


def test_a_port_that_is_taken_is_named_before_anything_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens there may answer like a service of ours: then nothing would be wrong, and nothing would work."""
    with bind("127.0.0.1", 0) as taken:
        listen(taken)
        monkeypatch.setenv("API_PORT", str(taken.getsockname()[1]))
        with pytest.raises(ConfigError, match=r"API_PORT: .* cannot be listened on"):
            api("127.0.0.1", None)
        with pytest.raises(ConfigError, match=r"API_PORT: .* cannot be listened on"):
            up()
    assert not [*home.iterdir()]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"LORAMILL_ADMIN_USER": "root", "LORAMILL_ADMIN_PASSWORD": "s3cret"}, "at least 12 characters"),
        ({"LORAMILL_ADMIN_USER": "root"}, "LORAMILL_ADMIN_PASSWORD"),
        ({"LORAMILL_ENV": "production"}, "JWT_SECRET"),
        ({"REDIS_URL": "s3cret"}, "REDIS_URL"),
    ],
)
def test_what_is_wrong_with_the_environment_is_a_sentence(
    variables: dict[str, str], named: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named) as caught:
        prepare_environment(Settings.load())
    assert "s3cret" not in str(caught.value)
