"""Measurements of the trainings on one batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn import tree
from fnn.train._inputs import weighted_losses
from fnn.types import Loss, Pair, Params

_EXPLODING = 1e3  # sensitivity of the loss to the parameters
_VANISHING = 1e-5  # gradient of one kernel relative to that of another
_SMALL = 0.05  # scale of a kernel relative to one that keeps the variance
LARGE_INPUT = 50


class View(NamedTuple):
    """A state, evaluated on the batch."""

    gradient: Params
    example_losses: Array  # (batch,), with the noise of training
    predictions: Any  # without noise
    evaluated: Array  # the mean loss without noise
    noisy: Array  # whether another key changes the predictions


class Trial(NamedTuple):
    """One training on the batch."""

    metrics: dict[str, Array]  # of each step, (steps,)
    params: tuple[Params, Params]  # before and after
    climb: Array  # inner product of the first update and the gradient
    before: View
    after: View

    @property
    def ends(self) -> tuple[float, float]:
        """The first loss, and the median of the last ten, since a single one may jump."""
        losses = np.asarray(self.metrics["loss"])
        return float(losses[0]), float(np.median(losses[-10:]))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the trials show; the structure is that of the one with the lowest last loss.

    Layers of a stack have separate names, such as 'blocks/kernel[3]'.
    """

    steps: int
    indices: tuple[int, ...]  # of the batch in data.train
    goal: float  # the loss that counts as near zero
    first_loss: float
    last_loss: float  # median of the last ten steps
    last_losses: dict[float, float]  # factor of the lr -> its last loss; only 1.0 if that passed
    broken_step: int | None  # the first whose loss was not finite
    lr: tuple[float, float]  # lowest and highest
    last_lr: float
    gradient_norm: tuple[float, float]  # at the first and the last step
    sensitivity: float  # |gradient| |params| / loss at the first step: about the number of layers
    leaves: int  # number of parameter leaves
    without_gradient: tuple[str, ...]  # leaves whose gradient is 0, before and after
    unmoved: tuple[str, ...]  # leaves with a gradient whose values did not change
    symmetric: tuple[str, ...]  # kernels whose units have equal weights, before and after
    gradients: dict[str, float] = field(repr=False)  # rms at the start, of kernels; nonzero ones
    scales: dict[str, float] = field(repr=False)  # of kernels: rms sqrt(fan in), about 1
    climbs: bool  # whether the first update goes up the gradient
    noisy: bool  # whether the model draws noise in training
    evaluated: float  # the mean loss with train=False, after training
    blind: bool  # whether all examples have the same prediction before training
    one_prediction: bool  # and after it
    one_input: bool  # whether all inputs are the same
    one_target: bool
    twins: tuple[tuple[int, int], ...]  # examples with one input and two targets
    constant_loss: float | None  # of the best guess that is the same for all examples
    example_losses: tuple[float, ...] = field(repr=False)  # after training
    largest_input: float  # in magnitude

    @property
    def best_trial(self) -> tuple[float, float]:
        """The lowest of the last losses, and the factor of its lr."""
        losses = self.last_losses.items()
        return min((loss if math.isfinite(loss) else math.inf, scale) for scale, loss in losses)

    @property
    def explodes(self) -> bool:
        """Whether the gradient explodes."""
        return self.sensitivity > _EXPLODING

    @property
    def vanishes(self) -> bool:
        """Whether the gradient of one kernel vanishes relative to that of another."""
        sizes = self.gradients.values()
        return bool(sizes) and min(sizes) < _VANISHING * max(sizes)

    @property
    def dead(self) -> bool:
        """Whether units are never active."""
        known = self.symmetric or self.one_input or self.vanishes
        return bool(self.without_gradient) and self.blind and not known

    @property
    def small_kernels(self) -> tuple[str, ...]:
        """Kernels far below the scale that keeps the variance."""
        return tuple(name for name, scale in self.scales.items() if 0 < scale < _SMALL)

    def lines(self) -> list[str]:
        """The main numbers as text."""
        others = [f"{s:g} x lr: {loss:.4g}" for s, loss in self.last_losses.items() if s != 1]
        return [
            f"lr {self.lr[0]:.3g} to {self.lr[1]:.3g}, gradient norm {self.gradient_norm[0]:.3g} "
            f"-> {self.gradient_norm[1]:.3g}, inputs up to {self.largest_input:.3g}",
            f"loss in evaluation {self.evaluated:.4g}, of a constant guess "
            + ("unknown" if self.constant_loss is None else f"{self.constant_loss:.4g}")
            + (", with " + ", ".join(others) if others else ""),
        ]


