"""Laws of schedules: `schedule(step) -> lr`. `check_schedule` runs all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.testing._compare import expect_all, expect_same
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.types import Schedule

Make = Callable[..., Schedule]

LAST_STEP = 2**31 - 1  # the largest int32
STEPS = (0, 1, 3, 17, 64, 1000, LAST_STEP)

# One float32 rounding is 6e-8; a cosine near its ends has a few of them.
RTOL = 1e-6


def check_schedule(make: Make, scalars: Mapping[str, float], values: Mapping[int, float]) -> None:
    """All laws of a schedule.

    Args:
      make: called as `make(**scalars)`, also with tracers for the values.
      scalars: its arguments.
      values: step -> the expected learning rate.

    >>> from fnn.schedules import cosine
    >>> check_schedule(cosine, {'start': 1.0, 'total_steps': 10.0}, {0: 1.0, 5: 0.5, 10: 0.0})
    """
    schedule_takes_any_step(make(**scalars))
    schedule_has_values(make(**scalars), values)
    schedule_may_be_traced(make, scalars)


def schedule_takes_any_step(schedule: Schedule) -> None:
    """The learning rate is the same finite float32 scalar for an int, an array and a tracer.

    >>> from fnn.schedules import constant
    >>> schedule_takes_any_step(constant(0.1))
    """
    law = "schedule_takes_any_step"
    traced = jax.jit(jax.vmap(schedule))(jnp.array(STEPS, jnp.int32))
    hint = "mind overflow and 0 / 0 at the ends"
    expect_all(law, traced, np.isfinite, rule="must be finite", hint=hint)
    for i, step in enumerate(STEPS):
        for kind in (int, jnp.int32):
            lr = schedule(kind(step))
            if jnp.shape(lr) != () or jnp.result_type(lr) != jnp.float32:
                raise AssertionError(
                    f"{law}: step {step} as {kind.__name__} gives {jnp.result_type(lr)}"
                    f"{list(jnp.shape(lr))}, and must give a float32 scalar; cast the step first"
                )
            _expect_lr(f"{law}, step {step} as {kind.__name__}", traced[i], lr, traced)


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
        raise AssertionError(
            f"{where}: expected {float(expected)}, got {float(got)}; they must be at most "
            f"{allowed:.1e} apart; steps count from 0"
        )


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
