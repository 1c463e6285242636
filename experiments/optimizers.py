"""All optimizers of fnn on the same tasks: one table, and one figure of their paths.

    python experiments/optimizers.py                       all of them
    python experiments/optimizers.py --only adam muon      some

For each optimizer one compiled program trains an MLP 64-128-64-10 on scikit-learn's digits for all
learning rates of a grid and all seeds at once: a `vmap` over `lr` inside one over keys. The rate is
chosen on the validation set (15 %), and the table has mean and standard deviation of the accuracy
on the test set (25 %) over the seeds. The other column is the lowest value of the 10-dimensional
Rosenbrock function after 2,000 noise-free updates, over the same rates. The figure has the paths of
300 updates on two functions of two variables, at the rate with the lowest final value.

No --resume: an optimizer's runs are one compiled program; add missing ones with --only.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.datasets import load_digits

from experiments import shared
from experiments.shared import Count
from fnn import losses, metrics, models, nn, optim, schedules, tree
from fnn.data import fit_standardizer, split
from fnn.optim import contrib
from fnn.recipe import Recipe
from fnn.report.figure import GRID, INK, TRAIN, VALID, figure
from fnn.train import make_evaluate, make_run
from fnn.types import Batch, Data, Hyper, Objective, Optimizer, Params, PRNGKey

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = Path(__file__).parents[1] / "docs" / "optimizers.png"
RATES = tuple(10.0 ** (power / 2) for power in range(-8, 2))  # 1e-4 to 3
DECAY = 0.01

KEY = jax.random.key(2)  # of the optimizers that draw

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": optim.sgd,
    "sgd with momentum": lambda: optim.sgd(momentum=0.9),
    "sgd with nesterov": lambda: optim.sgd(momentum=0.9, nesterov=True),
    "sign_sgd": optim.sign_sgd,
    "signum": optim.signum,
    "lion": optim.lion,
    "rprop": lambda: optim.rprop(max_scale=10.0),
    "adagrad": optim.adagrad,
    "adadelta": optim.adadelta,
    "rmsprop": optim.rmsprop,
    "adam": optim.adam,
    "adamw": lambda: optim.adamw(weight_decay=DECAY),
    "nadam": optim.nadam,
    "nadamw": lambda: optim.nadamw(weight_decay=DECAY),
    "algoperf_nadamw": optim.contrib.algoperf_nadamw,
    "radam": optim.radam,
    "adamax": optim.adamax,
    "amsgrad": optim.amsgrad,
    "adabelief": optim.adabelief,
    "yogi": optim.yogi,
    "adan": optim.contrib.adan,
    "ademamix": lambda: optim.contrib.ademamix(b3=0.99),
    "adopt": optim.contrib.adopt,
    "lamb": optim.lamb,
    "lars": lambda: optim.lars(trust=0.01),
    "adafactor": optim.adafactor,
    "adafactor_absolute": optim.adafactor_absolute,
    "sophia": lambda: optim.contrib.sophia(key=KEY),
    "muon": lambda: optim.muon(companion=optim.adam(), companion_lr=0.2),
    "shampoo": optim.contrib.shampoo,
    "soap": optim.contrib.soap,
    "kron": lambda: optim.contrib.kron(key=KEY),
    "lbfgs": optim.lbfgs,
    "schedule_free_sgd": optim.schedule_free_sgd,
    "schedule_free_adamw": optim.schedule_free_adamw,
    "algoperf_schedule_free_adamw": optim.contrib.algoperf_schedule_free_adamw,
    "prodigy": optim.contrib.prodigy,
    "dadapt_adam": optim.contrib.dadapt_adam,
    "lookahead of adam": lambda: optim.lookahead(optim.adam()),
    "sam of sgd with momentum": lambda: optim.sam(optim.sgd(momentum=0.9)),
    "asam of sgd with momentum": lambda: optim.asam(optim.sgd(momentum=0.9)),
    "cautious of adam": lambda: optim.cautious(optim.adam()),
    "ema of adam": lambda: optim.ema(optim.adam(), decay=0.99),
    "swa of sgd with momentum": lambda: optim.swa(optim.sgd(momentum=0.9), start=450),
    "contrib.acprop": contrib.acprop,
    "contrib.cocob": contrib.cocob,
    "contrib.dog": contrib.dog,
    "contrib.dowg": contrib.dowg,
    "contrib.fromage": contrib.fromage,
    "contrib.galore of adam": lambda: contrib.galore(optim.adam(), rank=8, scale=1.0),
    "contrib.madgrad": contrib.madgrad,
    "contrib.mechanize of adam": lambda: contrib.mechanize(optim.adam()),
    "contrib.momo": contrib.momo,
    "contrib.momo_adam": contrib.momo_adam,
    "contrib.noisy_sgd": lambda: contrib.noisy_sgd(KEY),
    "contrib.novograd": contrib.novograd,
    "contrib.optimistic_adam": contrib.optimistic_adam,
    "contrib.optimistic_gradient_descent": contrib.optimistic_gradient_descent,
    "contrib.polyak_sgd": contrib.polyak_sgd,
    "contrib.simplified_ademamix": contrib.simplified_ademamix,
    "contrib.sm3": contrib.sm3,
}
# lbfgs searches for its step size, and cocob does not depend on lr.
OWN_RATES = {"lbfgs": (1.0,), "contrib.cocob": (1.0,)}
WHOLE_BATCH = ("rprop", "lbfgs")  # made for gradients without noise

# Under vmap a cond computes both branches, so that a renewal every tenth step costs every step, and
# a search takes as many trials as the longest of all.
ONE_BY_ONE = ("shampoo", "soap", "kron", "lbfgs", "contrib.galore of adam")


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train with every optimizer, print one table and draw one figure."""

    only: tuple[str, ...] = ()  # rows of the table; none given: all
    seeds: shared.SeveralSeeds = 5  # runs of the MLP for each learning rate
    steps: Count = 600  # updates of the MLP
    batch_size: Annotated[int, shared.between(1, 1078)] = 64  # per step; rprop, lbfgs: all
    longest_warmup = 50  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    valley_steps: Count = 2000  # updates on the Rosenbrock function of the table
    path_steps: Count = 300  # updates in the figure
    columns: Count = 5  # optimizers side by side in the figure, each with two panels
    out: Path = FIGURE  # file of the figure

    @property
    def names(self) -> tuple[str, ...]:
        """The optimizers to train with."""
        return self.only or tuple(OPTIMIZERS)