def evidence_of(
    trials: dict[float, Trial],
    batch: Pair,
    indices: tuple[int, ...],
    *,
    goal: float,
    guess: float | None,
    stacked: Mapping[str, int],
) -> Evidence:
    """The evidence of all trials, by the factor of their lr; `stacked` as for `by_layer`."""
    own, last_losses = trials[1.0], {scale: trial.ends[1] for scale, trial in trials.items()}
    # The structure is that of the best trial: a wrong lr must not hide it.
    best = trials[min(trials, key=lambda s: np.nan_to_num(last_losses[s], nan=np.inf))]
    loss, lr = (np.asarray(own.metrics[name]) for name in ("loss", "lr"))
    first_norm = float(own.metrics["grad_norm"][0])
    broken = np.flatnonzero(~np.isfinite(loss))
    names = partial(by_layer, stacked=stacked)
    before, after = (names(view.gradient) for view in (best.before, best.after))
    start, end = map(names, best.params)
    still = {name for name in before if not before[name].any() and not after[name].any()}
    same = {name for name in start if np.array_equal(start[name], end[name], equal_nan=True)}
    first, last = own.ends
    return Evidence(
        steps=len(loss),
        indices=indices,
        goal=goal,
        first_loss=first,
        last_loss=last,
        last_losses=last_losses,
        broken_step=int(broken[0]) if len(broken) else None,
        lr=(float(lr.min()), float(lr.max())),
        last_lr=float(lr[-1]),
        gradient_norm=(first_norm, float(best.metrics["grad_norm"][-1])),
        sensitivity=first_norm * _norm(names(own.params[0])) / max(abs(first), 1e-30),
        leaves=len(start),
        without_gradient=tuple(sorted(still)),
        unmoved=tuple(sorted(same - still)),
        symmetric=tuple(n for n in start if _units_alike(start[n]) and _units_alike(end[n])),
        gradients={name: _rms(a) for name, a in before.items() if a.ndim > 1 and a.any()},
        scales=_scales(start),
        climbs=float(own.climb) > 0,
        noisy=bool(own.after.noisy),
        evaluated=float(own.after.evaluated),
        blind=all_alike(best.before.predictions),
        one_prediction=all_alike(best.after.predictions),
        one_input=all_alike(batch[0]),
        one_target=all_alike(batch[1]),
        twins=_twins(batch, indices),
        constant_loss=guess,
        example_losses=tuple(np.asarray(best.after.example_losses).tolist()),
        largest_input=_largest_input(batch[0]),
    )


