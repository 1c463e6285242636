"""Winograd's convolution: 3 x 3 kernels with 16 products for every 36.

Two neighboring outputs of a kernel of three entries take four products instead of six: sums of the
inputs, times sums of the kernel, summed. Along both axes, tiles of 2 x 2 outputs take 16 instead of
36. Over batch, tiles and features these are 16 matrix products. All factors are 1 and 1/2, so the
result is as exact as that of the direct method; larger tiles are not. An infinite input makes all
outputs of its tiles NaN or infinite, not those of its windows alone. Source: Lavin & Gray 2015,
arXiv:1509.09308, section 4.1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.autodiff import varying_like
from fnn.layers._window import Pairs

Grid = Sequence[Sequence[Any]]

# Size of the 16 sums of input and output that still fits in the cache of a core.
_BYTES = 9 * 2**20


def winograd(zeros: Pairs, x: Array, kernel: Array, mirrored: bool = False) -> Array:
    """`convolve` for 3 x 3 kernels without stride or dilation.

    Args:
      mirrored: whether to flip the kernel along its window axes and to swap its features, as in the
        gradient by the input; without a transposed copy of it.
    """
    outputs = _output_sizes(zeros, x)
    sums = _both_axes(_of_kernel, kernel)
    weights = _flat(_flipped(sums) if mirrored else sums)
    contracted = ((1,), (1 if mirrored else 0,))

    def of_chunk(x: Array) -> Array:
        sums = _rows(_sums_of_input(zeros, outputs, x))
        products = [
            lax.dot_general(a, b, (contracted, ((), ())))
            for a, b in zip(sums, weights, strict=True)
        ]
        return _untiled(_both_axes(_to_output, _grid(products, 4)), len(x), outputs)

    features = max(x.shape[-1], weights[0].shape[-1])
    parts = _parts(x, outputs, features)
    if parts == 1:
        return of_chunk(x)
    return lax.collapse(lax.map(of_chunk, _cut(x, parts)), 0, 2)


def winograd_kernel_gradient(zeros: Pairs, x: Array, g: Array) -> Array:
    """The gradient of `winograd` by its kernel, for the gradient g by its output."""
    outputs = _output_sizes(zeros, x)

    def of_chunk(x: Array, g: Array) -> list[Array]:
        pairs = zip(
            _rows(_sums_of_input(zeros, outputs, x)), _rows(_sums_of_gradient(g)), strict=True
        )
        return [lax.dot_general(a, b, (((0,), (0,)), ((), ()))) for a, b in pairs]

    def add(total: list[Array], chunk: tuple[Array, ...]) -> tuple[list[Array], None]:
        return [a + b for a, b in zip(total, of_chunk(*chunk), strict=True)], None

    parts = _parts(x, outputs, max(x.shape[-1], g.shape[-1]))
    if parts == 1:
        total = of_chunk(x, g)
    else:
        split = [_cut(a, parts) for a in (x, g)]
        zeros_of_one = jnp.zeros((x.shape[-1], g.shape[-1]), x.dtype)
        start = [varying_like(zeros_of_one, x, g)] * 16
        total, _ = lax.scan(add, start, tuple(split))
    sums = _both_axes(_to_kernel, _grid(total, 4))
    return jnp.stack([jnp.stack(row) for row in sums])


# Along one axis; all are linear. `_to_kernel` is the transpose of `_of_kernel`, and `_of_gradient`
# that of `_to_output`.


def _of_input(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a - c, b + c, c - b, b - d


def _of_kernel(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _to_output(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a + b + c, b - c - d


def _to_kernel(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


def _of_gradient(a: Any, b: Any) -> tuple[Any, ...]:
    return a, a + b, a - b, -b


def _both_axes(of_one: Callable[..., tuple[Any, ...]], grid: Grid | Array) -> Grid:
    columns = [of_one(*column) for column in zip(*grid, strict=True)]
    return [of_one(*row) for row in zip(*columns, strict=True)]


def _flipped(sums: Grid) -> Grid:
    # The sums of a mirrored kernel are those of the kernel with the outer two exchanged, so a
    # convolution and its gradient by the input share them.
    return [[sums[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]


def _sums_of_input(zeros: Pairs, outputs: tuple[int, ...], x: Array) -> Grid:
    rows, columns = (2 * -(-n // 2) for n in outputs)
    edges = [
        (before, n + 2 - size - before, 0)
        for n, size, (before, _) in zip((rows, columns), x.shape[1:-1], zeros, strict=True)
    ]
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return _both_axes(
        _of_input,
        [[padded[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)],
    )


def _sums_of_gradient(g: Array) -> Grid:
    odd = [(0, n % 2, 0) for n in g.shape[1:-1]]
    padded = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *odd, (0, 0, 0)])
    return _both_axes(_of_gradient, [[padded[:, i::2, j::2] for j in range(2)] for i in range(2)])


def _untiled(tiles: Grid, batch: int, outputs: tuple[int, ...]) -> Array:
    rows, columns = (-(-n // 2) for n in outputs)
    shaped = [[a.reshape(batch, rows, columns, a.shape[-1]) for a in row] for row in tiles]
    y = jnp.stack([jnp.stack(row, axis=3) for row in shaped], axis=2)
    y = y.reshape(batch, 2 * rows, 2 * columns, y.shape[-1])
    return y[:, : outputs[0], : outputs[1]]


def _output_sizes(zeros: Pairs, x: Array) -> tuple[int, ...]:
    pairs = zip(x.shape[1:-1], zeros, strict=True)
    return tuple(size + before + after - 2 for size, (before, after) in pairs)


def _parts(x: Array, outputs: tuple[int, ...], features: int) -> int:
    """The number of equal parts of the batch, each with sums that fit in `_BYTES`."""
    size = 16 * len(x) * math.prod(-(-n // 2) for n in outputs) * features * x.dtype.itemsize
    few = max(-(-size // _BYTES), 1)
    return next((n for n in range(few, len(x)) if len(x) % n == 0), max(len(x), 1))


def _cut(x: Array, parts: int) -> Array:
    return x.reshape(parts, len(x) // parts, *x.shape[1:])


def _flat(grid: Grid) -> list[Any]:
    return [entry for row in grid for entry in row]


def _rows(grid: Grid) -> list[Array]:
    return [lax.collapse(entry, 0, entry.ndim - 1) for entry in _flat(grid)]


def _grid(entries: list[Any], columns: int) -> Grid:
    return [entries[i : i + columns] for i in range(0, len(entries), columns)]
