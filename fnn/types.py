"""The contracts. Everything in fnn is a value of one of these types, or a function between them.

A model is a pair of pure functions, an optimizer is a pure state transition, a schedule is a
function of the step. A recipe builds all of them from hyperparameters that may be tracers, so one
compiled program serves every value of the learning rate, the decay or the dropout rate.

Data flows one way: data -> order -> step -> history -> report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Array, Float, Int, Key, Num, PyTree

PRNGKey = Key[Array, ""]  # a typed key, from jax.random.key; legacy uint32 keys are refused
Params = Any  # nested dicts, with lists for repeated parts; leaves are arrays
ModelState = Any  # what training updates without a gradient (running statistics); () if none
Hyper = Any  # the hyperparameters; every leaf a number, or an array, that may be traced
Scalar = float | Num[Array, ""]  # a hyperparameter as a constructor sees it


class Init(Protocol):
    def __call__(self, key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        """Fresh parameters and model state for inputs like `x` (arrays or ShapeDtypeStructs)."""
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
        """Predictions for the batch `x`, and the new model state. The batch axis comes first."""
        ...


class Model(NamedTuple):
    """A pair of pure functions over a pytree of parameters; the same two for every model."""

    init: Init
    apply: Apply


class Decoder(NamedTuple):
    """A model of sequences that goes on from where it was; what `generate` needs of it.

    `init(params, batch, length) -> carry` is the carry before the first of at most `length`
    tokens, and `step(params, tokens, carry) -> logits, carry` reads the next tokens, integers
    (batch, time), and gives (batch, time, vocabulary). Reading a sequence in pieces of any lengths
    gives the logits of the whole.
    """

    init: Callable[[Params, int, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, Any]]


class Transform(NamedTuple):
    """A pure change to gradients, such as clipping.

    `init(params) -> state` and `update(grads, state, params) -> (grads, state)`.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]


class Objective(NamedTuple):
    """The loss of a step's batch as a function, for optimizers that look at it once more.

    A line search and sharpness-aware minimisation ask for it at other parameters than the step's;
    what is not asked for is not computed.
    """

    value: Float[Array, ""]  # at the step's parameters
    at: Callable[[Params], tuple[Float[Array, ""], Params]]  # parameters -> loss, gradients


def current_weights(state: Any, params: Params) -> Params:
    """The parameters that are trained are those that are used.

    >>> current_weights((), {'w': 1.0})
    {'w': 1.0}
    """
    return params


def unscaled(state: Any) -> float:
    """The loss is differentiated as it is.

    >>> unscaled(())
    1.0
    """
    return 1.0


class Optimizer(NamedTuple):
    """Gradients to updates: `params + updates` are the new parameters.

    `init(params) -> state` and `update(grads, state, params, lr, objective) -> (updates, state)`.
    The learning rate is an argument, so it can be read, logged, swept and differentiated. The
    objective has the default None, and most optimizers do not look at it.

    `weights(state, params)` are the parameters to evaluate and to keep, where they are not those
    that are trained: an average of them, say.

    `loss_scale(state)` is what a step multiplies the loss by before it takes the gradient, and
    divides the gradient by before `update` sees it, so that float16 does not round it to 0.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]
    weights: Callable[[Any, Params], Params] = current_weights
    loss_scale: Callable[[Any], Scalar] = unscaled


Schedule = Callable[[Any], Float[Array, ""]]  # step (counted from 0) -> learning rate
Loss = Callable[[Any, Any], Float[Array, "batch ..."]]  # (predictions, targets) -> per example


class Batch(NamedTuple):
    """Inputs and targets with the same first axis; a plain pair `(x, y)` serves as well."""

    x: Any
    y: Any


Pair = tuple[Any, Any]  # (inputs, targets): a Batch, or any other pair


class Metric(NamedTuple):
    """A monoid: measure parts, add them leaf by leaf, read the value of the sum.

    `measure(predictions, targets) -> sums` and `value(sums) -> scalar`. Because sums and counts
    are kept apart until the end, batches of unequal size give the metric of the whole set.
    """

    measure: Callable[[Any, Any], PyTree]
    value: Callable[[PyTree], Float[Array, ""]]


def no_penalty(params: Params, model_state: ModelState) -> float:
    """Nothing to add to the loss.

    >>> no_penalty({}, ())
    0.0
    """
    return 0.0


def no_augmentation(key: PRNGKey, batch: Pair) -> Pair:
    """The batch as it is.

    >>> no_augmentation(jax.random.key(0), (1.0, 2.0))
    (1.0, 2.0)
    """
    return batch


# (params, model_state, batch, key) -> what to differentiate, (the loss to report, model_state)
BatchLoss = Callable[
    [Params, ModelState, Pair, PRNGKey], tuple[Float[Array, ""], tuple[Array, ModelState]]
]


class Gradient(Protocol):
    def __call__(
        self,
        loss: BatchLoss,
        params: Params,
        model_state: ModelState,
        batch: Pair,
        key: PRNGKey,
    ) -> tuple[tuple[Float[Array, ""], ModelState], Params]:
        """`(loss to report, new model state), gradients`; the key is the step's, for noise."""
        ...


