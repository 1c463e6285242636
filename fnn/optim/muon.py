"""Muon: orthogonalized momentum for matrix parameters, another optimizer for the rest."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import tree
from fnn.autodiff import safe_norm
from fnn.expect import spec, within
from fnn.optim._base import decay_weights, from_direction, moving_average
from fnn.optim._by_shape import by_shape
from fnn.optim.groups import by_group
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar


def width_scale(inputs: int, outputs: int) -> float:
    """sqrt(max(1, outputs / inputs)): a layer's outputs move by as much, whatever its width.

    Source: Jordan et al. 2024. For lr about 0.02, with a companion of its own lr.

    >>> width_scale(64, 256), width_scale(256, 64)
    (2.0, 1.0)
    """
    return math.sqrt(max(1, outputs / max(inputs, 1)))


def adamw_scale(inputs: int, outputs: int) -> float:
    """0.2 sqrt(max(inputs, outputs)): updates with the root mean square of a usual AdamW's.

    Source: Liu et al. 2025 (Moonlight), arXiv:2502.16982, section 2.2. For AdamW's lr and decay.

    >>> adamw_scale(100, 25)
    2.0
    """
    return 0.2 * math.sqrt(max(inputs, outputs))


def matrices(params: Params) -> Params:
    """A mask of the leaves that have two axes or more.

    >>> matrices({'bias': jnp.zeros(3), 'kernel': jnp.zeros((2, 3))})
    {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


@within(companion_lr="[0, inf)", momentum="[0, 1)", weight_decay="[0, inf)", eps="[0, inf)")
def muon(
    *,
    companion: Optimizer,
    companion_lr: Scalar = 1.0,
    owned: Mask = matrices,
    stacked: Mask | None = None,
    momentum: Scalar = 0.95,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    scale: Callable[[int, int], Scalar] = width_scale,
    eps: Scalar = 1e-7,
) -> Optimizer:
    """Muon: the orthogonal factor of a matrix's momentum; another optimizer for all other leaves.

        m <- momentum m + (1 - momentum) g
        update = -lr (scale newton_schulz((1 - momentum) g + momentum m) + weight_decay p)

    Args:
      companion: the optimizer of the leaves that are not owned, e.g. `adamw(weight_decay=0.1)`.
      companion_lr: the companion's share of lr: 0.015 where Muon has lr 0.02 and Adam 3e-4.
      owned: which leaves are Muon's. By default all with two axes or more. That counts embeddings
        and the last layer, which the authors leave to Adam, and which no shape gives away; and,
        in layers stacked for a scan, biases. Name what is to be owned: `matching('body/*kernel')`.
      stacked: which owned leaves hold several matrices, in their last two axes: layers stacked
        for a scan, experts. In all others the last axis counts outputs and all before it inputs,
        as in the kernel of a convolution.
      momentum: share of m that a step keeps, in [0, 1).
      weight_decay: decoupled, per unit of lr, of the owned leaves; the companion has its own.
      mask: which owned leaves decay; None is all of them.
      scale: a function of a matrix's numbers of inputs and outputs: `width_scale`, `adamw_scale`.
      eps: of `newton_schulz`.

    Matrices of one shape are made orthogonal together. lr: 0.02, with `adamw_scale` as AdamW's.

    State: {'matrices': m, a flat dict of the owned leaves by path in at least float32, 'rest': the
      companion's}, as in `partition`.
    Raises: ValueError, if an owned leaf has fewer than two axes.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with Nesterov's momentum.
      Deviates: computes in float32, not in bfloat16.
    Compat: PyTorch's Muon is the same up to its bfloat16, for kernels (out, in), has weight decay
      0.1 and owns matrices alone. Optax corrects the two terms of the momentum for their start,
      each by another factor, so it is the same in the first update alone.
    Measured with companion_lr=0.2, Adam beside it: digits 98.9 % at lr 0.01; Rosenbrock in ten
      dimensions 0.011 at lr 0.01.

    >>> from fnn.optim import sgd
    >>> opt, params = muon(companion=sgd()), {'w': jnp.eye(2), 'b': jnp.zeros(1)}
    >>> grads = {'w': jnp.array([[3.0, 0.0], [0.0, 2.0]]), 'b': jnp.ones(1)}
    >>> updates, _ = opt.update(grads, opt.init(params), params, 0.1)
    >>> updates['b'].round(3).tolist(), jnp.diag(updates['w']).round(2).tolist()
    ([-0.10000000149011612], [-0.10999999940395355, -0.07000000029802322])
    """
    own = _orthogonal_momentum(momentum, weight_decay, mask, stacked, scale, eps)

    def assign(flat: dict[str, Any]) -> dict[str, list[str]]:
        marks = owned(flat)
        return {
            "matrices": [path for path in flat if marks[path]],
            "rest": [path for path in flat if not marks[path]],
        }

    rest = _at_share(companion, companion_lr)
    return by_group("muon", {"matrices": own, "rest": rest}, assign)


def _orthogonal_momentum(
    momentum: Scalar,
    weight_decay: Scalar,
    mask: Mask | None,
    stacked: Mask | None,
    scale: Callable[[int, int], Scalar],
    eps: Scalar,
) -> Optimizer:
    """Muon on a flat dict of the leaves that it owns."""

    def init(params: Params) -> Params:
        for path, leaf in params.items():
            if jnp.ndim(leaf) < 2:
                raise ValueError(
                    f"muon: expected matrices to own, got {path}: {spec(leaf)}; leave it to "
                    "the companion"
                )
        return tree.zeros_like(params)

    def direction(grads, m, params):
        several = {} if stacked is None else stacked(params)
        m = jax.tree.map(lambda m, g: moving_average(momentum, m, g), m, grads)
        ahead = jax.tree.map(lambda m, g: moving_average(momentum, m, g), m, grads)
        blocks = [_as_matrices(x, several.get(path, False)) for path, x in ahead.items()]
        blocks = by_shape(lambda x: newton_schulz(x, eps=eps), blocks)
        u = {
            path: jnp.asarray(scale(*x.shape[-2:]), x.dtype) * x.reshape(m[path].shape)
            for path, x in zip(ahead, blocks, strict=True)
        }
        return decay_weights(u, params, weight_decay, mask), m

    return from_direction("muon", init, direction)


def _as_matrices(x: Array, several: bool) -> Array:
    return x if several else jax.lax.collapse(x, 0, x.ndim - 1)


def _at_share(optimizer: Optimizer, share: Scalar) -> Optimizer:
    """The optimizer at a share of lr."""

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        return optimizer.update(grads, state, params, lr * share, objective)

    return optimizer._replace(update=update)


# Keller Jordan's: as steep at 0 as they can be while every singular value in (0, 1] ends near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    x: Float[Array, "*n rows columns"],
    *,
    iterations: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: Scalar = 1e-7,
) -> Float[Array, "*n rows columns"]:
    """About U V^T, where x = U S V^T: the orthogonal factor of each matrix.

        x <- x / (||x||_F + eps)
        x <- a x + (b A + c A^2) x,   A = x x^T          5 times

    The polynomial acts on the singular values alone. With the coefficients given, those above a
    hundredth of the norm come to lie in [0.68, 1.14]: near 1, not at 1.

    Args:
      x: matrices, in the last two axes.
      iterations: 5, the published number, brings the values above 0.01 near 1.
      coefficients: a, b, c.
      eps: added to the norm, in its unit: matrices far below it come out small, and 0 stays 0.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Deviates: in the dtype
      of x, where the authors (and PyTorch) compute in bfloat16.

    >>> newton_schulz(jnp.diag(jnp.array([9.0, 0.5]))).round(1).tolist()
    [[0.699999988079071, 0.0], [0.0, 0.9000000357627869]]
    """
    a, b, c = coefficients
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT  # A is on the shorter side
    x = x / (safe_norm(x, (-2, -1)) + jnp.asarray(eps, x.dtype))
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide else x.mT
