"""Examples that are there twice, within a split or in two of them."""

from itertools import combinations

import numpy as np

from fnn.data.audit.findings import EXAMPLES, Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part, alike


def exact_duplicates(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Examples with the very same features, whatever their labels.

    >>> from fnn.data.audit.parts import parts_of
    >>> parts = parts_of({'train': (np.array([[1.0], [2.0], [1.0]]), None)})
    >>> exact_duplicates(parts, Limits(), np.random.default_rng(0))[0].examples
    ((0, 2),)
    """
    found = [_within(part, rng) for part in parts]
    found += [_between(a, b, rng) for a, b in combinations(parts, 2) if alike(a, b)]
    return [one for one in found if one is not None]


def first_alike(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row the first that equals it: its own index, if none comes before.

    >>> first_alike(np.array([[1, 2], [3, 4], [1, 2]]), np.random.default_rng(0)).tolist()
    [0, 1, 0]
    """
    hashes = _hash(rows, rng)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first = first[inverse]
    again = np.flatnonzero(first != np.arange(len(rows)))
    same = np.array([np.array_equal(rows[i], rows[first[i]], equal_nan=True) for i in again], bool)
    first[again[~same]] = again[~same]  # another row of the same hash
    return first


def _hash(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random linear function of the 8-byte words of each row, modulo 2^64."""
    size = -(-rows.shape[1] * rows.dtype.itemsize // 8)
    weights = rng.integers(2**63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    made = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), 4096):
        words = _words(rows[start : start + 4096], size)
        # The high half into the low one: an odd multiple keeps the zeros at the end of a word.
        words = words ^ (words >> np.uint64(32))
        made[start : start + 4096] = (words * weights).sum(axis=1, dtype=np.uint64)
    return made


def _words(rows: np.ndarray, size: int) -> np.ndarray:
    if rows.dtype.kind == "f":
        rows = np.where(np.isnan(rows), rows.dtype.type(np.nan), rows) + rows.dtype.type(0)  # no -0
    raw = np.ascontiguousarray(rows).view(np.uint8)
    return np.pad(raw, ((0, 0), (0, size * 8 - raw.shape[1]))).view(np.uint64)


def _within(part: Part, rng: np.random.Generator) -> Finding | None:
    first = first_alike(part.rows, rng)
    again = np.flatnonzero(first != np.arange(len(first)))
    if len(again) == 0:
        return None
    pairs = np.stack([first[again], again], axis=1)
    return Finding(
        kind="duplicates",
        where=part.name,
        numbers={"copies": len(again), "of": len(first), **_disagreement(part, part, pairs)},
        advice="the same examples more than once: keep one of each, and ask why the labels differ "
        "where they do",
        examples=tuple((int(i), int(j)) for i, j in pairs[:EXAMPLES]),
    )


def _between(a: Part, b: Part, rng: np.random.Generator) -> Finding | None:
    wide = np.result_type(a.rows.dtype, b.rows.dtype)
    first = first_alike(np.concatenate([a.rows.astype(wide), b.rows.astype(wide)]), rng)
    origin = first[len(a.rows) :]
    leaked = np.flatnonzero(origin < len(a.rows))
    if len(leaked) == 0:
        return None
    pairs = np.stack([origin[leaked], leaked], axis=1)
    return Finding(
        kind="duplicates",
        where=f"{a.name} and {b.name}",
        numbers={"copies": len(leaked), "of": len(b.rows), **_disagreement(a, b, pairs)},
        advice=f"examples of {a.name} are in {b.name} too, so its score is too good: take them out "
        "of one, and split by groups",
        examples=tuple((int(i), int(j)) for i, j in pairs[:EXAMPLES]),
    )


def _disagreement(a: Part, b: Part, pairs: np.ndarray) -> dict[str, int]:
    if a.y is None or b.y is None:
        return {}
    differ = a.y[pairs[:, 0]] != b.y[pairs[:, 1]]
    return {"other label": int(differ.reshape(len(pairs), -1).any(axis=1).sum())}
