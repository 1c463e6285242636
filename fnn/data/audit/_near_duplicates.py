"""Near-duplicates of examples: the same image brighter, noisier, or compressed again."""

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np

from fnn.data.audit._duplicates import first_equal
from fnn.data.audit._splits import Split, comparable, standardized
from fnn.data.audit.findings import EXAMPLES, Finding, Limits

_NEIGHBORS = 5
_SKETCH = 64  # dimensions of a random projection, which keeps distances to a tenth
_LEAF = 512  # examples that are compared exhaustively
_TREES = 4  # one tree in four or five separates a pair at the limit
_MOST = 1000  # candidates that are measured exactly
_SIDE = 8  # pixels, of images that are compared with shifts, or that rows may hold
_ONE_UNIT = 10.0  # largest std of a feature over the median one, for features of one unit
_RANKS = 0.7  # rank correlation of two rows that are one image under other lighting
_SAME = 0.25  # distance of images that are equal up to noise: a correlation of 0.97
_CLOSER = 0.4  # distance after the right shift over that without
View = Callable[[Split, np.ndarray, np.random.Generator], np.ndarray]


def near_duplicates(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Examples that are much closer to one other example than to their other neighbors.

    Images and sequences are centered and divided by their norm, which removes brightness and
    contrast, and compared directly as well as by the magnitude of their Fourier transform, which
    is invariant to shifts; pairs that are near by the latter count if a shift by one pixel makes
    them nearly equal. Features are standardized. 64 features or more, of which none varies far more
    than the others, are also compared as an image, and without scaling where some vary far less, as
    pixels at the border do: standardizing amplifies their noise.

    With r_k the Euclidean distance to the k-th nearest example of all splits, apart from exact
    copies, an example is a near-duplicate where

        r_1 / r_5 < min(near, (by_luck / 4 n)^(1/d))

    because n points in d dimensions, estimated from the ratios r_2 / r_1, have an expected by_luck
    such ratios. Five or more near-copies of one example hide each other. Rows that differ in one
    feature alone do not count: with few values per feature such rows occur by chance.

    Candidates are found by random projection trees; the thousand closest are measured exactly, and
    no others are counted. Mirrored images are not found.

    Source: for d, Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal
      neighborhood information". Deviates: from the median of the ratios.
    """
    alike = tuple(split for split in splits if comparable(split, splits[0]))
    rows = sum(len(split.rows) for split in alike)
    if rows < limits.fewest or splits[0].is_text:
        return []
    whole = _joined(alike)
    unique = np.flatnonzero(first_equal(whole.rows, rng) == np.arange(rows))
    found = [_pairs(whole, unique, view, limits, rng) for view in _views(whole)]
    pairs = np.concatenate(found)
    first = np.unique(pairs[:, :2], axis=0, return_index=True)[1]
    return _by_split(alike, pairs[np.sort(first)])


def _joined(splits: tuple[Split, ...]) -> Split:
    first = splits[0]
    rows = first.rows if len(splits) == 1 else np.concatenate([split.rows for split in splits])
    return Split(name="all", rows=rows, shape=first.shape, names=first.names,
                 categorical=first.categorical, table=first.table)  # fmt: skip


def _views(split: Split) -> tuple[View, ...]:
    if split.is_image:
        shifted = min(split.shape[:2]) >= _SIDE
        return (_as_image, _as_spectrum) if shifted else (_as_image,)
    std = split.floats(slice(2000)).std(axis=0)
    usual = np.median(std[std > 0]) if (std > 0).any() else 0.0
    if split.table or std.max() > _ONE_UNIT * usual or split.rows.shape[1] < _SIDE**2:
        return (standardized,)
    quiet = (std[std > 0] < usual / _ONE_UNIT).any()  # as pixels at a border
    return (standardized, *[_centered] * bool(quiet), _as_image)


def _pairs(
    split: Split, unique: np.ndarray, view: View, limits: Limits, rng: np.random.Generator
) -> np.ndarray:
    """Rows (i, j, distance) of the near-duplicates among the examples `unique` in a view."""
    x = view(split, unique, rng).astype(np.float32, copy=False)
    kept = np.flatnonzero(np.square(x).sum(axis=1) > 0)  # an empty image is like any other
    pairs = _near_pairs(x[kept], limits, rng)
    if len(pairs) == 0:
        return pairs
    pairs[:, :2] = unique[kept][pairs[:, :2].astype(int)]
    one, other = (split.floats(pairs[:, i].astype(int)) for i in (0, 1))
    if view is _as_spectrum:
        return pairs[_one_pixel_apart(one, other, split.shape)]
    if split.is_image or split.rows.shape[1] == 1:
        return pairs
    kept = (one != other).sum(axis=1) > 1
    return pairs[kept & _alike_in_rank(one, other)] if view is _as_image else pairs[kept]


def _centered(split: Split, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The features less their means."""
    x = split.floats(rows)
    return x - x.mean(axis=0)


def _as_image(split: Split, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each example centered and divided by its norm."""
    return _normalized(split.floats(rows).astype(np.float32, copy=False))


def _as_spectrum(split: Split, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of the Fourier transform of each image, normalized."""
    blocks = np.split(rows, range(2048, len(rows), 2048))
    spectra = [_spectrum(_as_image(split, block, rng), split.shape) for block in blocks]
    return _normalized(np.concatenate(spectra))


def _spectrum(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    magnitudes = np.abs(np.fft.rfft2(x.reshape(len(x), *shape), axes=(1, 2)))
    return magnitudes.reshape(len(x), -1).astype(np.float32)


def _normalized(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


def _alike_in_rank(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether most features of each pair rank alike, not only the few largest.

    Proportional integer rows, such as counts, occur by chance and do not count.
    """
    one, other = (_normalized(x.argsort(axis=1, kind="stable").argsort(axis=1)) for x in (a, b))
    counts = ((a == a.round()) & (b == b.round())).all(axis=1)
    same = np.linalg.norm(_normalized(a) - _normalized(b), axis=1) < 1e-5
    return ((one * other).sum(axis=1) > _RANKS) & ~(counts & same)


def _one_pixel_apart(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a shift by one pixel makes each pair of images nearly equal where they overlap."""

    def distance(down: int, right: int) -> np.ndarray:
        crops = [
            x.reshape(-1, *shape)[
                :, max(0, i) : shape[0] + min(0, i), max(0, j) : shape[1] + min(0, j)
            ]
            for x, i, j in ((a, down, right), (b, -down, -right))
        ]
        one, other = (_normalized(crop.reshape(len(crop), -1)) for crop in crops)
        return np.linalg.norm(one - other, axis=1)

    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    nearest = np.min([distance(*step) for step in steps], axis=0)
    return nearest < np.minimum(_SAME, _CLOSER * distance(0, 0))


def _near_pairs(x: np.ndarray, limits: Limits, rng: np.random.Generator) -> np.ndarray:
    """Rows (i, j, distance) of the near-duplicates, i < j, each pair once."""
    empty = np.zeros((0, 3))
    if len(x) < limits.fewest:
        return empty
    sketch = x
    if x.shape[1] > _SKETCH:
        directions = rng.normal(size=(x.shape[1], _SKETCH)).astype(np.float32)
        sketch = x @ (directions / np.sqrt(_SKETCH, dtype=np.float32))
    nearest = approximate_distances(sketch, rng)
    ratio = nearest[:, 1] / np.maximum(nearest[:, 0], 1e-12)
    dimension = np.log(2) / np.log(max(float(np.median(ratio)), 1 + 1e-6))
    by_chance = (limits.by_luck / ((_NEIGHBORS - 1) * len(x))) ** (1 / dimension)
    limit = min(limits.near, by_chance)
    # The sketch is off by a tenth or two, and the trees may have missed a neighbor.
    closeness = nearest[:, 0] / np.maximum(nearest[:, -1], 1e-12)
    candidates = np.flatnonzero(closeness < 1.5 * limit)
    candidates = candidates[np.argsort(closeness[candidates], kind="stable")][:_MOST]
    if len(candidates) == 0:
        return empty
    indices, distances = exact_neighbors(x, candidates)
    near = distances[:, 0] < limit * distances[:, -1]
    pairs = np.sort(np.stack([candidates[near], indices[near, 0]], axis=1), axis=1)
    first = np.unique(pairs, axis=0, return_index=True)[1]
    return np.concatenate([pairs, distances[near, :1]], axis=1)[first]


def approximate_distances(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sorted distances to the nearest neighbors that share a leaf in one of the trees."""
    best = np.full((len(x), _NEIGHBORS), np.inf, np.float32)
    names = np.full((len(x), _NEIGHBORS), -1)
    for _ in range(_TREES if len(x) > _LEAF else 1):
        for leaf in _leaves(x, rng):
            squares = _squared_distances(x[leaf], x[leaf])
            np.fill_diagonal(squares, np.inf)
            near = np.argpartition(squares, _NEIGHBORS - 1, axis=1)[:, :_NEIGHBORS]
            found = np.take_along_axis(squares, near, axis=1)
            best[leaf], names[leaf] = _merged(best[leaf], names[leaf], found, leaf[near])
    return np.sqrt(best)


def _merged(
    best: np.ndarray, names: np.ndarray, found: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of two lists of neighbors, without repetitions."""
    known = (near[:, :, None] == names[:, None, :]).any(axis=2)
    both = np.concatenate([best, np.where(known, np.inf, found)], axis=1)
    names = np.concatenate([names, near], axis=1)
    order = np.argsort(both, axis=1, kind="stable")[:, :_NEIGHBORS]
    return np.take_along_axis(both, order, axis=1), np.take_along_axis(names, order, axis=1)


def _leaves(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The examples halved recursively, at medians along lines between two of them."""
    leaves, nodes = [], [np.arange(len(x))]
    while nodes:
        rows = nodes.pop()
        if len(rows) <= _LEAF:
            leaves.append(rows)
            continue
        one, other = rng.choice(rows, 2, replace=False)
        order = np.argpartition(x[rows] @ (x[one] - x[other]), len(rows) // 2)
        nodes += [rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]]
    return leaves


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    return np.maximum(norms - 2 * (a @ b.T), 0)


def exact_neighbors(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and exact distances of the nearest neighbors of some rows among all."""
    indices = np.zeros((len(rows), _NEIGHBORS), np.int64)
    distances = np.zeros((len(rows), _NEIGHBORS))
    for start in range(0, len(rows), 128):
        block = rows[start : start + 128]
        squares = _squared_distances(x[block], x)
        squares[np.arange(len(block)), block] = np.inf
        near = np.argpartition(squares, _NEIGHBORS - 1, axis=1)[:, :_NEIGHBORS]
        exact = np.linalg.norm((x[near] - x[block, None]).astype(np.float64), axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[start : start + 128] = np.take_along_axis(near, order, axis=1)
        distances[start : start + 128] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


def _by_split(splits: tuple[Split, ...], pairs: np.ndarray) -> list[Finding]:
    starts = np.cumsum([0, *(len(split.rows) for split in splits)])
    split_of = np.searchsorted(starts, pairs[:, :2], side="right") - 1
    found = []
    for a, b in combinations_with_replacement(range(len(splits)), 2):
        own = pairs[(split_of == (a, b)).all(axis=1)]
        if len(own):
            where = splits[a].name if a == b else f"{splits[a].name} and {splits[b].name}"
            own = own[np.argsort(own[:, 2], kind="stable")]
            found.append(_finding(where, own[:, :2] - (starts[a], starts[b]), own[:, 2]))
    return found


def _finding(where: str, pairs: np.ndarray, distances: np.ndarray) -> Finding:
    return Finding(
        kind="near-duplicates",
        where=where,
        numbers={
            "pairs": len(pairs),
            "nearest": float(distances[0]),
            "median": float(np.median(distances)),
        },
        advice="nearly the same examples: look at them, keep one of each, and let no pair be in "
        "two splits",
        examples=tuple((int(i), int(j)) for i, j in pairs[:EXAMPLES]),
    )
