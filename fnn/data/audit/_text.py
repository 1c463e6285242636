"""Wrongly decoded text: mojibake, replacement and control characters, mixed newlines."""

import re
from collections.abc import Callable

import numpy as np

from fnn.data.audit._splits import Split
from fnn.data.audit.findings import EXAMPLES, Finding, Limits

_NOT_ASCII = re.compile("[\u0080-\uffff]{2,}")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_LONE_RETURN = re.compile("\r(?!\n)")


def text_encodings(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Replacement and control characters, stray surrogates and marks, mojibake, mixed newlines."""
    found = []
    for split in splits:
        for kind, (count, advice) in _TESTS.items():
            hits = [count(text) for text in split.texts]
            if sum(hits):
                numbers = {"occurrences": sum(hits), "texts": int(np.count_nonzero(hits))}
                found.append(_finding(split, kind, numbers, advice, hits))
        found += _newlines(split)
    return found


def _finding(
    split: Split, kind: str, numbers: dict[str, int], advice: str, hits: list[int]
) -> Finding:
    # The texts of a table are the values of its columns, not its rows.
    examples = () if split.table else tuple(np.flatnonzero(hits)[:EXAMPLES].tolist())
    return Finding(kind=kind, where=split.name, numbers=numbers, advice=advice, examples=examples)


def _newlines(split: Split) -> list[Finding]:
    returns = [text.count("\r\n") + len(_LONE_RETURN.findall(text)) for text in split.texts]
    plain = sum(text.count("\n") - text.count("\r\n") for text in split.texts)
    if not sum(returns) or not plain:
        return []
    advice = "lines end in two ways: make them alike, text.replace('\\r\\n', '\\n')"
    numbers = {"with return": sum(returns), "without": plain}
    return [_finding(split, "mixed newlines", numbers, advice, returns)]


def _mojibake(text: str) -> int:
    """The number of groups of characters that are UTF-8 read as Windows-1252 or Latin-1."""
    return 0 if text.isascii() else sum(map(_is_mojibake, _NOT_ASCII.findall(text)))


def _is_mojibake(group: str) -> bool:
    codes = [_byte(character) for character in group]
    # Correctly decoded characters may surround it: any sequence of UTF-8 in the group counts.
    return any(
        first is not None and second is not None
        and (first in range(0xC2, 0xE0) or _long(codes[i:])) and second in range(0x80, 0xC0)
        for i, (first, second) in enumerate(zip(codes, codes[1:], strict=False))
    )  # fmt: skip


def _long(codes: list[int | None]) -> bool:
    """Whether a UTF-8 sequence of three or four bytes starts here."""
    lead = codes[0]
    need = 3 if lead in range(0xE0, 0xF0) else 4 if lead in range(0xF0, 0xF5) else 99
    rest = codes[1:need]
    return len(rest) == need - 1 and all(code in range(0x80, 0xC0) for code in rest)


def _byte(character: str) -> int | None:
    try:
        return character.encode("cp1252")[0]
    except UnicodeEncodeError:  # Windows-1252 does not define five bytes
        return ord(character) if ord(character) < 256 else None


_TESTS: dict[str, tuple[Callable[[str], int], str]] = {
    "replacement": (
        lambda text: text.count("\ufffd"),
        "characters were lost when the bytes were decoded: read them again with their encoding",
    ),
    "mojibake": (
        _mojibake,
        "UTF-8 that was read as Latin-1: read it again with encoding='utf-8'",
    ),
    "control characters": (
        lambda text: len(_CONTROL.findall(text)),
        "NULs and other controls are not text: UTF-16 read as something else, or a binary file",
    ),
    "stray marks": (
        lambda text: text.count("\ufeff") + sum("\ud800" <= c <= "\udfff" for c in text),
        "a byte order mark or half a character: read with encoding='utf-8-sig', errors='strict'",
    ),
}