def whole_batch(
    loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
) -> tuple[tuple[Float[Array, ""], ModelState], Params]:
    """The gradient of the loss of all examples at once.

    >>> def loss(params, model_state, batch, key):
    ...     value = (params['w'] * batch[0]).mean()
    ...     return value, (value, model_state)
    >>> batch = (jnp.array([1.0, 3.0]), None)
    >>> (value, _), grads = whole_batch(loss, {'w': 5.0}, (), batch, jax.random.key(0))
    >>> value.item(), grads['w'].item()
    (10.0, 2.0)
    """
    (_, reported), grads = jax.value_and_grad(loss, has_aux=True)(params, model_state, batch, key)
    return reported, grads


class Recipe(NamedTuple):
    """All that training needs to know, made by a function `recipe(hyper)` inside the trace.

    `metrics` are evaluated beside the loss; their names become columns of the history. `penalty`
    is added to the mean loss of a step: L1 or L2 of the parameters, or what a layer leaves in the
    model state, such as the load balance of a mixture of experts. `augment` changes the batches of
    the steps, not those of an evaluation, with a key that follows from the run's key and the step.
    `gradient` is how a step differentiates the loss of its batch: all at once, or in parts.
    `norms` is whether a step measures the norms of its gradients, updates and parameters; where it
    does not, they are NaN. On a CPU they cost a network of large matrices a tenth of its step.

    `devices` share each batch: every one of them computes the gradient of an equal part, with the
    same parameters, and all make the update by the mean (data parallelism). Loss and gradient are
    those of the whole batch, up to rounding, where the model and the loss take each example by
    itself. What looks across the batch sees one part: batch norm, whose running statistics are the
    mean of the devices', a contrastive loss, and a penalty on the model state, which is averaged.
    Each part has noise of its own. Evaluations are shared as well. The state lies on all of them,
    and `fit` lays the data there. () is wherever the data is, or JAX's first device.

    On a processor, `jax.config.update('jax_num_cpu_devices', cores)` before the first use of JAX
    makes each core a device. In one large batch all cores share every operation and wait at its
    end; so each goes through its part alone. On two cores an LSTM's step takes 0.76 of the time
    so, that of a small convolutional network or transformer 0.82. An MLP's takes longer, and so
    does that of any model with many parameters for its work: measure yours.
    """

    model: Model
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    metrics: Mapping[str, Metric] = {}
    penalty: Callable[[Params, ModelState], Scalar] = no_penalty
    augment: Callable[[PRNGKey, Pair], Pair] = no_augmentation
    gradient: Gradient = whole_batch
    norms: bool = True
    devices: Sequence[jax.Device] = ()


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
    opt_state: PyTree  # packed; see fnn.train.optimizer_state


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a step reports, stacked in one float32 array of shape (..., 5).

    One leaf instead of five: each array that leaves a compiled step costs about two microseconds.
    After a scan or a vmap the leading axes are steps, seeds or settings.
    """

    values: Float[Array, "*steps 5"]

    @property
    def loss(self) -> Float[Array, "*steps"]:
        """Mean loss of the batch, before the update."""
        return self.values[..., 0]

    @property
    def lr(self) -> Float[Array, "*steps"]:
        """Learning rate that the step used."""
        return self.values[..., 1]

    @property
    def grad_norm(self) -> Float[Array, "*steps"]:
        """Global L2 norm of the gradient, before clipping; NaN where a recipe has norms=False."""
        return self.values[..., 2]

    @property
    def update_norm(self) -> Float[Array, "*steps"]:
        """Global L2 norm of the update; NaN where a recipe has norms=False."""
        return self.values[..., 3]

    @property
    def param_norm(self) -> Float[Array, "*steps"]:
        """Global L2 norm of the parameters after the update; NaN where norms=False."""
        return self.values[..., 4]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class History:
    """The record of a run: every step's metrics, and the validation metrics at each evaluation."""

    train: Metrics  # values (steps, 5)
    eval_steps: Int[Array, "*evals"]  # updates made before each evaluation
    valid: dict[str, Float[Array, "*evals"]]  # 'loss' and each of the recipe's metrics
