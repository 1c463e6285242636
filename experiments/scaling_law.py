"""How the loss of a small GPT falls with its parameters and with the tokens it has seen.

    python experiments/scaling_law.py                        writes docs/scaling_law.png
    python experiments/scaling_law.py --lr 0.02              other settings; --help lists them
    python experiments/scaling_law.py --resume RUN           resumes an interrupted run

Each size is one run on characters (tiny Shakespeare; without it, the sources of Python's standard
library). Schedule-free AdamW at a constant rate gives, at any step, weights as good as those of a
run that was planned to end there, so that one curve gives the losses for all numbers of tokens. To
them is fitted

    L(N, D) = E + A / N^a + B / D^b        N parameters, D tokens, L nats per character

by `fnn.scaling.fit` (Hoffmann et al. 2022, arXiv:2203.15556, appendix D.2), and the best size for a
compute of C = 6 N D is `fnn.scaling.optimal`.

Measured (2 cores of an Intel Xeon, JAX 0.10.2, shared with other work): 155 s. Tiny Shakespeare,
5,232 to 156,608 parameters, one run each, 92 evaluations on 32,896 characters:

    L = 1.704 + 21.98 / N^0.468 + 18860 / D^0.834, off by 0.022 nats (root mean square)

The best size grows as C^0.64: 19,000 parameters for 1.9e11 FLOPs and 84,000 for 1.9e12, with 86 and
45 tokens for each. The runs' own curves cross where the law says. It holds for these sizes and
batches of 512 tokens, not beyond: the two largest models still fall faster at the end than it says
(by up to 0.05 nats), so that E is too high, and the rates were not tuned for each size.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from experiments import shared
from experiments.shared import Count, Positive, Resume, Root, unset
from fnn import losses, models, optim, scaling, schedules, tree
from fnn.checkpoint import RunDir
from fnn.recipe import Recipe, RecipeFunction
from fnn.report.figure import INK, VALID, figure, matplotlib, tidy
from fnn.scaling import Law
from fnn.train import exit_code, fit, silent
from fnn.types import Data, Hyper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = Path(__file__).parents[1] / "docs" / "scaling_law.png"


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train GPTs of several sizes on characters, and fit a law to their losses."""

    root: Root = None
    num_layers: tuple[int, ...] = (1, 1, 2, 3)  # blocks of each size
    features: tuple[int, ...] = (16, 32, 48, 64)  # width of each size, multiples of 16
    steps: tuple[int, ...] = (12000, 10000, 7000, 4000)  # updates of each size
    max_length: Count = 64  # context length, in characters
    batch_size: Count = 8  # windows per step
    evals: Count = 25  # evaluations of each size, if it has as many steps
    eval_windows: Count = 512  # windows of the validation part to evaluate, evenly spaced
    lr: Positive = 0.006  # learning rate of 64 features; other sizes take lr * 64 / features
    longest_warmup = 50  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    first_step: Annotated[
        int | None,
        unset(
            "first step whose evaluation is fitted; earlier ones lie on a plateau",
            "a fifth of --steps, at most 800",
        ),
    ] = None
    seed: int = 0  # of the initial weights and the order of the data
    out: Path = FIGURE  # file of the figure
    resume: Resume = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fine = all(features > 0 and features % 16 == 0 for features in self.features)
        fine = fine and len(self.features) > 2
        shared.expect(self, "features", fine, "three or more multiples of 16")
        for name in ("num_layers", "steps"):
            values = getattr(self, name)
            fine = len(values) == len(self.features) and min(values) > 0
            shared.expect(self, name, fine, "a number above 0 for each of --features")
        fine = self.first_step is None or 0 <= self.first_step < min(self.steps)
        shared.expect(self, "first_step", fine, "from 0 to below --steps")


class Curve(NamedTuple):
    """The losses of one size."""

    parameters: int
    tokens: Float[np.ndarray, " evals"]
    loss: Float[np.ndarray, " evals"]  # on the validation part, nats per character


def make_recipe(config: Config, vocabulary: int, size: int) -> RecipeFunction:
    """Model, loss, optimizer and schedule of one size."""
    features = config.features[size]
    shape = models.gpt.gpt2(
        vocab_size=vocabulary,
        max_length=config.max_length,
        features=features,
        num_layers=config.num_layers[size],
        num_heads=features // 16,
        bias=False,
    )

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=models.gpt.gpt(shape),
            loss=losses.cross_entropy,
            optimizer=optim.chain(
                optim.clip_by_global_norm(1.0), optim.schedule_free_adamw(beta=0.95, b2=0.99)
            ),
            schedule=schedules.with_warmup(
                schedules.constant(hyper["lr"]), warmup_steps=hyper["warmup_steps"]
            ),
        )

    return recipe


