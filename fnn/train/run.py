"""A whole training as one pure function of (key, hyperparameters, data)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.keys import RunKeys, run_keys
from fnn.order import order_block
from fnn.train.check import check, expect_positive
from fnn.train.checkpointed import Scan
from fnn.train.evaluate import pure_evaluate
from fnn.train.recipe import RecipeFunction
from fnn.train.state import init_state
from fnn.train.step import pure_step
from fnn.types import Data, History, Hyper, Metrics, Pair, PRNGKey, TrainState

Run = Callable[[PRNGKey, Hyper, Data], tuple[TrainState, History]]


def make_run(
    recipe: RecipeFunction,
    *,
    steps: int,
    batch_size: int,
    eval_every: int | None = None,
    eval_batch_size: int = 1024,
    scan: Scan = jax.lax.scan,
) -> Run:
    """`run(key, hyper, data) -> state, history`: the whole training, evaluation included.

    The function is pure and not yet jitted. `jax.jit(run)` compiles it, `jax.vmap(run, (0, None,
    None))` trains one model per key, `jax.vmap` over `hyper` sweeps, and `jax.grad` of a validation
    loss in the history with respect to `hyper` is a hypergradient.

    Args:
      steps: updates in all.
      batch_size: examples per step, at most those in `data.train`.
      eval_every: steps between evaluations on `data.valid`; None evaluates at the end only. There
        is always an evaluation after the last step.
      eval_batch_size: examples per batch of an evaluation.
      scan: how to repeat the steps. With `checkpointed_scan` the gradient of a run needs memory for
        the square root of the steps, and makes them once or twice more; the plain scan keeps what
        every step computes. A run that is not differentiated is as quick with either.

    Raises: ValueError for what `check` finds, before any training.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Batch, Recipe
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> run = make_run(recipe, steps=100, batch_size=4, eval_every=50)
    >>> state, history = jax.jit(run)(jax.random.key(0), {'lr': 0.3}, data)
    >>> history.eval_steps.tolist(), history.train.loss.shape
    ([50, 100], (100,))
    >>> history.valid['loss'][-1].item() < 1e-6
    True
    """
    eval_every = steps if eval_every is None else eval_every
    expect_positive(
        "make_run",
        steps=steps,
        batch_size=batch_size,
        eval_every=eval_every,
        eval_batch_size=eval_batch_size,
    )
    eval_every = min(eval_every, steps)
    make_steps = steps_maker(recipe, batch_size, scan)
    evaluate = pure_evaluate(recipe, eval_batch_size)

    def run(key, hyper, data):
        check(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
        keys = run_keys(key)
        data = jax.tree.map(jnp.asarray, data)
        state = init_state(recipe, keys.init, hyper, example(data.train, batch_size))

        def leg(state, length):
            """`length` steps, then an evaluation."""
            state, metrics = make_steps(state, keys, hyper, data.train, length)
            return state, (metrics, state.step, evaluate(state, data.valid, hyper))

        legs, rest = divmod(steps, eval_every)
        state, record = scan(lambda s, _: leg(s, eval_every), state, None, length=legs)
        train, eval_steps, valid = record
        train = Metrics(values=train.values.reshape(legs * eval_every, -1))
        history = History(train=train, eval_steps=eval_steps, valid=valid)
        if rest:
            state, (train, step, valid) = leg(state, rest)
            tail = History(train=train, eval_steps=step, valid=valid)
            history = jax.tree.map(_append, history, tail)
        return state, history

    return run


def steps_maker(
    recipe: RecipeFunction, batch_size: int, scan: Scan = jax.lax.scan
) -> Callable[[TrainState, RunKeys, Hyper, Pair, int], tuple[TrainState, Metrics]]:
    """`make_steps(state, keys, hyper, train, length) -> state, metrics`: so many steps of a run.

    They are the steps from `state.step` on, and the metrics have their values in rows.
    """
    advance = make_advance(recipe)

    def make_steps(state, keys, hyper, train, length):
        in_block = even_block_length(train, batch_size, length)

        def block(state, _):
            upcoming = block_indices(keys, state.step, train, batch_size, in_block)
            one = lambda state, i: advance(state, i, keys, hyper, train)  # noqa: E731
            return scan(one, state, upcoming)

        state, metrics = scan(block, state, None, length=length // in_block)
        return state, Metrics(values=metrics.values.reshape(length, -1))

    return make_steps


def make_advance(
    recipe: RecipeFunction,
) -> Callable[[TrainState, Array, RunKeys, Hyper, Pair], tuple[TrainState, Metrics]]:
    """One step of a run, on the examples `indices`: what `run` and `fit` both repeat."""
    step = pure_step(recipe)

    def advance(state, indices, keys, hyper, train):
        batch = jax.tree.map(lambda a: a.at[indices].get(mode="promise_in_bounds"), tuple(train))
        return step(state, batch, keys.noise, hyper)

    return advance


def block_length(train: Pair, batch_size: int) -> int:
    """For how many steps to choose the batches together: 2,048 examples, at most an epoch."""
    return max(1, min(2048, tree.length(train)) // batch_size)


def even_block_length(train: Pair, batch_size: int, length: int) -> int:
    """`block_length`, or the next below it that divides `length` steps."""
    most = min(length, block_length(train, batch_size))
    return max(d for d in range(1, most + 1) if length % d == 0)


def block_indices(
    keys: RunKeys, step: Int[Array, ""] | int, train: Pair, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """Which examples of `train` the `steps` steps of a run from `step` on see."""
    return order_block(keys.order, step, tree.length(train), batch_size, steps)


def example(examples: Pair, batch_size: int):
    """What the model's init sees: the shapes of a batch, no values."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype), examples[0]
    )


def _append(history: Array, tail: Array) -> Array:
    return jnp.concatenate([history, tail if tail.ndim == history.ndim else tail[None]])
