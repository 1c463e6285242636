"""Recipes: the definition of a training, as a function of hyperparameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from fnn import show
from fnn._messages import refuse
from fnn._recipe_check import (
    check_fields,
    checked_model,
    checked_optimizer,
    expect_hyper,
    learning_rate,
)
from fnn.expect import did_you_mean
from fnn.measures import norms
from fnn.types import (
    BatchLoss,
    Gradient,
    Hyper,
    Loss,
    LossSums,
    Measure,
    Metric,
    Model,
    ModelState,
    Optimizer,
    Pair,
    Params,
    PRNGKey,
    Scalar,
    Schedule,
    StatefulMeasure,
)


def whole_batch(
    loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
) -> tuple[LossSums, Params]:
    """Default of `Recipe.gradient`: one backward pass over the whole batch.

    >>> def loss(params, model_state, batch, key):
    ...     total = (params['w'] * batch[0]).sum()
    ...     return total, LossSums(total, jnp.zeros(()), jnp.float32(2), {}, model_state)
    >>> batch = (jnp.array([1.0, 3.0]), None)
    >>> sums, grads = whole_batch(loss, {'w': 5.0}, (), batch, jax.random.key(0))
    >>> sums.loss.item(), grads['w'].item()
    (20.0, 4.0)
    """
    grads, sums = jax.grad(loss, has_aux=True)(params, model_state, batch, key)
    return sums, grads


def no_penalty(params: Params, model_state: ModelState) -> float:
    """Default of `Recipe.penalty`: 0.

    >>> no_penalty({}, ())
    0.0
    """
    return 0.0


def no_augmentation(key: PRNGKey, batch: Pair) -> Pair:
    """Default of `Recipe.augment`: the identity.

    >>> no_augmentation(jax.random.key(0), (1.0, 2.0))
    (1.0, 2.0)
    """
    return batch


class Recipe(NamedTuple):
    """What is trained; returned by a function `recipe(hyper)`, which is called at trace time.

    Args:
      model, loss, optimizer, schedule: see `fnn.types`.
      metrics: computed by evaluations, by name; the name 'loss' is reserved.
      train_metrics: computed on each training batch from the forward pass of the step, by name;
        'loss', 'lr', 'penalty', 'step' and 'valid' are reserved.
      penalty: added to the mean loss, such as L2 of the parameters or the load-balancing loss in
        the model state of a mixture of experts. Reported as the metric 'penalty'.
      augment: `(key, batch) -> batch`, for training batches only; the key is derived from the run's
        key and the step.
      gradient: `whole_batch`, `train.microbatches(n)`, or
        `train.private_gradient(clip_norm, noise_multiplier)`.
      measures: recorded at each step besides loss and lr, see `fnn.measures`; `()` is fastest.
    """

    model: Model
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    metrics: Mapping[str, Metric] = {}
    train_metrics: Mapping[str, Metric] = {}
    penalty: Callable[[Params, ModelState], Scalar] = no_penalty
    augment: Callable[[PRNGKey, Pair], Pair] = no_augmentation
    gradient: Gradient = whole_batch
    measures: Sequence[Measure | StatefulMeasure] = (norms,)

    def __repr__(self) -> str:
        given = {n: v for n, v in self._asdict().items() if v != self._field_defaults.get(n)}
        return "Recipe(\n" + "".join(f"  {n}={_shown(v)},\n" for n, v in given.items()) + ")"


def _shown(part: Any) -> str:
    """A field of a recipe as the call that made it; also a sequence or mapping of such values."""
    if isinstance(part, Mapping):
        return "{" + ", ".join(f"{n!r}: {show.made_by(v)}" for n, v in part.items()) + "}"
    parts = part if isinstance(part, (list, tuple)) and not hasattr(part, "_fields") else None
    return show.made_by(part) if parts is None else f"({', '.join(map(show.made_by, parts))})"


RecipeFunction = Callable[[Any], Recipe]


def build(recipe: RecipeFunction, hyper: Hyper) -> Recipe:
    """Calls `recipe(hyper)` and checks the result.

    Raises: ValueError for hyperparameters that are not numbers, missing from `hyper`, or used where
      a traced value cannot be (shapes, loops, branches); for a result that is not a Recipe, a field
      of the wrong type, and a metric with a reserved name.

    >>> build(lambda hyper: hyper['rate'], {'lr': 0.1})
    Traceback (most recent call last):
        ...
    ValueError: recipe: expected hyper['rate'], got only ['lr']; add it to hyper
    """
    expect_recipe(recipe)
    try:
        built = recipe(watch(hyper))
    except _NEEDS_VALUE as error:
        raise ValueError(
            "recipe: expected only arithmetic on hyper, which is traced, got a use that needs a "
            "value, such as a shape, a loop or a branch; let the recipe close over that value, or "
            "sweep it with search.shapes"
        ) from error
    if not isinstance(built, Recipe):
        raise ValueError(
            f"recipe: expected a Recipe from recipe(hyper), got {type(built).__name__}; "
            "return Recipe(model=, loss=, optimizer=, schedule=)"
        )
    check_fields(built._asdict())
    return built._replace(
        model=checked_model(built.model),
        optimizer=checked_optimizer(built.optimizer),
        schedule=partial(learning_rate, built.schedule),
    )


def expect_recipe(recipe: Any) -> None:
    """Raises ValueError for what is not a function, such as a Recipe.

    >>> expect_recipe(None)
    Traceback (most recent call last):
        ...
    ValueError: recipe: expected a function of hyper, got None; pass the function itself, without \
