"""Laws of recipes: of their parts, and of the step, the evaluation and the run made of them.

A step and an evaluation do not depend on how a batch is cut or padded.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.recipe import Recipe, RecipeFunction, no_augmentation
from fnn.testing._compare import expect_same
from fnn.testing._given import given
from fnn.testing.battery import Battery, Law, Skip, check
from fnn.testing.data_laws import augment_laws
from fnn.testing.loss_laws import loss_laws
from fnn.testing.metric_laws import metric_laws
from fnn.testing.model_laws import model_laws
from fnn.testing.model_subject import is_noisy, outputs, start
from fnn.testing.optimizer_laws import optimizer_laws
from fnn.testing.run_laws import evaluate_laws, run_laws
from fnn.testing.schedule_laws import schedule_laws
from fnn.testing.step_laws import step_laws
from fnn.train import make_evaluate, make_init, make_run, make_step, microbatches
from fnn.types import Data, Hyper, Pair, PRNGKey

# Reordered sums of dozens of float32 values, carried through a backward pass.
RTOL = 1e-5

HINT = "return a Weighted from the loss, or add sums and weights and divide once"


def check_recipe(recipe: RecipeFunction, batch: Pair, **options: Any) -> None:
    """Runs all laws of a recipe; the arguments are those of `recipe_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn import losses, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jax.random.normal(jax.random.key(0), (4, 2))
    >>> check_recipe(recipe, (x, x[:, :1]), hyper={'lr': 0.1}, parts=('step',))
    """
    check("check_recipe", recipe_laws(recipe, batch, **options))


PARTS = ("model", "loss", "metrics", "optimizer", "schedule", "augment", "step", "evaluate", "run")


def recipe_laws(
    recipe: RecipeFunction,
    batch: Pair,
    *,
    hyper: Hyper = None,
    key: PRNGKey | None = None,
    noisy: bool | str = "auto",
    rowwise: bool = True,
    smooth: bool = True,
    mask: Callable[[Any], Any] | None = None,
    frozen: str | None = None,
    like: RecipeFunction | None = None,
    parts: Sequence[str] = PARTS,
    declared: Mapping[str, Mapping[str, Any]] = {},
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a recipe: their names are 'model.is_causal', 'step.step_is_finite', ...

    Args:
      recipe: `recipe(hyper)` gives a `Recipe`.
      batch: (x, y), at least 4 examples with random values, or a strategy.
      hyper: hyperparameters where training works.
      key: of parameters, order and noise.
      noisy, rowwise, smooth: of the model, see `check_model`.
      mask: from a batch to what counts in it; the rest does not matter to step and evaluation.
      frozen: pattern of the paths of the parameters that never change.
      like: a reference recipe with the same parameters and the same state.
      parts: those to check, of model, loss, metrics, optimizer, schedule, augment, step, evaluate
        and run.
      declared: part -> keywords of its check: `{'model': {'causal': True}}`.
      dtypes: also computed in these by model, loss and metrics.
      skip: name of a law, with its part -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library to each part.

    >>> from fnn import losses, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> recipe_laws(recipe, (jnp.ones((4, 2)), jnp.ones((4, 1))), hyper={'lr': 0.1})[0]
    model.params_do_not_depend_on_the_batch
    """
    where = "check_recipe"
    for part in (*parts, *declared):
        if part not in PARTS:
            raise ValueError(f"{where}: expected parts among {', '.join(PARTS)}, got {part!r}")
    key = jax.random.key(0) if key is None else key
    hyper = {} if hyper is None else hyper
    pair = jax.tree.map(jnp.asarray, tuple(given(where, batch)))
    if tree.length(pair) < 4:
        raise ValueError(
            f"{where}: expected a batch of at least 4, got {tree.length(pair)}; add examples"
        )
    r = recipe(hyper)
    predictions = _predictions(r, pair[0])
    shared: dict[str, Any] = {"dtypes": dtypes, "policy": policy}
    random = is_noisy(r.model, pair[0]) or r.augment is not no_augmentation
    stateless = not jax.tree.leaves(jax.eval_shape(r.model.init, key, pair[0])[1])
    like_r = None if like is None else like(hyper)

    def of(part: str, **options: Any) -> dict[str, Any]:
        return {**shared, **options, **declared.get(part, {})}

    found: dict[str, list[Law]] = {}
    reference: dict[str, Any]
    if "model" in parts:
        reference = {} if like_r is None else {"like": like_r.model}
        options = of("model", noisy=noisy, rowwise=rowwise, smooth=smooth, frozen=frozen)
        found["model"] = model_laws(r.model, pair[0], **options, **reference)
    if "loss" in parts:
        reference = {} if like_r is None else {"like": like_r.loss}
        options = of("loss", smooth=smooth, at_least_zero=False)
        found["loss"] = loss_laws(r.loss, predictions, pair[1], **options, **reference)
    if "metrics" in parts:
        for name, metric in {**r.train_metrics, **r.metrics}.items():
            reference = {} if like_r is None else {"like": like_r.metrics.get(name)}
            found[f"metrics.{name}"] = metric_laws(
                metric, predictions, pair[1], **of("metrics"), **reference
            )
    if "optimizer" in parts:
        reference = {} if like_r is None else {"like": like_r.optimizer}
        options = of("optimizer", leafwise=False, decays=True, linear_in_lr=False)
        found["optimizer"] = optimizer_laws(r.optimizer, None, **options, **reference)
    if "schedule" in parts:
        reference = {} if like_r is None else {"like": like_r.schedule}
        found["schedule"] = schedule_laws(r.schedule, None, **of("schedule"), **reference)
    if "augment" in parts and r.augment is not no_augmentation:
        found["augment"] = augment_laws(r.augment, pair, **of("augment", labels="any"))
    if "step" in parts:
        found["step"] = _step_laws(recipe, pair, key, hyper, mask, frozen, random, like, of("step"))
    if "evaluate" in parts:
        found["evaluate"] = _evaluate_laws(recipe, pair, key, hyper, mask, like, of("evaluate"))
    if "run" in parts:
        found["run"] = _run_laws(recipe, pair, key, hyper, of("run"))
        if not random and stateless:
            own = Battery(where)
            own.add(accumulation_equals_whole_batch, recipe, pair, key=key, hyper=hyper)
            own.add(
                evaluation_does_not_depend_on_the_batch_size, recipe, pair, key=key, hyper=hyper
            )
            found["whole"] = own.done()
    laws = Battery(where, skip)
    for part, group in found.items():
        laws.extend(group, part)
    return laws.done()


def _predictions(r: Recipe, x: Any) -> Any:
    params, state = start(r.model, x)
    return outputs(r.model, params, state, x, train=False)[0]


def _others(pair: Pair) -> Pair:
    """A second batch: the examples in another order, twice as large."""
    x, y = pair
    count = tree.length(pair)
    turned = jax.tree.map(lambda leaf: jnp.roll(leaf, count // 2, axis=0), (x, y))
    floats = jax.tree.map(
        lambda leaf: (
            leaf * leaf.dtype.type(1.5) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        ),
        turned[0],
    )
    return floats, turned[1]


def _step_laws(
    recipe: RecipeFunction,
    pair: Pair,
    key: PRNGKey,
    hyper: Hyper,
    mask: Any,
    frozen: str | None,
    random: bool,
    like: RecipeFunction | None,
    options: dict[str, Any],
) -> list[Law]:
    init = jax.jit(make_init(recipe))

    def schedule(step: int, hyper: Hyper) -> Any:
        return recipe(hyper).schedule(jnp.int32(step))

    reference: dict[str, Any] = {} if like is None else {"like": make_step(like)}
    one_update = recipe(hyper).optimizer.steps_per_update == 1
    return step_laws(
        make_step(recipe),
        lambda: init(key, hyper, pair[0]),
        [pair, _others(pair)],
        key,
        hyper,
        **{
            "frozen": frozen,
            "mask": mask,
            "new_noise": random,
            "noisy": "auto",
            "lr": schedule if one_update else None,
            "params": lambda state: state.params,
            **options,
            **reference,
        },
    )


def _evaluate_laws(
    recipe: RecipeFunction,
    pair: Pair,
    key: PRNGKey,
    hyper: Hyper,
    mask: Any,
    like: RecipeFunction | None,
    options: dict[str, Any],
) -> list[Law]:
    state = jax.jit(make_init(recipe))(key, hyper, pair[0])

    def evaluation(recipe: RecipeFunction) -> Callable[..., Any]:
        @functools.lru_cache
        def compiled(batch_size: int) -> Callable[..., Any]:
            return jax.jit(make_evaluate(recipe, batch_size=batch_size))

        def evaluate(state: Any, examples: Any, batch_size: int = 4) -> Any:
            return compiled(batch_size)(state, examples, hyper)

        return evaluate

    reference: dict[str, Any] = {} if like is None else {"like": evaluation(like)}
    return evaluate_laws(evaluation(recipe), state, pair, mask=mask, **options, **reference)


def _run_laws(
    recipe: RecipeFunction, pair: Pair, key: PRNGKey, hyper: Hyper, options: dict[str, Any]
) -> list[Law]:
    size = max(2, tree.length(pair) // 2)
    run = jax.jit(make_run(recipe, steps=4, batch_size=size, eval_every=2))
    return run_laws(run, key, hyper, Data(train=pair, valid=pair), **options)


def accumulation_equals_whole_batch(
    recipe: RecipeFunction,
    batch: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    parts: int = 2,
    gradient: Callable[[int], Any] = microbatches,
    rtol: float = RTOL,
) -> None:
    """A step in parts has the loss, penalty, metrics and new parameters of the whole batch.

    For recipes without noise and batch statistics, and a batch whose parts have unequal weights.

    Args:
      parts: a divisor of the batch size.
      gradient: from the number of parts to a `Recipe.gradient`.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(
    ...     nn.linear(2), lambda z, y: losses.cross_entropy(z, y, ignore_index=-1),
    ...     optim.sgd(), schedules.constant(hyper['lr']))
    >>> batch = (jnp.eye(4), jnp.array([0, 1, 1, -1]))
    >>> accumulation_equals_whole_batch(recipe, batch, key=jax.random.key(0), hyper={'lr': 0.1})
    """

    def in_parts(hyper: Hyper) -> Recipe:
        return recipe(hyper)._replace(gradient=gradient(parts))

    expect_same(
        "accumulation_equals_whole_batch",
        _step(recipe, batch, key, hyper),
        _step(in_parts, batch, key, hyper),
        names=("the whole batch", f"{parts} parts"),
        rtol=rtol,
        hint=HINT,
    )


def devices_equal_whole_batch(
    recipe: RecipeFunction,
    batch: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    devices: Sequence[jax.Device],
    rtol: float = RTOL,
) -> None:
    """A step and an evaluation on several devices agree with those on one.

    For recipes without noise and batch statistics.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> devices_equal_whole_batch(recipe, (jnp.eye(2), jnp.ones((2, 1))), key=jax.random.key(0),
    ...                           hyper={'lr': 0.1}, devices=jax.devices()[:1])
    """
    expect_same(
        "devices_equal_whole_batch",
        (_step(recipe, batch, key, hyper), _evaluation(recipe, batch, key, hyper, None)),
        (
            _step(recipe, batch, key, hyper, devices),
            _evaluation(recipe, batch, key, hyper, None, devices),
        ),
        names=("one device", f"{len(devices)} devices"),
        rtol=rtol,
        hint=HINT,
    )


def evaluation_does_not_depend_on_the_batch_size(
    recipe: RecipeFunction,
    examples: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    batch_sizes: Sequence[int] = (1, 3),
    rtol: float = RTOL,
) -> None:
    """Loss and metrics do not depend on the batch size, also with a smaller last batch.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> evaluation_does_not_depend_on_the_batch_size(
    ...     recipe, (jnp.eye(4), jnp.ones((4, 1))), key=jax.random.key(0), hyper={'lr': 0.1})
    """
    whole = _evaluation(recipe, examples, key, hyper, None)
    for size in batch_sizes:
        expect_same(
            "evaluation_does_not_depend_on_the_batch_size",
            whole,
            _evaluation(recipe, examples, key, hyper, size),
            names=("one batch", f"batches of {size}"),
            rtol=rtol,
            hint=HINT,
        )


def padding_changes_nothing(
    recipe: RecipeFunction,
    batch: Pair,
    padded: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    rtol: float = RTOL,
) -> None:
    """Padding changes neither the loss, nor the metrics, nor the new parameters of a step.

    Args:
      padded: the batch with more examples or longer sequences, which the loss masks.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(
    ...     nn.linear(2), lambda z, y: losses.cross_entropy(z, y, ignore_index=-1),
    ...     optim.sgd(), schedules.constant(hyper['lr']))
    >>> padding_changes_nothing(
    ...     recipe, (jnp.eye(2), jnp.array([0, 1])), (jnp.eye(4)[:, :2], jnp.array([0, 1, -1, -1])),
    ...     key=jax.random.key(0), hyper={'lr': 0.1})
    """
    expect_same(
        "padding_changes_nothing",
        _step(recipe, batch, key, hyper),
        _step(recipe, padded, key, hyper),
        names=("the batch", "the padded batch"),
        rtol=rtol,
        hint=HINT,
    )


def _step(
    recipe: RecipeFunction,
    batch: Pair,
    key: PRNGKey,
    hyper: Hyper,
    devices: Sequence[jax.Device] = (),
) -> Any:
    """The metrics of a step, and its change of the parameters."""
    key, batch = jax.random.clone(key), jax.tree.map(jnp.asarray, tuple(batch))
    start = jax.jit(make_init(recipe))(key, hyper, batch[0])
    after, metrics = jax.jit(make_step(recipe, devices=devices))(start, batch, key, hyper)
    return metrics, jax.tree.map(jnp.subtract, after.params, start.params)


def _evaluation(
    recipe: RecipeFunction,
    examples: Pair,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int | None,
    devices: Sequence[jax.Device] = (),
) -> Any:
    key, examples = jax.random.clone(key), jax.tree.map(jnp.asarray, tuple(examples))
    size = tree.length(examples) if batch_size is None else batch_size
    state = jax.jit(make_init(recipe))(key, hyper, examples[0])
    evaluate = make_evaluate(recipe, batch_size=size, devices=devices)
    return jax.jit(evaluate)(state, examples, hyper)
