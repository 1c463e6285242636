"""Transforms of gradients and updates: chain, centralization, noise, cautious masks."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn._messages import advice, refuse
from fnn.autodiff import safe_sqrt
from fnn.dtypes import at_least_float32, wide
from fnn.expect import within
from fnn.keys import fold_name
from fnn.optim._wrap import map_updates
from fnn.types import Optimizer, Params, PRNGKey, Scalar, Transform, unscaled


def chain(*parts: Transform | Optimizer) -> Any:
    """Applies transforms in order, then at most one optimizer.

    Returns: an Optimizer if the last part is one, else a Transform.
    State: a tuple with the state of each part.
    Raises: ValueError if there is no part, or an optimizer before the end.

    >>> from fnn.optim import clip_by_value, sgd
    >>> opt, params = chain(clip_by_value(1.0), sgd()), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5]
    """
    if not parts or any(not isinstance(part, Transform) for part in parts[:-1]):
        raise ValueError(
            "chain: expected transforms, then at most one optimizer at the end, got "
            f"{[type(part).__name__ for part in parts]}; move the optimizer to the end"
        )
    if not isinstance(parts[-1], (Transform, Optimizer)):
        words = "transforms, then at most one optimizer"
        refuse("chain", words, parts[-1], advice(parts[-1], Optimizer))

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(part.init(params) for part in parts)

    def through(
        grads: Params, state: tuple[Any, ...], params: Params, *lr_and_objective: Any
    ) -> tuple[Params, tuple[Any, ...]]:
        states = []
        for part, part_state in zip(parts, state, strict=True):
            extra = lr_and_objective if part is last else ()
            grads, part_state = part.update(grads, part_state, params, *extra)
            states.append(part_state)
        return grads, tuple(states)

    last = parts[-1]
    if isinstance(last, Optimizer):
        scale = last.loss_scale
        return last._replace(
            init=init,
            update=lambda grads, state, params, lr, objective=None: through(
                grads, state, params, lr, objective
            ),
            weights=lambda state, params: last.weights(state[-1], params),
            loss_scale=unscaled if scale is unscaled else lambda state: scale(state[-1]),
        )
    return Transform(init, through)


def centralize() -> Transform:
    """Gradient centralization: subtract the mean from the gradient of each unit of a kernel.

        g_i <- g_i - mean(g_i)   over all axes but the last, for leaves of two axes and more

    Under gradient descent, the mean of each unit's weights stays constant: a regularizer without
    cost. Put it last, just before the optimizer.

    State: (). Vectors and scalars are unchanged.
    Source: Yong et al. 2020, arXiv:2004.01461, equation 1.
    Compat: Optax's centralize averages over all axes but the first: the same for kernels (out, in),
      different for kernels (in, out) as in Flax and fnn.

    >>> grads = {'kernel': jnp.array([[1.0, 5.0], [3.0, 5.0]]), 'bias': jnp.array([1.0, 2.0])}
    >>> centered, _ = centralize().update(grads, (), {})
    >>> centered['kernel'].tolist(), centered['bias'].tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [1.0, 2.0])
    """

    def leaf(g: Array) -> Array:
        if g.ndim < 2:
            return g
        mean = g.mean(axis=tuple(range(g.ndim - 1)), keepdims=True, dtype=at_least_float32(g))
        return (g.astype(mean.dtype) - mean).astype(g.dtype)

    return Transform(init=lambda params: (), update=lambda g, s, p: (jax.tree.map(leaf, g), s))


@within(eta="[0, inf)", gamma="[0, inf)")
def add_noise(key: PRNGKey, *, eta: Scalar = 0.01, gamma: Scalar = 0.55) -> Transform:
    """Adds normal noise to the gradient, with a variance that decays with the step.

        g <- g + sqrt(eta / (1 + t)^gamma) N(0, 1),   t = 0, 1, ...

    Clip before it, not after it.

    Args:
      key: base key of the run; a leaf draws from its own stream, by path and step, so adding or
        removing a leaf does not change the noise of others. Runs that are mapped over seeds share
        it, unless each has its own key, as `jax.random.key(hyper['noise_seed'])`.
      eta: variance at the first step, at least 0; the paper takes the best of 0.01, 0.3 and 1.
      gamma: decay exponent, at least 0.

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


def cautious(optimizer: Optimizer) -> Optimizer:
    """Cautious optimizer: masks the elements of an update that go uphill on this batch.

        mask = [update * g < 0]
        update <- update * mask * size / (sum(mask) + 1),   leaf by leaf

    Args:
      optimizer: one whose state does not depend on its own updates; `ema`, `swa`, `lookahead`,
        `master_weights` and the schedule-free methods go around it, not inside.

    State: the optimizer's.
    Source: Liang et al. 2024, arXiv:2411.16085, Algorithm 1 with the scale of its section on
      implementation (xi = 1). Deviates: the mask applies to the whole update, with its weight
      decay; the authors' AdamW decays before it. Compat: not in Optax or PyTorch; timm divides by
      max(mean(mask), 1e-3).

    >>> from fnn.optim import sgd
    >>> opt, params = cautious(sgd(momentum=0.9)), {'w': jnp.zeros(2)}
    >>> _, state = opt.update({'w': jnp.array([1.0, 1.0])}, opt.init(params), params, 1.0)
    >>> opt.update({'w': jnp.array([0.1, -0.1])}, state, params, 1.0)[0]['w'].tolist()
    [-1.0, -0.0]
    """

    def leaf(u: Array, g: Array) -> Array:
        mask = (u * g.astype(u.dtype) < 0).astype(u.dtype)
        return u * mask * (u.size / (mask.sum() + 1))

    def masked(updates: Params, grads: Params, params: Params, lr: Any) -> Params:
        return jax.tree.map(leaf, wide(updates), grads)

    return map_updates(optimizer, masked)
