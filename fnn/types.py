"""The contracts. Everything in fnn is a value of one of these types, or a function between them.

A model is a pair of pure functions, an optimizer is a pure state transition, a schedule is a
function of the step. A recipe (`fnn/recipe.py`) builds all of them from hyperparameters that may
be tracers, so one compiled program serves every value of the learning rate or the dropout rate.

Data flows one way: data -> order -> step -> history -> diagnosis -> report.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PyTree

PRNGKey = Key[Array, ""]  # a typed key, from jax.random.key; legacy uint32 keys are refused
Params = Any  # nested dicts, with lists for repeated parts; leaves are arrays
ModelState = Any  # what training updates without a gradient (running statistics); () if none
Hyper = Any  # the hyperparameters; every leaf a number or an array, and may be a tracer
Scalar = float | Num[Array, ""]  # a hyperparameter as a constructor sees it
Pair = tuple[Any, Any]  # (inputs, targets): a Batch, or any other pair


class Batch(NamedTuple):
    """Inputs and targets with the same first axis; a plain pair `(x, y)` serves as well."""

    x: Any
    y: Any


class Init(Protocol):
    def __call__(self, key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        """Initial parameters and model state for inputs like `x` (arrays or ShapeDtypeStructs)."""
        ...


class Apply(Protocol):
    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        x: Any,
        *,
        key: PRNGKey | None = None,
        train: bool = False,
    ) -> tuple[Any, ModelState]:
        """Outputs for the batch `x`, and the new model state. The batch axis comes first."""
        ...


class Model(NamedTuple):
    """A pair of pure functions over a pytree of parameters; the same two for every model."""

    init: Init
    apply: Apply


class Decoder(NamedTuple):
    """A sequence model that reads tokens a few at a time; `generate` samples from it.

    `init(params, batch, length) -> carry`, before at most `length` tokens. `step(params, tokens,
    carry) -> logits, carry` reads (batch, time) and returns logits (batch, time, vocabulary).
    """

    init: Callable[[Params, int, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, Any]]


class Weighted(NamedTuple):
    """Losses, or other values, with a weight for each; masked elements have weight 0.

    A step adds `sum(w v)` and `sum(w)` over all parts of a batch and divides once, so a masked
    element never enters a mean, however the batch is cut. Weights may depend on hyperparameters,
    never on the parameters of the model.

    >>> Weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0])).mean().item()
    2.0
    """

    values: Float[Array, "*shape"]
    weights: Float[Array, "*shape"]

    def sum(self) -> Float[Array, ""]:
        """Sum of w v; a value of weight 0 may be NaN."""
        return (self.weights * jnp.where(self.weights == 0, 0, self.values)).sum()

    def mean(self) -> Float[Array, ""]:
        """Sum of w v over the sum of w; 0 if all weights are 0."""
        total = self.weights.sum()
        return self.sum() / jnp.where(total == 0, 1, total)


# (outputs, targets) -> one loss per example or token, the batch axis first; never reduced
Loss = Callable[[Any, Any], Float[Array, "batch ..."] | Weighted]


class Metric(NamedTuple):
    """A monoid: measure parts, add the results leaf by leaf, read the value of the sum.

    Sums and weights stay apart until the end, so batches of unequal size give the metric of all.
    """

    measure: Callable[[Any, Any], PyTree]  # (outputs, targets) -> sums
    value: Callable[[PyTree], Float[Array, ""]]


class LossSums(NamedTuple):
    """What a batch, or a part of one, contributes to its means. All but the state is added."""

    loss: Float[Array, ""]  # sum of w v over the losses
    penalty: Float[Array, ""]  # sum over the parts of sum(w) * penalty
    weight: Float[Array, ""]  # sum of w
    metrics: dict[str, PyTree]  # the sums of each of the recipe's train_metrics
    model_state: ModelState  # the new one


# (params, model_state, batch, key) -> what is differentiated, the sums
BatchLoss = Callable[[Params, ModelState, Pair, PRNGKey], tuple[Float[Array, ""], LossSums]]


class Gradient(Protocol):
    def __call__(
        self, loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        """The sums of a batch and the gradient of its loss, undivided; the step divides both."""
        ...


class Objective(NamedTuple):
    """The mean loss of a step's batch with penalty: for line searches and measures of curvature."""

    value: Float[Array, ""]  # at the step's parameters
    at: Callable[[Params], tuple[Float[Array, ""], Params]]  # parameters -> loss, gradients


