"""Text that was decoded wrongly, and what does not belong in one."""

import re
from collections.abc import Callable

import numpy as np

from fnn.data.audit.findings import EXAMPLES, Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part

_RUN = re.compile("[\u0080-\uffff]{2,}")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_SINGLE = re.compile("\r(?!\n)")


def text_encodings(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Replacement and control characters, stray halves and marks, mojibake, and mixed newlines.

    >>> from fnn.data.audit.parts import parts_of
    >>> parts = parts_of({'train': ['plain', 'Gr\u00c3\u00b6\u00c3\u0178e']})
    >>> text_encodings(parts, Limits(), np.random.default_rng(0))[0].kind
    'mojibake'
    """
    found = []
    for part in parts:
        for kind, (test, advice) in _TESTS.items():
            hits = [(i, n) for i, text in enumerate(part.texts) if (n := test(text))]
            found += _finding(part, kind, advice, hits)
        found += _newlines(part)
    return found


def _finding(part: Part, kind: str, advice: str, hits: list[tuple[int, int]]) -> list[Finding]:
    if not hits:
        return []
    return [
        Finding(
            kind=kind,
            where=part.name,
            numbers={"places": sum(n for _, n in hits), "texts": len(hits)},
            advice=advice,
            # The texts of a table are the values of its columns, not its rows.
            examples=() if part.table else tuple(i for i, _ in hits[:EXAMPLES]),
        )
    ]


def _newlines(part: Part) -> list[Finding]:
    unlike = [text.count("\r\n") + len(_SINGLE.findall(text)) for text in part.texts]
    plain = sum(text.count("\n") - text.count("\r\n") for text in part.texts)
    if not sum(unlike) or not plain:
        return []
    return [
        Finding(
            kind="mixed newlines",
            where=part.name,
            numbers={"with return": sum(unlike), "without": plain},
            advice="lines end in two ways: make them alike, text.replace('\\r\\n', '\\n')",
            examples=() if part.table else tuple(np.flatnonzero(unlike)[:EXAMPLES].tolist()),
        )
    ]


def _mojibake(text: str) -> int:
    """Runs of characters that are the bytes of UTF-8, read as Windows-1252 or Latin-1."""
    return 0 if text.isascii() else sum(map(_is_mojibake, _RUN.findall(text)))


def _is_mojibake(run: str) -> bool:
    codes = [_byte(character) for character in run]
    # A run may hold characters of a right decoding beside; any sequence of UTF-8 in it will do.
    return any(
        first is not None and second is not None
        and (first in range(0xC2, 0xE0) or _long(codes[i:])) and second in range(0x80, 0xC0)
        for i, (first, second) in enumerate(zip(codes, codes[1:], strict=False))
    )  # fmt: skip


def _long(codes: list[int | None]) -> bool:
    """Whether a sequence of three or four bytes begins here."""
    lead = codes[0]
    need = 3 if lead in range(0xE0, 0xF0) else 4 if lead in range(0xF0, 0xF5) else 99
    rest = codes[1:need]
    return len(rest) == need - 1 and all(code in range(0x80, 0xC0) for code in rest)


def _byte(character: str) -> int | None:
    try:
        return character.encode("cp1252")[0]
    except UnicodeEncodeError:  # Windows-1252 leaves five bytes out
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
        "NULs and other controls are no text: UTF-16 read as something else, or a binary file",
    ),
    "stray marks": (
        lambda text: text.count("\ufeff") + sum("\ud800" <= c <= "\udfff" for c in text),
        "a byte order mark or half a character: read with encoding='utf-8-sig', errors='strict'",
    ),
}