def by_layer(values: Params, stacked: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The leaves by path; those of stacks layer by layer."""
    found: dict[str, np.ndarray] = {}
    for path, leaf in zip(tree.paths(values), jax.tree.leaves(values), strict=True):
        array = np.asarray(leaf)
        if array.ndim and stacked.get(path) == len(array):
            found |= {f"{path}[{i}]": part for i, part in enumerate(array)}
        else:
            found[path] = array
    return found


def _norm(leaves: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(a.astype(np.float64)).sum() for a in leaves.values())))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values.astype(np.float64)).mean()))


def _units_alike(kernel: np.ndarray) -> bool:
    """Whether all units have the same weights up to rounding; equal gradients keep them so."""
    units = kernel.reshape(-1, kernel.shape[-1]) if kernel.ndim > 1 else np.zeros((1, 1))
    apart = np.abs(units - units[:, :1]).max(initial=0)
    return units.shape[1] > 1 and bool(apart <= 1e-3 * np.abs(units).max(initial=0))


def _scales(leaves: dict[str, np.ndarray]) -> dict[str, float]:
    """The rms of each kernel times sqrt(fan in); embeddings, without a fan in, are not kernels."""
    kernels = {n: a for n, a in leaves.items() if a.ndim > 1 and n.split("[")[0].endswith("kernel")}
    return {name: _rms(a) * math.sqrt(math.prod(a.shape[:-1])) for name, a in kernels.items()}


def all_alike(values: Any) -> bool:
    """Whether all examples have the same values, up to rounding."""
    for leaf in map(np.asarray, jax.tree.leaves(values)):
        if len(leaf) < 2:
            return False
        wide = leaf.astype(np.float64)
        apart = np.abs(wide - wide[:1]).max(initial=0)
        if not apart <= 1e-5 * np.abs(wide).max(initial=1e-30):  # NaN is not alike
            return False
    return True


def _twins(batch: Pair, indices: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of examples with the same input and different targets."""
    xs, ys = ([_bytes(part, i) for i in range(len(indices))] for part in batch)
    seen: dict[bytes, int] = {}
    found = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        j = seen.setdefault(x, i)
        if ys[j] != y:
            found.append((indices[j], indices[i]))
    return tuple(found)


def _bytes(values: Any, i: int) -> bytes:
    return b"|".join(np.asarray(leaf[i]).tobytes() for leaf in jax.tree.leaves(values))


def _largest_input(x: Any) -> float:
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(x) if a.dtype.kind == "f"]
    return max((float(np.abs(leaf).max(initial=0)) for leaf in leaves), default=0.0)


def constant_loss(loss: Loss, batch: Pair, trials: dict[float, Trial]) -> float | None:
    """The lowest loss of outputs that are the same for all examples; None for one example.

    The candidates are the best constants of common losses, and the mean outputs of the model
    before and after each trial, which exist for any loss.
    """
    x, y = batch
    if tree.length(x) < 2:
        return None
    views = [view for trial in trials.values() for view in (trial.before, trial.after)]
    candidates = [*_constants(views[0].predictions, y), *(v.predictions for v in views)]
    losses = [float(_loss_of_mean(loss, outputs, y)) for outputs in candidates]
    return min((x for x in losses if np.isfinite(x)), default=None)


@partial(jax.jit, static_argnums=0)
def _loss_of_mean(loss: Loss, outputs: Any, y: Any) -> Array:
    constant = jax.tree.map(lambda a: _mean_example(a, y), outputs)
    return weighted_losses(loss, constant, y).mean()


def _mean_example(outputs: Array, y: Any) -> Array:
    """The mean over examples, and over tokens where each has a label."""
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        return outputs
    axes = range(outputs.ndim - 1) if _are_labels(outputs, y) else range(min(outputs.ndim, 1))
    mean = outputs.astype(jnp.float32).mean(axis=tuple(axes), keepdims=True)
    return jnp.broadcast_to(mean, outputs.shape).astype(outputs.dtype)


def _are_labels(outputs: Any, y: Any) -> bool:
    if not (hasattr(outputs, "shape") and hasattr(y, "shape")):
        return False
    return outputs.shape[:-1] == y.shape and jnp.issubdtype(y.dtype, jnp.integer)


def _constants(outputs: Any, y: Any) -> list[Array]:
    """Outputs whose mean is the best constant of a loss: log frequencies, mean, median, logits."""
    if _are_labels(outputs, y):
        labels = jax.nn.one_hot(y, outputs.shape[-1]).reshape(-1, outputs.shape[-1])
        logits = jnp.log(jnp.maximum(labels.mean(axis=0), 1e-9))
        return [jnp.broadcast_to(logits, outputs.shape)]
    if not (hasattr(outputs, "shape") and hasattr(y, "shape")) or outputs.shape != y.shape:
        return []
    y = jnp.asarray(y, jnp.float32)
    median = jnp.broadcast_to(jnp.median(y, axis=0, keepdims=True), y.shape)
    part = jnp.clip(y.mean(axis=0, keepdims=True), 1e-9, 1 - 1e-7)
    return [y, median, jnp.broadcast_to(jnp.log(part / (1 - part)), y.shape)]
