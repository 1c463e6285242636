"""Checks of the features alone: non-finite, constant and unscaled ones."""

import numpy as np

from fnn.data.audit._splits import Split
from fnn.data.audit.findings import EXAMPLES, Finding, Limits

_MOST_ROWS = 20_000  # estimate a mean and a standard deviation to one percent
_MOST_IMAGES = 2000
_MOST_ENTRIES = 4_000_000  # of images


def non_finite(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """NaN and infinity among features and values. In a Table, NaN means missing."""
    found = []
    for split in splits:
        if split.rows.dtype.kind == "f":
            bad = np.isinf(split.rows) if split.table else ~np.isfinite(split.rows)
            columns = split.features(np.flatnonzero(bad.any(axis=0)))
            found += _non_finite(f"{split.name}: {columns}", bad)
        if split.y is not None and split.y.dtype.kind == "f":
            found += _non_finite(f"{split.name}: labels", ~np.isfinite(split.y))
    return found


def _non_finite(where: str, bad: np.ndarray) -> list[Finding]:
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows) == 0:
        return []
    return [
        Finding(
            kind="not finite",
            where=where,
            numbers={"entries": int(bad.sum()), "rows": len(rows)},
            advice="one NaN makes every parameter NaN in one step: find where it comes from, and "
            "fill it in or drop the rows",
            examples=tuple(rows[:EXAMPLES].tolist()),
        )
    ]


def constant_features(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Features that are constant in a split of at least two examples.

    Constant pixels at the border of images do not count, nor those connected to the border by
    pixels that mostly have the same value; a constant pixel among varying ones does.
    """
    found = []
    for split in splits:
        first = split.rows[:1]
        constant = ((split.rows == first) | ((split.rows != split.rows) & (first != first))).all(0)
        if split.is_image:
            constant = _isolated(split, constant, limits.varies, rng)
        if len(split.rows) > 1 and constant.any() and not split.is_text:
            columns = np.flatnonzero(constant)
            finding = Finding(
                kind="constant feature",
                where=f"{split.name}: {split.features(columns)}",
                numbers={"constant": len(columns), "of": split.rows.shape[1]},
                advice="they tell nothing and divide by 0 when standardized: drop them, or "
                "find out why they do not vary",
            )
            found.append(finding)
    return found


def _isolated(
    split: Split, constant: np.ndarray, varies: float, rng: np.random.Generator
) -> np.ndarray:
    """Constant pixels without a path of quiet ones to the border, per channel."""
    if constant.all() or not constant.any():
        return constant
    rows = split.rows[rng.permutation(len(split.rows))[:_MOST_IMAGES]]
    median = np.median(rows, axis=0)
    quiet = ((rows != median).mean(axis=0) < varies).reshape(split.shape)
    value = median.reshape(split.shape)
    axes = range(min(2, len(split.shape)))
    reached = np.zeros_like(quiet)
    for axis in axes:
        np.moveaxis(reached, axis, 0)[[0, -1]] = True
    reached &= quiet
    before = -1
    while reached.sum() > before:  # flood fill from the border
        before, grown = reached.sum(), reached.copy()
        for axis in axes:
            for step in (1, -1):
                # Rolling around the edge is harmless: both ends are at the border.
                same = np.roll(value, step, axis) == value
                grown |= quiet & np.roll(reached, step, axis) & same
        reached = grown
    return constant & ~reached.ravel()


def unscaled_features(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Floating-point features whose scales are far apart, far from 1, or far below their means.

    Integers are skipped: bytes are divided, and tokens embedded, before a model sees them. The
    pixels of images count as one feature, or one per channel.
    """
    split = splits[0]  # the others are compared with the first by their drift
    if split.rows.dtype.kind != "f" or len(split.rows) < limits.fewest:
        return []
    rows = np.sort(rng.permutation(len(split.rows))[:_MOST_ROWS])
    names, x = _pooled(split, rows)
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
            where=f"{split.name}: {', '.join(names[i] for i in worst)}",
            numbers={"largest std": float(std.max()), "smallest": float(std.min()),
                     "mean/std": offset, "size": size},
            advice="gradients follow the large features and lose the small ones: fit_standardizer "
            "on the training part, and apply it to all",
        )
    ]  # fmt: skip


def _pooled(split: Split, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    if not split.is_image:
        columns = [i for i in range(split.rows.shape[1]) if i not in split.categorical]
        return [split.feature(i) for i in columns], split.floats(rows, columns)
    few = rows[: max(1, _MOST_ENTRIES // split.rows.shape[1])]
    if len(split.shape) == 2:
        return ["all pixels"], split.floats(few).reshape(-1, 1)
    channels = split.shape[-1]
    return [f"channel {i}" for i in range(channels)], split.floats(few).reshape(-1, channels)
