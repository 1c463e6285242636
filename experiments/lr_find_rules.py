"""Which rule reads the best learning rate from the curve of a range test.

    python experiments/lr_find_rules.py                      prints the table of docs/lr_find.md

Four small problems, three optimizers each, with a constant rate and with a warm-up and a cosine: 24
cases. In each, `sweep` trains with 22 rates, a factor of 2 apart, and three seeds; the range test
has other seeds. The regret of a rate is the part of the fall of the validation loss that it gives
away,

    regret(lr) = (loss(lr) - loss of the best rate) / (loss before training - loss of the best rate)

interpolated between the rates, and 1 for what diverges. A rule is judged by the worst of the 24.

No --resume: a case is one compiled program, and nothing is kept between them: nothing to resume.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from sklearn.datasets import load_diabetes, load_digits

from experiments import shared
from experiments.shared import Count, Positive
from fnn import losses, nn, optim, schedules, show
from fnn.activations import relu
from fnn.diagnose import RangeCurve, lr_find
from fnn.nn import sequential
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import make_evaluate, make_init, search, silent, sweep
from fnn.types import Batch, Data, Hyper, Model


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train with many rates, and compare them with the choice of each rule."""

    steps: Count = 200  # updates of each training
    batch_size: Annotated[int, shared.between(1, 221)] = 32  # examples per step
    seeds: Count = 3  # trainings with each rate
    rates: Count = 22  # number of rates, a factor of 2 apart
    lr_min: Positive = 1e-5  # lowest rate


class Problem(NamedTuple):
    """What is trained, apart from the optimizer."""

    model: Model
    loss: Callable[[Any, Any], Any]
    data: Data


class Case(NamedTuple):
    """The losses of a problem over the rates, and the curve of its range test."""

    name: str
    rates: Float[np.ndarray, " rates"]
    regrets: Float[np.ndarray, " rates"]
    curve: RangeCurve


def halves(x: np.ndarray, y: np.ndarray) -> Data:
    """The even rows to train, the odd ones to validate."""
    return Data(train=Batch(x[::2], y[::2]), valid=Batch(x[1::2], y[1::2]))


