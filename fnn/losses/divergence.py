"""Divergences between the distribution that logits give and one that is given."""

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
    """Kullback-Leibler divergence of the softmax of logits from the targets.

        l = sum_c p_c (log p_c - log q_c),    q = softmax(z)

    Args:
      logits: z, or log-probabilities: the softmax leaves them as they are.
      targets: p, probabilities, of the same shape; a class of probability 0 costs nothing, even at
        a logit of -inf.
      where: which rows count, of shape (*batch,).

    Returns: float of shape (*batch,), in nats; 0 if and only if p = q, up to rounding. The
      cross-entropy less the entropy of the targets. As PyTorch's kl_div(log q, p). A Weighted
      with `where`.
    Raises: ValueError if the shapes do not fit.
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
    """Mean divergence of two distributions from their mean.

        l = KL(p | m) / 2 + KL(q | m) / 2,    q = softmax(z),    m = (p + q) / 2

    Args: as of `kl_divergence`.
    Returns: float of shape (*batch,), in nats, in [0, log 2]; the same for p and q exchanged. A
      Weighted with `where`.
    Raises: ValueError if the shapes do not fit.
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
