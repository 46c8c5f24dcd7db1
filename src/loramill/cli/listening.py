"""The addresses that services listen on, bound before anything slow happens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping

from loramill.errors import ConfigError, Problem

BACKLOG = 2048
"""Connections that may wait until a server takes them."""


def bind(host: str, port: int, *, named: str = "--port") -> socket.socket:
    """A socket on an address; ``listen`` opens it.

    Args:
        named: what chooses the port, for the error.

    Raises:
        ConfigError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _naming(listener, f"{host}:{port}", named):
        listener.bind((host, port))
    return listener


def listen(listener: socket.socket, *, named: str = "--port") -> None:
    """Let callers connect, as late as they can be answered.

    Two services that start at the same time may both bind an address; only one may listen on it. uvloop, which would
    do it otherwise, tells the other one nothing.

    Raises:
        ConfigError: somebody else does already.
    """
    host, port = listener.getsockname()[:2]
    with _naming(listener, f"{host}:{port}", named):
        listener.listen(BACKLOG)


@contextlib.contextmanager
def _naming(listener: socket.socket, address: str, named: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        listener.close()
        message = f"{address} cannot be listened on: {error.strerror or error}"
        raise ConfigError([Problem(named, address, message)], source="address") from error


def require_free(host: str, ports: Mapping[str, int]) -> None:
    """Before services start that would otherwise take somebody else's answer for their own.

    Args:
        ports: by the variable that chooses each.

    Raises:
        ConfigError: every port that is taken, by another process or by two of these variables.
    """
    problems: list[Problem] = []
    with contextlib.ExitStack() as held:
        for variable, port in ports.items():
            try:
                listen(held.enter_context(bind(host, port, named=variable)), named=variable)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems, source="ports", fix="End what listens there, or choose other ports.")