def problems() -> dict[str, Problem]:
    """Digits by an MLP and a CNN, diabetes as a regression, and text by a GRU."""
    digits = load_digits()
    x = ((digits.data - digits.data.mean()) / digits.data.std()).astype(np.float32)
    y = digits.target.astype(np.int32)
    cnn = sequential(
        nn.conv(8, (3, 3)), relu, nn.max_pool((2, 2)), nn.conv(16, (3, 3)), relu,
        nn.flatten(),
        nn.linear(10),
    )  # fmt: skip
    mlp = sequential(nn.linear(64), relu, nn.linear(64), relu, nn.linear(10))
    table, target = load_diabetes(return_X_y=True, scaled=False)
    table = ((table - table.mean(0)) / table.std(0)).astype(np.float32)
    target = ((target - target.mean()) / target.std()).astype(np.float32)[:, None]
    _, letters = np.unique(list((__doc__ or "") * 8), return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(letters.astype(np.int32), 17)[::3]
    language = sequential(
        nn.embedding(int(letters.max()) + 1, 16), nn.gru(32),
        nn.linear(int(letters.max()) + 1),
    )  # fmt: skip
    regression = sequential(nn.linear(32), relu, nn.linear(1))
    return {
        "digits MLP": Problem(mlp, losses.cross_entropy, halves(x, y)),
        "digits CNN": Problem(cnn, losses.cross_entropy, halves(x.reshape(-1, 8, 8, 1), y)),
        "regression": Problem(regression, losses.mean_squared_error, halves(table, target)),
        "text GRU": Problem(
            language, losses.cross_entropy, halves(windows[:, :-1], windows[:, 1:])
        ),
    }


OPTIMIZERS = {"SGD": optim.sgd(momentum=0.9), "Adam": optim.adam(), "Lion": optim.lion()}


def recipe_of(problem: Problem, optimizer: Any, warms_up: bool, steps: int) -> RecipeFunction:
    """A constant rate, or a warm-up over a tenth of the steps and a cosine to 0."""

    def recipe(hyper: Hyper) -> Recipe:
        schedule = (
            schedules.warmup_cosine(hyper["lr"], warmup_steps=steps // 10, total_steps=steps)
            if warms_up
            else schedules.constant(hyper["lr"])
        )
        return Recipe(problem.model, problem.loss, optimizer, schedule, measures=())

    return recipe


def run_case(config: Config, name: str, problem: Problem, recipe: RecipeFunction) -> Case:
    """Train with all rates, and make the range test."""
    rates = config.lr_min * 2.0 ** np.arange(config.rates)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    result = sweep(
        recipe, problem.data, search.grid(lr=rates), keys, steps=config.steps,
        batch_size=config.batch_size, keep=lambda state: (), progress=silent,
    )  # fmt: skip
    final = result.final()["loss"].astype(np.float64).mean(axis=1)  # NaN if one diverged
    key, hyper = jax.random.key(1), {"lr": 1.0}
    state = jax.jit(make_init(recipe))(key, hyper, problem.data.train[0][:1])
    before = float(make_evaluate(recipe)(state, problem.data.valid, hyper)["loss"])
    best = np.nanmin(final)
    regrets = np.clip(np.nan_to_num((final - best) / (before - best), nan=1.0, posinf=1.0), 0, 1)
    curve = lr_find(recipe, problem.data, key=key, hyper=hyper, batch_size=config.batch_size)
    return Case(name, rates, regrets, curve)


def usable(curve: RangeCurve) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Rates and smoothed losses before the blow-up, without the first tenth of the steps."""
    kept = np.array(curve.kept)
    kept[: len(kept) // 10] = False
    return np.asarray(curve.lrs, np.float64)[kept], np.asarray(curve.mean, np.float64)[kept]


def steepest(curve: RangeCurve) -> float:
    """Where the loss falls most over the logarithm of the rate (Gugger 2018)."""
    lrs, losses = usable(curve)
    return float(lrs[1:][np.argmin(np.diff(losses))])


def lowest(curve: RangeCurve) -> float:
    """The rate with the lowest loss before the blow-up."""
    lrs, losses = usable(curve)
    return float(lrs[np.argmin(losses)])


def highest(curve: RangeCurve) -> float:
    """The last rate before the blow-up."""
    return float(usable(curve)[0][-1])


def valley(curve: RangeCurve) -> float:
    """The middle of the longest falling subsequence (fastai)."""
    lrs, losses = usable(curve)
    lengths, firsts = np.ones(len(losses), int), np.arange(len(losses))
    for i in range(len(losses)):
        before = np.where(losses[:i] > losses[i], lengths[:i], 0)
        if before.any():
            j = int(np.argmax(before))
            lengths[i], firsts[i] = lengths[j] + 1, firsts[j]
    last = int(np.argmax(lengths))
    return float(lrs[(firsts[last] + last) // 2])


def fallen(curve: RangeCurve, part: float) -> float:
    """The rate at which the loss has made that part of its fall."""
    lrs, losses = usable(curve)
    wanted = losses[0] - part * (losses[0] - losses.min())
    return float(lrs[np.argmax(losses <= wanted)])


Rule = Callable[[RangeCurve], float]
RULES: dict[str, Rule] = {
    "steepest": steepest,
    "steepest / 3": lambda c: steepest(c) / 3,
    "valley": valley,
    "minimum / 3": lambda c: lowest(c) / 3,
    "minimum / 5": lambda c: lowest(c) / 5,
    "minimum / 10": lambda c: lowest(c) / 10,
    "minimum / 20": lambda c: lowest(c) / 20,
    "steepest and minimum / 10, mean": lambda c: float(np.sqrt(steepest(c) * lowest(c) / 10)),
    "lower of steepest and minimum / 10": lambda c: min(steepest(c), lowest(c) / 10),
    "half of the fall": lambda c: fallen(c, 0.5),
    "80 % of the fall": lambda c: fallen(c, 0.8),
    "80 % of the fall / 2": lambda c: fallen(c, 0.8) / 2,
    "blow-up / 10": lambda c: highest(c) / 10,
    "blow-up / 30": lambda c: highest(c) / 30,
}


def regret(case: Case, rate: float) -> float:
    """Interpolated over the logarithm of the rate."""
    if not np.isfinite(rate):
        return 1.0
    return float(np.interp(np.log(rate), np.log(case.rates), case.regrets))


def table(cases: list[Case]) -> str:
    """The regrets of each rule: in the worst case, in the mean, and of rates 3 times as far."""
    rows = [("rule", "worst", "in", "mean", "mean at / 3", "mean at x 3")]
    found = []
    for name, rule in RULES.items():
        at = {f: [regret(c, f * rule(c.curve)) for c in cases] for f in (1.0, 1 / 3, 3.0)}
        worst = int(np.argmax(at[1.0]))
        cells = (f"{np.mean(at[f]):.3f}" for f in (1.0, 1 / 3, 3.0))
        found.append((at[1.0][worst], (name, f"{at[1.0][worst]:.3f}", cases[worst].name, *cells)))
    return show.table(rows + [row for _, row in sorted(found)])


def main(config: Config) -> None:
    """Run all cases, and print the table."""
    start, cases = time.monotonic(), []
    for name, problem in problems().items():
        for called, optimizer in OPTIMIZERS.items():
            for warms_up in (False, True):
                recipe = recipe_of(problem, optimizer, warms_up, config.steps)
                label = f"{name}, {called}{', warm-up' if warms_up else ''}"
                case = run_case(config, label, problem, recipe)
                cases.append(case)
                best = case.rates[np.argmin(case.regrets)]
                given = ", ".join(f"{n} {rule(case.curve):.2g}" for n, rule in RULES.items())
                print(f"{label}: best {best:.2g}; {given}", flush=True)
    print(table(cases))
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    shared.command(main, Config)
