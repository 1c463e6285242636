"""From what was seen of the training on one batch to what is to be looked at first."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

_EXPLODES = 1e3  # sensitivity of the loss to the parameters
_VANISHES = 1e-5  # of the gradient of one kernel to that of another
_SMALL = 0.05  # of the scale of a kernel that keeps variances
_LARGE_INPUT = 50


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen. Of several trials, the structure is that of the one that came furthest.

    Layers of a stack are named apart, as in 'blocks/kernel[3]'.
    """

    steps: int
    indices: tuple[int, ...]  # of the batch in data.train
    goal: float  # the loss that counts as near zero
    first_loss: float
    last_loss: float  # median of the last ten steps
    last_losses: dict[float, float]  # factor of the lr -> its last loss; only 1.0 if that was fine
    broken_step: int | None  # the first whose loss was not finite
    lr: tuple[float, float]  # lowest and highest
    last_lr: float
    gradient_norm: tuple[float, float]  # at the first and the last step
    sensitivity: float  # |gradient| |params| / loss at the first step: about the depth of a network
    leaves: int  # of the parameters
    without_gradient: tuple[str, ...]  # leaves whose gradient is 0, before and after
    unmoved: tuple[str, ...]  # leaves that have a gradient, and kept their values
    symmetric: tuple[str, ...]  # kernels whose units were all the same, before and after
    gradients: dict[str, float] = field(repr=False)  # rms at the start, of kernels; not those of 0
    scales: dict[str, float] = field(repr=False)  # of kernels: rms times root of inputs, about 1
    climbs: bool  # whether the first update goes up the gradient
    noisy: bool  # whether the model draws noise in training
    evaluated: float  # the mean loss with train=False, after training
    blind: bool  # whether all examples got the same prediction before training
    one_prediction: bool  # and after it
    one_input: bool  # whether all inputs are the same
    one_target: bool
    twins: tuple[tuple[int, int], ...]  # examples with one input and two targets
    constant_loss: float | None  # of the best guess that is the same for all examples
    example_losses: tuple[float, ...] = field(repr=False)  # after training
    largest_input: float  # in magnitude

    def lines(self) -> list[str]:
        """The numbers as text."""
        others = [f"{s:g} x lr: {loss:.4g}" for s, loss in self.last_losses.items() if s != 1]
        return [
            f"lr {self.lr[0]:.3g} to {self.lr[1]:.3g}, gradient norm {self.gradient_norm[0]:.3g} "
            f"-> {self.gradient_norm[1]:.3g}, inputs up to {self.largest_input:.3g}",
            f"loss in evaluation {self.evaluated:.4g}, of a constant guess "
            + ("unknown" if self.constant_loss is None else f"{self.constant_loss:.4g}")
            + (", with " + ", ".join(others) if others else ""),
        ]


Rule = Callable[[Evidence], str | None]


def advise(evidence: Evidence, passed: bool) -> tuple[str, ...]:
    """All that speaks in the evidence, the surest first."""
    if passed:
        return _said(evidence, (_evaluation_differs, _one_target, _bad_start))
    # Of a model that learns at another lr, the structure is sound.
    solved = _best_trial(evidence)[0] <= evidence.goal
    found = _said(evidence, [rule for rule in _RULES if not (solved and rule in _STRUCTURE)])
    return found or (
        f"The loss falls, but only to {evidence.last_loss:.3g}: try more steps, or a larger model.",
    )


