"""Divergences between the softmax of logits and a target distribution."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.losses._elements import (
    Mask,
    expect_classes,
    expect_mask,
    expect_same_shape,
    masked,
    shown,
    weighted,
)
from fnn.losses._logits import costs
from fnn.types import Weighted


def kl_divergence(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Kullback-Leibler divergence KL(p | q) of targets p from the softmax q of logits.

        l = sum_c p_c (log p_c - log q_c),    q = softmax(z)

    Args:
      logits: z; log-probabilities are a special case.
      targets: p, probabilities of the same shape; the term of a class with p = 0 is 0, even at a
        logit of -inf.
      where: mask of the rows, (*batch,); True counts.

    Returns: float of shape (*batch,), at least 0 up to rounding, in nats, as PyTorch's
      kl_div(log q, p). A Weighted with `where`.
    Raises: ValueError for inconsistent shapes.
    Source: Kullback & Leibler 1951, On information and sufficiency.

    >>> f"{kl_divergence(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))[0]:.4f}"   # log 2
    '0.6931'
    """
    z, p = _rows("kl_divergence", logits, targets, where)
    log_p = jnp.log(jnp.where(p > 0, p, 1))
    return masked(weighted(p, log_p + costs(z)).sum(axis=-1), where)


def jensen_shannon(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Jensen-Shannon divergence: mean divergence of two distributions from their mean.

        l = KL(p | m) / 2 + KL(q | m) / 2,    q = softmax(z),    m = (p + q) / 2

    Args, Raises: as in `kl_divergence`.
    Returns: float of shape (*batch,), in nats, in [0, log 2], symmetric in p and q. A Weighted with
      `where`.
    Source: Lin 1991, Divergence measures based on the Shannon entropy, equation 3.9.

    >>> f"{jensen_shannon(jnp.array([[0.0, -jnp.inf]]), jnp.array([[0.0, 1.0]]))[0]:.4f}"   # log 2
    '0.6931'
    """
    z, p = _rows("jensen_shannon", logits, targets, where)
    q = jnp.exp(-costs(z))
    m = 0.5 * (p + q)
    return masked(0.5 * (_relative(p, m) + _relative(q, m)).sum(axis=-1), where)


def _rows(name: str, logits: Array, targets: Array, where: Mask) -> tuple[Array, Array]:
    expect_same_shape(name, logits, targets)
    expect_classes(name, logits.shape[-1])
    expect_mask(name, where, logits.shape[:-1])
    dtype = at_least_float32(logits)
    rows = None if where is None else where[..., None]
    return shown(logits.astype(dtype), rows), shown(targets.astype(dtype), rows)


def _relative(p: Array, m: Array) -> Array:
    """p log(p / m), and 0 at p = 0."""
    positive = p > 0
    return jnp.where(
        positive, p * jnp.log(jnp.where(positive, p, 1) / jnp.where(positive, m, 1)), 0
    )
