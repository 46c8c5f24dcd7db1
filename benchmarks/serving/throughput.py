"""One text a request: loramill beside a plain FastAPI + Transformers + PEFT service, unmerged and merged.

    python benchmarks/serving/throughput.py                  # 3 rounds, 32 clients, 20 s each
    python benchmarks/serving/throughput.py --rounds 1 --seconds 3

First a closed loop (32 clients, each waits for its reply), then an open loop at 70% of the rate that this service
reached. Same weights, same texts; the services take turns, forwards and backwards. Trains the quickstart's model once.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from load import Outcome, bodies, closed_loop, open_loop
from workload import (
    DEFAULT_HOME,
    free_port,
    heading,
    held_out_texts,
    our_command,
    running_server,
    spread,
    trained_model,
)

from loramill.base_models import locate_base_model
from loramill.engine.model_labels import ModelLabels

OPEN_SHARE = 0.7
WARM_UP_SECONDS = 3.0
PLAIN, PLAIN_MERGED = "plain, unmerged", "plain, merged"
OURS = {"loramill, fp32": "float32", "loramill, bf16": "bfloat16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each loop")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    options = parser.parse_args()
    trained_model(options.home)
    names = [PLAIN, PLAIN_MERGED, *OURS]
    seen: dict[str, list[Measured]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            seen[name].append(measure(name, options.home, options.clients, options.seconds))
            print(f"{name}: {seen[name][-1]}", file=sys.stderr)
    print(table(seen, options.clients))


def command(name: str, home: Path, port: int) -> list[str]:
    folder = trained_model(home)
    if name in OURS:
        return our_command(port, folder.id, "--precision", OURS[name])
    base = locate_base_model(ModelLabels.read(folder.final_model).base_model).folder
    script = str(Path(__file__).with_name("plain_service.py"))
    plain = [sys.executable, script, "--base", str(base), "--adapter", str(folder.final_model), "--port", str(port)]
    return [*plain, "--merged"] if name == PLAIN_MERGED else plain


@dataclass(frozen=True)
class Measured:
    """One service in one round; ``cpu_ms`` is the server's processor time for one request of the closed loop."""

    closed: Outcome
    opened: Outcome
    cpu_ms: float

    def __str__(self) -> str:
        return (
            f"{self.closed.rate:.1f}/s p99 {self.closed.percentile_ms(99):.0f} ms, {self.cpu_ms:.2f} CPU ms; "
            f"open {self.opened.rate:.1f}/s p99 {self.opened.percentile_ms(99):.0f} ms; failures {self.failures}"
        )

    @property
    def failures(self) -> int:
        return self.closed.failures + self.opened.failures


def measure(name: str, home: Path, clients: int, seconds: float) -> Measured:
    port, body = free_port(), bodies(held_out_texts(home))

    async def loops(server: psutil.Process) -> Measured:
        await closed_loop(port, body, clients=clients, seconds=WARM_UP_SECONDS)
        before = cpu_seconds(server)
        closed = await closed_loop(port, body, clients=clients, seconds=seconds)
        cpu_ms = (cpu_seconds(server) - before) / max(1, len(closed.latencies)) * 1000
        return Measured(closed, await open_loop(port, body, rate=OPEN_SHARE * closed.rate, seconds=seconds), cpu_ms)

    with running_server(command(name, home, port), port, home) as process:
        return asyncio.run(loops(psutil.Process(process.pid)))


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def table(seen: dict[str, list[Measured]], clients: int) -> str:
    lines = [
        heading(),
        "",
        f"| | requests/s, {clients} clients | p50, ms | p99, ms | x unmerged | x merged | open loop at 70%: p50, ms "
        "| p99, ms | CPU ms a request | failures |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rates = {name: [result.closed.rate for result in results] for name, results in seen.items()}
    for name, results in seen.items():
        ratios = [
            spread([own / other for own, other in zip(rates[name], rates[base], strict=True)], "{:.2f}")
            for base in (PLAIN, PLAIN_MERGED)
        ]
        cells = [
            spread(rates[name]),
            *(spread([result.closed.percentile_ms(percent) for result in results]) for percent in (50, 99)),
            *ratios,
            *(spread([result.opened.percentile_ms(percent) for result in results]) for percent in (50, 99)),
            spread([result.cpu_ms for result in results], "{:.2f}"),
            str(sum(result.failures for result in results)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