calling it
    """
    if not callable(recipe):
        hint = "pass the function itself, without calling it"
        refuse("recipe", "a function of hyper", recipe, hint)


_NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class _Watched(dict):
    """A dict of hyperparameters that records which keys were read."""

    def __init__(self, hyper: dict[str, Any]):
        super().__init__(hyper)
        self.unread = set(hyper)

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        hint = did_you_mean(name, sorted(self), "add it to hyper")
        raise ValueError(f"recipe: expected hyper[{name!r}], got only {sorted(self)}; {hint}")

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def __iter__(self) -> Iterator[str]:
        self.unread.clear()
        return super().__iter__()

    def keys(self) -> Any:
        self.unread.clear()
        return super().keys()

    def values(self) -> Any:
        self.unread.clear()
        return super().values()

    def items(self) -> Any:
        self.unread.clear()
        return super().items()


# As a pytree, so that a recipe may map over its hyperparameters; all then count as read.
jax.tree_util.register_pytree_node(
    _Watched,
    lambda hyper: ([hyper[name] for name in sorted(hyper)], sorted(hyper)),
    lambda names, leaves: _Watched(dict(zip(names, leaves, strict=True))),
)


def watch(hyper: Hyper) -> Hyper:
    """Wraps a dict of hyperparameters so that it records reads, for `expect_all_read`.

    Raises: ValueError for hyperparameters that are not numbers or arrays of them.

    >>> hyper = watch({'lr': 0.1, 'rate': 0.2})
    >>> hyper['lr'], hyper.unread
    (0.1, {'rate'})
    """
    if isinstance(hyper, _Watched):
        return hyper
    expect_hyper(hyper)
    return _Watched(hyper) if type(hyper) is dict else hyper


def expect_all_read(hyper: Hyper) -> None:
    """Raises ValueError for a watched dict with keys that were never read.

    >>> expect_all_read(watch({'lr': 0.1}))
    Traceback (most recent call last):
        ...
    ValueError: recipe: expected only keys that recipe(hyper) reads, got also ['lr']; correct the \
name, or drop it
    """
    if isinstance(hyper, _Watched) and hyper.unread:
        raise ValueError(
            "recipe: expected only keys that recipe(hyper) reads, got also "
            f"{sorted(hyper.unread)}; correct the name, or drop it"
        )
