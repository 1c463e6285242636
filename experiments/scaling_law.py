"""How the loss of a small GPT falls with its parameters and with the tokens it has seen.

    python experiments/scaling_law.py                        writes docs/scaling_law.png
    python experiments/scaling_law.py --lr 0.02              other settings; --help lists them

Each size is one run on characters (tiny Shakespeare; without it, the sources of Python's standard
library). Schedule-free AdamW at a constant rate gives, at any step, weights as good as those of a
run that was planned to end there, so that one curve gives the losses for all numbers of tokens. To
them is fitted

    L(N, D) = E + A / N^a + B / D^b        N parameters, D tokens, L nats per character

by L-BFGS from many starts, with Huber's loss of the logarithms (Hoffmann et al. 2022,
arXiv:2203.15556, section 3.3). For a compute of C = 6 N D the best size is then
N = G (C / 6)^(b / (a + b)), with G = (a A / (b B))^(1 / (a + b)).

Measured (2 cores of an Intel Xeon, JAX 0.10.2, shared with other work): 155 s. Tiny Shakespeare,
5,232 to 156,608 parameters, one run each, 92 evaluations on 32,896 characters:

    L = 1.704 + 21.98 / N^0.468 + 18860 / D^0.834, off by 0.022 nats (root mean square)

The best size grows as C^0.64: 19,000 parameters for 1.9e11 FLOPs and 84,000 for 1.9e12, with 86 and
45 tokens for each. The runs' own curves cross where the law says. It holds for these sizes and
batches of 512 tokens, not beyond: the two largest models still fall faster at the end than it says
(by up to 0.05 nats), so that E is too high, and the rates were not tuned for each size.
"""

