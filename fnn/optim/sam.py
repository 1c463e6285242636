"""Sharpness-aware minimization (SAM and ASAM)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim._wrap import wrap
from fnn.types import Objective, Optimizer, Params, Scalar


@within(rho="[0, inf)")
def sam(optimizer: Optimizer, *, rho: Scalar = 0.05) -> Optimizer:
    """SAM: updates with the gradient after a step uphill, which favors flat minima.

        update = optimizer's, with the gradient of the same batch at p + rho g / ||g||

    Each step evaluates the model twice.

    Args:
      rho: norm of the step uphill, in the unit of p, at least 0.

    State: the optimizer's.
    Raises: ValueError, in update, without an objective, which computes the second gradient.
    Source: Foret et al. 2021, arXiv:2010.01412, Algorithm 1. Compat: `optax.contrib.sam` in
      opaque mode, with `chain(normalize(), sgd(rho))` uphill.

    >>> from fnn.optim import sgd
    >>> from fnn.types import Objective
    >>> params = {'w': jnp.array([1.0])}
    >>> square = lambda p: (p['w'][0] ** 2, {'w': 2 * p['w']})
    >>> value, grads = square(params)
    >>> updates, _ = sam(sgd(), rho=0.5).update(grads, (), params, 1.0, Objective(value, square))
    >>> updates['w'].tolist()   # minus the gradient at 1.5
    [-3.0]
    """

    def uphill(params: Params, grads: Params) -> Params:
        return _scaled_to(rho, grads, tree.global_norm(grads))

    return _sharp("sam", optimizer, uphill)


@within(rho="[0, inf)", eta="[0, inf)")
def asam(optimizer: Optimizer, *, rho: Scalar = 0.5, eta: Scalar = 0.01) -> Optimizer:
    """Adaptive SAM: as `sam`, with a step uphill that is relative to each parameter.

        T = |p| + eta
        update = optimizer's, with the gradient of the same batch at p + rho T^2 g / ||T g||

    It is invariant to rescaling two layers against each other.

    Args:
      rho: relative size of the step uphill, at least 0.
      eta: added to |p|, in the unit of p.

    State: the optimizer's.
    Raises: ValueError, in update, without an objective.
    Source: Kwon et al. 2021, arXiv:2102.11600, Algorithm 1. Deviates: all leaves are scaled by T;
      the authors' code has T = 1 for biases.

    >>> from fnn.optim import sgd
    >>> from fnn.types import Objective
    >>> params = {'w': jnp.array([2.0])}
    >>> square = lambda p: (p['w'][0] ** 2, {'w': 2 * p['w']})
    >>> value, grads = square(params)
    >>> opt = asam(sgd(), rho=0.5, eta=0.0)
    >>> opt.update(grads, (), params, 1.0, Objective(value, square))[0]['w'].tolist()
    [-6.0]
    """

    def uphill(params: Params, grads: Params) -> Params:
        size = jax.tree.map(lambda p: jnp.abs(p) + jnp.asarray(eta, p.dtype), wide(params))
        relative = jax.tree.map(jnp.multiply, size, grads)
        direction = jax.tree.map(jnp.multiply, size, relative)
        return _scaled_to(rho, direction, tree.global_norm(relative))

    return _sharp("asam", optimizer, uphill)


def _scaled_to(rho: Scalar, direction: Params, norm: Array) -> Params:
    """rho * direction / norm; 0 where the norm is 0."""
    scale = jnp.where(norm > 0, jnp.asarray(rho, norm.dtype) / jnp.where(norm > 0, norm, 1), 0)
    return jax.tree.map(lambda d: scale.astype(d.dtype) * d, direction)


def _sharp(
    name: str, optimizer: Optimizer, uphill: Callable[[Params, Params], Params]
) -> Optimizer:
    """`uphill`: (params, grads) -> the step uphill."""

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, Any]:
        if objective is None:
            raise ValueError(
                f"{name}: expected the objective of the batch, got None; pass objective= to "
                "update, as fnn.train does, and put accumulate inside it, not around it"
            )
        at = objective.at

        def sharp(params: Params, grads: Params) -> tuple[Array, Params]:
            return at(tree.add(params, uphill(params, wide(grads))))

        value, grads = sharp(params, grads)
        perturbed = Objective(value, lambda params: sharp(params, at(params)[1]))
        return optimizer.update(grads, state, params, lr, perturbed)

    return wrap(name, optimizer, optimizer.init, update, inner=lambda state: state)
