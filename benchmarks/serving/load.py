"""A load generator that costs little beside the server on the same machine: HTTP/1.1 over kept-alive sockets."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Body = Callable[[int], bytes]
"""Number of a request -> its JSON body."""

Check = Callable[[bytes], bool]
"""Body of a good reply -> whether it is right."""


@dataclass
class Outcome:
    """What the clients saw.

    Attributes:
        latencies: seconds of every good reply; in an open loop from the moment that it was due.
        failures: replies with another status than 200, wrong ones, and lost connections.
        seconds: how long it took.
    """

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Good replies a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent)) * 1000 if self.latencies else float("nan")


class Connection:
    """One kept-alive connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, path: str = "/predict", method: str = "POST") -> tuple[int, bytes]:
        """Send a request, read the whole reply, return its status and its body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        reply = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b":", 1) for line in reply.lower().split(b"\r\n")[1:] if line)
        content = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(reply[9:12]), content

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def closed_loop(
    port: int, body: Body, *, clients: int, seconds: float, check: Check = lambda reply: True
) -> Outcome:
    """Clients that send the next request as soon as they have the reply to the last."""
    outcome = Outcome()
    numbers = iter(range(1 << 62))
    start = time.perf_counter()

    async def client() -> None:
        connection = Connection(port)
        while time.perf_counter() - start < seconds:
            sent = time.perf_counter()
            await _ask(connection, body(next(numbers)), sent, outcome, check)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - start
    return outcome


async def open_loop(port: int, body: Body, *, rate: float, seconds: float, seed: int = 0) -> Outcome:
    """Requests at random moments (Poisson), whether or not earlier ones were answered."""
    outcome, idle = Outcome(), list[Connection]()
    draw = random.Random(seed)
    pending: set[asyncio.Task[None]] = set()
    start = time.perf_counter()
    due, number = start, 0

    async def send(number: int, due: float) -> None:
        connection = idle.pop() if idle else Connection(port)
        await _ask(connection, body(number), due, outcome)
        idle.append(connection)

    while (due := due + draw.expovariate(rate)) < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(send(number, due))
        pending.add(task)
        task.add_done_callback(pending.discard)
        number += 1
    await asyncio.gather(*pending)
    outcome.seconds = time.perf_counter() - start
    for connection in idle:
        connection.close()
    return outcome


async def _ask(
    connection: Connection, body: bytes, since: float, outcome: Outcome, check: Check = lambda reply: True
) -> None:
    try:
        status, reply = await connection.post(body)
    except (OSError, EOFError):
        connection.close()
        status, reply = 0, b""
    if status == 200 and check(reply):
        outcome.latencies.append(time.perf_counter() - since)
    else:
        outcome.failures += 1


def bodies(texts: Sequence[str], models: Sequence[str | None] = (None,), weights: Sequence[float] = (1.0,)) -> Body:
    """Requests of one text each, all texts in turn; the model is drawn by weight, the same for the same number."""
    draw = random.Random(0)
    chosen = draw.choices(list(models), list(weights), k=10_007)

    def body(number: int) -> bytes:
        model = chosen[number % len(chosen)]
        request = {"text": texts[number % len(texts)]}
        return json.dumps(request | {"model": model} if model else request).encode()

    return body
