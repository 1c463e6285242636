"""Log-softmax of logits z over the last axis, safe where some are -inf.

The cost of a class is -log softmax(z)_c = log sum exp(z - top) + (top - z_c): the two terms are
never added to top first, which would round the cost away for large logits.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from fnn.dtypes import indices

Logits = Float[Array, "*batch classes"]


def split_total(z: Logits) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """log sum_c exp(z_c - top), and top, the largest logit; both 0 where all are -inf."""
    top = lax.stop_gradient(z.max(axis=-1, initial=-jnp.inf))
    top = jnp.where(jnp.isneginf(top), 0, top)
    total = jnp.exp(z - top[..., None]).sum(axis=-1)
    return jnp.log(jnp.where(total == 0, 1, total)), top


def log_total(z: Logits) -> Float[Array, "*batch"]:
    """log sum_c exp(z_c), and 0 where all are -inf."""
    log_sum, top = split_total(z)
    return log_sum + top


def costs(z: Logits) -> Logits:
    """-log softmax(z)."""
    log_sum, top = split_total(z)
    return log_sum[..., None] + (top[..., None] - z)


def cost_at(z: Logits, labels: Integer[Array, "*batch"]) -> Float[Array, "*batch"]:
    """-log softmax(z) at the label of each row; NaN for a label outside [0, classes)."""
    log_sum, top = split_total(z)
    return log_sum + (top - logit_at(z, labels))


def logit_at(z: Logits, labels: Integer[Array, "*batch"]) -> Float[Array, "*batch"]:
    """z at the label of each row; NaN for a label outside [0, classes)."""
    labels = indices(labels)
    # A negative index would be counted from the end.
    outside = jnp.where(labels < 0, z.shape[-1], labels)
    return jnp.take_along_axis(z, outside[..., None], axis=-1, mode="fill")[..., 0]
