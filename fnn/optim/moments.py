"""What the relatives of Adam share: two running moments, their correction, the quotient of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.optim.base import bias_correction, mean_square, moving_average
from fnn.tree import safe_sqrt
from fnn.types import Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdamState:
    """Moments of the gradient."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # first moment, in at least float32
    v: Params  # second moment, in at least float32


def adam_init(params: Params) -> AdamState:
    """Moments of 0.

    >>> adam_init({'w': jnp.ones(2)}).v['w'].tolist()
    [0.0, 0.0]
    """
    return AdamState(step=jnp.int32(0), m=tree.zeros_like(params), v=tree.zeros_like(params))


def means(decay: Scalar, old: Params, new: Params) -> Params:
    """decay * old + (1 - decay) * new, leaf by leaf.

    >>> means(0.75, {'w': jnp.zeros(1)}, {'w': jnp.array([4.0])})['w'].tolist()
    [1.0]
    """
    return jax.tree.map(lambda a, b: moving_average(decay, a, b), old, new)


def mean_squares(decay: Scalar, old: Params, new: Params) -> Params:
    """decay * old + (1 - decay) * new^2, leaf by leaf.

    >>> mean_squares(0.75, {'w': jnp.zeros(1)}, {'w': jnp.array([4.0])})['w'].tolist()
    [4.0]
    """
    return jax.tree.map(lambda a, b: mean_square(decay, a, b), old, new)


def gather(grads: Params, state: AdamState, b1: Scalar, b2: Scalar) -> AdamState:
    """The moments with one gradient more.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2

    >>> state = gather({'w': jnp.array([4.0])}, adam_init({'w': jnp.zeros(1)}), 0.5, 0.75)
    >>> state.m['w'].item(), state.v['w'].item(), state.step.item()
    (2.0, 4.0, 1)
    """
    m, v = means(b1, state.m, grads), mean_squares(b2, state.v, grads)
    return AdamState(step=state.step + 1, m=m, v=v)


def by_dtype(like: Params, scalar: Callable[[Any], Any]) -> dict[Any, Any]:
    """`scalar(dtype)` for each dtype among the leaves, computed once however many leaves there are.

    >>> by_dtype([jnp.zeros(2), jnp.zeros(3)], lambda dtype: jnp.asarray(0.5, dtype).item())
    {dtype('float32'): 0.5}
    """
    return {dtype: scalar(dtype) for dtype in {leaf.dtype for leaf in jax.tree.leaves(like)}}


def unbiased(mean: Params, decay: Scalar, step: Int[Array, ""]) -> Params:
    """mean / (1 - decay^step): a moving average, corrected for its start at 0.

    >>> unbiased({'w': jnp.array([1.0])}, 0.75, jnp.int32(1))['w'].tolist()
    [4.0]
    """
    # The reciprocal of the scalar: a division per element would be materialised on a CPU.
    factor = by_dtype(mean, lambda dtype: 1 / bias_correction(decay, step, dtype))
    return jax.tree.map(lambda leaf: leaf * factor[leaf.dtype], mean)


def over_root(numerator: Params, v: Params, eps: Scalar) -> Params:
    """numerator / (sqrt(v) + eps), whose derivative at v = 0 is finite.

    >>> over_root({'w': jnp.array([4.0])}, {'w': jnp.array([1.0])}, 1.0)['w'].tolist()
    [2.0]
    """
    return jax.tree.map(lambda n, v: n / (safe_sqrt(v) + jnp.asarray(eps, v.dtype)), numerator, v)
