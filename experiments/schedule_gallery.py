"""All schedules in one figure, each with its arguments.

    python experiments/schedule_gallery.py                     writes docs/schedules.png
    python experiments/schedule_gallery.py --out here.svg      another file, in the format it names

It trains nothing, so there is nothing to resume.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import shared
from fnn import schedules as s
from fnn.report.figure import TRAIN, VALID, figure, tidy
from fnn.types import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = 1000
COLUMNS = 4
MUTED = "#57606a"


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Draw every schedule of fnn over 1,000 steps."""

    out: Path = Path(__file__).parents[1] / "docs" / "schedules.png"  # file of the figure


class Panel(NamedTuple):
    """A schedule and the arguments it was made with."""

    name: str
    call: str
    schedule: Schedule


def panel(make: Callable[..., Schedule], *args: Any, **named: Any) -> Panel:
    """The panel of `make(*args, **named)`; its caption omits what all panels share."""
    words = [_word(arg) for arg in args if arg != 1]
    words += [f"{name}={_word(value)}" for name, value in named.items() if value != STEPS]
    return Panel(make.__name__, ", ".join(words), make(*args, **named))


def _word(value: Any) -> str:
    if callable(value):  # a schedule: the name of the function that made it
        return value.__qualname__.split(".")[0]
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    return f"{value:g}"


def panels() -> list[Panel]:
    """Every schedule, the simple ones first."""
    whole = {"total_steps": STEPS}
    warm = {"warmup_steps": 150}
    cool = {**warm, **whole, "cooldown_steps": 300}
    return [
        panel(s.constant, 1),
        panel(s.linear, 1, **whole),
        panel(s.polynomial, 1, **whole, power=3),
        panel(s.exponential_decay, 1, factor=0.5, every_steps=200),
        panel(s.step_decay, 1, factor=0.5, every_steps=200),
        panel(s.multi_step, 1, factor=0.3, boundaries=[500, 750, 900]),
        panel(s.inverse_sqrt, 1, warmup_steps=100),
        panel(s.cosine, 1, **whole),
        panel(s.cosine_restarts, 1, first_steps=143, growth=2),
        panel(s.warmup_cosine, 1, **warm, **whole),
        panel(s.warmup_linear, 1, **warm, **whole),
        panel(s.with_warmup, s.constant(1), **warm, start=0.2),
        panel(s.warmup_stable_decay, 1, **cool),
        panel(s.warmup_stable_sqrt_decay, 1, **cool),
        panel(s.one_cycle, 1, **whole),
        panel(s.one_cycle_momentum, 0.95, **whole, low=0.85),
        panel(s.cyclic, 0.1, high=1, half_steps=125),
        panel(s.cyclic_halving, 0.1, high=1, half_steps=125),
        panel(s.cyclic_exponential, 0.1, high=1, half_steps=125, factor=0.998),
        panel(s.piecewise_constant, [0.3, 1, 0.1], boundaries=[100, 700]),
        panel(s.piecewise_linear, [0.3, 1, 0.5, 0], steps=[100, 300, 800, 1000]),
        panel(s.piecewise_cosine, [0.3, 1, 0.5, 0], steps=[100, 300, 800, 1000]),
        panel(
            s.join,
            [s.linear(0, end=1, total_steps=200), s.cosine(1, total_steps=400), s.constant(0.2)],
            boundaries=[200, 500],
        ),
    ]


def plateau(axes: "Axes") -> None:
    """The factor of `reduce_on_plateau` under the loss that it saw."""
    noise = np.random.default_rng(0).normal(size=STEPS // 10)
    means = jnp.asarray(0.25 + 0.75 * np.exp(-np.arange(STEPS // 10) / 8) + 0.015 * noise)
    reduce = s.reduce_on_plateau(factor=0.5, patience=9)

    def see(state: s.PlateauState, loss: Any) -> tuple[s.PlateauState, Any]:
        state = reduce.update(loss, state)
        return state, state.factor

    factors = jax.lax.scan(see, reduce.init(), means)[1]
    steps = np.arange(0, STEPS, 10)
    axes.plot(steps, means, color=VALID, linewidth=0.9, alpha=0.8)
    axes.step(steps, np.asarray(factors), where="post", color=TRAIN, linewidth=1.8)
    axes.text(0.97, 0.36, "loss", color=VALID, fontsize=7, ha="right", transform=axes.transAxes)
    caption(axes, "reduce_on_plateau", "factor=0.5, patience=10")


def caption(axes: "Axes", name: str, call: str) -> None:
    """The name of a schedule, and below it its arguments."""
    tidy(axes, f"{name}\n")
    axes.set_xlim(0, STEPS)
    axes.set_xticks([0, STEPS // 2, STEPS])
    below = axes.text(0, 1.05, call, color=MUTED, fontsize=7, transform=axes.transAxes)
    below.set_in_layout(False)  # a long one may exceed the width of its axes


def draw() -> "Figure":
    """The whole figure."""
    drawn = panels()
    rows = -(-(len(drawn) + 1) // COLUMNS)
    whole = figure(COLUMNS * 2.7, rows * 1.75)
    whole.set_layout_engine("constrained", hspace=0.08, wspace=0.05)
    steps = jnp.arange(STEPS + 1)
    for index, (name, call, schedule) in enumerate(drawn, start=1):
        axes = whole.add_subplot(rows, COLUMNS, index)
        axes.plot(steps, np.asarray(jax.jit(jax.vmap(schedule))(steps)), color=TRAIN, lw=1.8)
        caption(axes, name, call)
        axes.set_ylim(*((0.84, 0.96) if "momentum" in name else (-0.02, 1.06)))
    axes = whole.add_subplot(rows, COLUMNS, len(drawn) + 1)
    plateau(axes)
    axes.set_ylim(-0.02, 1.06)
    label = f"step (lr 1 and total_steps={STEPS} where there is a choice)"
    whole.supxlabel(label, fontsize=8, color=MUTED)
    return whole


def main(config: Config) -> None:
    """Draw all schedules in one figure."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(config.out, dpi=110)
    print(f"figure: {config.out}")


if __name__ == "__main__":
    shared.command(main, Config)
