"""PSGD with Kronecker factors: a preconditioner learned by gradient descent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from fnn import tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.keys import fold_name
from fnn.optim._base import (
    decay_weights,
    from_direction,
    moving_average,
    unbiased,
    update_every,
)
from fnn.optim._by_shape import map_by_shape
from fnn.optim.contrib._kronecker import Factors, Matrices
from fnn.tree import Mask
from fnn.types import Optimizer, Params, PRNGKey, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class KronState:
    """The momentum and the factors of the preconditioner."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # running mean of the gradient, in at least float32
    factors: Factors  # path -> {'left', 'right'}: upper triangular (n, n), or a diagonal (n, 1)


@within(
    b1="[0, 1)",
    weight_decay="[0, inf)",
    factor_lr="(0, 1)",
    max_rms="(0, inf]",
    every_steps="[1, inf)",
)
def kron(
    *,
    key: PRNGKey,
    b1: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    factor_lr: Scalar = 0.1,
    max_rms: Scalar = 1.1,
    every_steps: int | Int[Array, ""] = 1,
    max_size: int = 8192,
) -> Optimizer:
    """PSGD-Kron: momentum whitened by factors Q_L and Q_R, learned by gradient descent.

        m <- b1 m + (1 - b1) G,    M = m / (1 - b1^t)
        every `every_steps` updates, with V standard normal:
          A = Q_L M Q_R^T        B = Q_L^-T V Q_R^-1
          Q_L <- Q_L - factor_lr triu(A A^T - B B^T) Q_L / ||A A^T + B B^T||
          Q_R <- Q_R - factor_lr triu(A^T A - B^T B) Q_R / ||A^T A + B^T B||
        u = Q_L^T Q_L M Q_R^T Q_R
        update = -lr (u min(1, max_rms / rms(u)) + weight_decay p)

    lr: 0.01 for small models, a third of Adam's for large ones.

    Args:
      key: for V; a step uses `fold_in(key, step)`, and leaves of one shape share V.
      b1: decay rate of the momentum, in [0, 1).
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.
      factor_lr: step size of the factors, in (0, 1).
      max_rms: limit of the root mean square of a leaf's u, which is 1 when it is white.
      every_steps: updates between updates of the factors, which change by a tenth each time. The
        authors grow it from 1 to 33 within 4,000 updates; it may be traced.
      max_size: longer sides have a diagonal factor, as have leaves with fewer than two axes.

    The last axis of a leaf is its right side, all before it the left.

    State: KronState; the factors start at the identity.
    Source: Li 2018, arXiv:1512.04202; Pooladzandi & Li 2024, arXiv:2402.04553, with the form and
      defaults of the authors' `kron`. Deviates: the norm is bounded by one power iteration; factors
      are balanced at every update; a leaf without gradient keeps its factors.
    Compat: not in Optax, Keras or PyTorch.

    >>> opt, params = kron(key=jax.random.key(0)), {'w': jnp.zeros((2, 2))}
    >>> updates, _ = opt.update({'w': jnp.eye(2)}, opt.init(params), params, 0.1)
    >>> bool(updates['w'][0, 0] < 0)
    True
    """

    def init(params: Params) -> KronState:
        m = tree.zeros_like(params)
        factors = {path: _identities(x, max_size) for path, x in _flat(m).items()}
        return KronState(step=jnp.int32(0), m=m, factors=factors)

    def direction(grads: Params, state: KronState, params: Params) -> tuple[Params, KronState]:
        t = state.step + 1
        m = moving_average(b1, state.m, grads)
        means = _flat(unbiased(b1, m, t))
        step_key = jax.random.fold_in(key, state.step)
        args = state.factors, means, step_key, factor_lr
        factors = update_every(every_steps, state.step, _updated, *args)

        def whitened(both: dict[str, Array], x: Array) -> Array:
            u = _multiply(both, _multiply(both, x), transposed=True)
            mean_square = jnp.square(u).mean((-2, -1), keepdims=True)
            return u / jnp.maximum(1, safe_sqrt(mean_square) / jnp.asarray(max_rms, u.dtype))

        by_path = _map_leaves(whitened, factors, means)
        u = tree.map_with_path(lambda path, m: by_path[path].reshape(m.shape), m)
        state = KronState(step=t, m=m, factors=factors)
        return decay_weights(u, params, weight_decay, mask), state

    return from_direction("kron", init, direction)


def _map_leaves(
    function: Callable[[dict[str, Array], Array], Any], factors: Factors, means: Matrices
) -> dict[str, Any]:
    """`function` of the factors and the mean of each leaf, with one call per shape."""
    results = map_by_shape(function, [factors[path] for path in means], list(means.values()))
    return dict(zip(means, results, strict=True))


