"""Examples that are nearly alike: the same image again, brighter, noisier or saved once more."""

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np

from fnn.data.audit.design import standardized
from fnn.data.audit.duplicates import first_alike
from fnn.data.audit.findings import EXAMPLES, Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part, alike

_NEIGHBOURS = 5
_SKETCH = 64  # numbers of a projection, which keeps distances to a tenth
_LEAF = 512  # examples that are all compared
_TREES = 4  # a pair at the limit is parted by one tree in four or five
_MOST = 1000  # candidates that are looked at closely
_SIDE = 8  # pixels, of images that are compared with shifts, or may lie in a row
_ONE_UNIT = 10.0  # largest deviation of a feature over the median one; the inverse is quiet
_RANKS = 0.7  # correlation of the ranks of two rows that are one image in another light
_SAME = 0.25  # distance of images that are the same up to noise: a correlation of 0.97
_CLOSER = 0.4  # distance after the right shift over that without
View = Callable[[Part, np.ndarray, np.random.Generator], np.ndarray]


def near_duplicates(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Examples much closer to another one than to its other neighbors.

    Images and sequences are taken less their mean and over their norm, so light and contrast do
    not count, and by the size of their Fourier transform, which a shift does not change; what is
    near by that counts if a shift by one pixel makes the two nearly equal. Features are
    standardized. From 64 features on, where none varies far more than the others, they are compared
    as an image as well, and as they are where some vary far less, as pixels in a row do at the
    border: standardizing scales up their noise.

    With r_k the Euclidean distance to the k-th nearest of all the examples of all splits, exact
    copies aside, an example is a near-duplicate where

        r_1 / r_5 < min(near, (by_luck / 4 n)^(1/d))

    because in d dimensions, as many as the ratios r_2 / r_1 speak of, n points without copies have
    about by_luck such ratios. Five or more near-copies of one example hide each other. Rows that
    differ in one feature alone do not count: where the others have few values, as in the Adult
    files, such rows come by chance.

    Candidates are found by trees of random projections; the thousand closest are measured exactly,
    so no more than these are counted. Mirrored images are not found.

    Source: for d, Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal
      neighborhood information", here from the median of the ratios.

    >>> from fnn.data.audit.parts import parts_of
    >>> x = np.random.default_rng(0).normal(size=(100, 6))
    >>> parts = parts_of({'train': (x, None), 'test': (x[:3] + 1e-3, None)})
    >>> sorted(near_duplicates(parts, Limits(), np.random.default_rng(0))[0].examples)
    [(0, 0), (1, 1), (2, 2)]
    """
    comparable = tuple(part for part in parts if alike(part, parts[0]))
    rows = sum(len(part.rows) for part in comparable)
    if rows < limits.fewest or parts[0].names == ("text",):
        return []
    whole = _joined(comparable)
    single = np.flatnonzero(first_alike(whole.rows, rng) == np.arange(rows))
    found = [_pairs(whole, single, view, limits, rng) for view in _views(whole)]
    pairs = np.concatenate(found)
    first = np.unique(pairs[:, :2], axis=0, return_index=True)[1]
    return _by_split(comparable, pairs[np.sort(first)])


def _views(part: Part) -> tuple[View, ...]:
    if part.images:
        shifted = min(part.shape[:2]) >= _SIDE
        return (_as_image, _as_spectrum) if shifted else (_as_image,)
    std = part.numbers(slice(2000)).std(axis=0)
    usual = np.median(std[std > 0]) if (std > 0).any() else 0.0
    if part.table or std.max() > _ONE_UNIT * usual:
        return (standardized,)
    if part.rows.shape[1] < _SIDE**2:
        return (standardized,)
    quiet = (std[std > 0] < usual / _ONE_UNIT).any()  # as pixels at a border
    return (standardized, *[_in_one_unit] * bool(quiet), _as_image)


def _pairs(
    part: Part, single: np.ndarray, view: View, limits: Limits, rng: np.random.Generator
) -> np.ndarray:
    """Rows (i, j, distance) of the near-duplicates among the examples `single` in a view."""
    x = view(part, single, rng).astype(np.float32, copy=False)
    kept = np.flatnonzero(np.square(x).sum(axis=1) > 0)  # an empty image is like any other
    pairs = _near_pairs(x[kept], limits, rng)
    if len(pairs) == 0:
        return pairs
    pairs[:, :2] = single[kept][pairs[:, :2].astype(int)]
    one, other = (part.numbers(pairs[:, i].astype(int)) for i in (0, 1))
    if view is _as_spectrum:
        return pairs[_one_pixel_apart(one, other, part.shape)]
    if part.images or part.rows.shape[1] == 1:
        return pairs
    kept = (one != other).sum(axis=1) > 1
    return pairs[kept & _alike_in_order(one, other)] if view is _as_image else pairs[kept]


def _joined(parts: tuple[Part, ...]) -> Part:
    first = parts[0]
    rows = first.rows if len(parts) == 1 else np.concatenate([part.rows for part in parts])
    return Part(name="all", rows=rows, shape=first.shape, names=first.names,
                categorical=first.categorical, table=first.table)  # fmt: skip


def _in_one_unit(part: Part, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The features less their means."""
    x = part.numbers(rows)
    return x - x.mean(axis=0)


def _as_image(part: Part, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each example less its mean and over its norm."""
    return _even(part.numbers(rows).astype(np.float32, copy=False))


def _as_spectrum(part: Part, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The size of the Fourier transform of each image, less its mean and over its norm."""
    made = [_spectrum(_as_image(part, some, rng), part.shape) for some in _blocks(rows)]
    return _even(np.concatenate(made))


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(2048, len(rows), 2048))


def _spectrum(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    sizes = np.abs(np.fft.rfft2(x.reshape(len(x), *shape), axes=(1, 2)))
    return sizes.reshape(len(x), -1).astype(np.float32)


def _even(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


def _alike_in_order(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether most features of each pair rank alike, and not the few largest alone.

    Whole numbers in proportion, as counts are, come by chance.
    """
    one, other = (_even(x.argsort(axis=1, kind="stable").argsort(axis=1)) for x in (a, b))
    counts = ((a == a.round()) & (b == b.round())).all(axis=1)
    same = np.linalg.norm(_even(a) - _even(b), axis=1) < 1e-5
    return ((one * other).sum(axis=1) > _RANKS) & ~(counts & same)


def _one_pixel_apart(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a shift by one pixel makes each pair of images nearly equal where they overlap."""

    def apart(down: int, right: int) -> np.ndarray:
        parts = [
            x.reshape(-1, *shape)[
                :, max(0, i) : shape[0] + min(0, i), max(0, j) : shape[1] + min(0, j)
            ]
            for x, i, j in ((a, down, right), (b, -down, -right))
        ]
        one, other = (_even(part.reshape(len(part), -1)) for part in parts)
        return np.linalg.norm(one - other, axis=1)

    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    nearest = np.min([apart(*step) for step in steps], axis=0)
    return nearest < np.minimum(_SAME, _CLOSER * apart(0, 0))


def _near_pairs(x: np.ndarray, limits: Limits, rng: np.random.Generator) -> np.ndarray:
    """Rows (i, j, distance) of the near-duplicates, i < j, each pair once."""
    none = np.zeros((0, 3))
    if len(x) < limits.fewest:
        return none
    sketch = x
    if x.shape[1] > _SKETCH:
        directions = rng.normal(size=(x.shape[1], _SKETCH)).astype(np.float32)
        sketch = x @ (directions / np.sqrt(_SKETCH, dtype=np.float32))
    nearest = _nearest_by_trees(sketch, rng)
    ratio = nearest[:, 1] / np.maximum(nearest[:, 0], 1e-12)
    dimension = np.log(2) / np.log(max(float(np.median(ratio)), 1 + 1e-6))
    luck = (limits.by_luck / ((_NEIGHBOURS - 1) * len(x))) ** (1 / dimension)
    limit = min(limits.near, luck)
    # The sketch is off by a tenth or two, and the trees may have missed a neighbor.
    closeness = nearest[:, 0] / np.maximum(nearest[:, -1], 1e-12)
    candidates = np.flatnonzero(closeness < 1.5 * limit)
    candidates = candidates[np.argsort(closeness[candidates], kind="stable")][:_MOST]
    if len(candidates) == 0:
        return none
    indices, distances = _measured(x, candidates)
    near = distances[:, 0] < limit * distances[:, -1]
    pairs = np.stack([candidates[near], indices[near, 0]], axis=1)
    made = np.concatenate([np.sort(pairs, axis=1), distances[near, :1]], axis=1)
    return made[np.unique(made[:, :2], axis=0, return_index=True)[1]]


def _nearest_by_trees(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distances to the nearest neighbors, sorted, as far as one of the trees has them together."""
    best = np.full((len(x), _NEIGHBOURS), np.inf, np.float32)
    who = np.full((len(x), _NEIGHBOURS), -1)
    for _ in range(_TREES if len(x) > _LEAF else 1):
        for leaf in _leaves(x, rng):
            squares = _squares(x[leaf], x[leaf])
            np.fill_diagonal(squares, np.inf)
            near = np.argpartition(squares, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
            found = np.take_along_axis(squares, near, axis=1)
            best[leaf], who[leaf] = _merged(best[leaf], who[leaf], found, leaf[near])
    return np.sqrt(best)


def _merged(
    best: np.ndarray, who: np.ndarray, found: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of two lists of neighbors, without those that are in both."""
    known = (near[:, :, None] == who[:, None, :]).any(axis=2)
    both = np.concatenate([best, np.where(known, np.inf, found)], axis=1)
    names = np.concatenate([who, near], axis=1)
    order = np.argsort(both, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return np.take_along_axis(both, order, axis=1), np.take_along_axis(names, order, axis=1)


def _leaves(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The examples halved, and halved again, at medians along lines between two of them."""
    done, todo = [], [np.arange(len(x))]
    while todo:
        rows = todo.pop()
        if len(rows) <= _LEAF:
            done.append(rows)
            continue
        one, other = rng.choice(rows, 2, replace=False)
        order = np.argpartition(x[rows] @ (x[one] - x[other]), len(rows) // 2)
        todo += [rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]]
    return done


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    return np.maximum(lengths - 2 * (a @ b.T), 0)


def _measured(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and exact distances of the nearest neighbors of some rows among all."""
    indices = np.zeros((len(rows), _NEIGHBOURS), np.int64)
    distances = np.zeros((len(rows), _NEIGHBOURS))
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        squares = _squares(x[some], x)
        squares[np.arange(len(some)), some] = np.inf
        near = np.argpartition(squares, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
        apart = np.linalg.norm((x[near] - x[some, None]).astype(np.float64), axis=2)
        order = np.argsort(apart, axis=1, kind="stable")
        indices[start : start + 128] = np.take_along_axis(near, order, axis=1)
        distances[start : start + 128] = np.take_along_axis(apart, order, axis=1)
    return indices, distances


def _by_split(parts: tuple[Part, ...], pairs: np.ndarray) -> list[Finding]:
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])
    whose = np.searchsorted(starts, pairs[:, :2], side="right") - 1
    found = []
    for a, b in combinations_with_replacement(range(len(parts)), 2):
        mine = pairs[(whose == (a, b)).all(axis=1)]
        if len(mine):
            where = parts[a].name if a == b else f"{parts[a].name} and {parts[b].name}"
            mine = mine[np.argsort(mine[:, 2], kind="stable")]
            found.append(_finding(where, mine[:, :2] - (starts[a], starts[b]), mine[:, 2]))
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
