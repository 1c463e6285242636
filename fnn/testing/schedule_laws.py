"""Laws of schedules: `schedule(step) -> lr`, and of the shapes that are declared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.dtypes import is_float
from fnn.testing._compare import expect_all, expect_same
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import is_traced_alike
from fnn.types import Schedule

Make = Callable[..., Schedule]

LAST_STEP = 2**31 - 1  # the largest int32
STEPS = (0, 1, 3, 17, 64, 1000, LAST_STEP)

# One float32 rounding is 6e-8; a cosine near its ends has a few of them.
RTOL = 1e-6


def check_schedule(
    make: Make | Schedule,
    scalars: Mapping[str, float] | None = None,
    values: Mapping[int, float] | None = None,
    **options: Any,
) -> None:
    """Runs all laws of a schedule; the arguments are those of `schedule_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.schedules import cosine
    >>> check_schedule(cosine, {'start': 1.0, 'total_steps': 10.0}, {0: 1.0, 5: 0.5, 10: 0.0})
    """
    check("check_schedule", schedule_laws(make, scalars, values, **options))


def schedule_laws(
    make: Make | Schedule,
    scalars: Mapping[str, float] | None = None,
    values: Mapping[int, float] | None = None,
    *,
    peak: float | None = None,
    warmup_steps: int | None = None,
    total_steps: int | None = None,
    start: float | None = None,
    end: float | None = None,
    period: int | None = None,
    monotone: str | None = None,
    like: Any = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a schedule.

    Args:
      make: called as `make(**scalars)`; or, with no scalars, the schedule itself.
      scalars: its arguments; `{}` for a function without any.
      values: step -> the expected learning rate.
      peak: the largest learning rate.
      warmup_steps: steps until the peak, from `start` (or from below it) in equal increments.
      total_steps: the step from which the learning rate stays.
      start: the learning rate of step 0.
      end: the learning rate of `total_steps` and of all later ones.
      period: steps after which it repeats.
      monotone: "falling" or "rising", after the warm-up.
      like: a reference: a schedule, or a function of the same scalars that makes one.
      dtypes: accepted for the sake of all checks; a learning rate is a float32 scalar.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: every scalar may be traced, and a learning rate
        is a float32 scalar for an int, an array and a tracer.

    >>> from fnn.schedules import constant
    >>> schedule_laws(constant(0.1))[0]
    schedule_takes_any_step
    """
    where = "check_schedule"
    if not callable(make):
        raise ValueError(
            f"{where}: expected a schedule, a function of the step, or a function that makes one, "
            f"got {make!r}"
        )
    if monotone not in (None, "falling", "rising"):
        raise ValueError(f"{where}: expected monotone to be falling or rising, got {monotone!r}")
    given = dict(scalars or {})
    maker: Any = make
    schedule = maker if scalars is None else maker(**given)
    horizon = _horizon(total_steps, warmup_steps, period, given, values)
    laws = Battery(where, skip)
    laws.add(schedule_takes_any_step, schedule, strict=policy == "fnn")
    laws.add(is_traced_alike, schedule, jnp.int32(3))
    laws.add(schedule_is_at_least_zero, schedule, horizon)
    if values:
        laws.add(schedule_has_values, schedule, values)
    if given:
        floats = {name: v for name, v in given.items() if is_float(v)}
        laws.add(scalars_matter, make, given, horizon)
        if floats and policy == "fnn":
            laws.add(schedule_may_be_traced, make, given)
        laws.add(schedule_may_be_swept, make, given, horizon)
    if peak is not None:
        laws.add(reaches_its_peak, schedule, peak, warmup_steps, horizon)
    if warmup_steps:
        laws.add(warms_up, schedule, warmup_steps, start)
    if start is not None:
        laws.add(schedule_has_values, schedule, {0: start})
    if total_steps is not None:
        laws.add(stays_at_its_end, schedule, total_steps, end)
    if monotone is not None:
        laws.add(is_monotone, schedule, monotone, warmup_steps or 0, horizon)
    if period is not None:
        laws.add(repeats, schedule, period, warmup_steps or 0)
    if total_steps is not None and period is None and monotone is not None:
        laws.add(has_no_jump, schedule, total_steps, warmup_steps or 0)
    if like is not None:
        reference = like if scalars is None else _made(like, given)
        laws.add(schedules_as_the_reference, schedule, reference, horizon)
    return laws.done()


def _horizon(
    total: int | None, warmup: int | None, period: int | None, scalars: Any, values: Any
) -> int:
    """Steps to look at: past the end."""
    named = [v for n, v in scalars.items() if "step" in n or "period" in n or "every" in n]
    named += [total or 0, 3 * (period or 0), warmup or 0, *(values or {})]
    return int(min(2 * max([20, *map(float, named)]) + 5, 4000))


def _made(like: Any, scalars: Mapping[str, Any]) -> Any:
    try:
        made = like(**scalars)
    except TypeError:
        return like
    return made if callable(made) else like


def _lrs(schedule: Schedule, stop: int, first: int = 0) -> np.ndarray:
    """The learning rates of the steps, in float64."""
    steps = jnp.arange(first, stop, dtype=jnp.int32)
    try:
        found = jax.jit(jax.vmap(schedule))(steps)
    except jax.errors.JAXTypeError:
        found = [schedule(int(step)) for step in range(first, stop)]
    return np.asarray(found, np.float64)


def schedule_takes_any_step(schedule: Schedule, *, strict: bool = True) -> None:
    """The learning rate is the same finite scalar for an int, an array and a tracer.

    Args:
      strict: of float32 for each.

    >>> from fnn.schedules import constant
    >>> schedule_takes_any_step(constant(0.1))
    """
    law = "schedule_takes_any_step"
    traced = jax.jit(jax.vmap(lambda step: jnp.asarray(schedule(step))))(
        jnp.array(STEPS, jnp.int32)
    )
    hint = "mind overflow and 0 / 0 at the ends"
    expect_all(law, traced, np.isfinite, rule="must be finite", hint=hint)
    for i, step in enumerate(STEPS):
        for kind in (int, jnp.int32):
            lr = schedule(kind(step))
            wrong = strict and jnp.result_type(lr) != jnp.float32
            if jnp.shape(lr) != () or wrong or not is_float(lr):
                raise LawError(
                    f"{law}: step {step} as {kind.__name__} gives {jnp.result_type(lr)}"
                    f"{list(jnp.shape(lr))}, and must give a float32 scalar; cast the step first"
                )
            _expect_lr(f"{law}, step {step} as {kind.__name__}", traced[i], lr, traced)


def schedule_is_at_least_zero(schedule: Schedule, horizon: int) -> None:
    """No learning rate is negative.

    >>> schedule_is_at_least_zero(lambda step: 0.1, 10)
    """
    lrs = _lrs(lambda step: jnp.asarray(schedule(step), jnp.float32), horizon)
    if not (lrs >= 0).all():
        step = int((lrs < 0).argmax())
        raise LawError(
            f"schedule_is_at_least_zero: the learning rate of step {step} is {lrs[step]:.4g}; stop "
            "at the end",
            got=lrs[step],
        )


def schedule_has_values(schedule: Schedule, values: Mapping[int, float]) -> None:
    """The schedule has the given learning rates.

    >>> from fnn.schedules import constant
    >>> schedule_has_values(constant(0.1), {0: 0.1, 100: 0.1})
    """
    for step, lr in values.items():
        _expect_lr(f"schedule_has_values at step {step}", lr, schedule(step), values.values())


def _expect_lr(where: str, expected: Any, got: Any, scale: Any) -> None:
    allowed = RTOL * max(abs(float(lr)) for lr in scale)
    if not abs(float(got) - float(expected)) <= allowed:
        raise LawError(
            f"{where}: expected {float(expected)}, got {float(got)}; they must be at most "
            f"{allowed:.1e} apart; steps count from 0",
            expected=float(expected),
            got=float(got),
        )


def scalars_matter(make: Make, scalars: Mapping[str, float], horizon: int) -> None:
    """Each scalar has an effect on some step.

    >>> from fnn.schedules import cosine
    >>> scalars_matter(cosine, {'start': 1.0, 'total_steps': 100.0}, 100)
    """
    base = _lrs(make(**scalars), horizon)
    for name, value in scalars.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        others = [value + 1, value + 3] if not is_float(value) else [0.9 * value, 0.5 * value + 0.1]
        for other in others:
            if not np.array_equal(base, _lrs(make(**{**scalars, name: other}), horizon)):
                break
        else:
            raise LawError(
                f"scalars_matter: {name}={others[0]:g} instead of {value:g} changes no learning "
                f"rate of {horizon} steps; use it"
            )


def schedule_may_be_swept(make: Make, scalars: Mapping[str, float], horizon: int) -> None:
    """vmap over each learning rate among the scalars agrees with Python numbers.

    Scalars that count steps may be read while the schedule is made.

    >>> from fnn.schedules import cosine
    >>> schedule_may_be_swept(cosine, {'start': 1.0, 'total_steps': 100.0}, 10)
    """
    steps = jnp.arange(min(horizon, 40), dtype=jnp.int32)
    for name, value in scalars.items():
        if not isinstance(value, float) or _counts_steps(name):
            continue
        factors = np.array([0.9, 1.0], np.float32) * np.float32(value)

        def lrs(v: Any, name: str = name) -> Any:
            return jax.vmap(make(**{**scalars, name: v}))(steps)

        try:
            swept = jax.jit(jax.vmap(lrs))(jnp.asarray(factors))
        except jax.errors.JAXTypeError as error:
            raise LawError(
                f"schedule_may_be_swept: {name} cannot be traced ({type(error).__name__}); use "
                "jnp.where where a choice depends on it"
            ) from error
        expect_same(
            f"schedule_may_be_swept over {name}",
            np.stack([_lrs(make(**{**scalars, name: float(v)}), len(steps)) for v in factors]),
            np.asarray(swept, np.float64),
            names=("Python numbers", "traced ones"),
            rtol=3 * RTOL,
            hint="use jnp.where where a choice depends on an argument or the step",
        )


def _counts_steps(name: str) -> bool:
    return any(word in name for word in ("step", "period", "every", "epoch", "warmup", "boundar"))


def schedule_may_be_traced(make: Make, scalars: Mapping[str, float]) -> None:
    """The arguments may be traced: vmap agrees with a loop, and they have gradients.

    >>> from fnn.schedules import cosine
    >>> schedule_may_be_traced(cosine, {'start': 1.0, 'total_steps': 100.0})
    """
    steps = jnp.array([3, 17, 64], jnp.int32)

    def lrs(scalars: Mapping[str, Any]) -> Any:
        return jax.vmap(make(**scalars))(steps)

    factors = np.linspace(0.8, 1.0, 3, dtype=np.float32)
    swept = {name: jnp.asarray(factors * np.float32(value)) for name, value in scalars.items()}
    loop = [
        jnp.stack(
            [make(**{name: float(v[i]) for name, v in swept.items()})(s) for s in (3, 17, 64)]
        )
        for i in range(len(factors))
    ]
    expect_same(
        "schedule_may_be_traced",
        jnp.stack(loop),
        jax.jit(jax.vmap(lrs))(swept),
        names=("Python numbers", "traced ones"),
        rtol=RTOL,
        hint="use jnp.where where a choice depends on an argument or the step",
    )
    gradients_match_finite_differences(lrs, dict(scalars))


def reaches_its_peak(
    schedule: Schedule, peak: float, warmup_steps: int | None, horizon: int
) -> None:
    """The largest learning rate is the peak, and it is reached when the warm-up ends.

    >>> reaches_its_peak(lambda step: jnp.minimum(step, 4) / 4, 1.0, 4, 10)
    """
    law, lrs = "reaches_its_peak", _lrs(schedule, horizon)
    if not abs(lrs.max() - peak) <= 1e-5 * abs(peak):
        raise LawError(
            f"{law}: the largest learning rate is {lrs.max():.6g}, at step {int(lrs.argmax())}, "
            f"and must be {peak:g}",
            expected=peak,
            got=lrs.max(),
        )
    if warmup_steps is not None and not abs(lrs[warmup_steps] - peak) <= 1e-5 * abs(peak):
        raise LawError(
            f"{law}: the learning rate of step {warmup_steps} is {lrs[warmup_steps]:.6g}, and must "
            f"be the peak {peak:g}; steps count from 0",
            expected=peak,
            got=lrs[warmup_steps],
        )


def warms_up(schedule: Schedule, warmup_steps: int, start: float | None) -> None:
    """The learning rate rises in the warm-up, in equal increments.

    >>> warms_up(lambda step: jnp.minimum(step, 4) / 4, 4, 0.0)
    """
    lrs = _lrs(schedule, warmup_steps + 1)
    increments = np.diff(lrs)
    scale = np.abs(lrs).max()
    if not (increments > -1e-6 * scale).all():
        step = int(increments.argmin())
        raise LawError(
            f"warms_up: the learning rate falls from {lrs[step]:.6g} to {lrs[step + 1]:.6g} at "
            f"step {step + 1} of the warm-up"
        )
    even = np.ptp(increments) if len(increments) else 0.0
    if start is not None and not even <= 1e-3 * scale:
        raise LawError(
            f"warms_up: the increments of the warm-up are from {increments.min():.3g} to "
            f"{increments.max():.3g}, and must be equal; count from 0 to {warmup_steps}"
        )


def stays_at_its_end(schedule: Schedule, total_steps: int, end: float | None) -> None:
    """From `total_steps` on the learning rate is constant, and the end is not reached before.

    >>> stays_at_its_end(lambda step: jnp.maximum(4 - step, 0) / 4, 4, 0.0)
    """
    law = "stays_at_its_end"
    late = np.array([*_lrs(schedule, 2 * total_steps + 3, total_steps), float(schedule(LAST_STEP))])
    before = _lrs(schedule, total_steps)
    scale = max(np.abs(before).max(), np.abs(late).max())
    wanted = late[0] if end is None else end
    wrong = np.abs(late - wanted) > 1e-5 * scale
    if wrong.any():
        i = int(wrong.argmax())
        raise LawError(
            f"{law}: the learning rate of step {total_steps + i} is {late[i]:.6g}, and must be "
            f"{wanted:.6g}; clip the fraction of the run at 1",
            expected=wanted,
            got=late[i],
        )
    if total_steps > 1 and before[-1] == late[0] and np.ptp(before[-(total_steps // 4 + 2) :]) > 0:
        raise LawError(
            f"{law}: the end is reached at step {total_steps - 1}, a step early; divide by "
            f"{total_steps}"
        )


def is_monotone(schedule: Schedule, direction: str, warmup_steps: int, horizon: int) -> None:
    """After the warm-up the learning rate never rises, or never falls.

    >>> is_monotone(lambda step: jnp.maximum(4 - step, 0) / 4, 'falling', 0, 10)
    """
    lrs = _lrs(schedule, horizon, warmup_steps)
    change = np.diff(lrs) * (-1 if direction == "falling" else 1)
    if not (change >= -1e-6 * np.abs(lrs).max()).all():
        step = int(change.argmin())
        raise LawError(
            f"is_monotone: from step {warmup_steps + step} to the next the learning rate goes from "
            f"{lrs[step]:.6g} to {lrs[step + 1]:.6g}, and must be {direction}"
        )
    if np.ptp(lrs) == 0:
        raise LawError(f"is_monotone: the learning rate stays at {lrs[0]:.6g}, {direction} never")


def repeats(schedule: Schedule, period: int, warmup_steps: int) -> None:
    """The learning rate repeats its shape after a period, and not before.

    Heights may differ from one period to the next by a factor.

    >>> repeats(lambda step: (step % 4) / 4, 4, 0)
    """
    law = "repeats"
    lrs = _lrs(schedule, warmup_steps + 3 * period, warmup_steps).reshape(3, period)
    heights = lrs.max(axis=1, keepdims=True)
    shapes = lrs / np.where(heights == 0, 1, heights)
    if not np.abs(shapes - shapes[0]).max() <= 1e-4:
        step = int(np.abs(shapes - shapes[0]).max(axis=0).argmax())
        raise LawError(
            f"{law}: step {warmup_steps + step} and those {period} and {2 * period} later have "
            f"learning rates {lrs[:, step]}; take the remainder of the step by {period}"
        )
    if period > 1 and np.ptp(lrs[0]) == 0:
        raise LawError(f"{law}: the learning rate stays at {lrs[0, 0]:.6g} for a whole period")


def has_no_jump(schedule: Schedule, total_steps: int, warmup_steps: int) -> None:
    """Between the end of the warm-up and the end no step is half of the way, for 8 steps or more.

    >>> has_no_jump(lambda step: jnp.maximum(8 - step, 0) / 8, 8, 0)
    """
    lrs = _lrs(schedule, total_steps + 1, warmup_steps)
    change = np.abs(np.diff(lrs))
    if len(change) >= 8 and change.max() > 0.5 * np.ptp(lrs) and (change > 0).sum() > 3:
        step = warmup_steps + int(change.argmax())
        raise LawError(
            f"has_no_jump: the learning rate changes by {change.max():.4g} of {np.ptp(lrs):.4g} at "
            f"step {step + 1}; let the pieces meet"
        )


def schedules_as_the_reference(schedule: Schedule, like: Schedule, horizon: int) -> None:
    """The learning rates are those of the reference, at every step.

    >>> schedules_as_the_reference(lambda step: 0.1, lambda step: 0.1, 10)
    """
    found, wanted = (
        _lrs(lambda step, f=f: jnp.asarray(f(step), jnp.float32), horizon) for f in (schedule, like)
    )
    error = np.abs(found - wanted)
    if not error.max() <= 1e-5 * np.abs(wanted).max():
        step = int(error.argmax())
        raise LawError(
            f"schedules_as_the_reference: step {step} has {found[step]:.6g}, the reference "
            f"{wanted[step]:.6g}; steps count from 0",
            expected=wanted[step],
            got=found[step],
        )
