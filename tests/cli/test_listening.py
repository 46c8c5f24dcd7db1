from __future__ import annotations

import pytest

from loramill.cli.listening import bind, listen, require_free
from loramill.errors import ConfigError


def test_an_address_that_is_taken_is_named() -> None:
    with bind("127.0.0.1", 0) as taken:
        listen(taken)
        with pytest.raises(ConfigError, match=r"--port: 127.0.0.1:\d+ cannot be listened on"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot be listened on"):
        bind("203.0.113.1", 0)


def test_every_port_that_is_taken_is_named_by_its_variable() -> None:
    with bind("127.0.0.1", 0) as taken, bind("127.0.0.1", 0) as free:
        listen(taken)
        here, there = taken.getsockname()[1], free.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            require_free("127.0.0.1", {"API_PORT": here, "UI_PORT": there, "INFERENCE_PORT": there})
        assert [problem.key for problem in caught.value.problems] == ["API_PORT", "INFERENCE_PORT"]
        require_free("127.0.0.1", {"UI_PORT": there})