import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from fnn import data, losses, models, optim, schedules, tree
from fnn.data import Characters
from fnn.recipe import Recipe
from fnn.report.figure import INK, VALID, figure, matplotlib, tidy
from fnn.train import compile_cache, fit, silent
from fnn.types import Data, Objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = Path(__file__).parents[1] / "docs" / "scaling_law.png"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train GPTs of several sizes on characters, and fit a law to their losses."""

    root: str | None = None  # the folder that has tinyshakespeare/
    num_layers: tuple[int, ...] = (1, 1, 2, 3)  # of each size
    features: tuple[int, ...] = (16, 32, 48, 64)  # of each size, multiples of 16
    steps: tuple[int, ...] = (12000, 10000, 7000, 4000)  # updates of each size
    max_length: int = 64  # characters that are seen at once
    batch_size: int = 8  # windows of a step
    evals: int = 25  # evaluations of each size
    eval_windows: int = 512  # of the validation part, spread over it
    lr: float = 0.006  # of features = 64; other sizes take lr * 64 / features
    warmup_steps: int = 50
    first_step: int = 800  # earlier evaluations are not fitted: a plateau, where it counts letters
    starts: int = 64  # of the fit
    seed: int = 0
    out: Path = PICTURE  # the picture to write

    def __post_init__(self) -> None:
        for name in ("max_length", "batch_size", "evals", "eval_windows", "lr"):
            self._expect(name, 0 < getattr(self, name) < float("inf"), "a number above 0")
        fine = all(features > 0 and features % 16 == 0 for features in self.features)
        self._expect("features", fine and len(self.features) > 1, "two or more multiples of 16")
        for name in ("num_layers", "steps"):
            values = getattr(self, name)
            fine = len(values) == len(self.features) and min(values) > 0
            self._expect(name, fine, "a number above 0 for each of --features")
        self._expect("evals", self.evals <= min(self.steps), "at most one for each step")
        fine = 0 <= self.warmup_steps < min(self.steps)
        self._expect("warmup_steps", fine, "from 0 to below --steps")
        fine = 0 <= self.first_step < min(self.steps)
        self._expect("first_step", fine, "from 0 to below --steps")
        self._expect("starts", self.starts > 0, "a number above 0")

    def _expect(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag}: expected {expected}, got {getattr(self, name)}")


class Curve(NamedTuple):
    """What a size came to."""

    parameters: int
    tokens: Float[np.ndarray, " evals"]
    loss: Float[np.ndarray, " evals"]  # on the validation part, nats per character


class Law(NamedTuple):
    """L(N, D) = E + A / N^a + B / D^b."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """What the law says."""
        return self.E + self.A / parameters**self.a + self.B / tokens**self.b

    def best_parameters(self, compute: Any) -> Any:
        """The size that has the lowest loss for a compute of 6 N D."""
        sum_ = self.a + self.b
        ratio = (self.a * self.A / (self.b * self.B)) ** (1 / sum_)
        return ratio * (compute / 6) ** (self.b / sum_)


def make_recipe(config: Config, vocabulary: int, size: int) -> Callable[[Any], Recipe]:
    """Model, loss, optimizer and schedule of one size."""
    features = config.features[size]
    shape = models.gpt2(
        vocabulary=vocabulary,
        max_length=config.max_length,
        features=features,
        num_layers=config.num_layers[size],
        num_heads=features // 16,
        bias=False,
    )

    def recipe(hyper):
        return Recipe(
            model=models.gpt(shape),
            loss=losses.cross_entropy,
            optimizer=optim.chain(
                optim.clip_by_global_norm(1.0), optim.schedule_free_adamw(beta=0.95, b2=0.99)
            ),
            schedule=schedules.with_warmup(
                schedules.constant(hyper["lr"]), warmup_steps=config.warmup_steps
            ),
        )

    return recipe


def read_text(root: str | None) -> tuple[str, str]:
    """The text, and what it is."""
    try:
        return data.load("tiny_shakespeare", root), "tiny Shakespeare"
    except FileNotFoundError as error:
        if root is not None:
            raise
        print(f"{error}\nreading the sources of Python's standard library instead")
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "".join(path.read_text("utf-8", errors="ignore") for path in sources)
    return "".join(c for c in text if c.isascii())[:2_000_000], "Python's standard library"


def examples(config: Config, text: str) -> tuple[Data, int]:
    """All windows of the first nine tenths, some of the last, and how many characters there are."""
    symbols = Characters.of(text)
    tokens = symbols.encode(text).astype(np.uint8 if len(symbols) <= 256 else np.int32)
    train, valid = np.split(tokens, [9 * len(tokens) // 10])
    apart = max(config.max_length, (len(valid) - 1) // config.eval_windows)
    return Data(
        train=data.windows(train, config.max_length, stride=1),
        valid=data.windows(valid, config.max_length, stride=apart),
    ), len(symbols)


def train(config: Config, parts: Data, vocabulary: int, size: int) -> Curve:
    """The losses of one size on its way."""
    lr = config.lr * 64 / config.features[size]
    result = fit(
        make_recipe(config, vocabulary, size),
        parts,
        key=jax.random.key(config.seed),
        hyper={"lr": lr},
        steps=config.steps[size],
        batch_size=config.batch_size,
        eval_every=config.steps[size] // config.evals,
        eval_batch_size=256,
        progress=silent,
    )
    made = np.asarray(result.history.eval_steps, float)
    return Curve(
        parameters=tree.count(result.state.params),
        tokens=made * config.batch_size * config.max_length,
        loss=np.asarray(result.history.valid["loss"], float),
    )


def misfit(logs: dict[str, Array], n: Array, d: Array, loss: Array) -> Float[Array, ""]:
    """Mean Huber loss of the logarithm of what the law says; delta = 0.001 as in the paper."""
    parts = [
        jnp.broadcast_to(logs["E"], n.shape),
        logs["A"] - jnp.exp(logs["a"]) * jnp.log(n),
        logs["B"] - jnp.exp(logs["b"]) * jnp.log(d),
    ]
    said = jax.nn.logsumexp(jnp.stack(parts), axis=0)
    return losses.huber(said, jnp.log(loss), delta=1e-3).mean()


def descend(logs: dict[str, Array], at: Callable[[Any], Any], steps: int) -> tuple[Any, Array]:
    """L-BFGS from one start: where it ends, and the misfit there."""
    optimizer = optim.lbfgs()

    def improve(carry, _):
        logs, state = carry
        value, slopes = at(logs)
        updates, state = optimizer.update(slopes, state, logs, 1.0, Objective(value, at))
        return (tree.add(logs, updates), state), None

    (logs, _), _ = jax.lax.scan(improve, (logs, optimizer.init(logs)), None, length=steps)
    return logs, at(logs)[0]


def fit_law(curves: list[Curve], key: Array, *, starts: int, steps: int = 300) -> tuple[Law, float]:
    """The law that fits best, and its root mean square error in nats."""
    n, d, loss = (
        np.concatenate(column)
        for column in zip(
            *((np.full(len(c.loss), c.parameters), c.tokens, c.loss) for c in curves), strict=True
        )
    )
    lows = {"E": -1.0, "A": 0.0, "a": -2.0, "B": 0.0, "b": -2.0}
    highs = {"E": 0.7, "A": 8.0, "a": 0.0, "B": 8.0, "b": 0.0}
    draws = dict(zip(lows, jax.random.uniform(key, (len(lows), starts)), strict=True))
    first = {name: lows[name] + (highs[name] - lows[name]) * draws[name] for name in lows}
    n32, d32, loss32 = (jnp.asarray(column, jnp.float32) for column in (n, d, loss))
    at = jax.value_and_grad(lambda logs: misfit(logs, n32, d32, loss32))
    ends, misfits = jax.jit(jax.vmap(partial(descend, at=at, steps=steps)))(first)
    best = int(jnp.nanargmin(misfits))
    found = {name: float(jnp.exp(values[best])) for name, values in ends.items()}
    law = Law(**found)
    return law, float(np.sqrt(np.mean((law.loss(n, d) - loss) ** 2)))


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
    best = law.best_parameters(compute)
    bound = law.loss(best, compute / 6 / best)
    right.plot(compute, bound, "--", color=VALID, lw=1.6, label="the law at its best size")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", labelbottom=False)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    left.set_xlabel("tokens", loc="right", fontsize=8, color=INK)
    right.set_xlabel("FLOPs", loc="right", fontsize=8, color=INK)
    return whole


def report_law(law: Law, off: float, curves: list[Curve]) -> None:
    """The law, and what it says of the best use of compute."""
    print(
        f"L = {law.E:.3f} + {law.A:.4g} / N^{law.a:.3f} + {law.B:.4g} / D^{law.b:.3f}, "
        f"off by {off:.4f} nats in the root mean square of {sum(len(c.loss) for c in curves)}"
    )
    print(f"best size ~ C^{law.b / (law.a + law.b):.2f}")
    for curve in (curves[0], curves[-1]):
        compute = 6 * curve.parameters * curve.tokens[-1]
        best = law.best_parameters(compute)
        print(
            f"C = {compute:.2g}: N = {best:,.0f}, D = {compute / 6 / best:,.0f}, "
            f"{compute / 6 / best**2:.1f} tokens per parameter"
        )


def main(config: Config) -> None:
    """Train all sizes, fit the law, and draw it."""
    start = time.monotonic()
    try:
        text, source = read_text(config.root)
        parts, vocabulary = examples(config, text)
        config.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"scaling_law.py: {error}")
    print(f"{source}: {len(parts.train[0]):,} windows, {parts.valid[1].size:,} tokens to validate")
    curves = []
    for size in range(len(config.features)):
        began = time.monotonic()
        curve = train(config, parts, vocabulary, size)
        used = curve.tokens >= config.first_step * config.batch_size * config.max_length
        curves.append(Curve(curve.parameters, curve.tokens[used], curve.loss[used]))
        print(
            f"{curve.parameters:9,} parameters: loss {curve.loss[-1]:.4f} after "
            f"{curve.tokens[-1]:,.0f} tokens ({time.monotonic() - began:.0f} s)"
        )
    law, off = fit_law(curves, jax.random.key(config.seed), starts=config.starts)
    report_law(law, off, curves)
    draw(curves, law).savefig(config.out, dpi=110)
    print(f"picture: {config.out} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    compile_cache()
    main(tyro.cli(Config))
