"""Noise on the gradient, to leave saddles and sharp minima."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.autodiff import safe_sqrt
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.keys import fold_name
from fnn.types import Params, PRNGKey, Scalar, Transform


@within(eta="[0, inf)", gamma="[0, inf)")
def add_noise(key: PRNGKey, *, eta: Scalar = 0.01, gamma: Scalar = 0.55) -> Transform:
    """Normal noise on the gradient, with a variance that falls with the steps.

        g <- g + sqrt(eta / (1 + t)^gamma) N(0, 1),   t = 0, 1, ...

    Clip before it, not after it.

    Args:
      key: of the whole run; a leaf draws from its own stream, found by its name and the step, so
        another leaf more or less changes no other noise. Runs that are mapped over seeds share
        it, unless each has a key of its own, as `jax.random.key(hyper['noise_seed'])`.
      eta: variance of the first step, at least 0; the paper takes the best of 0.01, 0.3 and 1.
      gamma: how fast it falls, at least 0.

    Returns: a transform whose gradients are in at least float32.
    State: the step, int32.
    Source: Neelakantan et al. 2015, arXiv:1511.06807, equation 1. Optax's add_noise has the same
      variances, and no defaults.

    >>> noise, params = add_noise(jax.random.key(0), eta=0.25), {'w': jnp.zeros(10_000)}
    >>> noisy, state = noise.update(params, noise.init(params), params)
    >>> noisy['w'].std().round(2).item(), state.item()
    (0.5, 1)
    """

    def update(
        grads: Params, step: Int[Array, ""], params: Params
    ) -> tuple[Params, Int[Array, ""]]:
        def leaf(path: str, g: Array) -> Array:
            dtype = at_least_float32(g)
            t = step.astype(dtype)
            std = safe_sqrt(jnp.asarray(eta, dtype) * (1 + t) ** -jnp.asarray(gamma, dtype))
            stream = jax.random.fold_in(fold_name(key, path), step)
            return g.astype(dtype) + std * jax.random.normal(stream, g.shape, dtype)

        return tree.map_with_path(leaf, grads), step + 1

    return Transform(init=lambda params: jnp.int32(0), update=update)
