"""One member of a sweep: the run of `make_run`, in spans, frozen once it is not finite."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from fnn import dtypes, tree
from fnn.keys import run_keys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._scan import gather, scan_legs, scan_steps, struct_of
from fnn.train.state import Start, make_init
from fnn.types import Data, Hyper, PRNGKey, TrainState


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The static settings that the members of a group share."""

    recipe: RecipeFunction
    batch_size: int
    eval_every: int
    eval_batch_size: int
    keep: Callable[[TrainState], Any]  # the part of a member's state to return
    key_impl: Any  # of `jax.random.key_impl`; a program gets the keys as words

    def key(self, words: Any) -> PRNGKey:
        """The typed key with these words."""
        return jax.random.wrap_key_data(jnp.asarray(words), impl=self.key_impl)


def first_state(
    plan: Plan, key: PRNGKey, hyper: Hyper, data: Data, start: Start = None
) -> TrainState:
    """The first state of `run` with the same key."""
    x = struct_of(data.train, plan.batch_size)[0]
    return make_init(plan.recipe)(run_keys(key).init, hyper, x, start)


def run_span(
    plan: Plan, state: TrainState, key: PRNGKey, hyper: Hyper, data: Data, first: int, last: int
) -> tuple[TrainState, Recorded, dict[str, Array]]:
    """The steps from `first` to `last`, with an evaluation after every `eval_every` of them.

    A member is frozen by the first step whose loss or new parameters are not finite: `state.step`
    no longer advances, and records after that step are NaN. `first` is a multiple of `eval_every`.
    """
    keys = run_keys(key)

    def advance(
        state: TrainState, step: Int[Array, ""], indices: Int[Array, " batch"]
    ) -> tuple[TrainState, Recorded]:
        # Not state.step, which differs between members: results that depend on the step alone, such
        # as the batches and whether a measure runs, are then computed once for all hyperparameters.
        batch, now = gather(data.train, indices), replace(state, step=step)
        after, recorded = compiled.step(plan.recipe, (), now, batch, keys.noise, hyper)
        alive = state.step == step
        finite = jnp.isfinite(recorded[1]["loss"]) & tree.all_finite(after.params)
        state = jax.tree.map(partial(jnp.where, alive & finite), after, state)
        return state, _or_missing(alive, recorded)

    def leg(state: TrainState, start: Any, length: int) -> tuple[TrainState, PyTree]:
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
        settings = (plan.recipe, plan.eval_batch_size, ())
        valid = compiled.evaluate(*settings, state, data.valid, hyper)
        return state, (recorded, _or_missing(state.step == start + length, valid))

    return scan_legs(leg, state, first=first, last=last, every=plan.eval_every)


def _or_missing(alive: Array, values: PyTree) -> PyTree:
    return jax.tree.map(lambda a: jnp.where(alive, a, dtypes.missing()), values)
