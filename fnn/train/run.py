"""A whole training run as one pure function of (key, hyperparameters, data)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from fnn import measures
from fnn.keys import run_keys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction, expect_recipe
from fnn.train import _compiled as compiled
from fnn.train._scan import Scan, gather, scan_legs, scan_steps, struct_of
from fnn.train.check import check
from fnn.train.devices import everywhere
from fnn.train.evaluate import make_evaluate
from fnn.train.state import Start, make_init
from fnn.types import Data, History, Hyper, PRNGKey, TrainState

# (key, hyper, data, init=None) -> state, history
Run = Callable[..., tuple[TrainState, History]]


def make_run(
    recipe: RecipeFunction,
    *,
    steps: int,
    batch_size: int,
    eval_every: int | None = None,
    eval_batch_size: int = 1024,
    scan: Scan = jax.lax.scan,
    devices: Sequence[jax.Device] = (),
) -> Run:
    """Returns `run(key, hyper, data, init=None) -> state, history`: training and evaluation.

    A pure function: `jax.jit(run)` compiles it, `jax.vmap(run, (0, None, None))` trains one model
    per key, and `jax.vmap` over `hyper` is a sweep. `jax.grad` of a validation loss in the history
    with respect to `hyper` is a hypergradient; `jax.jvp` computes it in one direction, in memory
    independent of the number of steps. `init` are weights to start from, as in `fit`; the gradient
    with respect to them is that of meta-learning.

    Args:
      steps: number of updates.
      batch_size: examples per step, at most those in `data.train`.
      eval_every: steps between evaluations on `data.valid`; None evaluates after the last step
        only. The last step is always followed by an evaluation.
      eval_batch_size: examples per batch of an evaluation.
      scan: the loop over steps. With `checkpointed_scan` the gradient of a run needs memory for
        the square root of the number of steps and recomputes each step once or twice; the default
        stores the intermediate values of every step.
      devices: for data parallelism, see `fit`.

    Raises: ValueError for what `check` finds, before any training.

    >>> from fnn import Batch, Data, Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> run = make_run(recipe, steps=100, batch_size=4, eval_every=50)
    >>> state, history = jax.jit(run)(jax.random.key(0), {'lr': 0.3}, data)
    >>> history.eval_steps.tolist(), history.train['loss'].shape
    ([50, 100], (100,))
    >>> bool(history.valid['loss'][-1] < 1e-6)
    True
    """
    expect_recipe(recipe)
    every, devices = min(eval_every or steps, steps), tuple(devices)
    first_state = make_init(recipe)
    evaluate = make_evaluate(recipe, batch_size=eval_batch_size, devices=devices)

    def run(
        key: PRNGKey, hyper: Hyper, data: Data, init: Start = None
    ) -> tuple[TrainState, History]:
        check(recipe, data, key=key, hyper=hyper, batch_size=batch_size, devices=devices)
        keys = run_keys(key)
        data = everywhere(devices, jax.tree.map(jnp.asarray, data))
        x = struct_of(data.train, batch_size)[0]
        state = everywhere(devices, first_state(keys.init, hyper, x, init))

        def advance(
            state: TrainState, step: Int[Array, ""], indices: Int[Array, " batch"]
        ) -> tuple[TrainState, Recorded]:
            batch = gather(data.train, indices)
            return compiled.step(recipe, devices, state, batch, keys.noise, hyper)

        def leg(state: TrainState, first: Any, length: int) -> tuple[TrainState, PyTree]:
            """`length` steps, then an evaluation."""
            state, recorded = scan_steps(
                advance,
                state,
                first,
                keys=keys,
                train=data.train,
                batch_size=batch_size,
                length=length,
                scan=scan,
            )
            return state, (recorded, (state.step, evaluate(state, data.valid, hyper)))

        state, recorded, (eval_steps, valid) = scan_legs(
            leg, state, last=steps, every=every, scan=scan
        )
        train, train_steps = measures.measured(recorded, 0, steps)
        return state, History(
            train=train, train_steps=train_steps, eval_steps=eval_steps, valid=valid
        )

    return run
