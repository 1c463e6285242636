"""One training step, the whole of it: forward, backward, update, measure."""

from collections.abc import Callable, Sequence

import jax

from fnn import measures, tree
from fnn.keys import fold_name
from fnn.measures import Named, Recorded
from fnn.recipe import Recipe, RecipeFunction, build, expect_all_read, expect_recipe, watch
from fnn.train._inputs import expect_batch, expect_key, expect_state
from fnn.train.gradient import mean_gradient, means
from fnn.types import Hyper, Pair, PRNGKey, StepView, TrainState

Step = Callable[[TrainState, Pair, PRNGKey, Hyper], tuple[TrainState, Named]]
RecordingStep = Callable[[TrainState, Pair, PRNGKey, Hyper], tuple[TrainState, Recorded]]


def make_step(recipe: RecipeFunction, *, devices: Sequence[jax.Device] = ()) -> Step:
    """Returns `step(state, batch, key, hyper) -> state, metrics`, a pure function.

    Use it as `jax.jit(make_step(recipe), donate_argnums=0)`. It is traced once for all steps and
    all values of `hyper` whose leaves keep their types (Python floats, say, or arrays).

    Args of the step:
      state: from `make_init`, or the previous step. Donated, its buffers are deleted by the call:
        continue with the state that the step returns.
      batch: (x, y), each with the batch axis first.
      key: base key of the noise; the step uses `fold_in(key, state.step)`, so pass the same key to
        every step.
      hyper: argument of the recipe.

    Returns: the new state and the metrics {'loss', 'lr', ...}: the loss before the update, without
      the penalty; each term of a combined loss (`losses.combine`); and the entries of the recipe's
      `penalty`, `train_metrics` and `measures`.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> key, hyper = jax.random.key(0), {'lr': 0.1}
    >>> x = jnp.array([[1.0], [2.0]])
    >>> state = jax.jit(make_init(recipe))(key, hyper, x)
    >>> step = jax.jit(make_step(recipe), donate_argnums=0)
    >>> for _ in range(300):
    ...     state, metrics = step(state, (x, 3 * x), key, hyper)   # learn y = 3 x
    >>> state.step.item(), bool(metrics['loss'] < 1e-3)
    (300, True)
    """
    recording_step = make_recording_step(recipe, devices=devices)

    def step(
        state: TrainState, batch: Pair, key: PRNGKey, hyper: Hyper
    ) -> tuple[TrainState, Named]:
        state, recorded = recording_step(state, batch, key, hyper)
        return state, measures.flat(recorded)

    return step


def make_recording_step(
    recipe: RecipeFunction, *, devices: Sequence[jax.Device] = ()
) -> RecordingStep:
    """The step with its metrics grouped by measurement interval: {n: {name: value}}."""
    expect_recipe(recipe)

    def step(
        state: TrainState, batch: Pair, key: PRNGKey, hyper: Hyper
    ) -> tuple[TrainState, Recorded]:
        expect_state("step", state)
        expect_batch("step", batch)
        expect_key("key", key)
        hyper = watch(hyper)
        r = build(recipe, hyper)
        noise = jax.random.fold_in(key, state.step)
        batch = r.augment(fold_name(noise, "augment"), batch)
        state, recorded = update(r, state, batch, noise, devices)
        expect_all_read(hyper)
        return state, recorded

    return step


def update(
    r: Recipe, state: TrainState, batch: Pair, key: PRNGKey, devices: Sequence[jax.Device] = ()
) -> tuple[TrainState, Recorded]:
    """Forward, backward, update, measure, on one batch; `key` is that of this step."""
    sums, grads, objective = mean_gradient(r, state, batch, key, devices)
    lr = r.schedule(state.step // r.optimizer.steps_per_update)
    updates, opt_state = r.optimizer.update(grads, state.opt_state, state.params, lr, objective)
    params = tree.add(state.params, updates)

    metrics = {**means(r, sums), "lr": lr}
    view = StepView(
        step=state.step,
        key=key,
        batch=batch,
        loss=metrics["loss"],
        lr=lr,
        objective=objective,
        grads=grads,
        updates=updates,
        params=params,
        model_state=sums.model_state,
    )
    recorded, measure_state = measures.record(r.measures, state.measure_state, view, metrics)
    state = TrainState(
        step=state.step + 1,
        params=params,
        model_state=sums.model_state,
        opt_state=opt_state,
        measure_state=measure_state,
    )
    return state, recorded
