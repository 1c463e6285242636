"""The learning-rate range test: a short training whose rate grows until it fails."""

from functools import partial

import jax
import jax.numpy as jnp

from fnn.diagnose.range_curve import RangeCurve, smooth
from fnn.expect import within
from fnn.keys import run_keys
from fnn.recipe import Recipe, RecipeFunction
from fnn.train._blocks import rows, scan_steps, struct_of
from fnn.train._job import make_job
from fnn.train._source import seed_keys
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
    """Train with a rate that grows from `lr_min` to `lr_max`, and look at the loss.

        lr_i = lr_min (lr_max / lr_min)^(i / (steps - 1))

    The schedule of the recipe is replaced, all else is as in a run. Nothing is changed: the test
    works on its own copy of the state, which it throws away. It is a pure function, compiled once
    for all keys, hyperparameters and rates, so it can be mapped by `vmap` over `hyper`, say.

    Args:
      recipe, data, hyper, batch_size: as for `make_run` and `run`.
      key: of the first seed, as in a run; the other seeds' keys follow from it.
      steps: updates of each seed, at least 2.
      lr_min, lr_max: first and last rate, above 0; may be traced.
      state: where to start from, the same for all seeds; without it each seed makes its own. For
        weights alone: `make_init(recipe)(key, hyper, x, weights)`.
      seeds: trainings at once, which differ in their weights, batches and noise.
      decay: of the smoothing, in [0, 1): about 1 / (1 - decay) steps, by which the curve is late.

    Returns: a RangeCurve with losses (seeds, steps). Print it for the rate to train with, its
      `suggestion`, and the reason; `report.lr_find` draws it.
    Raises: ValueError for what `check` finds, for rates that do not ascend from above 0, and for a
      state that is not the recipe's.
    Source: Smith 2017, arXiv:1506.01186, section 3.3. Deviates: the rate grows by a factor, not by
      a difference, as in fastai; the average is of about 5 steps and of the seeds, where fastai's
      is of 50 steps.

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
def _curve(recipe, batch_size, steps, keys, state, hyper, data, ends, decay) -> RangeCurve:
    first = 0 if state is None else state.step
    ramp = geometric(*ends, first=first, steps=steps)
    ramped = with_schedule(recipe, ramp)
    init, step = make_init(ramped), make_step(ramped)

    def losses_of(key):
        keys = run_keys(key)
        x = struct_of(data.train, batch_size)[0]

        def advance(state, i, indices):
            state, metrics = step(state, rows(data.train, indices), keys.noise, hyper)
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


def geometric(lr_min: Scalar, lr_max: Scalar, *, first: Scalar, steps: int) -> Schedule:
    """From `lr_min` at step `first` by the same factor each step, to `lr_max` after `steps`.

    >>> ramp = geometric(jnp.float32(0.25), jnp.float32(4.0), first=10, steps=5)
    >>> [ramp(step).item() for step in (10, 11, 12, 14)]
    [0.25, 0.5, 1.0, 4.0]
    """

    def schedule(step):
        part = (jnp.asarray(step) - first).astype(jnp.float32) / max(steps - 1, 1)
        return jnp.exp((1 - part) * jnp.log(lr_min) + part * jnp.log(lr_max))

    return schedule


def with_schedule(recipe: RecipeFunction, schedule: Schedule) -> RecipeFunction:
    """The recipe with another schedule, which counts steps also where the optimizer accumulates.

    The recipe's own is asked all the same, for nothing: it may be what reads a hyperparameter, and
    one that nothing reads is taken for a misspelt one.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> with_schedule(recipe, schedules.constant(0.5))({'lr': 0.1}).schedule(0).item()
    0.5
    """

    def with_other(hyper: Hyper) -> Recipe:
        built = recipe(hyper)

        def other(step):
            built.schedule(step)
            return schedule(step)

        optimizer = built.optimizer._replace(steps_per_update=1)
        return built._replace(schedule=other, optimizer=optimizer)

    return with_other
