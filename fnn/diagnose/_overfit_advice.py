"""Advice from the evidence of a training on one batch, the most certain first."""

from collections.abc import Iterator, Sequence
from typing import Any

from fnn.diagnose._overfit_evidence import LARGE_INPUT, Evidence


def advise(e: Evidence, passed: bool) -> tuple[str, ...]:
    """All advice that the evidence supports, the most certain first."""
    if passed:
        return (*_evaluation(e), *_one_target(e), *_first_loss(e))
    # The structure of a model that learns at another lr is sound.
    structure = e.best_trial[0] > e.goal
    found = (
        *_setup(e),
        *(_signal(e) if structure else ()),
        *_data_and_lr(e),
        *(_frozen(e) if structure else ()),
        *_not_finite(e),
        *(_rest(e) if structure else ()),
    )
    return found or (
        f"The loss falls, but only to {e.last_loss:.3g}: try more steps, or a larger model.",
    )


def _evaluation(e: Evidence) -> Iterator[str]:
    if e.evaluated > 10 * max(e.last_loss, e.goal):
        yield (
            f"In evaluation the loss of the same batch is {e.evaluated:.3g}, in training "
            f"{e.last_loss:.3g}: look at running statistics (their decay, their first values) and "
            "at other effects of train=."
        )


def _one_target(e: Evidence) -> Iterator[str]:
    if e.one_target and not e.one_input:
        yield (
            "All targets of the batch are the same, so that a constant guess learns it too: it "
            "proves nothing. Shuffle the data, or take a larger batch."
        )


def _first_loss(e: Evidence) -> Iterator[str]:
    if e.constant_loss is None or e.one_target or not e.first_loss > 10 * e.constant_loss > 0:
        return
    large, cause = [name for name, scale in e.scales.items() if scale > 5], "the outputs are large"
    if large:
        cause = f"the kernels {_list(large)} start too large"
    elif e.largest_input >= LARGE_INPUT:
        cause = f"the inputs go up to {e.largest_input:.3g}: standardize them"
    yield (
        f"The first loss is {e.first_loss:.3g}, {e.first_loss / e.constant_loss:.2g} times that of "
        f"a constant guess ({e.constant_loss:.3g}): {cause}. The first steps only undo it."
    )


def _setup(e: Evidence) -> Iterator[str]:
    """Faults of the loss, the optimizer and the batch."""
    if e.first_loss < 0 or e.last_loss < 0:
        yield (
            "The loss is negative: zero is not its lower bound. Unless it is the negative "
            "log-likelihood of a density, it has the wrong sign."
        )
    if e.climbs:
        yield (
            "The first update goes up the gradient: a sign is wrong. Updates are added to the "
            "parameters, so they point against the gradient; and the lr must be above 0."
        )
    if e.one_input:
        yield "All inputs of the batch are the same: look at the loading and normalization."
    yield from _one_target(e)
    if e.explodes:
        yield (
            f"The gradient explodes: its norm is {e.gradient_norm[0]:.3g} at the first step; a "
            f"relative change of the parameters by 1 / {e.sensitivity:.2g} changes the loss by its "
            "size. Clip it (optim.clip_by_global_norm), start with smaller or orthogonal recurrent "
            "kernels, add normalization or residual connections between layers."
        )


def _signal(e: Evidence) -> Iterator[str]:
    """Faults of the forward and backward pass."""
    known = bool(e.symmetric) or e.vanishes
    if e.symmetric:
        yield (
            f"The units of {_list(e.symmetric)} start with the same weights, so they get the same "
            "gradient and never differ: initialize the kernel with random numbers, not with zeros "
            "or another constant."
        )
    elif e.vanishes:
        weak, strong = (f(e.gradients, key=e.gradients.__getitem__) for f in (min, max))
        yield (
            f"The gradient vanishes on its way back: {e.gradients[strong]:.2g} at {strong}, "
            f"{e.gradients[weak]:.2g} at {weak}. Use relu or gelu instead of sigmoid or tanh in "
            "many layers, an initializer that keeps the variance (he_normal, lecun_normal), "
            "normalization, or residual connections."
        )
    which = "all leaves" if len(e.without_gradient) == e.leaves else _list(e.without_gradient)
    if e.dead:
        yield (
            f"No gradient reaches {which}, and the prediction is the same for all inputs from the "
            "start: units that are never active (dead), as behind a relu with a large negative "
            "bias. Look at the initial biases and kernels, or use leaky_relu."
        )
    elif e.without_gradient and not known:
        yield (
            f"No gradient reaches {which}: look for a stop_gradient, an argmax or a rounding, "
            "units that are never active, or an output that is not used."
        )
    if e.one_prediction and not (e.one_input or known or e.dead or e.small_kernels):
        limit = "" if e.constant_loss is None else f" (which cannot beat {e.constant_loss:.3g})"
        yield (
            f"The prediction is the same for all inputs{limit}: look for where the model loses the "
            "input: a mask or a pooling over everything, a product with zeros, dead units."
        )
    if small := e.small_kernels:
        yield (
            f"The kernels {_list(small)} start too small ({e.scales[small[0]]:.2g} of the scale "
            "that keeps the variance of a signal), so the next layers get almost no signal: use an "
            "initializer that scales by the number of inputs (he_normal, lecun_normal)."
        )


