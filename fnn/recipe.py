"""What is trained: a recipe, and the function that builds it from hyperparameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from fnn import show
from fnn.advice import refuse
from fnn.expect import did_you_mean
from fnn.measures import norms
from fnn.recipe_check import (
    check_fields,
    expect_hyper,
    learning_rate,
    model_of_pairs,
    optimizer_of_pairs,
)
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
    """The default of `Recipe.gradient`: the gradient over all examples at once.

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
    """The default of `Recipe.penalty`: 0.

    >>> no_penalty({}, ())
    0.0
    """
    return 0.0


def no_augmentation(key: PRNGKey, batch: Pair) -> Pair:
    """The default of `Recipe.augment`: the batch unchanged.

    >>> no_augmentation(jax.random.key(0), (1.0, 2.0))
    (1.0, 2.0)
    """
    return batch


class Recipe(NamedTuple):
    """What is trained, built by a function `recipe(hyper)` inside the trace.

    Args:
      model, loss, optimizer, schedule: see `fnn.types`.
      metrics: evaluated beside the loss on the validation data, by name; 'loss' is taken.
      train_metrics: measured on each training batch, from the forward pass of the step, by name;
        'loss', 'lr', 'penalty', 'step' and 'valid' are taken.
      penalty: added to the mean loss of a step, such as L2 of the parameters or the load balance
        that a mixture of experts leaves in the model state. The metrics report it as 'penalty'.
      augment: changes the batches of the steps, not those of an evaluation; its key follows from
        the run's key and the step.
      gradient: how a step differentiates its batch: `whole_batch`, `train.microbatches(n)`, or
        `train.private_gradient(clip_norm, noise_multiplier)`.
      measures: what a step records besides loss and lr; `()` is fastest. See `fnn.measures`.
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
    """A part of a recipe, as the call that made it, or a sequence or mapping of such."""
    if isinstance(part, Mapping):
        return "{" + ", ".join(f"{n!r}: {show.made_by(v)}" for n, v in part.items()) + "}"
    parts = part if isinstance(part, (list, tuple)) and not hasattr(part, "_fields") else None
    return show.made_by(part) if parts is None else f"({', '.join(map(show.made_by, parts))})"


RecipeFunction = Callable[[Any], Recipe]


def build(recipe: RecipeFunction, hyper: Hyper) -> Recipe:
    """The recipe for `hyper`.

    Raises: ValueError for hyperparameters that are no numbers, if the recipe reads a key that a
      dict of hyperparameters lacks or needs the value of a traced one, does not return a Recipe, or
      has a field of another kind, or a metric with a name that a step or an evaluation has itself:
      loss; for train_metrics also lr, penalty, step, valid.

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
        model=model_of_pairs(built.model),
        optimizer=optimizer_of_pairs(built.optimizer),
        schedule=partial(learning_rate, built.schedule),
    )


def expect_recipe(recipe: Any) -> None:
    """Refuse what is not a function of hyperparameters, such as the recipe that it returns.

    >>> expect_recipe(None)
    Traceback (most recent call last):
        ...
    ValueError: recipe: expected a function of hyper, got None; pass the function itself, without \
calling it
    """
    if not callable(recipe):
        refuse(
            "recipe", "a function of hyper", recipe, "pass the function itself, without calling it"
        )


_NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class _Watched(dict):
    """A dict of hyperparameters that remembers which of its keys were read."""

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

    def keys(self):
        self.unread.clear()
        return super().keys()

    def values(self):
        self.unread.clear()
        return super().values()

    def items(self):
        self.unread.clear()
        return super().items()


# A recipe may map over its hyperparameters as over any pytree; all of them count as read then.
jax.tree_util.register_pytree_node(
    _Watched,
    lambda hyper: ([hyper[name] for name in sorted(hyper)], sorted(hyper)),
    lambda names, leaves: _Watched(dict(zip(names, leaves, strict=True))),
)


def watch(hyper: Hyper) -> Hyper:
    """`hyper`; a dict is wrapped so that it records which keys are read. See `expect_all_read`.

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
    """Refuse a watched dict with keys that nothing has read by the end of a step.

    Raises: ValueError with the keys.

    >>> expect_all_read(watch({'lr': 0.1}))
    Traceback (most recent call last):
        ...
    ValueError: recipe: expected only keys that recipe(hyper) reads, got also ['lr']; correct the \
name, or leave it out
    """
    if isinstance(hyper, _Watched) and hyper.unread:
        raise ValueError(
            "recipe: expected only keys that recipe(hyper) reads, got also "
            f"{sorted(hyper.unread)}; correct the name, or leave it out"
        )
