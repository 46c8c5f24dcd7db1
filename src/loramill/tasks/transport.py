"""Kombu's Redis transport, for messages that are hints: one that cannot be acknowledged is done with all the same.

As it comes, a message whose server went away before it was acknowledged counts as being worked on for ever: a worker
that takes one at a time then never asks for another, nor notices that its connection is gone.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES, redis, virtual


class QoS(redis.QoS):
    """Which messages a worker has."""

    def ack(self, delivery_tag: str) -> None:
        """Forget a message here first; a server that keeps it delivers it again, which changes nothing."""
        virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
        self._remove_from_indices(delivery_tag).execute()  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    QoS = QoS


class Transport(redis.Transport):
    Channel = Channel


def use_transport() -> None:
    """Have every URL of Redis mean this transport in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
