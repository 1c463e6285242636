"""The contracts: the types of models, losses, metrics, optimizers, schedules, measures and states.

A `Recipe` (`fnn/recipe.py`) is made of them. It is built from hyperparameters that may be traced,
so one compiled program serves all their values. What trains is a pure function of these types:

    step(state: TrainState, batch, key, hyper) -> state, metrics
    run(key, hyper, data: Data) -> state, history: History       a scan of steps
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from fnn import show
from fnn.weighted import Terms, Weighted

PRNGKey = Key[Array, ""]  # a typed key from jax.random.key; legacy uint32 keys are refused
Params = Any  # nested dicts of arrays, with lists for repeated parts
ModelState = Any  # updated without gradients, such as running statistics; () if there is none
Hyper = Any  # hyperparameters: a pytree of numbers and arrays, each of which may be traced
Scalar = float | Num[Array, ""]  # a number that may be traced
Pair = tuple[Any, Any]  # (inputs, targets): a Batch or any other pair


class Batch(NamedTuple):
    """Inputs and targets with the same first axis; a plain pair `(x, y)` serves as well."""

    x: Any
    y: Any


class Init(Protocol):
    """`init(key, x) -> params, model_state`, with x an example batch or its ShapeDtypeStructs."""

    def __call__(self, key: PRNGKey, x: Any) -> tuple[Params, ModelState]: ...


class Apply(Protocol):
    """`apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state`.

    The first axis of x is the batch. Only with `train=True` is noise drawn from the key, and only
    then is the model state updated.
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
    """A pair of pure functions over a pytree of parameters; see `Init` and `Apply`.

    `init(key, x) -> params, model_state`
    `apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state`
    """

    init: Init
    apply: Apply


class Loss(Protocol):
    """`loss(outputs, targets) -> values`: one per example or token, batch axis first; no mean."""

    def __call__(
        self, outputs: Any, targets: Any, /
    ) -> Float[Array, "batch ..."] | Weighted | Terms: ...


class Metric(NamedTuple):
    """A monoid: `measure(outputs, targets) -> sums`, which add over batches, and `value(sums)`."""

    measure: Callable[[Any, Any], PyTree]
    value: Callable[[PyTree], Float[Array, ""]]


class Objective(NamedTuple):
    """The mean loss of a batch with penalty, for line searches and measures of curvature."""

    value: Float[Array, ""]  # at the parameters before the update
    at: Callable[[Params], tuple[Float[Array, ""], Params]]  # params -> loss, gradients


class Transform(NamedTuple):
    """`init(params) -> state`, `update(grads, state, params) -> grads, state`; such as clipping."""

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]


class Update(Protocol):
    """`update(grads, state, params, lr, objective=None) -> updates, state`.

    The new parameters are `params + updates`, the sign convention of optax.
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
    """Default of `Optimizer.loss_scale`: 1.

    >>> unscaled(())
    1.0
    """
    return 1.0


class Optimizer(NamedTuple):
    """A pure state transition from gradients to updates.

    `init(params) -> state`; `update(grads, state, params, lr, objective=None) -> updates, state`.
    A step differentiates the loss times `loss_scale(state)` with respect to the leaves that
    `trained(params)` marks. The schedule counts updates: one in `steps_per_update` steps.
    """

    init: Callable[[Params], Any]
    update: Update
    weights: Callable[[Any, Params], Params] = lambda state, params: params  # for evaluation
    loss_scale: Callable[[Any], Scalar] = unscaled
    trained: Callable[[Params], PyTree] = lambda params: jax.tree.map(lambda _: True, params)
    steps_per_update: int = 1


class Schedule(Protocol):
    """`schedule(step) -> learning rate`, a float32 scalar; steps count from 0."""

    def __call__(self, step: Any, /) -> Float[Array, ""]: ...


class LossSums(NamedTuple):
    """Sums over a batch or a part of one; the parts are added, then divided once by the weight."""

    loss: Float[Array, ""]  # sum of weight * loss
    penalty: Float[Array, ""]  # penalty * weight
    weight: Float[Array, ""]  # sum of the weights
    metrics: dict[str, PyTree]  # sums of each of the recipe's train_metrics
    model_state: ModelState  # after the forward pass; not added
    terms: dict[str, PyTree] = {}  # sums of each term, for a loss of several


# (params, model_state, batch, key) -> the scalar to differentiate, and the sums
BatchLoss = Callable[[Params, ModelState, Pair, PRNGKey], tuple[Float[Array, ""], LossSums]]


class Gradient(Protocol):
    """`gradient(loss, params, model_state, batch, key) -> sums, grads`; the step divides both."""

    def __call__(
        self, loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]: ...


class StepView(NamedTuple):
    """The values of a training step that measures may read; unread ones are not computed."""

    step: Int[Array, ""]  # counted from 0
    key: PRNGKey  # of this step
    batch: Pair  # after augmentation
    loss: Float[Array, ""]  # mean over the batch before the update, without penalty
    lr: Float[Array, ""]
    objective: Objective
    grads: Params  # of the mean loss with penalty, before clipping
    updates: Params
    params: Params  # after the update
    model_state: ModelState  # after the update


class Measure(Protocol):
    """`measure(view) -> {name: scalar or small vector}`: values to record at a step."""

    def __call__(self, view: StepView, /) -> Mapping[str, Array]: ...


class StatefulMeasure(NamedTuple):
    """A measure with memory: `init(params) -> state`, `update(state, view) -> values, state`."""

    init: Callable[[Params], Any]
    update: Callable[[Any, StepView], tuple[Mapping[str, Array], Any]]


class Decoder(NamedTuple):
    """An autoregressive model with a cache, from which `generate` samples.

    `init(params, batch, length) -> carry` for at most `length` tokens; `step(params, tokens,
    carry) -> logits, carry` maps tokens (batch, time) to logits (batch, time, vocabulary).
    """

    init: Callable[[Params, int, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Data:
    """Examples: `train` for the steps, `valid` for the evaluations."""

    train: Any  # a Batch, any other pair (inputs, targets), or an iterable of batches
    valid: Any  # a Batch, or any other pair


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The carry from step to step; with key, hyper and data it determines the rest of the run."""

    step: Int[Array, ""]  # completed steps, int32
    params: Params
    model_state: ModelState
    opt_state: PyTree  # the optimizer's own: state.opt_state.m['hidden']['kernel']
    measure_state: PyTree = ()  # of the recipe's stateful measures


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class History:
    """The record of a run: metrics of its steps and of its evaluations."""

    train: dict[str, Float[Array, "steps ..."]]  # 'loss', 'lr' and the recipe's measures
    eval_steps: Int[Array, "*evals"]  # completed steps before each evaluation
    valid: dict[str, Float[Array, "*evals"]]  # 'loss' and the recipe's metrics
    train_steps: dict[str, Int[Array, "..."]] = field(default_factory=dict)  # see `steps`
    __repr__ = show.history

    def steps(self, name: str) -> Int[Array, "..."]:
        """Steps at which `train[name]` was measured, counted from 0: all, or every n-th."""
        every = jnp.arange(self.train[name].shape[0], dtype=jnp.int32)
        return self.train_steps.get(name, every)


show.by_constructor(Model, Decoder, Metric, Transform, Optimizer, StatefulMeasure)
show.by_leaves(Batch, Weighted, StepView, Data, TrainState)
