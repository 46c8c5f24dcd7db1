"""What every serving benchmark runs on: one trained MiniLM-L6 adapter, variants of it, and held-out movie reviews."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loramill.data.samples import load_sample
from loramill.experiments.folder import ExperimentFolder
from loramill.inference.saved_model import finished_experiments

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from loramill.cli.main import main; main()"]
DEFAULT_HOME = Path(tempfile.gettempdir()) / "loramill-serving-benchmark"
START_SECONDS = 120.0
ZIPF = 1.1


def trained_model(home: Path) -> ExperimentFolder:
    """The model of the quickstart; trained once for all benchmarks, in ``home``."""
    finished = finished_experiments(home / "results")
    trained = [folder for folder in finished if folder.id.startswith("quickstart")]
    if not trained:
        home.mkdir(parents=True, exist_ok=True)
        print(f"Training the model once in {home} ...", file=sys.stderr)
        subprocess.run([*COMMAND, "train", str(ROOT / "config/quickstart.yaml")], env=environment(home), check=True)
        return trained_model(home)
    return trained[0]


def variants(home: Path, count: int) -> list[ExperimentFolder]:
    """Experiments with weights of their own: the trained adapter, a little changed in each."""
    source = trained_model(home)
    return [_variant(source, home / "results" / f"variant_{number:04d}", number) for number in range(count)]


def zipf_weights(count: int) -> list[float]:
    """How often each of so many models is asked for, relative to the first: a few often, most of them hardly ever."""
    return [1 / rank**ZIPF for rank in range(1, count + 1)]


def held_out_texts(home: Path) -> list[str]:
    """The movie reviews that the model was not trained on, in the order of the source."""
    return load_sample("movie_reviews", home / "data")["validation"].texts


def quiet_transformers() -> None:
    """A table is read more easily without the reports of every model that is loaded."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "LORAMILL_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(command: Sequence[str], port: int, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, once it listens."""
    process = subprocess.Popen(command, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until_listening(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {process.communicate()[1].decode()[-3000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server does not listen")


def our_command(port: int, *arguments: str) -> list[str]:
    return [*COMMAND, "serve", *arguments, "--port", str(port), "--device", "cpu"]


def heading() -> str:
    """Date, machine and versions, for the top of a table."""
    names = ("torch", "transformers", "peft", "fastapi", "uvicorn", "loramill")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), {versions}"


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """The median, with the least and the greatest in brackets."""
    middle = form.format(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form.format(min(values))}-{form.format(max(values))})"


def _variant(source: ExperimentFolder, path: Path, number: int) -> ExperimentFolder:
    folder = ExperimentFolder(path)
    if not folder.metrics_file.is_file():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source.final_model, folder.final_model)
        weights = folder.final_model / "adapter_model.safetensors"
        generator = torch.Generator().manual_seed(number)
        changed = {
            name: tensor + 0.01 * tensor.std() * torch.randn(tensor.shape, generator=generator)
            for name, tensor in load_file(weights).items()
        }
        save_file(changed, weights)
        shutil.copyfile(source.metrics_file, folder.metrics_file)
    return folder