def load(key: PRNGKey) -> tuple[Data, Batch]:
    """The digits as training and validation parts, and the test part, standardized."""
    images, labels = load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)
    parts = split(key, len(x), (0.6, 0.15, 0.25))
    standardizer = fit_standardizer(x[parts[0]], axis=None)
    train, valid, test = (Batch(standardizer.apply(x[part]), y[part]) for part in parts)
    return Data(train=train, valid=valid), test


def _one_by_one(function: Callable) -> Callable:
    """As `vmap` over one argument, but sequentially."""
    return lambda xs: jax.lax.map(function, xs)


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The result of training on the digits."""

    lr: float
    accuracy: Float[np.ndarray, "seeds"]  # on the test part


def train_on_digits(name: str, config: Config) -> Digits:
    """Trains with all rates and seeds, and tests at the rate that validates best."""

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=models.mlp.mlp(
                models.mlp.MLPConfig(widths=(128, 64), out_features=10, norm=nn.batch_norm)
            ),
            loss=losses.cross_entropy,
            optimizer=OPTIMIZERS[name](),
            schedule=schedules.warmup_cosine(
                hyper["lr"],
                warmup_steps=config.hyper["warmup_steps"],
                total_steps=config.steps,
            ),
            metrics={"accuracy": metrics.accuracy()},
        )

    data, test = load(jax.random.key(0))
    batch_size = len(data.train[1]) if name in WHOLE_BATCH else config.batch_size
    run = make_run(recipe, steps=config.steps, batch_size=batch_size)
    rates = OWN_RATES.get(name, RATES)
    keys = jax.random.split(jax.random.key(1), config.seeds)
    over = _one_by_one if name in ONE_BY_ONE else jax.vmap
    over_rates = jax.jit(over(lambda hyper: over(lambda key: run(key, hyper, data))(keys)))
    states, history = over_rates({"lr": jnp.array(rates)})
    best = int(history.valid["accuracy"][:, :, -1].mean(axis=1).argmax())
    chosen, hyper = jax.tree.map(lambda leaf: leaf[best], states), {"lr": rates[best]}
    evaluate = jax.jit(jax.vmap(make_evaluate(recipe), (0, None, None)))
    return Digits(lr=rates[best], accuracy=np.asarray(evaluate(chosen, test, hyper)["accuracy"]))


def rosenbrock(x: Float[Array, "n 1"]) -> Float[Array, ""]:
    """A narrow curved valley with its lowest point, 0, at (1, ..., 1)."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def descend(
    optimizer: Optimizer,
    function: Callable[[Array], Array],
    start: Float[Array, "n 1"],
    lr: Float[Array, ""] | float,
    steps: int,
) -> Float[Array, "steps n"]:
    """The path of an optimizer: its `weights` after each update."""

    def at(params: Params) -> tuple[Array, Params]:
        value, grads = jax.value_and_grad(lambda p: function(p["kernel"]))(params)
        return value, grads

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        params, state = carry
        value, grads = at(params)
        updates, state = optimizer.update(grads, state, params, lr, Objective(value, at))
        params = tree.add(params, updates)
        return (params, state), optimizer.weights(state, params)["kernel"][:, 0]

    params = {"kernel": start}
    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)[1]


def cross_the_valley(name: str, config: Config) -> tuple[float, float]:
    """The best rate of the grid, and the final value with it."""
    rates = OWN_RATES.get(name, RATES)
    start = jnp.tile(jnp.array([-1.2, 1.0]), 5)[:, None]

    def end(lr: Array) -> Array:
        path = descend(OPTIMIZERS[name](), rosenbrock, start, lr, config.valley_steps)
        return rosenbrock(path[-1][:, None])

    values = np.asarray(jax.jit(_one_by_one(end))(jnp.array(rates)))
    best = int(np.where(np.isfinite(values), values, np.inf).argmin())
    return rates[best], float(values[best])


