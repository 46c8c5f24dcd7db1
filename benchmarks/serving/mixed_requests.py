"""Requests for 64 adapters beside requests for one: what mixing costs a service, in requests/s and p99.

    python benchmarks/serving/mixed_requests.py              # 64 adapters by Zipf's law, 32 clients, 3 rounds of 10 s
    python benchmarks/serving/mixed_requests.py --rounds 1 --seconds 3

The same service gets both kinds of load in turns, forwards and backwards, in float32 and in bfloat16. A model that is
asked for alone is merged into the weights, so the bar is that of one merged model with the same batching.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from load import Body, Outcome, bodies, closed_loop
from workload import (
    DEFAULT_HOME,
    free_port,
    heading,
    held_out_texts,
    our_command,
    running_server,
    spread,
    variants,
    zipf_weights,
)

WARM_UP_SECONDS = 3.0
PRECISIONS = ("float32", "bfloat16")
ONE = "one merged model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each loop")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    options = parser.parse_args()
    names, texts = [folder.id for folder in variants(options.home, options.adapters)], held_out_texts(options.home)
    mixed = bodies(texts, names, zipf_weights(len(names)))
    loads = {f"{len(names)} adapters": mixed, ONE: bodies(texts, names[:1])}
    seen: dict[tuple[str, str], list[Outcome]] = {case: [] for case in product(PRECISIONS, loads)}
    with ExitStack() as servers:
        ports = {precision: free_port() for precision in PRECISIONS}
        for precision, port in ports.items():
            command = our_command(port, names[0], "--precision", precision)
            servers.enter_context(running_server(command, port, options.home))
        for turn in range(options.rounds):
            for precision, load in seen if turn % 2 == 0 else reversed(seen):
                outcome = measure(ports[precision], loads[load], options.clients, options.seconds)
                seen[precision, load].append(outcome)
                print(f"{precision}, {load}: {outcome.rate:.1f}/s", file=sys.stderr)
    print(table(seen, options.clients))


def measure(port: int, body: Body, clients: int, seconds: float) -> Outcome:
    async def loops() -> Outcome:
        await closed_loop(port, body, clients=clients, seconds=WARM_UP_SECONDS)
        return await closed_loop(port, body, clients=clients, seconds=seconds)

    return asyncio.run(loops())


def table(seen: dict[tuple[str, str], list[Outcome]], clients: int) -> str:
    lines = [
        heading(),
        "",
        f"| | requests/s, {clients} clients | of one merged model | p50, ms | p99, ms | failures |",
        "|---|---|---|---|---|---|",
    ]
    for (precision, load), outcomes in seen.items():
        alone = seen[precision, ONE]
        cells = [
            spread([outcome.rate for outcome in outcomes]),
            spread([own.rate / other.rate for own, other in zip(outcomes, alone, strict=True)], "{:.2f}"),
            *(spread([outcome.percentile_ms(percent) for outcome in outcomes]) for percent in (50, 99)),
            str(sum(outcome.failures for outcome in outcomes)),
        ]
        lines.append(f"| {load}, {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
