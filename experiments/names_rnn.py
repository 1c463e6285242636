"""A recurrent network on the letters of makemore's names, and new names sampled from it.

    python experiments/names_rnn.py --root FOLDER   the folder that has makemore-names/
    python experiments/names_rnn.py                 FNN_DATA, the user's cache, or the network
    python experiments/names_rnn.py --cell gru      another cell; --help lists all settings
    python experiments/names_rnn.py --resume RUN    goes on with an interrupted run

1,000 of the 32,033 names validate and 1,000 test, as many as in makemore's script; the others
train. Some names are in the list twice, and so in two parts; that is as makemore has it.

Measured (JAX 0.10.2, 2 cores of an Intel Xeon, shared with other work): seed 0, n = 1, an
LSTM of 178,875 parameters: validation 1.9525, test 1.9677 nats per letter, 416 s. The readme of
makemore states about 1.92 for the test part of its own split, by a transformer of 200,000.
Of its names: yamia leanni glous madrett garleigh jecalah rolanie jaheli jaycei sharena nafeer.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from experiments import shared
from experiments.shared import Resume, Root, expect, unset
from fnn import data, losses, models, optim, report, schedules, tree
from fnn.checkpoint import RunDir
from fnn.data import Characters
from fnn.generate import generate
from fnn.keys import fold_name
from fnn.recipe import Recipe
from fnn.train import compile_cache, exit_code, fit, make_evaluate, trained_params
from fnn.types import Batch, Data, Params, PRNGKey

RecipeFunction = Callable[[dict[str, float]], Recipe]
CELLS = {"rnn": models.rnn_lm.RNN, "lstm": models.rnn_lm.LSTM, "gru": models.rnn_lm.GRU}
END = "."  # before and after each name
PADDING = -1  # a target that is ignored


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Arguments of the compiled program: other values need no new compilation."""

    lr: float = 3e-3  # peak of the learning rate
    warmup_steps: Annotated[int | None, shared.warmup(200)] = None
    weight_decay: float = 0.1  # of kernels, per step and unit of lr
    clip_norm: float = 1.0  # largest norm of the gradient; a longer one is scaled down to it
    dropout_rate: float = 0.25  # fraction of each layer's outputs that a step sets to 0


@dataclass(frozen=True, kw_only=True)
class Config(Hyper):
    """Train a recurrent network on names, and sample new ones."""

    root: Root = None
    cell: Literal["rnn", "lstm", "gru"] = "lstm"  # kind of recurrent cell
    features: int = 32  # dimensions of a letter's embedding
    widths: tuple[int, ...] = (192,)  # units of each recurrent layer
    steps: int = 4000  # updates at most
    batch_size: int = 128  # names per step
    eval_every: int = 250  # steps between evaluations on the validation part
    patience: int = 6  # evaluations without a lower loss, after which training stops

    samples: int = 20  # names to sample
    temperature: float = 1.0  # of sampling; below 1: more typical names
    seed: int = 0  # of the split, the initial weights, the order of the data and the noise
    out: Annotated[Path | None, unset("a new directory", "runs/names_rnn/<time>", Path)] = None
    resume: Resume = None

    @property
    def hyper(self) -> dict[str, float]:
        """The part that may be traced, as the recipe takes it."""
        hyper = {field.name: getattr(self, field.name) for field in fields(Hyper)}
        return hyper | {"warmup_steps": shared.scaled(self.warmup_steps, self.steps, 200)}

    def __post_init__(self) -> None:
        above = ("lr", "clip_norm", "features", "steps", "eval_every", "patience")
        shared.expect_above_0(self, *above, "samples", "temperature")
        shared.expect_fraction(self, "dropout_rate")
        shared.expect_0_or_more(self, "weight_decay")
        shared.expect_warmup(self, self.steps)
        shared.expect_seeds(self)
        expect(self, "batch_size", 0 < self.batch_size <= 30_033, "from 1 to 30033")
        expect(self, "widths", min(self.widths, default=0) > 0, "one or more, each above 0")


def make_model(config: Config, letters: Characters) -> models.rnn_lm.RNNLMConfig:
    """The shapes and parts of the network."""
    return models.rnn_lm.RNNLMConfig(
        vocabulary=len(letters),
        features=config.features,
        widths=config.widths,
        cell=CELLS[config.cell],
    )


