"""The addresses that services listen on, bound before anything slow happens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from loramill.errors import ConfigError, Problem


def listen(host: str, port: int, *, named: str = "--port") -> socket.socket:
    """A socket on an address.

    Args:
        named: what chooses the port, for the error.

    Raises:
        ConfigError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = f"cannot be listened on: {error.strerror or error}"
        raise ConfigError([Problem(named, f"{host}:{port}", f"{host}:{port} {message}")], source="address") from error
    return listener


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
                held.enter_context(listen(host, port, named=variable)).listen()
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems, source="ports", fix="End what listens there, or choose other ports.")
