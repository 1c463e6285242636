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
from fnn.optim._by_shape import map_by_shape
from fnn.optim.groups import by_group, split_by
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar


def width_scale(inputs: int, outputs: int) -> float:
    """sqrt(max(1, outputs / inputs)): outputs change by the same amount at every width.

    Source: Jordan et al. 2024. For lr about 0.02, with another lr for the companion.

    >>> width_scale(64, 256), width_scale(256, 64)
    (2.0, 1.0)
    """
    return math.sqrt(max(1, outputs / max(inputs, 1)))


def adamw_scale(inputs: int, outputs: int) -> float:
    """0.2 sqrt(max(inputs, outputs)): updates with the typical root mean square of AdamW's.

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

    lr: 0.02, with `adamw_scale` as AdamW's.

    Args:
      companion: the optimizer of all other leaves, e.g. `adamw(weight_decay=0.1)`.
      companion_lr: the companion's lr relative to Muon's: 0.015 for 3e-4 beside 0.02.
      owned: the leaves that Muon updates. The default, all with two axes or more, includes
        embeddings and the last layer, which the authors leave to Adam, and, in layers stacked for a
        scan, biases. Better name them: `matching('body/*kernel')`.
      stacked: which owned leaves hold several matrices, in their last two axes: layers stacked
        for a scan, experts. In all others the last axis counts outputs and all before it inputs,
        as in the kernel of a convolution.
      momentum: decay rate of m, in [0, 1).
      weight_decay: decoupled, per unit of lr, of the owned leaves; the companion has its own.
      mask: which owned leaves decay; None is all of them.
      scale: a function of a matrix's inputs and outputs: `width_scale`, `adamw_scale`.
      eps: of `newton_schulz`.

    State: {'matrices': m, a flat dict of the owned leaves by path in at least float32, 'rest': the
      companion's}, as in `partition`.
    Raises: ValueError, if an owned leaf has fewer than two axes.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with Nesterov momentum.
      Deviates: computes in float32, not in bfloat16.
    Compat: PyTorch's Muon is the same except for bfloat16, for kernels (out, in), with weight decay
      0.1, and owns matrices alone. Optax corrects the two terms of the momentum for their start by
      different factors, so only its first update is the same.

    >>> from fnn.optim import sgd
    >>> opt, params = muon(companion=sgd()), {'w': jnp.eye(2), 'b': jnp.zeros(1)}
    >>> grads = {'w': jnp.array([[3.0, 0.0], [0.0, 2.0]]), 'b': jnp.ones(1)}
    >>> updates, _ = opt.update(grads, opt.init(params), params, 0.1)
    >>> float(f"{updates['b'][0]:.2g}"), [float(f"{u:.2g}") for u in jnp.diag(updates['w'])]
    (-0.1, [-0.11, -0.068])
    """
    own = _orthogonal_momentum(momentum, weight_decay, mask, stacked, scale, eps)

    def companion_update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        return companion.update(grads, state, params, lr * companion_lr, objective)

    rest = companion._replace(update=companion_update)
    return by_group("muon", {"matrices": own, "rest": rest}, split_by(owned, "matrices", "rest"))


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

    def direction(grads: Params, m: Params, params: Params) -> tuple[Params, Params]:
        is_stacked = {} if stacked is None else stacked(params)
        m = moving_average(momentum, m, grads)
        ahead = moving_average(momentum, m, grads)
        blocks = [
            x if is_stacked.get(path, False) else jax.lax.collapse(x, 0, x.ndim - 1)
            for path, x in ahead.items()
        ]
        blocks = map_by_shape(lambda x: newton_schulz(x, eps=eps), blocks)
        u = {
            path: jnp.asarray(scale(*x.shape[-2:]), x.dtype) * x.reshape(m[path].shape)
            for path, x in zip(ahead, blocks, strict=True)
        }
        return decay_weights(u, params, weight_decay, mask), m

    return from_direction("muon", init, direction)


# Keller Jordan's: the largest slope at 0 for which every singular value in (0, 1] ends near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    x: Float[Array, "*n rows columns"],
    *,
    iterations: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: Scalar = 1e-7,
) -> Float[Array, "*n rows columns"]:
    """Approximately U V^T, where x = U S V^T: the orthogonal factor of each matrix.

        x <- x / (||x||_F + eps)
        x <- a x + (b A + c A^2) x,   A = x x^T          5 times

    The polynomial acts on the singular values. With the default coefficients, those above 1 % of
    the norm end in [0.68, 1.14]: near 1, not at 1.

    Args:
      x: matrices, in the last two axes.
      iterations: 5, the published number, brings the values above 0.01 near 1.
      coefficients: a, b, c.
      eps: added to the norm, in its unit: matrices far below it stay small, and 0 stays 0.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Deviates: in the dtype
      of x, where the authors (and PyTorch) compute in bfloat16.

    >>> x = newton_schulz(jnp.diag(jnp.array([9.0, 0.5])))
    >>> [float(f"{s:.2g}") for s in jnp.diag(x)]
    [0.7, 0.86]
    """
    a, b, c = coefficients
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT  # A is on the shorter side
    x = x / (safe_norm(x, (-2, -1)) + jnp.asarray(eps, x.dtype))
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide else x.mT