def _said(evidence: Evidence, rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(text for rule in rules if (text := rule(evidence)))


def _negative(e: Evidence) -> str | None:
    if e.first_loss >= 0 and not e.last_loss < 0:
        return None
    return (
        "The loss is negative: zero is not its floor. If it is no log-likelihood of a density, it "
        "has the wrong sign."
    )


def _not_finite(e: Evidence) -> str | None:
    if e.broken_step is None:
        return None
    if e.broken_step > 0:
        return f"The loss is not finite from step {e.broken_step} on."
    return (
        "The first loss is not finite, before any update: look at the inputs, the targets and the "
        "loss (a log or a division), not at the lr."
    )


def _explodes(e: Evidence) -> str | None:
    if not e.sensitivity > _EXPLODES:
        return None
    return (
        f"The gradient explodes: its norm is {e.gradient_norm[0]:.3g} at the first step, so that a "
        f"change of the parameters by one part in {e.sensitivity:.2g} changes the whole loss. Clip "
        "it (optim.clip_by_global_norm), start with smaller or orthogonal recurrent kernels, and "
        "put normalization or residual connections between many layers."
    )


def _symmetric(e: Evidence) -> str | None:
    if not e.symmetric:
        return None
    return (
        f"The units of {_list(e.symmetric)} start with the same weights, so that they get the same "
        "gradient and never differ: initialize the kernel with random numbers, not with zeros or "
        "another constant."
    )


def _vanishes(e: Evidence) -> str | None:
    if not _is_vanishing(e) or e.symmetric:
        return None
    (weak, low), (strong, high) = (f(e.gradients.items(), key=_size) for f in (min, max))
    return (
        f"The gradient vanishes on its way back: {high:.2g} at {strong}, {low:.2g} at {weak}. Use "
        "relu or gelu instead of a sigmoid or tanh over many layers, an initializer that keeps the "
        "variance (he_normal, lecun_normal), normalization, or residual connections."
    )


def _is_vanishing(e: Evidence) -> bool:
    return bool(e.gradients) and min(e.gradients.values()) < _VANISHES * max(e.gradients.values())


def _size(item: tuple[str, float]) -> float:
    return item[1]


def _dead(e: Evidence) -> str | None:
    if not (e.without_gradient and e.blind) or e.symmetric or e.one_input or _is_vanishing(e):
        return None
    return (
        f"No gradient reaches {_which(e.without_gradient, e.leaves)}, and the prediction is the "
        "same for all inputs from the start: units that are never active (dead), as behind a relu "
        "with a large negative bias. Look at the initial biases and kernels, or use leaky_relu."
    )


def _which(names: tuple[str, ...], leaves: int) -> str:
    return "all leaves" if len(names) == leaves else _list(names)


def _no_gradient(e: Evidence) -> str | None:
    if not e.without_gradient or _dead(e) or e.symmetric or _is_vanishing(e):
        return None
    return (
        f"No gradient reaches {_which(e.without_gradient, e.leaves)}: look for a stop_gradient, an "
        "argmax or a rounding, units that are never active, or a part whose output is not used."
    )


def _unmoved(e: Evidence) -> str | None:
    if not e.unmoved or _is_vanishing(e):
        return None
    which = "no leaf moves" if len(e.unmoved) == e.leaves else f"{_list(e.unmoved)} do not move"
    return (
        f"There are gradients, but {which}: the optimizer freezes or masks them, or its lr there "
        f"(at most {e.lr[1]:.3g}) is below what their dtype resolves."
    )


def _climbs(e: Evidence) -> str | None:
    if not e.climbs:
        return None
    return (
        "The first update goes up the gradient: a sign is wrong. Updates are added to the "
        "parameters, so they point against the gradient; and the lr must be above 0."
    )


def _same_inputs(e: Evidence) -> str | None:
    if not e.one_input:
        return None
    return "All inputs of the batch are the same: look at how the data are loaded and normalized."


def _one_target(e: Evidence) -> str | None:
    if not e.one_target or e.one_input:
        return None
    return (
        "All targets of the batch are the same, so that a constant guess learns it too: it proves "
        "nothing. Shuffle the data, or take a larger batch."
    )


def _bad_start(e: Evidence) -> str | None:
    if e.constant_loss is None or e.one_target or not e.first_loss > 10 * e.constant_loss > 0:
        return None
    large = [name for name, scale in e.scales.items() if scale > 5]
    cause = (
        f"the kernels {_list(tuple(large))} are drawn too large" if large else "of large outputs"
    )
    if not large and e.largest_input >= _LARGE_INPUT:
        cause = f"the inputs go up to {e.largest_input:.3g}: standardize them"
    return (
        f"The first loss is {e.first_loss:.3g}, {e.first_loss / e.constant_loss:.2g} "
        f"times that of a constant guess ({e.constant_loss:.3g}): {cause}. The first steps only "
        "undo it."
    )


def _small_kernels(e: Evidence) -> str | None:
    small = tuple(name for name, scale in e.scales.items() if 0 < scale < _SMALL)
    if not small:
        return None
    return (
        f"The kernels {_list(small)} start too small ({e.scales[small[0]]:.2g} of the size that "
        "keeps the variance of a signal), so that the layers behind them see next to nothing: use "
        "an initializer that scales by the number of inputs (he_normal, lecun_normal)."
    )


def _twins(e: Evidence) -> str | None:
    if not e.twins or e.one_input:
        return None
    return (
        f"The same input has different targets, as the examples {_list(e.twins)} of data.train: no "
        "model learns both. Look at the labels."
    )


def _one_prediction(e: Evidence) -> str | None:
    known = e.symmetric or _dead(e) or _is_vanishing(e) or _small_kernels(e)
    if not e.one_prediction or e.one_input or known:
        return None
    constant = "" if e.constant_loss is None else f" (which cannot get below {e.constant_loss:.3g})"
    return (
        f"The prediction is the same for all inputs{constant}: look for where the model loses the "
        "input: a mask or a pooling over everything, a product with zeros, units that are all dead."
    )


def _lr_too_low(e: Evidence) -> str | None:
    loss, factor = _best_trial(e)
    much = e.first_loss - loss > max(4 * (e.first_loss - e.last_loss), 0.1 * e.first_loss)
    if not (factor > 1 and (much or loss < 0.5 * e.last_loss)) or _explodes(e):
        return None
    return (
        f"The lr is too low: at {factor:g} times {e.lr[1]:.3g} the loss falls to {loss:.3g}. Raise "
        "it, or shorten the warm-up."
    )


def _lr_too_high(e: Evidence) -> str | None:
    loss, factor = _best_trial(e)
    own = e.last_loss if e.broken_step is None else math.inf
    grew = own > e.first_loss > loss
    if not (factor < 1 and (grew or loss < 0.5 * own)):
        return None
    return (
        f"The lr is too high: at {factor:g} times {e.lr[1]:.3g} the loss falls to {loss:.3g}. "
        "Lower it, warm up, or clip the gradient."
    )


def _schedule(e: Evidence) -> str | None:
    if e.last_lr >= 0.01 * e.lr[1]:
        return None
    return (
        f"The schedule is at an end: the lr had fallen from {e.lr[1]:.3g} to {e.last_lr:.3g} by "
        f"step {e.steps}. Give it more steps, or try a constant."
    )


def _best_trial(e: Evidence) -> tuple[float, float]:
    """The lowest of the last losses, and the factor of the lr that it was reached with."""
    return min((loss, factor) for factor, loss in _known(e.last_losses).items())


def _known(losses: dict[float, float]) -> dict[float, float]:
    return {s: loss if math.isfinite(loss) else math.inf for s, loss in losses.items()}


def _like_a_constant(e: Evidence) -> str | None:
    lowest, _ = _best_trial(e)
    known = e.one_prediction or e.symmetric or _is_vanishing(e)
    if e.constant_loss is None or known or not e.constant_loss > e.goal:
        return None
    if abs(lowest - e.constant_loss) > 0.1 * e.constant_loss:
        return None
    return (
        f"The loss rests at {lowest:.3g}, which is what a constant prediction gets "
        f"({e.constant_loss:.3g}): look at what ties the outputs to the labels: the order of the "
        "classes' axis, a softmax before a loss that takes logits, a loss of the wrong targets."
    )


def _few_examples(e: Evidence) -> str | None:
    losses = sorted(zip(e.example_losses, e.indices, strict=True), reverse=True)
    few = losses[: max(1, len(losses) // 8)]
    total = sum(e.example_losses)
    if len(losses) < 4 or not total > 0 or sum(loss for loss, _ in few) < 0.7 * total:
        return None
    return (
        f"Most of the loss that is left is in the examples {_list([i for _, i in few])} of "
        "data.train: look at them and their labels."
    )


def _floor(e: Evidence) -> str | None:
    first, last = e.gradient_norm
    if not last < 0.01 * first or e.without_gradient or e.one_prediction or _explodes(e):
        return None
    return (
        f"The gradient has vanished ({first:.2g} -> {last:.2g}) at a loss of "
        f"{_best_trial(e)[0]:.3g}: either this is the loss's floor, as with label smoothing, or "
        "the outputs are saturated or bounded away from the targets."
    )


def _large_inputs(e: Evidence) -> str | None:
    if e.largest_input < _LARGE_INPUT:
        return None
    return f"Inputs go up to {e.largest_input:.3g}: standardize them (mean 0, std 1)."


def _noise(e: Evidence) -> str | None:
    if not e.noisy:
        return None
    return (
        "The model draws noise in training. It was held fixed here, but a high dropout rate also "
        "removes what would be needed: try the rate 0."
    )


def _evaluation_differs(e: Evidence) -> str | None:
    if not e.evaluated > 10 * max(e.last_loss, e.goal):
        return None
    return (
        f"In evaluation the loss of the same batch is {e.evaluated:.3g}, in training "
        f"{e.last_loss:.3g}: look at running statistics (their decay, their first values) and at "
        "what else depends on train."
    )


# What is concluded from how a model trains, not from its data or its first step.
_STRUCTURE: tuple[Rule, ...] = (
    _symmetric,
    _vanishes,
    _dead,
    _no_gradient,
    _one_prediction,
    _small_kernels,
    _unmoved,
    _like_a_constant,
    _few_examples,
    _floor,
    _noise,
)
_RULES: tuple[Rule, ...] = (
    _negative,
    _climbs,
    _same_inputs,
    _one_target,
    _explodes,
    _symmetric,
    _vanishes,
    _dead,
    _no_gradient,
    _one_prediction,
    _small_kernels,
    _twins,
    _large_inputs,
    _lr_too_high,
    _schedule,
    _lr_too_low,
    _unmoved,
    _not_finite,
    _like_a_constant,
    _few_examples,
    _floor,
    _noise,
)


def _list(items: tuple[Any, ...] | list[Any]) -> str:
    shown = [str(item) for item in items[:5]]
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(shown) + more
