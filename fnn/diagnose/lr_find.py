"""The learning-rate range test: a short training with a growing rate."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from fnn.diagnose.range_curve import RangeCurve, smooth
from fnn.expect import within
from fnn.keys import run_keys
from fnn.recipe import Recipe, RecipeFunction
from fnn.train._job import make_job, seed_keys
from fnn.train._scan import gather, scan_steps, struct_of
from fnn.train.check import check_state
from fnn.train.state import make_init
from fnn.train.step import make_step
from fnn.types import Data, Hyper, PRNGKey, Scalar, Schedule, TrainState


@within(lr_min="(0, inf)", lr_max="(0, inf)", decay="[0, 1)")
def lr_find(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int,
    steps: int = 100,
    lr_min: Scalar = 1e-6,
    lr_max: Scalar = 10.0,
    state: TrainState | None = None,
    seeds: int = 5,
    decay: Scalar = 0.8,
) -> RangeCurve:
    """Trains with a learning rate that grows from `lr_min` to `lr_max`, and records the loss.

        lr_i = lr_min (lr_max / lr_min)^(i / (steps - 1))

    It replaces the recipe's schedule; all else is as in a run. A pure function, compiled once for
    all keys, hyperparameters and rates: `vmap` over `hyper` works.

    Args:
      recipe, data, hyper, batch_size: as for `make_run` and `run`.
      key: of the first seed, as in a run; the keys of other seeds are derived from it.
      steps: updates of each seed, at least 2.
      lr_min, lr_max: first and last rate, above 0; may be traced.
      state: to start from, the same for all seeds; None initializes one for each. For weights
        alone: `make_init(recipe)(key, hyper, x, weights)`.
      seeds: number of trainings, which differ in their weights, batches and noise.
      decay: of the moving average of the loss, in [0, 1); it lags by about 1 / (1 - decay) steps.

    Returns: a RangeCurve with losses (seeds, steps). It prints the rate to train with, its
      `suggestion`, and the reason; `report.lr_find` plots it.
    Raises: ValueError for what `check` finds, unless 0 < lr_min < lr_max, and for a state that is
      not the recipe's.
    Source: Smith 2017, arXiv:1506.01186, section 3.3. Deviates: the rate grows exponentially, as in
      fastai; the loss is averaged over about 5 steps and the seeds, in fastai over 50 steps.

    >>> from fnn import Batch, Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> curve = lr_find(recipe, data, key=jax.random.key(0), hyper={'lr': 0.1}, batch_size=4)
    >>> curve.losses.shape, bool(0.01 < curve.suggestion < 1)
    ((5, 100), True)
    """
    if steps < 2:
        raise ValueError(f"lr_find: expected at least 2 steps, got {steps}; take 100")
    _expect_ascending(lr_min, lr_max)
    job = make_job(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    if state is not None:
        check_state("lr_find", recipe, state, hyper=hyper, x=data.train[0])
    keys, ends = seed_keys(key, seeds), (jnp.float32(lr_min), jnp.float32(lr_max))
    static = (recipe, batch_size, steps)
    return _curve(*static, keys, state, hyper, job.data, ends, jnp.float32(decay))


def _expect_ascending(lr_min: Scalar, lr_max: Scalar) -> None:
    known = not any(isinstance(lr, jax.core.Tracer) for lr in (lr_min, lr_max))
    if known and not 0 < float(lr_min) < float(lr_max) < float("inf"):
        raise ValueError(
            f"lr_find: expected 0 < lr_min < lr_max, got {float(lr_min):g} and {float(lr_max):g}; "
            "give the range of rates to try"
        )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _curve(
    recipe: RecipeFunction,
    batch_size: int,
    steps: int,
    keys: Key[Array, " seeds"],
    state: TrainState | None,
    hyper: Hyper,
    data: Data,
    ends: tuple[Array, Array],
    decay: Array,
) -> RangeCurve:
    first = 0 if state is None else state.step
    ramp = _geometric(*ends, first=first, steps=steps)
    ramped = _with_schedule(recipe, ramp)
    init, step = make_init(ramped), make_step(ramped)

    def losses_of(key: PRNGKey) -> Array:
        keys = run_keys(key)
        x = struct_of(data.train, batch_size)[0]

        def advance(
            state: TrainState, i: Int[Array, ""], indices: Int[Array, " batch"]
        ) -> tuple[TrainState, Array]:
            state, metrics = step(state, gather(data.train, indices), keys.noise, hyper)
            return state, metrics["loss"]

        start = init(keys.init, hyper, x) if state is None else state
        return scan_steps(
            advance,
            start,
            start.step,
            keys=keys,
            train=data.train,
            batch_size=batch_size,
            length=steps,
        )[1]

    losses = jax.vmap(losses_of)(keys)
    lrs = jax.vmap(ramp)(first + jnp.arange(steps))
    smoothed = jax.vmap(smooth, in_axes=(0, None))(losses, decay)
    return RangeCurve(lrs=lrs, losses=losses, smoothed=smoothed)


def _geometric(lr_min: Scalar, lr_max: Scalar, *, first: Scalar, steps: int) -> Schedule:
    """Exponential growth from `lr_min` at step `first` to `lr_max`, in `steps` steps."""

    def schedule(step: Any) -> Array:
        part = (jnp.asarray(step) - first).astype(jnp.float32) / max(steps - 1, 1)
        return jnp.exp((1 - part) * jnp.log(lr_min) + part * jnp.log(lr_max))

    return schedule


def _with_schedule(recipe: RecipeFunction, schedule: Schedule) -> RecipeFunction:
    """The recipe with another schedule, which counts steps even if the optimizer accumulates.

    Its own schedule is still called: a hyperparameter that nothing reads is an error.
    """

    def with_other(hyper: Hyper) -> Recipe:
        built = recipe(hyper)

        def other(step: Any) -> Array:
            built.schedule(step)
            return schedule(step)

        optimizer = built.optimizer._replace(steps_per_update=1)
        return built._replace(schedule=other, optimizer=optimizer)

    return with_other