def _data_and_lr(e: Evidence) -> Iterator[str]:
    """Faults of the examples and the learning rate."""
    if e.twins and not e.one_input:
        yield (
            f"The same input has different targets, as the examples {_list(e.twins)} of "
            "data.train: no model learns both. Look at the labels."
        )
    if e.largest_input >= LARGE_INPUT:
        yield f"Inputs go up to {e.largest_input:.3g}: standardize them (mean 0, std 1)."
    loss, factor = e.best_trial
    trial = f"at {factor:g} times {e.lr[1]:.3g} the loss falls to {loss:.3g}."
    own = e.last_loss if e.broken_step is None else float("inf")
    if factor < 1 and (own > e.first_loss > loss or loss < 0.5 * own):
        yield f"The lr is too high: {trial} Lower it, warm up, or clip the gradient."
    if e.last_lr < 0.01 * e.lr[1]:
        yield (
            f"The schedule is at an end: the lr fell from {e.lr[1]:.3g} to {e.last_lr:.3g} by "
            f"step {e.steps}. Give it more steps, or try a constant."
        )
    much = e.first_loss - loss > max(4 * (e.first_loss - e.last_loss), 0.1 * e.first_loss)
    if factor > 1 and (much or loss < 0.5 * e.last_loss) and not e.explodes:
        yield f"The lr is too low: {trial} Raise it, or shorten the warm-up."


def _frozen(e: Evidence) -> Iterator[str]:
    if e.unmoved and not e.vanishes:
        which = "no leaf moves" if len(e.unmoved) == e.leaves else f"{_list(e.unmoved)} do not move"
        yield (
            f"There are gradients, but {which}: the optimizer freezes or masks them, or its lr "
            f"there (at most {e.lr[1]:.3g}) is below the precision of their dtype."
        )


def _not_finite(e: Evidence) -> Iterator[str]:
    if e.broken_step == 0:
        yield (
            "The first loss is not finite, before any update: look at the inputs, the targets and "
            "the loss (a log or a division), not at the lr."
        )
    elif e.broken_step is not None:
        yield f"The loss is not finite from step {e.broken_step} on."


def _rest(e: Evidence) -> Iterator[str]:
    """Less certain faults, of a loss that stays above the goal."""
    lowest, _ = e.best_trial
    known = e.one_prediction or e.symmetric or e.vanishes
    guess = e.constant_loss
    if guess is not None and not known and guess > e.goal and abs(lowest - guess) <= 0.1 * guess:
        yield (
            f"The loss stays at {lowest:.3g}, that of a constant prediction ({guess:.3g}): look at "
            "how the outputs meet the labels: the order of the classes' axis, a softmax before a "
            "loss that takes logits, a loss of the wrong targets."
        )
    losses = sorted(zip(e.example_losses, e.indices, strict=True), reverse=True)
    few, total = losses[: max(1, len(losses) // 8)], sum(e.example_losses)
    if len(losses) >= 4 and total > 0 and sum(loss for loss, _ in few) >= 0.7 * total:
        yield (
            f"Most of the loss that is left is in the examples {_list([i for _, i in few])} of "
            "data.train: look at them and their labels."
        )
    first, last = e.gradient_norm
    if last < 0.01 * first and not (e.without_gradient or e.one_prediction or e.explodes):
        yield (
            f"The gradient has vanished ({first:.2g} -> {last:.2g}) at a loss of {lowest:.3g}: "
            "either this is the minimum of the loss, as with label smoothing, or the outputs are "
            "saturated or bounded away from the targets."
        )
    if e.noisy:
        yield (
            "The model draws noise in training. It was held fixed here, but a high dropout rate "
            "also removes needed units: try the rate 0."
        )


def _list(items: Sequence[Any]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(map(str, items[:5])) + more
