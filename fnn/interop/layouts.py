"""How torch lays out the arrays of its layers, and how fnn does."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.interop.rules import Arrays, Differ, Layout, Shapes


def one(to_fnn: Callable[[Any, tuple[int, ...]], Any], to_torch: Callable[[Any], Any]) -> Layout:
    """A layout of one array and one leaf: `to_fnn(array, shape)` and `to_torch(leaf)`.

    >>> one(lambda array, shape: -array, lambda leaf: -leaf).to_torch((1,))
    (-1,)
    """
    return Layout(
        lambda arrays, shapes: (to_fnn(arrays[0], shapes[0]),),
        lambda leaves: (to_torch(leaves[0]),),
    )


# The same array.
same = one(lambda array, shape: array, lambda leaf: leaf)
# Linear layers: (out, in) is (in, out).
transposed = one(lambda array, shape: array.T, lambda leaf: leaf.T)
# Convolutions: (out, in, *window) is (*window, in, out).
window_first = one(
    lambda array, shape: np.moveaxis(array, (0, 1), (-1, -2)),
    lambda leaf: np.moveaxis(leaf, (-1, -2), (0, 1)),
)
# Bilinear layers: (out, left, right) is (left, right, out).
first_axis_last = one(
    lambda array, shape: np.moveaxis(array, 0, -1), lambda leaf: np.moveaxis(leaf, -1, 0)
)
# A bias that is cut into heads: (H D) is (H, D).
flat = one(lambda array, shape: array.reshape(shape), lambda leaf: leaf.reshape(-1))
# Queries, keys and values: (H D, in) is (in, H, D).
into_heads = one(
    lambda array, shape: array.T.reshape(shape), lambda leaf: leaf.reshape(len(leaf), -1).T
)
# The output of attention: (out, H D) is (H, D, out).
from_heads = one(
    lambda array, shape: array.T.reshape(shape),
    lambda leaf: leaf.reshape(-1, leaf.shape[-1]).T,
)
# The same two of GPT-2, whose linear layers are (in, out) as ours.
unturned_into_heads = one(
    lambda array, shape: array.reshape(shape), lambda leaf: leaf.reshape(len(leaf), -1)
)
unturned_from_heads = one(
    lambda array, shape: array.reshape(shape), lambda leaf: leaf.reshape(-1, leaf.shape[-1])
)


def concatenated(part: Layout, axis: int) -> Layout:
    """Parts of one length that lie next to each other in one array of torch, each laid out alike.

    >>> layout = concatenated(same, 0)
    >>> [leaf.tolist() for leaf in layout.to_fnn((np.arange(4),), ((2,), (2,)))]
    [[0, 1], [2, 3]]
    >>> layout.to_torch((np.zeros(1), np.ones(1)))[0].tolist()
    [0.0, 1.0]
    """

    def to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
        pieces = np.split(arrays[0], len(shapes), axis=axis)
        made = zip(pieces, shapes, strict=True)
        return tuple(part.to_fnn((piece,), (shape,))[0] for piece, shape in made)

    def to_torch(leaves: Arrays) -> Arrays:
        return (np.concatenate([part.to_torch((leaf,))[0] for leaf in leaves], axis=axis),)

    return Layout(to_fnn, to_torch)


def constant(value: Any) -> Layout:
    """An array of torch that fnn has no leaf for: written as `value`, and never read.

    >>> constant(np.int64(0)).to_torch(())
    (np.int64(0),)
    """
    return Layout(lambda arrays, shapes: (), lambda leaves: (value,))


def tied(part: Layout, copies: int = 2) -> Layout:
    """One leaf that torch has under several names; those that are there must be equal.

    >>> tied(same).to_torch((np.ones(1),))
    (array([1.]), array([1.]))
    """

    def to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
        first, *others = [array for array in arrays if array is not None]
        if not all(np.array_equal(first, other) for other in others):
            raise Differ
        return part.to_fnn((first,), shapes)

    return Layout(to_fnn, lambda leaves: part.to_torch(leaves) * copies)


def _sum(arrays: Arrays, shapes: Shapes) -> Arrays:
    return (arrays[0] + arrays[1],)


# The two biases of a recurrent layer of torch, of which the second is redundant.
summed = Layout(_sum, lambda leaves: (leaves[0], np.zeros_like(leaves[0])))


def _gru_to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
    ours, theirs = arrays
    hidden = shapes[1][0]
    bias = np.concatenate([(ours + theirs)[: 2 * hidden], ours[2 * hidden :]])
    return bias, theirs[2 * hidden :]


def _gru_to_torch(leaves: Arrays) -> Arrays:
    bias, inside = leaves
    return bias, np.concatenate([np.zeros(2 * len(inside), inside.dtype), inside])


# Those of a GRU: redundant for r and z, and a bias of its own for n, inside the reset.
summed_but_last = Layout(_gru_to_fnn, _gru_to_torch)


def with_ones(axes: int) -> Layout:
    """An array that has `axes` more axes in torch, of 1 and in front.

    >>> with_ones(1).to_torch((np.zeros((2, 3)),))[0].shape
    (1, 2, 3)
    """
    return one(
        lambda array, shape: array.reshape(shape),
        lambda leaf: leaf.reshape(*[1] * axes, *leaf.shape),
    )


def stamps_first(groups: int) -> Layout:
    """Transposed convolutions: (in, out / groups, *window) is (*window, in / groups, out).

    >>> layout = stamps_first(1)
    >>> layout.to_fnn((np.zeros((2, 5, 3)),), ((3, 2, 5),))[0].shape
    (3, 2, 5)
    """

    def to_fnn(array: Any, shape: tuple[int, ...]) -> Any:
        split = array.reshape(groups, -1, *array.shape[1:])  # (groups, in, out, *window)
        return np.moveaxis(split, (0, 1, 2), (-2, -3, -1)).reshape(shape)

    def to_torch(leaf: Any) -> Any:
        split = leaf.reshape(*leaf.shape[:-1], groups, -1)
        turned = np.moveaxis(split, (-2, -3, -1), (0, 1, 2))
        return turned.reshape(-1, *turned.shape[2:])

    return one(to_fnn, to_torch)
