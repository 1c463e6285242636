"""Cross-entropy fused with the projection that makes its logits, for many classes.

N rows, D features, V classes; C rows in a chunk, M chunks. The logits of one chunk exist at a time,
forward and backward: memory O(C V) in place of O(N V), for one product (C, D) x (D, V) more.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from fnn.autodiff import linear_call, varying_like
from fnn.dtypes import at_least_float32, indices
from fnn.expect import within
from fnn.losses._elements import (
    Mask,
    expect_classes,
    expect_mask,
    is_zero,
    kept_rows,
    masked,
    shown,
    smoothed,
)
from fnn.losses._logits import logit_at, split_total
from fnn.types import Scalar, Weighted
from fnn.xla import Dim, is_symbolic


@within(label_smoothing="[0, 1]", z_loss="[0, inf)")
def fused_cross_entropy(
    x: Float[Array, "*batch features"],
    kernel: Float[Array, "..."],
    labels: Integer[Array, "..."],
    *,
    bias: Float[Array, "..."] | None = None,
    chunk_rows: int = 1024,
    label_smoothing: Scalar = 0.0,
    z_loss: Scalar = 0.0,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """`cross_entropy(x kernel + bias, labels)` whose memory does not hold the logits.

    Args:
      x: what the projection is fed with, (*batch, features). In a recipe, the model returns it
        together with the kernel: lambda p, y: fused_cross_entropy(p['x'], p['kernel'], y).
      kernel, bias: of the projection, (features, classes) and (classes,); no bias if None. The
        logits are float32 at least, also of bfloat16 x and kernel, where a plain projection rounds.
      labels: integers in [0, classes) of shape (*batch,).
      chunk_rows: rows whose logits exist at the same time: chunk_rows * classes * 4 bytes. Fewer
        save memory, until the products of a chunk are too small for the device.
      label_smoothing, z_loss, ignore_index, where: as of `cross_entropy`.

    Returns: float of shape (*batch,), at least 0, in nats; a Weighted as of `cross_entropy`.
    Raises: ValueError if the shapes do not fit. A label out of range gives NaN.
    Source: the idea of Wijmans et al. 2024, arXiv:2411.09009 (cut cross-entropy), over chunks of
      rows, which keep each device's rows where they are.

    >>> x, kernel = jnp.ones((3, 2)), jnp.zeros((2, 4))
    >>> losses = fused_cross_entropy(x, kernel, jnp.array([0, 1, 3]), chunk_rows=2)
    >>> f"{losses[0]:.4f}"   # log 4
    '1.3863'
    """
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
    """The mean of a row's possible logits, (N,): from the mean column of the kernel."""
    dtype = at_least_float32(x)
    if bias is None:
        return x.astype(dtype) @ kernel.mean(axis=1, dtype=dtype)
    possible = ~jnp.isneginf(bias)
    count = jnp.maximum(possible.sum(), 1).astype(dtype)
    column = shown(kernel, possible[None]).sum(axis=1, dtype=dtype) / count
    return x.astype(dtype) @ column + shown(bias, possible).sum(dtype=dtype) / count


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _cost_and_total(x, kernel, bias, labels, chunk_rows):
    """-log softmax of the label, and log sum exp of the logits as log_sum and top; each (N,)."""

    def chunk(rows):
        x, labels = rows
        z = _logits(x, kernel, bias)  # (C, V)
        log_sum, top = split_total(z)
        return log_sum + (top - logit_at(z, labels)), log_sum, top

    chunks = _split((x, labels), chunk_rows)
    return _join(lax.map(chunk, chunks), x.shape[0])


@_cost_and_total.defjvp
def _cost_and_total_jvp(chunk_rows, primals, tangents):
    cost, log_sum, top = _cost_and_total(*primals, chunk_rows)
    there, back = _derivative(chunk_rows)
    dcost, dtotal = linear_call(there, back, (*primals, log_sum, top), tangents[:3])
    return (cost, log_sum, top), (dcost, dtotal, jnp.zeros_like(top))


@functools.cache  # made once: JAX finds what it has compiled by the identity of the function
def _derivative(chunk_rows: int):
    """By x, kernel and bias, and the transpose: the backward pass."""
    return functools.partial(_tangents, chunk_rows), functools.partial(_cotangents, chunk_rows)


def _tangents(chunk_rows, saved, tangents):
    x, kernel, bias, labels, log_sum, top = saved
    dx, dkernel, dbias = tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)  # for second derivatives
    def chunk(rows):
        x, dx, labels, log_sum, top = rows
        p = _probabilities(_logits(x, kernel, bias), log_sum, top)  # (C, V), once more
        dz = _logits(x, dkernel, dbias) + _product(dx, kernel)
        dtotal = (p * dz).sum(axis=1)
        return dtotal - logit_at(dz, labels), dtotal

    chunks = _split((x, dx, labels, log_sum, top), chunk_rows)
    return _join(lax.map(chunk, chunks), x.shape[0])


def _cotangents(chunk_rows, saved, cotangents):
    x, kernel, bias, labels, log_sum, top = saved
    rows = (x, labels, log_sum, top, *cotangents)
    classes = jnp.arange(kernel.shape[1], dtype=jnp.int32)[None]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(rows):
        x, labels, log_sum, top, dcost, dtotal = rows
        p = _probabilities(_logits(x, kernel, bias), log_sum, top)  # (C, V), once more
        at_label = labels[:, None] == classes
        dz = (dcost + dtotal)[:, None] * p - jnp.where(at_label, dcost[:, None], 0)
        narrow = dz.astype(x.dtype)
        by_kernel, by_bias = _product(x.T, narrow), dz.sum(axis=0)
        return (by_kernel, by_bias), _product(narrow, kernel.T).astype(x.dtype)

    def add(sums, rows):
        of_chunk, dx = chunk(rows)
        return jax.tree.map(jnp.add, sums, of_chunk), dx

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


def _split(rows, chunk_rows: int):
    """Arrays (N, ...) to (M, C, ...), with zeros after the last row.

    A chunk takes every M-th row: where the rows are sharded over devices, each holds its share of
    every chunk.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    chunks, size = _chunks_and_size(n, chunk_rows)

    def split(leaf):
        padded = jnp.pad(leaf, ((0, chunks * size - n), *((0, 0),) * (leaf.ndim - 1)))
        return jnp.swapaxes(padded.reshape(size, chunks, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(split, rows)


def _chunks_and_size(n: Dim, chunk_rows: int) -> tuple[Dim, int]:
    if is_symbolic(n):
        return -(-n // chunk_rows), chunk_rows
    chunks = max(1, math.ceil(n / chunk_rows))
    return chunks, math.ceil(n / chunks)


def _join(chunks, n: Dim):
    """What `_split` took apart."""

    def join(leaf):
        return lax.collapse(jnp.swapaxes(leaf, 0, 1), 0, 2)[:n]

    return jax.tree.map(join, chunks)


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
            "give one for each class"
        )
