"""L-BFGS: a quasi-Newton method for full batches."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes
from fnn.autodiff import safe_norm
from fnn.optim._base import from_update
from fnn.optim.line_search import Line, LineSearch, wolfe
from fnn.types import Objective, Optimizer, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LbfgsState:
    """The last steps, as vectors of all n parameters, in at least float32."""

    step: Int[Array, ""]  # updates made so far, int32
    pairs: Int[Array, ""]  # pairs stored so far, int32; the next goes to row pairs % memory
    params: Float[Array, " n"]  # at the last update
    grads: Float[Array, " n"]
    moves: Float[Array, "memory n"]  # s: differences of the parameters
    changes: Float[Array, "memory n"]  # y: differences of the gradients
    inverse: Float[Array, " memory"]  # 1 / (s . y); 0 for a row without a pair


def lbfgs(*, memory: int = 10, search: LineSearch | None = None) -> Optimizer:
    """L-BFGS: a Newton direction from the last `memory` steps, and a line search along it.

        d = -H g,   with H from the pairs s = p_k+1 - p_k, y = g_k+1 - g_k by the two-loop recursion
        update = t d,   t by a line search whose first trial is lr

    For full batches: all gradients should be of one function. Use lr = 1.

    Args:
      memory: number of stored pairs, from 1; static. It takes 2 memory + 2 copies of params.
      search: finds t: `wolfe()` if None, `backtracking()`, or `full_step()`, which takes lr and
        needs no objective.

    H starts from the identity times s.y / y.y of the last pair; before the first pair, times
    min(1, 1 / ||g||). Pairs without positive curvature are dropped. Where no step along d lowers
    the loss enough, the update is zero and all pairs are dropped.

    State: LbfgsState.
    Raises: ValueError, in update, without an objective, unless the search is `full_step()`.
    Source: Nocedal 1980; Nocedal & Wright 2006, Algorithms 7.4 and 7.5. Derivatives with respect to
      lr or the start pass through d; the search's t / lr is piecewise constant and taken as such.
    Compat: with `full_step()` it is Optax's `lbfgs(linesearch=None)`. Optax searches by zoom and
      PyTorch by cubic interpolation, with other steps; PyTorch begins with 1 / ||g||_1.

    >>> def loss(p): return (p['x'] - 1) ** 4 + (p['x'] - 1) ** 2
    >>> at = jax.value_and_grad(loss)
    >>> opt, params = lbfgs(), {'x': jnp.float32(3.0)}
    >>> state = opt.init(params)
    >>> for _ in range(8):
    ...     value, grads = at(params)
    ...     updates, state = opt.update(grads, state, params, 1.0, Objective(value, at))
    ...     params = jax.tree.map(jnp.add, params, updates)
    >>> params['x'].round(3).item()
    1.0
    """
    find = wolfe() if search is None else search

    def init(params: Params) -> LbfgsState:
        zero = jnp.zeros_like(_vector(params))
        return LbfgsState(
            step=jnp.int32(0),
            pairs=jnp.int32(0),
            params=zero,
            grads=jnp.zeros_like(zero),
            moves=jnp.zeros((memory, zero.size), zero.dtype),
            changes=jnp.zeros((memory, zero.size), zero.dtype),
            inverse=jnp.zeros(memory, zero.dtype),
        )

    def update(
        grads: Params, state: LbfgsState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, LbfgsState]:
        x, g = _vector(params), _vector(grads)
        state = _remember(state, x, g, memory)
        d = -_times_inverse_hessian(state, g, memory)
        line = _line(objective, params, x, d, g)
        t = find(line, jnp.asarray(lr, x.dtype))
        # Without an acceptable step the pairs are wrong; the next direction is the gradient's.
        inverse = jnp.where(t == 0, 0, state.inverse)
        return _like(params, t * d), dataclasses.replace(state, inverse=inverse)

    return from_update("lbfgs", init, update)


def _remember(state: LbfgsState, x: Array, g: Array, memory: int) -> LbfgsState:
    """The state with the pair (s, y) from the last x and g, if its curvature is positive."""
    s, y = x - state.params, g - state.grads
    product, norms = s @ y, safe_norm(s)[0] * safe_norm(y)[0]
    keep = (state.step > 0) & (product > jnp.finfo(x.dtype).eps * norms)
    row = state.pairs % memory

    def put(rows: Array, new: Array) -> Array:
        return rows.at[row].set(jnp.where(keep, new, rows[row]))

    return LbfgsState(
        step=state.step + 1,
        pairs=state.pairs + keep.astype(jnp.int32),
        params=x,
        grads=g,
        moves=put(state.moves, s),
        changes=put(state.changes, y),
        inverse=put(state.inverse, 1 / jnp.where(keep, product, 1)),
    )


def _times_inverse_hessian(state: LbfgsState, g: Array, memory: int) -> Array:
    """H g by the two-loop recursion; rows without a pair have no effect."""
    latest = (state.pairs - 1 - jnp.arange(memory, dtype=jnp.int32)) % memory
    rows = state.moves[latest], state.changes[latest], state.inverse[latest]

    def down(q: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s, y, inverse = row
        a = inverse * (s @ q)
        return q - a * y, a

    def up(q: Array, row: tuple[tuple[Array, Array, Array], Array]) -> tuple[Array, None]:
        (s, y, inverse), a = row
        return q + (a - inverse * (y @ q)) * s, None

    q, a = jax.lax.scan(down, g, rows)
    return jax.lax.scan(up, _first_scale(g, rows) * q, (rows, a), reverse=True)[0]


def _first_scale(g: Array, rows: tuple[Array, Array, Array]) -> Array:
    y, inverse = rows[1][0], rows[2][0]
    known = inverse > 0
    curvature = 1 / jnp.where(known, inverse * (y @ y), 1)
    return jnp.where(known, curvature, 1 / jnp.maximum(1, safe_norm(g)[0]))


def _line(objective: Objective | None, params: Params, x: Array, d: Array, g: Array) -> Line:
    def at(t: Array) -> tuple[Array, Array]:
        if objective is None:
            raise ValueError(
                "lbfgs: expected an objective for the line search, got None; train with fnn.train, "
                "pass objective= to update, or search by full_step()"
            )
        there = jax.tree.map(lambda p, new: new.astype(p.dtype), params, _like(params, x + t * d))
        value, grads = objective.at(there)
        return value.astype(x.dtype), _vector(grads) @ d

    value = jnp.zeros((), x.dtype) if objective is None else objective.value.astype(x.dtype)
    return Line(value, g @ d, at)


def _vector(leaves: Params) -> Array:
    """All leaves as one vector, in at least float32."""
    wide = dtypes.widest(leaves)
    flat = [leaf.astype(wide).ravel() for leaf in jax.tree.leaves(dtypes.wide(leaves))]
    return jnp.concatenate([jnp.zeros(0, wide), *flat])


def _like(params: Params, vector: Array) -> Params:
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        return params
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    parts = jnp.split(vector, ends[:-1])
    return jax.tree.unflatten(
        structure, [x.reshape(leaf.shape) for x, leaf in zip(parts, leaves, strict=True)]
    )
