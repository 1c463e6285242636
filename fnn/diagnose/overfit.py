"""The first test of a new recipe: overfitting one batch."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.diagnose._layer_rows import stacked_params
from fnn.diagnose._overfit_advice import advise
from fnn.diagnose._overfit_evidence import (
    Evidence,
    Trial,
    View,
    all_alike,
    constant_loss,
    evidence_of,
)
from fnn.keys import RunKeys
from fnn.measures import Named, norms
from fnn.recipe import Recipe, RecipeFunction, build, no_augmentation, no_penalty
from fnn.train._inputs import expect_known, weighted_losses
from fnn.train._job import make_job
from fnn.train._source import first_batch, upcoming
from fnn.train.state import make_init
from fnn.train.step import make_step
from fnn.types import (
    Data,
    Hyper,
    Model,
    ModelState,
    Pair,
    Params,
    PRNGKey,
    Scalar,
    TrainState,
    Weighted,
)

_SCALES = (10.0, 1000.0, 0.1, 0.001)  # of the lr: they separate a wrong one from other faults


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """The result of `overfit_one_batch`; prints as a verdict with advice."""

    passed: bool  # whether the loss came near zero
    evidence: Evidence
    advice: tuple[str, ...]  # causes to look at, the most likely first
    train: dict[str, Array] = field(repr=False)  # metrics of the steps with the recipe's own lr

    def __str__(self) -> str:
        e = self.evidence
        fell = f"loss {e.first_loss:.4g} -> {e.last_loss:.4g} in {e.steps} steps"
        verdict = "near zero" if self.passed else f"not near zero ({e.goal:.2g})"
        lines = [f"one batch of {len(e.indices)} examples: {fell}: {verdict}"]
        lines += [f"  {i}. {text}" for i, text in enumerate(self.advice, start=1)]
        return "\n".join([*lines, *(f"  {line}" for line in e.lines())])


def overfit_one_batch(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    steps: int = 200,
    batch_size: int = 32,
    fraction: float = 0.02,
) -> Overfit:
    """Trains on the first batch of a run only: a sound recipe brings its loss near zero.

    Near zero is a fraction of the loss of the best constant guess (the same outputs for all
    examples): below it the model distinguishes the examples, for any first loss.

    Augmentation and penalty are off, and noise such as dropout is the same in every step, so that
    the loss can reach zero. If it does not, trials at 10, 1,000, 0.1 and 0.001 times the lr
    separate a wrong lr from other faults.

    Args:
      recipe, data, key, hyper: as for `fit`.
      steps: updates of a trial.
      batch_size: examples of the batch.
      fraction: of the loss of a constant guess (or of the first loss, if that is lower) that counts
        as near zero. A loss with a higher minimum, as with label smoothing, does not pass.

    Returns: an `Overfit`: whether it passed, the evidence, and the causes to look at first.
    Raises: ValueError for what `check` finds.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(2), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=(x, jnp.concatenate([x, 2 * x], axis=1)), valid=(x, 0 * x @ x[:2].T))
    >>> result = overfit_one_batch(recipe, data, key=jax.random.key(0), hyper={'lr': 1e-4},
    ...                            batch_size=4, steps=50)
    >>> result.passed, result.advice[0][:32]
    (False, 'The lr is too low: at 1000 times')
    """
    expect_known("overfit_one_batch", key, hyper)
    job = make_job(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    keys, n = job.keys, tree.length(job.data.train)
    batch = first_batch(job.data.train, keys.order, batch_size)
    indices = tuple(upcoming(keys.order, 0, n, batch_size, 1)[0].tolist())
    built = build(recipe, hyper)

    def trial(scale: float) -> Trial:
        return _trial(recipe, steps, _Setting(jnp.float32(scale), keys, hyper, batch))

    trials = {1.0: trial(1.0)}
    first, last = trials[1.0].ends
    guess = None if all_alike(batch[1]) else constant_loss(built.loss, batch, trials)
    goal = fraction * min(abs(first), guess if guess and guess > 0 else float("inf"))
    passed = 0 <= last <= goal
    if not passed:
        trials |= {scale: trial(scale) for scale in _SCALES}
    evidence = evidence_of(
        trials,
        batch,
        indices,
        goal=goal,
        guess=constant_loss(built.loss, batch, trials),
        stacked=_stacked(built.model, trials[1.0].params[0], batch[0]),
    )
    advice, train = advise(evidence, passed), trials[1.0].metrics
    return Overfit(passed=passed, evidence=evidence, advice=advice, train=train)


class _Setting(NamedTuple):
    """The traced arguments of a trial."""

    scale: Array  # of the lr
    keys: RunKeys
    hyper: Hyper
    batch: Pair

    def held(self, recipe: RecipeFunction) -> RecipeFunction:
        return partial(_held, recipe, self.keys.noise, self.scale)


def _trial(recipe: RecipeFunction, steps: int, setting: _Setting) -> Trial:
    start = _init(recipe, setting)
    once, _ = _train(recipe, steps, setting, start, 1)
    end, metrics = _train(recipe, steps, setting, start, steps)
    before, after = _view(recipe, setting, start), _view(recipe, setting, end)
    climb = _inner_product(once.params, start.params, before.gradient)
    params = (start.params, end.params)
    return Trial(metrics=metrics, params=params, climb=climb, before=before, after=after)


@partial(jax.jit, static_argnums=0)
def _init(recipe: RecipeFunction, setting: _Setting) -> TrainState:
    init = make_init(setting.held(recipe))
    return init(setting.keys.init, setting.hyper, setting.batch[0])


@partial(jax.jit, static_argnums=(0, 1))
def _train(
    recipe: RecipeFunction, most: int, setting: _Setting, state: TrainState, steps: Any
) -> tuple[TrainState, Named]:
    _, keys, hyper, batch = setting
    step = make_step(setting.held(recipe))

    def one(i: Array, carry: tuple[TrainState, Named]) -> tuple[TrainState, Named]:
        state, recorded = carry
        state, metrics = step(state, batch, keys.noise, hyper)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return state, jax.tree.map(put, recorded, metrics)

    _, metrics = jax.eval_shape(step, state, batch, keys.noise, hyper)
    recorded = jax.tree.map(lambda a: jnp.zeros((most, *a.shape), a.dtype), metrics)
    return jax.lax.fori_loop(0, steps, one, (state, recorded))


@partial(jax.jit, static_argnums=0)
def _view(recipe: RecipeFunction, setting: _Setting, state: TrainState) -> View:
    _, keys, hyper, (x, y) = setting
    model = build(setting.held(recipe), hyper).model
    built = build(recipe, hyper)

    def losses_of(params: Params) -> tuple[Array, Array]:
        predictions, _ = model.apply(params, state.model_state, x, key=keys.noise, train=True)
        losses = weighted_losses(built.loss, predictions, y)
        return losses.mean(), jax.vmap(Weighted.mean)(losses)

    gradient, example_losses = jax.grad(losses_of, has_aux=True)(state.params)
    predictions, _ = model.apply(state.params, state.model_state, x)
    return View(
        gradient=gradient,
        example_losses=example_losses,
        predictions=predictions,
        evaluated=weighted_losses(built.loss, predictions, y).mean(),
        noisy=_noisy(built.model, state, x, keys.noise),
    )


def _held(recipe: RecipeFunction, noise: PRNGKey, scale: Scalar, hyper: Hyper) -> Recipe:
    """The recipe at `scale` times its lr, without penalty or augmentation, with constant noise."""
    built = build(recipe, hyper)
    jax.tree.leaves(hyper)  # counts all as read, also those of the penalty alone

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        fixed = None if key is None else jax.random.fold_in(noise, 0)
        return built.model.apply(params, model_state, x, key=fixed, train=train)

    def schedule(step: Any) -> Array:
        lr = built.schedule(step)
        return lr * jnp.asarray(scale).astype(lr.dtype)

    return built._replace(
        model=Model(built.model.init, apply),
        schedule=schedule,
        augment=no_augmentation,
        penalty=no_penalty,
        measures=(norms,),
    )


def _inner_product(after: Params, before: Params, direction: Params) -> Array:
    parts = jax.tree.map(
        lambda a, b, d: jnp.vdot((a - b).astype(jnp.float32), d.astype(jnp.float32)),
        after,
        before,
        direction,
    )
    return sum(jax.tree.leaves(parts), start=jnp.float32(0))


def _noisy(model: Model, state: TrainState, x: Any, key: PRNGKey) -> Array:
    """Whether the predictions in training depend on the key."""
    first, second = (jax.random.fold_in(key, i) for i in (0, 1))
    a, _ = model.apply(state.params, state.model_state, x, key=first, train=True)
    b, _ = model.apply(state.params, state.model_state, x, key=second, train=True)
    differ = jax.tree.map(lambda a, b: (a != b).any(), a, b)
    return jnp.stack([jnp.asarray(leaf) for leaf in jax.tree.leaves(differ)]).any()


def _stacked(model: Model, params: Params, x: Any) -> dict[str, int]:
    """The number of layers in each stacked leaf, see `stacked_params`."""
    model_state = jax.eval_shape(model.init, jax.random.key(0), x)[1]
    return stacked_params(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, x)
