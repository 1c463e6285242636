"""Cross-entropy fused with the projection to its logits, for many classes.

N rows, D features, V classes; M chunks of C rows. Only the logits of one chunk exist at a time, in
the forward and the backward pass: memory O(C V) instead of O(N V), for one recomputed product.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from fnn.autodiff import LinearFunction, linear_call, varying_like
from fnn.dtypes import at_least_float32, indices
from fnn.expect import is_zero, within
from fnn.losses._elements import (
    Mask,
    expect_classes,
    expect_mask,
    kept_rows,
    masked,
    shown,
    smoothed,
)
from fnn.losses._logits import logit_at, split_total
from fnn.types import Scalar, Weighted
from fnn.xla import Dim, is_symbolic

Rows = tuple[Array, ...]  # arrays with one first axis: the rows, or those of a chunk


@within(label_smoothing="[0, 1]", z_loss="[0, inf)")
def fused_cross_entropy(
    x: Float[Array, "*batch features"],
    kernel: Float[Array, "..."],
    labels: Integer[Array, "..."],
    *,
    bias: Float[Array, "..."] | None = None,
    chunk_rows: int | None = None,
    label_smoothing: Scalar = 0.0,
    z_loss: Scalar = 0.0,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """`cross_entropy(x kernel + bias, labels)` without materializing all logits.

    Args:
      x: input of the projection, (*batch, features). In a recipe, the model returns it with the
        kernel: lambda p, y: fused_cross_entropy(p['x'], p['kernel'], y).
      kernel, bias: of the projection, (features, classes) and (classes,). The logits are at least
        float32, also for bfloat16 x and kernel, where a plain projection rounds.
      labels: integers in [0, classes) of shape (*batch,).
      chunk_rows: rows per chunk, whose logits take chunk_rows * classes * 4 bytes; None for the
        number of rows that takes 128 MiB, at most 1,024.
      label_smoothing, z_loss, ignore_index, where: as in `cross_entropy`.

    Returns, Raises: as in `cross_entropy`.
    Source: the idea of Wijmans et al. 2024, arXiv:2411.09009 (cut cross-entropy), over chunks of
      rows, so that sharded rows stay on their devices.

    >>> x, kernel = jnp.ones((3, 2)), jnp.zeros((2, 4))
    >>> losses = fused_cross_entropy(x, kernel, jnp.array([0, 1, 3]), chunk_rows=2)
    >>> f"{losses[0]:.4f}"   # log 4
    '1.3863'
    """
    if chunk_rows is None:
        chunk_rows = min(1024, max(1, 2**25 // max(1, kernel.shape[-1])))
    _expect_shapes(x, kernel, labels, bias, chunk_rows)
    expect_mask("fused_cross_entropy", where, labels.shape)
    labels = indices(labels)
    kept = kept_rows(labels, ignore_index, where)
    x = shown(x, None if kept is None else kept[..., None])
    rows, kernel = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), kernel.astype(x.dtype)
    flat = shown(labels, kept).ravel()
    loss, log_sum, top = _cost_and_total(rows, kernel, bias, flat, chunk_rows)
    total = log_sum + top
    if not is_zero(label_smoothing):
        loss = smoothed(loss, total - _mean_logit(rows, kernel, bias), label_smoothing)
    if not is_zero(z_loss):
        loss = loss + jnp.asarray(z_loss, loss.dtype) * jnp.square(total)
    return masked(loss.reshape(labels.shape), kept)


def _mean_logit(x: Array, kernel: Array, bias: Array | None) -> Array:
    """The mean of each row's finite logits, (N,), from the mean column of the kernel."""
    dtype = at_least_float32(x)
    if bias is None:
        return x.astype(dtype) @ kernel.mean(axis=1, dtype=dtype)
    possible = ~jnp.isneginf(bias)
    count = jnp.maximum(possible.sum(), 1).astype(dtype)
    column = shown(kernel, possible[None]).sum(axis=1, dtype=dtype) / count
    return x.astype(dtype) @ column + shown(bias, possible).sum(dtype=dtype) / count


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _cost_and_total(
    x: Array, kernel: Array, bias: Array | None, labels: Array, chunk_rows: int
) -> Rows:
    """-log softmax of the label, and log sum exp of the logits as log_sum and top; each (N,)."""

    def chunk(rows: Rows) -> Rows:
        x, labels = rows
        z = _logits(x, kernel, bias)  # (C, V)
        log_sum, top = split_total(z)
        return log_sum + (top - logit_at(z, labels)), log_sum, top

    chunks = _split((x, labels), chunk_rows)
    return _join(lax.map(chunk, chunks), x.shape[0])


@_cost_and_total.defjvp
def _cost_and_total_jvp(chunk_rows: int, primals: Any, tangents: Any) -> tuple[Rows, Rows]:
    cost, log_sum, top = _cost_and_total(*primals, chunk_rows)
    forward, backward = _derivative(chunk_rows)
    dcost, dtotal = linear_call(forward, backward, (*primals, log_sum, top), tangents[:3])
    return (cost, log_sum, top), (dcost, dtotal, jnp.zeros_like(top))


