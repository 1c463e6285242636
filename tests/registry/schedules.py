"""Rows of the schedules: their values at the ends, the joints and one step beside them."""

from fnn import schedules
from tests.registry.rows import ScheduleRow

_COOLDOWN = {
    "peak": 0.8,
    "warmup_steps": 10.0,
    "total_steps": 100.0,
    "cooldown_steps": 40.0,
    "start": 0.2,
    "end": 0.1,
}

SCHEDULES = [
    ScheduleRow(
        name="constant",
        make=schedules.constant,
        scalars={"value": 0.1},
        values={0: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="linear",
        make=schedules.linear,
        scalars={"start": 0.8, "total_steps": 90.0, "end": 0.2},
        values={0: 0.8, 30: 0.6, 45: 0.5, 90: 0.2, 91: 0.2, 1000: 0.2},
    ),
    ScheduleRow(
        name="polynomial",
        make=schedules.polynomial,
        scalars={"start": 0.9, "total_steps": 90.0, "power": 2.0, "end": 0.1},
        values={0: 0.9, 45: 0.3, 90: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="polynomial of a root",
        make=schedules.polynomial,
        scalars={"start": 0.9, "total_steps": 40.0, "power": 0.5, "end": 0.1},
        values={0: 0.9, 30: 0.5, 40: 0.1, 64: 0.1},
    ),
    ScheduleRow(
        name="step_decay",
        make=schedules.step_decay,
        scalars={"start": 0.8, "factor": 0.5, "every_steps": 10.0},
        values={0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2},
    ),
    ScheduleRow(
        name="multi_step",
        make=lambda start, factor, first, second: schedules.multi_step(
            start, factor=factor, boundaries=[first, second]
        ),
        scalars={"start": 0.8, "factor": 0.5, "first": 10.0, "second": 25.0},
        values={0: 0.8, 9: 0.8, 10: 0.4, 24: 0.4, 25: 0.2, 1000: 0.2},
    ),
    ScheduleRow(
        name="exponential_decay",
        make=schedules.exponential_decay,
        scalars={"start": 0.8, "factor": 0.25, "every_steps": 10.0},
        values={0: 0.8, 5: 0.4, 10: 0.2, 20: 0.05},
    ),
    ScheduleRow(
        name="inverse_sqrt",
        make=schedules.inverse_sqrt,
        scalars={"peak": 0.8, "warmup_steps": 10.0},
        values={0: 0.0, 5: 0.4, 10: 0.8, 40: 0.4, 1000: 0.08},
    ),
    ScheduleRow(
        name="cosine",
        make=schedules.cosine,
        scalars={"start": 1.0, "total_steps": 90.0, "end": 0.1},
        values={0: 1.0, 30: 0.775, 45: 0.55, 60: 0.325, 90: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="cosine_restarts",
        make=schedules.cosine_restarts,
        scalars={"start": 0.9, "first_steps": 10.0, "growth": 2.0, "end": 0.1},
        values={0: 0.9, 5: 0.5, 10: 0.9, 20: 0.5, 25: 0.217157288, 30: 0.9, 50: 0.5, 70: 0.9},
    ),
    ScheduleRow(
        name="cosine_restarts of one length",
        make=lambda start, first_steps: schedules.cosine_restarts(start, first_steps=first_steps),
        scalars={"start": 0.8, "first_steps": 12.0},
        values={0: 0.8, 6: 0.4, 12: 0.8, 18: 0.4, 1200: 0.8},
    ),
    ScheduleRow(
        name="with_warmup around a cosine",
        make=lambda peak, warmup_steps, start: schedules.with_warmup(
            schedules.cosine(peak, total_steps=90), warmup_steps=warmup_steps, start=start
        ),
        scalars={"peak": 0.8, "warmup_steps": 10.0, "start": 0.2},
        values={0: 0.2, 5: 0.5, 10: 0.8, 55: 0.4, 100: 0.0},
    ),
    ScheduleRow(
        name="warmup_cosine",
        make=schedules.warmup_cosine,
        scalars={"peak": 1.0, "warmup_steps": 10.0, "total_steps": 100.0, "start": 0.2, "end": 0.1},
        values={0: 0.2, 5: 0.6, 10: 1.0, 40: 0.775, 55: 0.55, 100: 0.1, 101: 0.1},
    ),
    ScheduleRow(
        name="warmup_cosine without warm-up",
        make=lambda peak, total_steps: schedules.warmup_cosine(
            peak, warmup_steps=0, total_steps=total_steps
        ),
        scalars={"peak": 0.5, "total_steps": 10.0},
        values={0: 0.5, 5: 0.25, 10: 0.0},
    ),
    ScheduleRow(
        name="warmup_linear",
        make=schedules.warmup_linear,
        scalars={"peak": 1.0, "warmup_steps": 10.0, "total_steps": 100.0, "start": 0.2, "end": 0.1},
        values={0: 0.2, 5: 0.6, 10: 1.0, 40: 0.7, 55: 0.55, 100: 0.1, 101: 0.1},
    ),
    ScheduleRow(
        name="warmup_stable_decay",
        make=schedules.warmup_stable_decay,
        scalars=_COOLDOWN,
        values={0: 0.2, 5: 0.5, 10: 0.8, 60: 0.8, 80: 0.45, 90: 0.275, 100: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="warmup_stable_sqrt_decay",
        make=schedules.warmup_stable_sqrt_decay,
        scalars=_COOLDOWN,
        values={0: 0.2, 5: 0.5, 10: 0.8, 60: 0.8, 70: 0.45, 100: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="one_cycle",
        make=schedules.one_cycle,
        scalars={
            "peak": 1.0,
            "total_steps": 100.0,
            "warmup_fraction": 0.4,
            "start_divisor": 25.0,
            "end_divisor": 100.0,
        },
        values={0: 0.04, 20: 0.52, 40: 1.0, 70: 0.5002, 100: 4e-4, 1000: 4e-4},
    ),
    ScheduleRow(
        name="one_cycle_momentum",
        make=schedules.one_cycle_momentum,
        scalars={"high": 0.95, "total_steps": 100.0, "warmup_fraction": 0.4, "low": 0.85},
        values={0: 0.95, 20: 0.9, 40: 0.85, 70: 0.9, 100: 0.95, 1000: 0.95},
    ),
    ScheduleRow(
        name="cyclic",
        make=schedules.cyclic,
        scalars={"low": 0.2, "high": 1.0, "half_steps": 10.0},
        values={0: 0.2, 5: 0.6, 10: 1.0, 15: 0.6, 20: 0.2, 50: 1.0},
    ),
    ScheduleRow(
        name="cyclic_halving",
        make=schedules.cyclic_halving,
        scalars={"low": 0.2, "high": 1.0, "half_steps": 10.0},
        values={0: 0.2, 10: 1.0, 15: 0.6, 20: 0.2, 30: 0.6, 50: 0.4, 55: 0.3},
    ),
    ScheduleRow(
        name="cyclic_exponential",
        make=schedules.cyclic_exponential,
        scalars={"low": 0.2, "high": 1.0, "half_steps": 10.0, "factor": 0.5**0.1},
        values={0: 0.2, 10: 0.6, 20: 0.2, 30: 0.3},
    ),
    ScheduleRow(
        name="piecewise_constant",
        make=lambda a, b, c, first, second: schedules.piecewise_constant(
            [a, b, c], boundaries=[first, second]
        ),
        scalars={"a": 0.5, "b": 0.8, "c": 0.1, "first": 10.0, "second": 30.0},
        values={0: 0.5, 9: 0.5, 10: 0.8, 29: 0.8, 30: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="piecewise_linear",
        make=lambda a, b, c, first, last: schedules.piecewise_linear(
            [a, b, c], steps=[2, first, last]
        ),
        scalars={"a": 0.5, "b": 0.8, "c": 0.1, "first": 12.0, "last": 82.0},
        values={0: 0.5, 2: 0.5, 7: 0.65, 12: 0.8, 47: 0.45, 82: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="piecewise_cosine",
        make=lambda a, b, c, first, last: schedules.piecewise_cosine(
            [a, b, c], steps=[2, first, last]
        ),
        scalars={"a": 0.5, "b": 0.8, "c": 0.1, "first": 12.0, "last": 82.0},
        values={0: 0.5, 2: 0.5, 7: 0.65, 12: 0.8, 47: 0.45, 82: 0.1, 1000: 0.1},
    ),
    ScheduleRow(
        name="join of a line and a cosine",
        make=lambda start, boundary: schedules.join(
            [schedules.linear(start, total_steps=40), schedules.cosine(1.0, total_steps=60)],
            boundaries=[boundary],
        ),
        scalars={"start": 0.8, "boundary": 20.0},
        values={0: 0.8, 19: 0.42, 20: 1.0, 50: 0.5, 80: 0.0},
    ),
]

HELPERS = ["schedules.plateau.reduce_on_plateau"]