def make_recipe(config: Config, shape: models.rnn_lm.RNNLMConfig) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of what may be traced."""

    def recipe(hyper):
        kernels = tree.matching("*kernel")
        return Recipe(
            model=models.rnn_lm.rnn_lm(shape, rate=hyper["dropout_rate"]),
            loss=partial(losses.cross_entropy, ignore_index=PADDING),  # nats per letter
            optimizer=optim.chain(
                optim.clip_by_global_norm(hyper["clip_norm"]),
                optim.adamw(weight_decay=hyper["weight_decay"], mask=kernels),
            ),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=config.steps
            ),
        )

    return recipe


def encode(names: Sequence[str], letters: Characters) -> Batch:
    """x: END and the letters of each name; y: its letters and END; beyond that, padding."""
    longest = max(map(len, names)) + 1
    x = np.full((len(names), longest), letters.encode(END)[0], np.int32)
    y = np.full((len(names), longest), PADDING, np.int32)
    for i, name in enumerate(names):
        x[i, 1 : len(name) + 1] = letters.encode(name)
        y[i, : len(name) + 1] = letters.encode(name + END)
    return Batch(x, y)


def load(
    key: PRNGKey, names: Sequence[str], held_out: int = 1000
) -> tuple[Data, Batch, Characters]:
    """Training and validation data, the test part, and the alphabet of all."""
    letters = Characters.of(END + "".join(names))
    x, y = encode(names, letters)
    order = np.asarray(jax.random.permutation(fold_name(key, "split"), len(names)))
    cuts = (len(names) - 2 * held_out, len(names) - held_out)
    train, valid, test = (Batch(x[part], y[part]) for part in np.split(order, cuts))
    return Data(train=train, valid=valid), test, letters


def sample(
    shape: models.rnn_lm.RNNLMConfig,
    params: Params,
    key: PRNGKey,
    letters: Characters,
    *,
    n: int,
    longest: int,
    temperature: float,
) -> list[str]:
    """n names, each letter drawn from the network's prediction given those before it."""
    end = int(letters.encode(END)[0])
    rows = generate(
        models.rnn_lm.rnn_decoder(shape),
        params,
        np.full((n, 1), end, np.int32),
        key,
        max_tokens=longest,
        temperature=temperature,
        stop=end,
    )
    return [letters.decode(row).partition(END)[0] for row in rows]


def main(config: Config) -> int:
    """Train in a new directory, or in that of the run to resume; returns the exit code."""
    try:
        names = data.load("names", config.root)
        [store] = shared.open_runs(config, "names_rnn", config.out)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"names_rnn.py: {error}")
    shared.keep_options(config, store)
    return shared.resumable(store.path, lambda: run(config, names, store))


def run(config: Config, names: Sequence[str], store: RunDir) -> int:
    """Train, evaluate on the test part, and print new names; returns the exit code."""
    start, key = time.monotonic(), jax.random.key(config.seed)
    examples, test, letters = load(key, names)
    shape = make_model(config, letters)
    recipe = make_recipe(config, shape)
    result = fit(
        recipe,
        examples,
        key=key,
        hyper=config.hyper,
        steps=config.steps,
        batch_size=config.batch_size,
        eval_every=config.eval_every,
        patience=config.patience,
        store=store,
        resume=config.resume is not None,
    )
    state, params = result.state, trained_params(recipe, result.state, config.hyper)
    evaluate = jax.jit(make_evaluate(recipe))
    parts = {"valid": examples.valid, "test": test}
    found = {name: evaluate(state, part, config.hyper)["loss"] for name, part in parts.items()}
    print(f"stopped ({result.stop.value}), with the weights of step {int(state.step)}")
    for part, nats in found.items():
        print(f"{part} {nats:.4f} nats per letter, {nats / math.log(2):.3f} bits")
    new = sample(
        shape,
        params,
        fold_name(key, "sample"),
        letters,
        n=config.samples,
        longest=test.x.shape[1],
        temperature=config.temperature,
    )
    known = set(names)
    print("new names: " + " ".join(name + "*" * (name in known) for name in new))
    print("(* is in the list)")
    report.curves.save(
        result.history, store.path / "curves.png", best_step=result.best_step or None
    )
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")
    return exit_code(result)


if __name__ == "__main__":
    compile_cache()
    shared.start(lambda: main(tyro.cli(Config)), resumes=True)