@functools.cache  # JAX caches compiled programs by the identity of these functions
def _derivative(chunk_rows: int) -> tuple[LinearFunction, LinearFunction]:
    """The derivative by x, kernel and bias, and its transpose, the backward pass."""
    return functools.partial(_tangents, chunk_rows), functools.partial(_cotangents, chunk_rows)


def _tangents(chunk_rows: int, saved: Any, tangents: Any) -> Rows:
    x, kernel, bias, labels, log_sum, top = saved
    dx, dkernel, dbias = tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)  # for second derivatives
    def chunk(rows: Rows) -> Rows:
        x, dx, labels, log_sum, top = rows
        p = _probabilities(_logits(x, kernel, bias), log_sum, top)  # (C, V), recomputed
        dz = _logits(x, dkernel, dbias) + _product(dx, kernel)
        dtotal = (p * dz).sum(axis=1)
        return dtotal - logit_at(dz, labels), dtotal

    chunks = _split((x, dx, labels, log_sum, top), chunk_rows)
    return _join(lax.map(chunk, chunks), x.shape[0])


def _cotangents(chunk_rows: int, saved: Any, cotangents: Any) -> Any:
    x, kernel, bias, labels, log_sum, top = saved
    rows = (x, labels, log_sum, top, *cotangents)
    classes = jnp.arange(kernel.shape[1], dtype=jnp.int32)[None]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(rows: Rows) -> tuple[tuple[Array, Array], Array]:
        x, labels, log_sum, top, dcost, dtotal = rows
        p = _probabilities(_logits(x, kernel, bias), log_sum, top)  # (C, V), recomputed
        at_label = labels[:, None] == classes
        dz = (dcost + dtotal)[:, None] * p - jnp.where(at_label, dcost[:, None], 0)
        narrow = dz.astype(x.dtype)
        dkernel, dbias = _product(x.T, narrow), dz.sum(axis=0)
        return (dkernel, dbias), _product(narrow, kernel.T).astype(x.dtype)

    def add(sums: Any, rows: Rows) -> tuple[Any, Array]:
        grads, dx = chunk(rows)
        return jax.tree.map(jnp.add, sums, grads), dx

    start = (jnp.zeros(kernel.shape, log_sum.dtype), jnp.zeros(kernel.shape[1], log_sum.dtype))
    start = varying_like(start, cotangents)
    (dkernel, dbias), dx = lax.scan(add, start, _split(rows, chunk_rows))
    given_bias = None if bias is None else dbias.astype(bias.dtype)
    return _join(dx, x.shape[0]), dkernel.astype(kernel.dtype), given_bias


def _probabilities(z: Array, log_sum: Array, top: Array) -> Array:
    return jnp.exp(z - top[:, None] - log_sum[:, None])


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=at_least_float32(a))


def _logits(x: Array, kernel: Array, bias: Array | None) -> Array:
    z = _product(x, kernel)
    return z if bias is None else z + bias.astype(z.dtype)[None]


def _split(rows: Any, chunk_rows: int) -> Any:
    """Arrays (N, ...) to (M, C, ...), padded with zeros.

    A chunk has every M-th row: if the rows are sharded over devices, so is each chunk.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    chunks, size = _chunks_and_size(n, chunk_rows)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, ((0, chunks * size - n), *((0, 0),) * (leaf.ndim - 1)))
        return jnp.swapaxes(padded.reshape(size, chunks, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(split, rows)


def _chunks_and_size(n: Dim, chunk_rows: int) -> tuple[Dim, int]:
    if is_symbolic(n):
        return -(-n // chunk_rows), chunk_rows
    chunks = max(1, math.ceil(n / chunk_rows))
    return chunks, math.ceil(n / chunks)


def _join(chunks: Any, n: Dim) -> Any:
    """The inverse of `_split`."""
    return jax.tree.map(lambda leaf: lax.collapse(jnp.swapaxes(leaf, 0, 1), 0, 2)[:n], chunks)


def _expect_shapes(
    x: Array, kernel: Array, labels: Array, bias: Array | None, chunk_rows: int
) -> None:
    if kernel.ndim != 2 or x.shape[-1:] != kernel.shape[:1]:
        raise ValueError(
            f"fused_cross_entropy: expected a kernel of shape ({x.shape[-1]}, classes) for x "
            f"{x.shape}, got {kernel.shape}; a tied embedding is (classes, features): transpose it"
        )
    expect_classes("fused_cross_entropy", kernel.shape[1])
    if labels.shape != x.shape[:-1]:
        raise ValueError(
            f"fused_cross_entropy: expected labels of shape {x.shape[:-1]} for x {x.shape}, got "
            f"{labels.shape}; give one label for each row"
        )
    if bias is not None and bias.shape != kernel.shape[1:]:
        raise ValueError(
            f"fused_cross_entropy: expected a bias of shape {kernel.shape[1:]}, got {bias.shape}; "
            "give one element per class"
        )
