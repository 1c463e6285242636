"""One member of a sweep: the run of `make_run`, in stretches, and frozen when it is not finite."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import tree
from fnn.keys import RunKeys, run_keys
from fnn.train.evaluate import pure_evaluate
from fnn.train.recipe import RecipeFunction, build
from fnn.train.run import block_indices, even_block_length, example, make_advance
from fnn.train.state import init_state
from fnn.types import Data, Hyper, Metrics, Pair, PRNGKey, TrainState

Record = tuple[Float[Array, "steps 5"], dict[str, Float[Array, "*evals"]]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the members of a group share, as far as it decides what is compiled."""

    recipe: RecipeFunction
    batch_size: int
    eval_every: int
    eval_batch_size: int
    keep: Callable[[TrainState], Any]  # what is kept of a member's state
    key_impl: Any  # of `jax.random.key_impl`; a program gets the keys as words

    def key(self, words: Any) -> PRNGKey:
        """The typed key with these words."""
        return jax.random.wrap_key_data(jnp.asarray(words), impl=self.key_impl)


def first_state(plan: Plan, key: PRNGKey, hyper: Hyper, data: Data) -> TrainState:
    """Where a member starts: as `run` does with the same key."""
    x = example(data.train, plan.batch_size)
    return init_state(plan.recipe, run_keys(key).init, hyper, x)


def stretch(
    plan: Plan, state: TrainState, key: PRNGKey, hyper: Hyper, data: Data, first: int, last: int
) -> tuple[TrainState, Record]:
    """The steps from `first` to `last`, with an evaluation after every `eval_every` of them.

    A member is frozen by the first step whose loss or new parameters are not finite: `state.step`
    stays behind, and what would be recorded after that step is NaN.

    Args:
      first: a multiple of `eval_every`.
    """
    leg = _make_leg(plan, key, hyper, data)
    legs, rest = divmod(last - first, plan.eval_every)
    starts = first + plan.eval_every * jnp.arange(legs, dtype=jnp.int32)
    go_on = partial(leg, length=plan.eval_every)
    state, (values, valid) = jax.lax.scan(go_on, state, starts)
    values = values.reshape(legs * plan.eval_every, values.shape[-1])
    if rest:
        state, (tail, final) = leg(state, jnp.int32(last - rest), length=rest)
        values = jnp.concatenate([values, tail])
        valid = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), valid, final)
    return state, (values, valid)


def _make_leg(
    plan: Plan, key: PRNGKey, hyper: Hyper, data: Data
) -> Callable[..., tuple[TrainState, Record]]:
    keys, evaluate = run_keys(key), pure_evaluate(plan.recipe, plan.eval_batch_size)
    norms = build(plan.recipe, hyper).norms
    one = partial(_step, make_advance(plan.recipe), norms, keys, hyper, data.train)

    def leg(state: TrainState, start: Int[Array, ""], length: int) -> tuple[TrainState, Record]:
        """`length` steps, then an evaluation."""
        in_block = even_block_length(data.train, plan.batch_size, length)

        def block(state: TrainState, begin: Array) -> tuple[TrainState, Array]:
            # Not from state.step, which differs between members: the keys' order is found once
            # for all hyperparameters, and so are the batches.
            chosen = block_indices(keys, begin, data.train, plan.batch_size, in_block)
            return jax.lax.scan(one, state, (begin + jnp.arange(in_block, dtype=jnp.int32), chosen))

        begins = start + in_block * jnp.arange(length // in_block, dtype=jnp.int32)
        state, values = jax.lax.scan(block, state, begins)
        alive = state.step == start + length
        valid = evaluate(state, data.valid, hyper)
        valid = {name: jnp.where(alive, value, jnp.nan) for name, value in valid.items()}
        return state, (values.reshape(length, -1), valid)

    return leg


def _step(
    advance: Callable[..., tuple[TrainState, Metrics]],
    norms: bool,
    keys: RunKeys,
    hyper: Hyper,
    train: Pair,
    state: TrainState,
    upcoming: tuple[Int[Array, ""], Int[Array, " batch"]],
) -> tuple[TrainState, Float[Array, "5"]]:
    step, indices = upcoming
    after, metrics = advance(replace(state, step=step), indices, keys, hyper, train)
    alive = state.step == step
    finite = jnp.isfinite(metrics.param_norm) if norms else tree.all_finite(after.params)
    go_on = alive & jnp.isfinite(metrics.loss) & finite
    state = jax.tree.map(partial(jnp.where, go_on), after, state)
    return state, jnp.where(alive, metrics.values, jnp.nan)
