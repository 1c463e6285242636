"""From what was seen of the training on one batch to what is to be looked at first."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen. Of several trials, the structure is that of the one that came furthest."""

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
    leaves: int  # of the parameters
    without_gradient: tuple[str, ...]  # leaves whose gradient is 0, before and after
    unmoved: tuple[str, ...]  # leaves that have a gradient, and kept their values
    climbs: bool  # whether the first update goes up the gradient
    noisy: bool  # whether the model draws noise in training
    evaluated: float  # the mean loss with train=False, after training
    one_prediction: bool  # whether all examples get the same
    one_input: bool  # whether all inputs are the same
    twins: tuple[tuple[int, int], ...]  # examples with one input and two targets
    constant_loss: float | None  # cross-entropy of the best constant prediction
    example_losses: tuple[float, ...] = field(repr=False)  # after training
    largest_input: float  # in magnitude

    def lines(self) -> list[str]:
        """The numbers as text."""
        others = [f"{s:g} x lr: {loss:.4g}" for s, loss in self.last_losses.items() if s != 1]
        return [
            f"lr {self.lr[0]:.3g} to {self.lr[1]:.3g}, gradient norm {self.gradient_norm[0]:.3g} "
            f"-> {self.gradient_norm[1]:.3g}, inputs up to {self.largest_input:.3g}",
            f"loss in evaluation {self.evaluated:.4g}"
            + (", with " + ", ".join(others) if others else ""),
        ]


def advise(evidence: Evidence, passed: bool) -> tuple[str, ...]:
    """All that speaks in the evidence, the surest first."""
    if passed:
        said = _evaluation_differs(evidence)
        return (said,) if said else ()
    found = tuple(text for rule in _RULES if (text := rule(evidence)))
    return found or (
        f"The loss falls, but only to {evidence.last_loss:.3g}: try more steps, a larger model, or "
        "an optimizer with momentum.",
    )


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


def _no_gradient(e: Evidence) -> str | None:
    if not e.without_gradient:
        return None
    which = "all leaves" if len(e.without_gradient) == e.leaves else _list(e.without_gradient)
    return (
        f"No gradient reaches {which}: look for a stop_gradient, an argmax or a rounding, units "
        "that are never active, or a part whose output is not used."
    )


def _unmoved(e: Evidence) -> str | None:
    if not e.unmoved:
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
    return "All inputs of the batch are the same: look at how the data are loaded and normalised."


def _twins(e: Evidence) -> str | None:
    if not e.twins or e.one_input:
        return None
    return (
        f"The same input has different targets, as the examples {_list(e.twins)} of data.train: no "
        "model learns both. Look at the labels."
    )


def _one_prediction(e: Evidence) -> str | None:
    if not e.one_prediction or e.one_input:
        return None
    constant = "" if e.constant_loss is None else f" (which cannot get below {e.constant_loss:.3g})"
    return (
        f"The prediction is the same for all inputs{constant}: look for where the model loses the "
        "input: a mask or a pooling over everything, a product with zeros, units that are all dead."
    )


def _lr_too_low(e: Evidence) -> str | None:
    loss, factor = _best_trial(e)
    much = e.first_loss - loss > max(4 * (e.first_loss - e.last_loss), 0.1 * e.first_loss)
    if not (factor > 1 and (much or loss < 0.5 * e.last_loss)):
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
    if e.constant_loss is None or e.one_prediction or not e.constant_loss > e.goal:
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
    if not last < 0.01 * first or e.without_gradient or e.one_prediction:
        return None
    return (
        f"The gradient has vanished ({first:.2g} -> {last:.2g}) at a loss of "
        f"{_best_trial(e)[0]:.3g}: either this is the loss's floor, as with label smoothing, or "
        "the outputs are saturated or bounded away from the targets."
    )


def _large_inputs(e: Evidence) -> str | None:
    if e.largest_input < 50:
        return None
    return f"Inputs go up to {e.largest_input:.3g}: standardise them (mean 0, std 1)."


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


_RULES: tuple[Callable[[Evidence], str | None], ...] = (
    _negative,
    _climbs,
    _same_inputs,
    _no_gradient,
    _one_prediction,
    _twins,
    _lr_too_high,
    _schedule,
    _lr_too_low,
    _unmoved,
    _not_finite,
    _like_a_constant,
    _few_examples,
    _floor,
    _large_inputs,
    _noise,
)


def _list(items) -> str:
    shown = [str(item) for item in items[:5]]
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(shown) + more
