"""The contracts. Everything in fnn is a value of one of these types, or a function between them.

A recipe (`fnn/recipe.py`) builds all of them from hyperparameters that may be tracers, so that one
program serves all values. Data flows: data -> order -> step -> history -> diagnosis -> report.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from fnn import show
from fnn.weighted import Terms, Weighted

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
    """`init(key, x) -> params, model_state` for inputs like x: arrays, or ShapeDtypeStructs."""

    def __call__(self, key: PRNGKey, x: Any) -> tuple[Params, ModelState]: ...


class Apply(Protocol):
    """`apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state`.

    The batch axis of x comes first. Noise and new running statistics are for `train=True` only.
    """

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        x: Any,
        *,
        key: PRNGKey | None = None,
        train: bool = False,
    ) -> tuple[Any, ModelState]: ...


class Model(NamedTuple):
    """A pair of pure functions over a pytree of parameters; the same two for every model.

    `init(key, x) -> params, model_state`, see `Init`, and
    `apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state`, see `Apply`.
    """

    init: Init
    apply: Apply


class Decoder(NamedTuple):
    """A sequence model that reads tokens a few at a time; `generate` samples from it.

    `init(params, batch, length) -> carry`, before at most `length` tokens. `step(params, tokens,
    carry) -> logits, carry` reads (batch, time) and returns logits (batch, time, vocabulary).
    """

    init: Callable[[Params, int, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, Any]]


class Loss(Protocol):
    """`loss(outputs, targets)`: one value per example or token, the batch axis first; no mean."""

    def __call__(
        self, outputs: Any, targets: Any, /
    ) -> Float[Array, "batch ..."] | Weighted | Terms: ...


class Metric(NamedTuple):
    """A monoid: `measure(outputs, targets) -> sums` of parts, to be added, and `value(sums)`."""

    measure: Callable[[Any, Any], PyTree]
    value: Callable[[PyTree], Float[Array, ""]]


class LossSums(NamedTuple):
    """What a batch, or a part of one, contributes to its means. All but the state is added."""

    loss: Float[Array, ""]  # sum of w v over the losses
    penalty: Float[Array, ""]  # sum over the parts of sum(w) * penalty
    weight: Float[Array, ""]  # sum of w
    metrics: dict[str, PyTree]  # the sums of each of the recipe's train_metrics
    model_state: ModelState  # the new one
    terms: dict[str, PyTree] = {}  # the sums of each term of the loss, where it has several


# (params, model_state, batch, key) -> what is differentiated, the sums
BatchLoss = Callable[[Params, ModelState, Pair, PRNGKey], tuple[Float[Array, ""], LossSums]]


class Gradient(Protocol):
    """`gradient(loss, params, model_state, batch, key) -> sums, grads`; the step divides both."""

    def __call__(
        self, loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]: ...


class Objective(NamedTuple):
    """The mean loss of a step's batch with penalty: for line searches and measures of curvature."""

    value: Float[Array, ""]  # at the step's parameters
    at: Callable[[Params], tuple[Float[Array, ""], Params]]  # parameters -> loss, gradients


class Transform(NamedTuple):
    """`init(params) -> state` and `update(grads, state, params) -> grads, state`: say, a clip."""

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]


class Update(Protocol):
    """`update(grads, state, params, lr, objective=None) -> updates, state`.

    `params + updates` are the new parameters: the sign is in the updates, as in optax.
    """

    def __call__(
        self,
        grads: Params,
        state: Any,
        params: Params,
        lr: Scalar,
        objective: Objective | None = None,
    ) -> tuple[Params, Any]: ...


def unscaled(state: Any) -> float:
    """The default of `Optimizer.loss_scale`.

    >>> unscaled(())
    1.0
    """
    return 1.0


class Optimizer(NamedTuple):
    """A pure state transition from gradients to updates.

    `init(params) -> state`; `update(grads, state, params, lr, objective=None) -> updates, state`,
    see `Update`; `weights(state, params)` are the parameters to evaluate with, such as a moving
    average. A step differentiates the loss times `loss_scale(state)`, by the leaves that `trained`
    marks. The schedule counts updates: one in `steps_per_update` steps.
    """

    init: Callable[[Params], Any]
    update: Update
    weights: Callable[[Any, Params], Params] = lambda state, params: params
    loss_scale: Callable[[Any], Scalar] = unscaled
    trained: Callable[[Params], PyTree] = lambda params: jax.tree.map(lambda _: True, params)
    steps_per_update: int = 1


class Schedule(Protocol):
    """`schedule(step) -> learning rate`, a float32 scalar; steps count from 0."""

    def __call__(self, step: Any, /) -> Float[Array, ""]: ...


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


class Measure(Protocol):
    """`measure(view) -> {name: scalar or small vector}`: what to record at a step."""

    def __call__(self, view: StepView, /) -> Mapping[str, Array]: ...


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

    What is measured at every n-th step has one entry for each of these; see `steps`.
    """

    train: dict[str, Float[Array, "steps ..."]]  # 'loss', 'lr', and what the recipe measures
    eval_steps: Int[Array, "*evals"]  # updates made before each evaluation
    valid: dict[str, Float[Array, "*evals"]]  # 'loss' and each of the recipe's metrics
    train_steps: dict[str, Int[Array, "..."]] = field(default_factory=dict)
    __repr__ = show.history

    def steps(self, name: str) -> Int[Array, "..."]:
        """The steps, counted from 0, at which `train[name]` was measured."""
        every = jnp.arange(self.train[name].shape[0], dtype=jnp.int32)
        return self.train_steps.get(name, every)


show.by_constructor(Model, Decoder, Metric, Transform, Optimizer, StatefulMeasure)
show.by_leaves(Batch, Weighted, StepView, Data, TrainState)
