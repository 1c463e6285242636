"""Exact duplicates of examples, within a split or between two."""

from itertools import combinations

import numpy as np

from fnn.data.audit._splits import Split, comparable
from fnn.data.audit.findings import EXAMPLES, Finding, Limits


def exact_duplicates(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Examples with equal features, whatever their labels."""
    found = [_within(split, rng) for split in splits]
    found += [_between(a, b, rng) for a, b in combinations(splits, 2) if comparable(a, b)]
    return [finding for findings in found for finding in findings]


def first_equal(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row the index of the first row that equals it, its own if there is none before."""
    hashes = _hash(rows, rng)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first = first[inverse]
    again = np.flatnonzero(first != np.arange(len(rows)))
    equal = np.array([np.array_equal(rows[i], rows[first[i]], equal_nan=True) for i in again], bool)
    first[again[~equal]] = again[~equal]  # another row of the same hash
    return first


def _hash(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random linear function of the 8-byte words of each row, modulo 2^64."""
    size = -(-rows.shape[1] * rows.dtype.itemsize // 8)
    weights = rng.integers(2**63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), 4096):
        words = _words(rows[start : start + 4096], size)
        # Mixes in the high half: an odd multiple keeps the trailing zeros of a word.
        words = words ^ (words >> np.uint64(32))
        hashes[start : start + 4096] = (words * weights).sum(axis=1, dtype=np.uint64)
    return hashes


def _words(rows: np.ndarray, size: int) -> np.ndarray:
    if rows.dtype.kind == "f":  # one NaN, and no -0
        rows = np.where(np.isnan(rows), rows.dtype.type(np.nan), rows) + rows.dtype.type(0)
    raw = np.ascontiguousarray(rows).view(np.uint8)
    return np.pad(raw, ((0, 0), (0, size * 8 - raw.shape[1]))).view(np.uint64)


def _within(split: Split, rng: np.random.Generator) -> list[Finding]:
    first = first_equal(split.rows, rng)
    copies = np.flatnonzero(first != np.arange(len(first)))
    advice = (
        "the same examples more than once: keep one of each, and ask why the labels differ where "
        "they do"
    )
    return _findings(split, split, split.name, np.stack([first[copies], copies], axis=1), advice)


def _between(a: Split, b: Split, rng: np.random.Generator) -> list[Finding]:
    wide = np.result_type(a.rows.dtype, b.rows.dtype)
    first = first_equal(np.concatenate([a.rows.astype(wide), b.rows.astype(wide)]), rng)
    first = first[len(a.rows) :]
    copies = np.flatnonzero(first < len(a.rows))
    advice = (
        f"examples of {a.name} are in {b.name} too, so its score is too good: take them out of "
        "one, and split by groups"
    )
    where, pairs = f"{a.name} and {b.name}", np.stack([first[copies], copies], axis=1)
    return _findings(a, b, where, pairs, advice)


def _findings(a: Split, b: Split, where: str, pairs: np.ndarray, advice: str) -> list[Finding]:
    if len(pairs) == 0:
        return []
    numbers = {"copies": len(pairs), "of": len(b.rows)}
    if a.y is not None and b.y is not None:
        differ = a.y[pairs[:, 0]] != b.y[pairs[:, 1]]
        numbers["other label"] = int(differ.reshape(len(pairs), -1).any(axis=1).sum())
    examples = tuple((int(i), int(j)) for i, j in pairs[:EXAMPLES])
    return [
        Finding(kind="duplicates", where=where, numbers=numbers, advice=advice, examples=examples)
    ]