def train(
    config: Config, parts: Data, vocabulary: int, size: int, run: RunDir
) -> tuple[Curve, int]:
    """The losses of one size at its evaluations, and the exit code: not 0 if interrupted."""
    lr = config.lr * 64 / config.features[size]
    result = fit(
        make_recipe(config, vocabulary, size),
        parts,
        key=jax.random.key(config.seed),
        hyper=config.hyper | {"lr": lr},
        steps=config.steps[size],
        batch_size=config.batch_size,
        eval_every=max(1, config.steps[size] // config.evals),
        eval_batch_size=256,
        store=run,
        resume=config.resume is not None,
        progress=silent,
    )
    made = np.asarray(result.history.eval_steps, float)
    curve = Curve(
        parameters=tree.count(result.state.params),
        tokens=made * config.batch_size * config.max_length,
        loss=np.asarray(result.history.valid.get("loss", ()), float),
    )
    return curve, exit_code(result)


def fit_law(curves: list[Curve]) -> Law:
    """The law that fits all points of all curves best."""
    columns = ((np.full(len(c.loss), c.parameters), c.tokens, c.loss) for c in curves)
    return scaling.fit(*map(np.concatenate, zip(*columns, strict=True)))


def draw(curves: list[Curve], law: Law) -> "Figure":
    """The losses over tokens with the law, and over compute with the best sizes."""
    whole = figure(9.6, 3.8)
    left, right = whole.subplots(1, 2)
    shades = matplotlib().colormaps["viridis"](np.linspace(0.1, 0.8, len(curves)))
    tidy(left, "validation loss over tokens (lines: the law)")
    tidy(right, "over compute 6 N D, in FLOPs")
    for curve, shade in zip(curves, shades, strict=True):
        name = f"{curve.parameters / 1000:,.0f}k parameters"
        left.plot(curve.tokens, curve.loss, "o", markersize=3, color=shade, label=name)
        left.plot(curve.tokens, law.loss(curve.parameters, curve.tokens), color=shade, lw=1.2)
        right.plot(6 * curve.parameters * curve.tokens, curve.loss, color=shade, lw=1.4)
    least = 6 * curves[0].parameters * curves[0].tokens[0]
    most = 6 * curves[-1].parameters * curves[-1].tokens[-1]
    compute = np.geomspace(least, most, 60)
    best = scaling.optimal(law, compute)
    right.plot(compute, best.loss, "--", color=VALID, lw=1.6, label="the law at its best size")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", labelbottom=False)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    left.set_xlabel("tokens", loc="right", fontsize=8, color=INK)
    right.set_xlabel("FLOPs", loc="right", fontsize=8, color=INK)
    return whole


def report_law(law: Law, curves: list[Curve]) -> None:
    """The law, and the best use of compute according to it."""
    print(f"{law}\noff by {law.error:.4f} (root mean square of the logarithms)")
    print(f"best size ~ C^{law.b / (law.a + law.b):.2f}")
    for curve in (curves[0], curves[-1]):
        compute = 6 * curve.parameters * curve.tokens[-1]
        best = scaling.optimal(law, compute)
        print(
            f"C = {compute:.2g}: N = {best.params:,.0f}, D = {best.tokens:,.0f}, "
            f"{best.tokens / best.params:.1f} tokens per parameter"
        )


def main(config: Config) -> int:
    """Train in a new directory, or in that of the run to resume; returns the exit code."""
    with shared.ends_with_message(__file__):
        text, source = shared.read_text(config.root)
        [run] = shared.open_runs(config, "scaling_law")
        config.out.parent.mkdir(parents=True, exist_ok=True)
    run.write_config(asdict(config))
    return shared.resumable(
        run.path, lambda: all_sizes(config, text, source, run), replaces=("--resume",)
    )


def all_sizes(config: Config, text: str, source: str, run: RunDir) -> int:
    """Train all sizes, fit the law, and draw it; returns the exit code."""
    start = time.monotonic()
    parts, symbols = shared.text_windows(text, config.max_length, config.eval_windows)
    first_step = config.first_step
    if first_step is None:
        first_step = min(800, min(config.steps) // 5)
    print(f"{source}: {len(parts.train[0]):,} windows, {parts.valid[1].size:,} tokens to validate")
    curves = []
    for size in range(len(config.features)):
        began = time.monotonic()
        folder = RunDir(run.path / f"size_{size}")
        curve, code = train(config, parts, len(symbols), size, folder)
        if code:
            return code
        used = curve.tokens >= first_step * config.batch_size * config.max_length
        curves.append(Curve(curve.parameters, curve.tokens[used], curve.loss[used]))
        print(
            f"{curve.parameters:9,} parameters: loss {curve.loss[-1]:.4f} after "
            f"{curve.tokens[-1]:,.0f} tokens ({time.monotonic() - began:.0f} s)"
        )
    law = fit_law(curves)
    report_law(law, curves)
    draw(curves, law).savefig(config.out, dpi=110)
    print(f"figure: {config.out} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    shared.command(main, Config, resumes=True)
