"""How torch and fnn lay out the arrays of their layers. H heads of D features."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.interop.rules import Arrays, Layout, Mismatch, Shapes


def one(to_fnn: Callable[[Any, tuple[int, ...]], Any], to_torch: Callable[[Any], Any]) -> Layout:
    """A layout of one array and one leaf: `to_fnn(array, shape)` and `to_torch(leaf)`."""
    return Layout(
        lambda arrays, shapes: (to_fnn(arrays[0], shapes[0]),),
        lambda leaves: (to_torch(leaves[0]),),
    )


def _reshaped(array: Any, shape: tuple[int, ...]) -> Any:
    return array.reshape(shape)


def _transposed_to(array: Any, shape: tuple[int, ...]) -> Any:
    return array.T.reshape(shape)


same = one(lambda array, shape: array, lambda leaf: leaf)
# Linear layers: (out, in) <-> (in, out).
transposed = one(lambda array, shape: array.T, lambda leaf: leaf.T)
# Convolutions: (out, in, *window) <-> (*window, in, out).
conv_kernel = one(
    lambda array, shape: np.moveaxis(array, (0, 1), (-1, -2)),
    lambda leaf: np.moveaxis(leaf, (-1, -2), (0, 1)),
)
# Bilinear layers: (out, left, right) <-> (left, right, out).
bilinear_kernel = one(
    lambda array, shape: np.moveaxis(array, 0, -1), lambda leaf: np.moveaxis(leaf, -1, 0)
)
# Biases of queries, keys and values: (H D) <-> (H, D).
flat = one(_reshaped, lambda leaf: leaf.reshape(-1))
# Kernels of queries, keys and values: (H D, in) <-> (in, H, D).
into_heads = one(_transposed_to, lambda leaf: leaf.reshape(len(leaf), -1).T)
# Kernels of the output of attention: (out, H D) <-> (H, D, out).
from_heads = one(_transposed_to, lambda leaf: leaf.reshape(-1, leaf.shape[-1]).T)
# The same of GPT-2, whose linear layers are (in, out).
gpt2_into_heads = one(_reshaped, lambda leaf: leaf.reshape(len(leaf), -1))
gpt2_from_heads = one(_reshaped, lambda leaf: leaf.reshape(-1, leaf.shape[-1]))


def concatenated(part: Layout, axis: int) -> Layout:
    """Parts of equal size that torch has concatenated along an axis, each of the layout `part`.

    >>> layout = concatenated(same, 0)
    >>> [leaf.tolist() for leaf in layout.to_fnn((np.arange(4),), ((2,), (2,)))]
    [[0, 1], [2, 3]]
    >>> layout.to_torch((np.zeros(1), np.ones(1)))[0].tolist()
    [0.0, 1.0]
    """

    def to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
        pieces = zip(np.split(arrays[0], len(shapes), axis=axis), shapes, strict=True)
        return tuple(part.to_fnn((piece,), (shape,))[0] for piece, shape in pieces)

    def to_torch(leaves: Arrays) -> Arrays:
        return (np.concatenate([part.to_torch((leaf,))[0] for leaf in leaves], axis=axis),)

    return Layout(to_fnn, to_torch)


def constant(value: Any) -> Layout:
    """An array without a leaf in fnn: written as `value`, and ignored when read."""
    return Layout(lambda arrays, shapes: (), lambda leaves: (value,))


def tied(part: Layout, copies: int = 2) -> Layout:
    """One leaf that torch has under several names; the arrays that exist must be equal.

    >>> tied(same).to_torch((np.ones(1),))
    (array([1.]), array([1.]))
    """

    def to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
        first, *others = [array for array in arrays if array is not None]
        if not all(np.array_equal(first, other) for other in others):
            raise Mismatch
        return part.to_fnn((first,), shapes)

    return Layout(to_fnn, lambda leaves: part.to_torch(leaves) * copies)


# The two biases of a recurrent layer, of which the second is redundant.
recurrent_biases = Layout(
    lambda arrays, shapes: (arrays[0] + arrays[1],),
    lambda leaves: (leaves[0], np.zeros_like(leaves[0])),
)


def _gru_to_fnn(arrays: Arrays, shapes: Shapes) -> Arrays:
    first, second = arrays
    gates = 2 * shapes[1][0]
    return np.concatenate([(first + second)[:gates], first[gates:]]), second[gates:]


def _gru_to_torch(leaves: Arrays) -> Arrays:
    bias, inner = leaves
    return bias, np.concatenate([np.zeros(2 * len(inner), inner.dtype), inner])


# Those of a GRU: redundant for r and z, but not for n, where one is inside the reset.
gru_biases = Layout(_gru_to_fnn, _gru_to_torch)


def leading_ones(axes: int) -> Layout:
    """An array with `axes` leading axes of size 1 in torch."""
    return one(_reshaped, lambda leaf: leaf.reshape(*[1] * axes, *leaf.shape))


def conv_transpose_kernel(groups: int) -> Layout:
    """Transposed convolutions: (in, out / groups, *window) <-> (*window, in / groups, out).

    >>> layout = conv_transpose_kernel(1)
    >>> layout.to_fnn((np.zeros((2, 5, 3)),), ((3, 2, 5),))[0].shape
    (3, 2, 5)
    """

    def to_fnn(array: Any, shape: tuple[int, ...]) -> Any:
        split = array.reshape(groups, -1, *array.shape[1:])  # (groups, in, out, *window)
        return np.moveaxis(split, (0, 1, 2), (-2, -3, -1)).reshape(shape)

    def to_torch(leaf: Any) -> Any:
        split = leaf.reshape(*leaf.shape[:-1], groups, -1)
        moved = np.moveaxis(split, (-2, -3, -1), (0, 1, 2))
        return moved.reshape(-1, *moved.shape[2:])

    return one(to_fnn, to_torch)
