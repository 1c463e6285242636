"""The cost of fnn over code written by hand for the same model: ratios, in one process.

    python experiments/benchmarks/spine.py

`step` stands beside a hand-written `jax.jit` of the same Adam step, called in a Python loop; `run`
and `fit` beside a hand-written `lax.scan` of it over batches drawn in advance. The hand-written
code returns the loss alone; fnn's also reports the lr and three norms, draws its batches inside,
and checks its input. The two alternate, round by round; a ratio is a median over the rounds, with
the quartiles beside it. Run nothing else meanwhile.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers.ratios import ratio_of, shown
from fnn import losses, models, optim, schedules
from fnn.recipe import Recipe
from fnn.train import fit, make_init, make_run, make_step, silent
from fnn.types import Batch, Data

KEY, LR = jax.random.key(0), 1e-3


@dataclass(frozen=True, kw_only=True)
class Config:
    rounds: int = 25
    scan_steps: int = 20_000  # of the tiny MLP, per round


@dataclass(frozen=True, kw_only=True)
class Task:
    sizes: tuple[int, ...]  # inputs, hidden widths, outputs
    batch_size: int
    examples: int = 1024

    def recipe(self, hyper):
        *widths, outputs = self.sizes[1:]
        return Recipe(
            model=models.mlp.mlp(models.mlp.MLPConfig(widths=tuple(widths), out_features=outputs)),
            loss=losses.cross_entropy,
            optimizer=optim.adam(),
            schedule=schedules.constant(hyper["lr"]),
        )

    def data(self) -> Batch:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.examples, self.sizes[0])).astype(np.float32)
        return Batch(x, rng.integers(self.sizes[-1], size=self.examples).astype(np.int32))


def by_hand_init(sizes: tuple[int, ...]):
    keys = jax.random.split(KEY, len(sizes))
    shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
    params = [
        {"w": jax.random.normal(k, s) * jnp.sqrt(2 / s[0]), "b": jnp.zeros(s[1])}
        for k, s in zip(keys, shapes, strict=False)
    ]
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    return params, zeros(), zeros(), jnp.int32(0)


def by_hand_step(state, x, y):
    """Adam on cross-entropy, as one writes it in a script."""
    params, m, v, t = state

    def loss_of(params):
        h = x
        for layer in params[:-1]:
            h = jax.nn.relu(h @ layer["w"] + layer["b"])
        z = h @ params[-1]["w"] + params[-1]["b"]
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    loss, grads = jax.value_and_grad(loss_of)(params)
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    c1, c2 = 1 - 0.9**t, 1 - 0.999**t
    params = jax.tree.map(
        lambda p, m, v: p - LR * (m / c1) / (jnp.sqrt(v / c2) + 1e-8), params, m, v
    )
    return (params, m, v, t), loss


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def compare(name: str, ours: Callable, theirs: Callable, steps: int, rounds: int, goal: float):
    ours(), theirs()  # compile
    pairs = np.array([(seconds(ours), seconds(theirs)) for _ in range(rounds)])
    each = np.median(pairs, axis=0) / steps * 1e6
    print(
        f"{name:34} {shown(ratio_of(pairs[:, 0], pairs[:, 1]))}  goal {goal:.2f}   "
        f"{each[0]:9.2f} us against {each[1]:9.2f} us a step",
        flush=True,
    )


def step_by_step(task: Task, calls: int, rounds: int, goal: float) -> None:
    x, y = jax.tree.map(lambda a: jnp.asarray(a[: task.batch_size]), tuple(task.data()))
    step = jax.jit(make_step(task.recipe), donate_argnums=0)
    plain = jax.jit(by_hand_step, donate_argnums=0)
    hyper = {"lr": jnp.float32(LR)}
    box = {
        "ours": jax.jit(make_init(task.recipe))(KEY, hyper, x),
        "plain": by_hand_init(task.sizes),
    }

    def ours():
        state = box["ours"]
        for _ in range(calls):
            state, metrics = step(state, (x, y), KEY, hyper)
        box["ours"] = state
        return metrics

    def by_hand():
        state = box["plain"]
        for _ in range(calls):
            state, loss = plain(state, x, y)
        box["plain"] = state
        return loss

    name = "-".join(map(str, task.sizes))
    compare(f"step, MLP {name}", ours, by_hand, calls, rounds, goal)


def whole_runs(task: Task, steps: int, rounds: int) -> None:
    data = Data(train=task.data(), valid=task.data())
    data = jax.tree.map(jnp.asarray, data)
    hyper = {"lr": jnp.float32(LR)}
    run = jax.jit(make_run(task.recipe, steps=steps, batch_size=task.batch_size))
    drawn = np.random.default_rng(0).integers(task.examples, size=(steps, task.batch_size))
    indices = jnp.asarray(drawn, jnp.int32)

    @jax.jit
    def scan(state, x, y, indices):
        return jax.lax.scan(lambda s, i: by_hand_step(s, x[i], y[i]), state, indices)

    by_hand = partial(scan, by_hand_init(task.sizes), *data.train, indices)
    fitted = partial(
        fit,
        task.recipe,
        data,
        key=KEY,
        hyper=hyper,
        steps=steps,
        batch_size=task.batch_size,
        progress=silent,
    )
    name = "-".join(map(str, task.sizes))
    compare(f"run, MLP {name}", lambda: run(KEY, hyper, data), by_hand, steps, rounds, 1.15)
    compare(f"fit, MLP {name}", lambda: fitted().state, by_hand, steps, rounds, 1.15)


def import_time(rounds: int) -> None:
    code = "import time, jax; t = time.perf_counter(); import fnn; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(rounds)
    ]
    print(f"{'import fnn after jax':34} {1e3 * np.median(times):6.1f} ms, goal 60 ms", flush=True)


def main(config: Config) -> None:
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; ratios: fnn / by hand")
    tiny, mlp = (
        Task(sizes=(2, 16, 2), batch_size=32),
        Task(sizes=(784, 512, 256, 10), batch_size=128),
    )
    step_by_step(tiny, 2000, config.rounds, 1.10)
    whole_runs(tiny, config.scan_steps, config.rounds)
    step_by_step(mlp, 50, config.rounds, 1.05)
    import_time(5)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
