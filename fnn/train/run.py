"""A whole training run as one pure function of (key, hyperparameters, data)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import measures
from fnn.keys import run_keys
from fnn.recipe import RecipeFunction, expect_recipe
from fnn.train import _compiled as compiled
from fnn.train._blocks import rows, scan_steps, struct_of
from fnn.train.check import check
from fnn.train.checkpointed_scan import Scan
from fnn.train.devices import everywhere
from fnn.train.evaluate import make_evaluate
from fnn.train.state import make_init
from fnn.types import History, TrainState

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
    """`run(key, hyper, data, init=None) -> state, history`: a training, evaluation included.

    A pure function. `jax.jit(run)` compiles it, `jax.vmap(run, (0, None, None))` trains one model
    per key, `jax.vmap` over `hyper` sweeps. `jax.grad` of a validation loss in the history with
    respect to `hyper` is a hypergradient; `jax.jvp` is one of a single direction, in memory that
    does not grow with the steps. `init` are weights to start from, as of `fit`; a gradient to them
    is one of meta-learning.

    Args:
      steps: updates in all.
      batch_size: examples per step, at most those in `data.train`.
      eval_every: steps between evaluations on `data.valid`; None evaluates at the end only. There
        is always an evaluation after the last step.
      eval_batch_size: examples per batch of an evaluation.
      scan: how to repeat the steps. With `checkpointed_scan` the gradient of a run needs memory for
        the square root of the steps, and computes each once or twice more; the plain scan keeps the
        intermediate values of every step. Without a gradient both are equally fast.
      devices: that share each batch and each evaluation; () for none.

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
    eval_every = steps if eval_every is None else eval_every
    expect_recipe(recipe)
    eval_every, devices = min(eval_every, steps), tuple(devices)
    first_state = make_init(recipe)
    evaluate = make_evaluate(recipe, batch_size=eval_batch_size, devices=devices)

    def run(key, hyper, data, init=None):
        check(recipe, data, key=key, hyper=hyper, batch_size=batch_size, devices=devices)
        keys = run_keys(key)
        data = everywhere(devices, jax.tree.map(jnp.asarray, data))
        x = struct_of(data.train, batch_size)[0]
        state = everywhere(devices, first_state(keys.init, hyper, x, init))

        def advance(state, step, indices):
            batch = rows(data.train, indices)
            return compiled.step(recipe, devices, state, batch, keys.noise, hyper)

        def leg(state, first, length=eval_every):
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
            return state, (recorded, state.step, evaluate(state, data.valid, hyper))

        legs, rest = divmod(steps, eval_every)
        firsts = eval_every * jnp.arange(legs, dtype=jnp.int32)
        state, (recorded, eval_steps, valid) = scan(leg, state, firsts, length=legs)
        recorded = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), recorded)
        if rest:
            state, (tail, *last) = leg(state, steps - rest, rest)
            recorded = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), recorded, tail)
            eval_steps, valid = jax.tree.map(_append, (eval_steps, valid), tuple(last))
        train, train_steps = measures.measured(recorded, 0, steps)
        return state, History(
            train=train, train_steps=train_steps, eval_steps=eval_steps, valid=valid
        )

    return run


def _append(values: Array, last: Array) -> Array:
    return jnp.concatenate([values, last[None]])