def _flat(leaves: Params) -> Matrices:
    """All leaves as matrices by path; leaves with fewer than two axes as rows."""
    rows = zip(tree.paths(leaves), jax.tree.leaves(leaves), strict=True)
    return {
        path: lax.collapse(x, 0, x.ndim - 1) if x.ndim > 1 else x.reshape(1, x.size)
        for path, x in rows
    }


def _identities(x: Array, max_size: int) -> dict[str, Array]:
    def one(n: int) -> Array:
        return jnp.eye(n, dtype=x.dtype) if n <= max_size else jnp.ones((n, 1), x.dtype)

    rows, columns = x.shape
    if rows == 1:  # also for vectors and scalars
        return {"right": jnp.ones((columns, 1), x.dtype)}
    return {"left": one(rows), "right": one(columns)}


def _is_diagonal(q: Array) -> bool:
    return q.shape[-1] == 1


def _multiply(factors: dict[str, Array], x: Array, *, transposed: bool = False) -> Array:
    """Q_L x Q_R^T, or Q_L^T x Q_R."""
    if "left" in factors:
        q = factors["left"]
        x = q * x if _is_diagonal(q) else (q.mT if transposed else q) @ x
    q = factors["right"]
    return q.mT * x if _is_diagonal(q) else x @ (q if transposed else q.mT)


def _solve(factors: dict[str, Array], v: Array) -> Array:
    """Q_L^-T v Q_R^-1."""

    def solve(q: Array, v: Array, left: bool) -> Array:
        return jax.lax.linalg.triangular_solve(q, v, left_side=left, lower=False, transpose_a=left)

    if "left" in factors:
        q = factors["left"]
        v = v / q if _is_diagonal(q) else solve(q, v, left=True)
    q = factors["right"]
    return v / q.mT if _is_diagonal(q) else solve(q, v, left=False)


def _updated(factors: Factors, means: Matrices, key: PRNGKey, factor_lr: Scalar) -> Factors:
    """A gradient step of all factors."""

    def leaf(both: dict[str, Array], x: Array) -> dict[str, Array]:
        shape = x.shape[1:]
        # Each leaf learns from its own gradient alone, so leaves of one shape may share a draw.
        v = jax.random.normal(fold_name(key, f"{shape}"), shape, x.dtype)
        a, b = _multiply(both, x), _solve(both, jnp.broadcast_to(v, x.shape))
        return _balanced(
            {s: _moved(q, _gram(s, a, q), _gram(s, b, q), factor_lr) for s, q in both.items()}
        )

    return _map_leaves(leaf, factors, means)


def _gram(side: str, x: Array, q: Array) -> Array:
    x = x if side == "left" else x.mT
    return jnp.square(x).sum(-1, keepdims=True) if _is_diagonal(q) else x @ x.mT


def _moved(q: Array, signal: Array, noise: Array, factor_lr: Scalar) -> Array:
    total, difference = signal + noise, signal - noise
    if _is_diagonal(q):
        turn, size = difference * q, _largest(total)
    else:
        turn, size = jnp.triu(difference) @ q, _norm(total)
    some = (signal != 0).any((-2, -1), keepdims=True) & (size > 0)
    rate = jnp.asarray(factor_lr, q.dtype) / jnp.where(some, size, 1)
    return q - jnp.where(some, rate, 0) * turn


def _norm(a: Array) -> Array:
    """Approximate spectral norm of symmetric matrices: power iteration from the largest column."""
    if not a.size:
        return jnp.zeros((*a.shape[:-2], 1, 1), a.dtype)
    # Only rounding depends on the scale, so no derivative passes through it.
    scale = jax.lax.stop_gradient(jnp.abs(a).max((-2, -1), keepdims=True))
    a = a / jnp.maximum(scale, 1e-30)
    column = jnp.square(a).sum(-2, keepdims=True).argmax(-1, keepdims=True)
    x = jnp.take_along_axis(a, jnp.broadcast_to(column, (*a.shape[:-1], 1)), axis=-1)
    norm = safe_sqrt(jnp.square(x).sum(-2, keepdims=True))
    x = a @ (x / jnp.where(norm > 0, norm, 1))
    return scale * safe_sqrt(jnp.square(x).sum(-2, keepdims=True))


def _largest(x: Array) -> Array:
    """The largest entry of each matrix."""
    # By its index: the derivative of a maximum compares values, and is 0 / 0 where the compiler
    # computes x twice with different rounding.
    if not x.size:
        return jnp.zeros((*x.shape[:-2], 1, 1), x.dtype)
    flat = lax.collapse(x, x.ndim - 2)[..., None, :]
    return jnp.take_along_axis(flat, flat.argmax(-1, keepdims=True), axis=-1)


def _balanced(both: dict[str, Array]) -> dict[str, Array]:
    """Factors rescaled to equal size, so that neither leaves float32's range."""
    if "left" not in both:
        return both
    left, right = both["left"], both["right"]
    ratio = jnp.sqrt(_largest(jnp.abs(right)) / _largest(jnp.abs(left)))
    return {"left": left * ratio, "right": right / ratio}
