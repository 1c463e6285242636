"""The convex problem that the laws of optimizers train on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.types import Params

MINIMUM = 0.1


def example_params() -> Params:
    """Matrices and vectors in dicts and a list, with normal values.

    >>> jax.tree.map(jnp.shape, example_params()['head'])
    {'kernel': (4, 2)}
    """
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    body = [{"kernel": normal(n, 4), "bias": normal(4)} for n in (3, 4)]
    return {"body": body, "head": {"kernel": normal(4, 2)}}


def gradient(params: Params) -> Params:
    """c (p - 0.1) for each parameter p, with curvatures c from 0.5 to 2 in every leaf.

    >>> gradient({'w': jnp.full(2, 1.1)})['w'].tolist()
    [0.5, 2.0]
    """

    def leaf(p: Any) -> Any:
        curvature = np.linspace(0.5, 2.0, p.size).reshape(p.shape)
        return jnp.asarray(curvature, p.dtype) * (p - jnp.asarray(MINIMUM, p.dtype))

    return jax.tree.map(leaf, params)


def loss(params: Params) -> float:
    """What `gradient` is the gradient of: the sum of c (p - 0.1)^2 / 2.

    >>> round(loss({'w': jnp.full(2, 1.1)}), 3)
    1.25
    """
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(gradient(params)), strict=True)
    return sum(float(jnp.vdot(p - MINIMUM, g)) / 2 for p, g in pairs)


def noise(params: Params, steps: int) -> Params:
    """Numbers to add to the gradient at each step, so that signs and moments keep changing.

    >>> noise({'w': jnp.zeros(2)}, 5)['w'].shape
    (5, 2)
    """
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(generator.normal(size=(steps, *p.shape)), p.dtype), params
    )
