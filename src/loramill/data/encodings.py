"""Which encoding a file of text is in: UTF-8 unless something speaks against it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import numpy as np

from loramill.errors import UnreadableDataError

SAMPLE = 1 << 18
BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEGACY_ENCODINGS = (
    *("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "utf_16_le", "utf_16_be"),
    *("cp1252", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256"),
)
"""What a file may be when it is not UTF-8. One encoding for each script: cp1250 and its kin differ from cp1252 by a
few letters, and short texts cannot tell them apart."""
SHORTEST_FOREIGN_RUN = 1.6
"""Mean length of runs of high bytes from which a text is not in a Latin script."""


class Utf8Counter:
    """Counts bytes that are not UTF-8, and keeps lines that have non-ASCII bytes for a closer look."""

    def __init__(self) -> None:
        self.invalid = 0
        self.valid = 0
        self.sample = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def add(self, block: bytes) -> None:
        if block.isascii() and not self._decoder.getstate()[0]:
            return
        text = self._decoder.decode(block)
        characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        escaped = (characters >= 0xDC80) & (characters <= 0xDCFF)
        self.invalid += int(escaped.sum())
        self.valid += int((characters > 0x7F).sum() - escaped.sum())
        if len(self.sample) < SAMPLE:
            self.sample += b"\n".join(line for line in block.split(b"\n") if not line.isascii())[:SAMPLE]

    @property
    def is_probable(self) -> bool:
        """UTF-8 with damage is likelier than another encoding: in those hardly any byte pair is valid UTF-8."""
        return self.invalid <= self.valid


def encoding_of_head(path: Path, head: bytes) -> str | None:
    """The encoding that a byte order mark or zero bytes give away; refuses what is no text."""
    for mark, encoding in BOMS:
        if head.startswith(mark):
            return encoding
    data = np.frombuffer(head.ljust(2)[: max(1, len(head) // 2) * 2], dtype=np.uint8)
    zeros = data == 0
    if zeros[1::2].mean() > 0.3 > zeros[::2].mean():
        return "utf-16-le"
    if zeros[::2].mean() > 0.3 > zeros[1::2].mean():
        return "utf-16-be"
    controls = (data < 32) & ~np.isin(data, (9, 10, 13, 27, 12, 11))
    if controls.mean() > 0.1:
        raise UnreadableDataError(
            f"{path.name} is binary, not text.", fix="Give a csv, tsv, jsonl or parquet file under its right name."
        )
    return None


def legacy_encoding(sample: bytes) -> str:
    """Alone among ASCII letters, a high byte is an accented letter; other scripts have runs of them."""
    from charset_normalizer import from_bytes

    runs = re.findall(rb"[\x80-\xff]+", sample)
    if sum(map(len, runs)) < SHORTEST_FOREIGN_RUN * len(runs):
        return "cp1252"
    best = from_bytes(sample, cp_isolation=list(LEGACY_ENCODINGS)).best()
    return best.encoding if best else "cp1252"
