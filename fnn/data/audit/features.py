"""Features by themselves: not finite, constant, on scales of their own."""

from collections.abc import Iterable

import numpy as np

from fnn.data.audit.findings import EXAMPLES, Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part

_MOST_ROWS = 20_000  # for a mean and a standard deviation to one percent
_MOST_IMAGES = 2000


def non_finite(parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator) -> list[Finding]:
    """NaN and infinity among features and values. NaN in a Table stands for what is missing.

    >>> from fnn.data.audit.parts import parts_of
    >>> parts = parts_of({'train': (np.array([[1.0], [np.nan]]), None)})
    >>> non_finite(parts, Limits(), np.random.default_rng(0))[0].examples
    (1,)
    """
    found = []
    for part in parts:
        if part.rows.dtype.kind == "f":
            bad = np.isinf(part.rows) if part.table else ~np.isfinite(part.rows)
            columns = part.features(np.flatnonzero(bad.any(axis=0)))
            found += _not_finite(f"{part.name}: {columns}", bad)
        if part.y is not None and part.y.dtype.kind == "f":
            found += _not_finite(f"{part.name}: labels", ~np.isfinite(part.y))
    return found


def _not_finite(where: str, bad: np.ndarray) -> list[Finding]:
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows) == 0:
        return []
    return [
        Finding(
            kind="not finite",
            where=where,
            numbers={"entries": int(bad.sum()), "rows": len(rows)},
            advice="one NaN makes every parameter NaN in one step: find where it comes from, and "
            "fill it in or leave the rows out",
            examples=tuple(rows[:EXAMPLES].tolist()),
        )
    ]


def constant_features(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Features that do not vary in a whole split of at least two examples.

    Pixels that are constant at the border of images are no fault, nor those joined to the border
    by others that mostly have the same value; a constant pixel amid others that vary is.

    >>> from fnn.data.audit.parts import parts_of
    >>> parts = parts_of({'train': (np.array([[1.0, 5.0], [2.0, 5.0]]), None)})
    >>> constant_features(parts, Limits(), np.random.default_rng(0))[0].where
    'train: feature 1'
    """
    found = []
    for part in parts:
        first = part.rows[:1]
        same = ((part.rows == first) | ((part.rows != part.rows) & (first != first))).all(axis=0)
        if part.images:
            same = _amid(part, same, limits.varies, rng)
        if len(part.rows) > 1 and same.any() and part.names != ("text",):
            found.append(_constant(part, np.flatnonzero(same)))
    return found


def _constant(part: Part, columns: np.ndarray) -> Finding:
    return Finding(
        kind="constant feature",
        where=f"{part.name}: {part.features(columns)}",
        numbers={"constant": len(columns), "of": part.rows.shape[1]},
        advice="they tell nothing and divide by 0 when standardized: leave them out, or find out "
        "why they do not vary",
    )


def _amid(part: Part, same: np.ndarray, varies: float, rng: np.random.Generator) -> np.ndarray:
    """Constant places without a path of quiet ones to the border, each channel by itself."""
    if same.all() or not same.any():
        return same
    rows = part.rows[rng.permutation(len(part.rows))[:_MOST_IMAGES]]
    usual = np.median(rows, axis=0)
    quiet = ((rows != usual).mean(axis=0) < varies).reshape(part.shape)
    value = usual.reshape(part.shape)
    axes = range(min(2, len(part.shape)))
    outside = np.zeros_like(quiet)
    for axis in axes:
        np.moveaxis(outside, axis, 0)[[0, -1]] = True
    outside &= quiet
    while (grown := _grown(outside, quiet, value, axes)).sum() > outside.sum():
        outside = grown
    return same & ~outside.ravel()


def _grown(
    outside: np.ndarray, quiet: np.ndarray, value: np.ndarray, axes: Iterable[int]
) -> np.ndarray:
    """With the quiet neighbors of the same value."""
    grown = outside.copy()
    for axis in axes:
        for step in (1, -1):
            # What comes round the edge was at the border, and so is where it arrives.
            grown |= quiet & np.roll(outside, step, axis) & (np.roll(value, step, axis) == value)
    return grown


def unscaled_features(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Floating-point features whose scales are far apart, far from 1, or far below their means.

    Integers are passed over: bytes are divided, tokens embedded, before a model sees them. All
    places of images count as one feature, or one for each channel.

    >>> from fnn.data.audit.parts import parts_of
    >>> x = np.random.default_rng(0).normal(size=(100, 2)) * [1.0, 1e4]
    >>> parts = parts_of({'train': (x, None)})
    >>> unscaled_features(parts, Limits(), np.random.default_rng(0))[0].kind
    'unscaled'
    """
    found = []
    for part in parts[:1]:  # the others are held against the first by their drift
        if part.rows.dtype.kind == "f" and len(part.rows) >= limits.fewest:
            found += _unscaled(part, limits, rng)
    return found


def _unscaled(part: Part, limits: Limits, rng: np.random.Generator) -> list[Finding]:
    rows = np.sort(rng.permutation(len(part.rows))[:_MOST_ROWS])
    names, x = _pooled(part, rows)
    x = x.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0)
    varied = (x != np.median(x, axis=0)).mean(axis=0) >= limits.varies
    varied &= std > 1e-12 * np.abs(mean)
    if not varied.any():
        return []
    mean, std = mean[varied], std[varied]
    size = float(np.sqrt(np.square(x[:, varied]).mean(axis=0)).max())
    spread, offset = float(std.max() / std.min()), float((np.abs(mean) / std).max())
    far = size > limits.size or size < 1 / limits.size
    if not far and spread <= limits.spread and offset <= limits.offset:
        return []
    apart = np.maximum(np.abs(np.log(std)), np.log1p(np.abs(mean) / std))
    worst = np.flatnonzero(varied)[np.argsort(-apart)][:3]
    return [
        Finding(
            kind="unscaled",
            where=f"{part.name}: {', '.join(names[i] for i in worst)}",
            numbers={"largest std": float(std.max()), "smallest": float(std.min()),
                     "mean/std": offset, "size": size},
            advice="gradients follow the large features and lose the small ones: fit_standardizer "
            "on the training part, and apply it to all",
        )
    ]  # fmt: skip


def _pooled(part: Part, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    if not part.images:
        columns = [i for i in range(part.rows.shape[1]) if i not in part.categorical]
        return [part.feature(i) for i in columns], part.numbers(rows, columns)
    few = rows[: max(1, 4_000_000 // part.rows.shape[1])]
    if len(part.shape) == 2:
        return ["all places"], part.numbers(few).reshape(-1, 1)
    channels = part.shape[-1]
    return [f"channel {i}" for i in range(channels)], part.numbers(few).reshape(-1, channels)
