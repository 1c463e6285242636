"""One member of a sweep: the run of `make_run`, in stretches, and frozen when it is not finite."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, tree
from fnn.keys import run_keys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._blocks import rows, scan_steps, struct_of
from fnn.train.state import Start, make_init
from fnn.types import Data, Hyper, PRNGKey, TrainState

Record = tuple[Recorded, dict[str, Float[Array, "*evals"]]]


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


def first_state(
    plan: Plan, key: PRNGKey, hyper: Hyper, data: Data, start: Start = None
) -> TrainState:
    """Where a member starts: as `run` does with the same key."""
    x = struct_of(data.train, plan.batch_size)[0]
    return make_init(plan.recipe)(run_keys(key).init, hyper, x, start)


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
    state, (recorded, valid) = jax.lax.scan(partial(leg, length=plan.eval_every), state, starts)
    recorded = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), recorded)
    if rest:
        state, (tail, final) = leg(state, jnp.int32(last - rest), length=rest)
        recorded = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), recorded, tail)
        valid = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), valid, final)
    return state, (recorded, valid)


def _make_leg(
    plan: Plan, key: PRNGKey, hyper: Hyper, data: Data
) -> Callable[..., tuple[TrainState, Record]]:
    keys = run_keys(key)

    def advance(
        state: TrainState, step: Int[Array, ""], indices: Int[Array, " batch"]
    ) -> tuple[TrainState, Recorded]:
        # Not state.step, which differs between members: what follows from the step alone, such as
        # the batches and whether a measure runs, is then computed once for all hyperparameters.
        batch, now = rows(data.train, indices), replace(state, step=step)
        after, recorded = compiled.step(plan.recipe, (), now, batch, keys.noise, hyper)
        alive = state.step == step
        finite = jnp.isfinite(recorded[1]["loss"]) & tree.all_finite(after.params)
        state = jax.tree.map(partial(jnp.where, alive & finite), after, state)
        return state, jax.tree.map(lambda a: jnp.where(alive, a, dtypes.missing()), recorded)

    def leg(state: TrainState, start: Int[Array, ""], length: int) -> tuple[TrainState, Record]:
        """`length` steps, then an evaluation."""
        state, recorded = scan_steps(
            advance,
            state,
            start,
            keys=keys,
            train=data.train,
            batch_size=plan.batch_size,
            length=length,
        )
        alive = state.step == start + length
        settings = (plan.recipe, plan.eval_batch_size, ())
        valid = compiled.evaluate(*settings, state, data.valid, hyper)
        return state, (
            recorded,
            {n: jnp.where(alive, v, dtypes.missing()) for n, v in valid.items()},
        )

    return leg