class Transform(NamedTuple):
    """A pure change to gradients, such as clipping.

    `init(params) -> state` and `update(grads, state, params) -> grads, state`.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]


class Update(Protocol):
    def __call__(
        self,
        grads: Params,
        state: Any,
        params: Params,
        lr: Scalar,
        objective: Objective | None = None,
    ) -> tuple[Params, Any]:
        """`(updates, new state)`; `params + updates` are the new parameters."""
        ...


def unscaled(state: Any) -> float:
    """The default of `Optimizer.loss_scale`.

    >>> unscaled(())
    1.0
    """
    return 1.0


class Optimizer(NamedTuple):
    """A pure state transition from gradients to updates.

    The learning rate is an argument, so it can be logged, swept and differentiated. `weights` gives
    the parameters to evaluate with, where they differ from the trained ones: a moving average, say.
    A step differentiates the loss times `loss_scale` and divides the gradients by it.
    """

    init: Callable[[Params], Any]
    update: Update
    weights: Callable[[Any, Params], Params] = lambda state, params: params
    loss_scale: Callable[[Any], Scalar] = unscaled


Schedule = Callable[[Any], Float[Array, ""]]  # step (counted from 0) -> learning rate


class StepView(NamedTuple):
    """What a step computed, for measures. What no measure reads is not computed for it."""

    step: Int[Array, ""]  # counted from 0
    key: PRNGKey  # of this step
    batch: Pair  # after augmentation
    loss: Float[Array, ""]  # mean loss of the batch before the update, without penalty
    lr: Float[Array, ""]
    objective: Objective
    grads: Params  # of the mean loss with penalty, before any clipping
    updates: Params
    params: Params  # after the update
    model_state: ModelState  # after the update


Measure = Callable[[StepView], Mapping[str, Array]]  # -> named scalars or small vectors


class StatefulMeasure(NamedTuple):
    """A measure with memory, which is kept in `TrainState.measure_state`."""

    init: Callable[[Params], Any]
    update: Callable[[Any, StepView], tuple[Mapping[str, Array], Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Data:
    """The examples that training sees: `train` for the steps, `valid` for the evaluations."""

    train: Pair
    valid: Pair


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a run carries from step to step. With the base key, it is the whole run."""

    step: Int[Array, ""]  # updates made so far, int32
    params: Params
    model_state: ModelState
    opt_state: PyTree  # the optimizer's own: state.opt_state.m['hidden']['kernel']
    measure_state: PyTree = ()  # of the recipe's stateful measures


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class History:
    """The record of a run: the metrics of its steps, and of each evaluation.

    `train['loss']` has an entry for each step; what is measured at every n-th step has one for each
    measured step, and `train_steps` has their numbers.
    """

    train: dict[str, Float[Array, "steps ..."]]  # 'loss', 'lr', and what the recipe measures
    eval_steps: Int[Array, "*evals"]  # updates made before each evaluation
    valid: dict[str, Float[Array, "*evals"]]  # 'loss' and each of the recipe's metrics
    train_steps: dict[str, Int[Array, "..."]] = field(default_factory=dict)

    def steps(self, name: str) -> Int[Array, "..."]:
        """The steps, counted from 0, at which `train[name]` was measured."""
        every = jnp.arange(self.train[name].shape[0], dtype=jnp.int32)
        return self.train_steps.get(name, every)