def beale(x: Float[Array, "2 1"]) -> Float[Array, ""]:
    """A plateau between walls, with its lowest point, 0, at (3, 0.5)."""
    a, b = x[0, 0], x[1, 0]
    terms = (1.5 - a + a * b, 2.25 - a + a * b**2, 2.625 - a + a * b**3)
    return sum((term**2 for term in terms), jnp.zeros(()))


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A function, the start and the minimum of its paths, and the region to show."""

    name: str
    function: Callable[[Array], Array]
    start: tuple[float, float]
    minimum: tuple[float, float]
    across: tuple[float, float]
    up: tuple[float, float]


LANDSCAPES = (
    Landscape(
        name="Rosenbrock", function=rosenbrock, start=(-1.2, 1.0), minimum=(1.0, 1.0),
        across=(-2.0, 2.0), up=(-1.0, 3.0),
    ),
    Landscape(
        name="Beale", function=beale, start=(1.0, 1.5), minimum=(3.0, 0.5),
        across=(-0.5, 4.5), up=(-1.0, 2.5),
    ),
)  # fmt: skip


def best_path(name: str, land: Landscape, steps: int) -> tuple[float, float, np.ndarray]:
    """The rate with the lowest final value, that value, and the path, (steps + 1, 2)."""
    start = jnp.array(land.start)[:, None]
    rates = OWN_RATES.get(name, RATES)

    def path(lr: Array) -> Array:
        return descend(OPTIMIZERS[name](), land.function, start, lr, steps)

    paths = jax.jit(_one_by_one(path))(jnp.array(rates))
    values = np.asarray(jax.vmap(land.function)(paths[:, -1, :, None]))
    best = int(np.where(np.isfinite(values), values, np.inf).argmin())
    taken = np.concatenate([[land.start], np.asarray(paths[best])])
    return rates[best], float(values[best]), taken


def draw(axes: "Axes", land: Landscape, name: str, steps: int) -> None:
    """The best path over the contour lines of a function."""
    lr, value, path = best_path(name, land, steps)
    title = name if land is LANDSCAPES[0] else ""
    grid = np.meshgrid(np.linspace(*land.across, 120), np.linspace(*land.up, 120))
    points = jnp.asarray(np.stack(grid, axis=-1).reshape(-1, 2, 1), jnp.float32)
    heights = np.asarray(jax.vmap(land.function)(points)).reshape(grid[0].shape)
    levels = np.geomspace(0.05, heights.max(), 14)
    axes.contour(*grid, heights, levels=levels, colors=GRID, linewidths=0.7)
    axes.plot(path[:, 0], path[:, 1], color=TRAIN, linewidth=1.1, marker=".", markersize=2)
    axes.plot(*land.start, "o", color=INK, markersize=4)
    axes.plot(*land.minimum, "*", color=VALID, markersize=9)
    axes.set(xlim=land.across, ylim=land.up, xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK)
    text = f"lr {lr:.1g}: {value:.0e}"
    axes.text(0.98, 0.03, text, transform=axes.transAxes, ha="right", fontsize=7, color=INK)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def draw_paths(config: Config) -> None:
    """All paths, two panels for each optimizer."""
    rows = -(-len(config.names) // config.columns)
    canvas = figure(4.2 * config.columns, 2.1 * rows + 0.4)
    panels = canvas.subplots(rows, 2 * config.columns, squeeze=False).ravel()
    canvas.suptitle(
        f"{config.path_steps} updates on Rosenbrock's function (left) and Beale's (right): "
        "the rate that ends lowest, and the value there",
        fontsize=12, color=INK,
    )  # fmt: skip
    for panel in panels[2 * len(config.names) :]:
        panel.set_axis_off()
    for i, name in enumerate(config.names):
        for panel, land in zip(panels[2 * i : 2 * i + 2], LANDSCAPES, strict=True):
            draw(panel, land, name, config.path_steps)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(config.out, dpi=90)
    print(f"figure: {config.out}")


def main(config: Config) -> None:
    """Print a row for each optimizer, and draw all paths."""
    if unknown := sorted(set(config.names) - OPTIMIZERS.keys()):
        sys.exit(f"--only: expected names of {sorted(OPTIMIZERS)}, got {unknown}")
    print(f"{'optimizer':36} {'lr':>8}  {'test accuracy':>16}   {'lr':>8} {'Rosenbrock':>10}")
    for name in config.names:
        digits = train_on_digits(name, config)
        lr, value = cross_the_valley(name, config)
        mean, std = 100 * digits.accuracy.mean(), 100 * digits.accuracy.std(ddof=1)
        print(
            f"{name:36} {digits.lr:8.2g}  {mean:7.2f} ± {std:4.2f} %   {lr:8.2g} {value:10.2g}",
            flush=True,
        )
    draw_paths(config)


if __name__ == "__main__":
    shared.command(main, Config)
