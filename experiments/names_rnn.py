"""A recurrent network on the letters of makemore's names, and new names sampled from it.

    python experiments/names_rnn.py --root FOLDER   the folder that has makemore-names/
    python experiments/names_rnn.py                 FNN_DATA, the user's cache, or the network
    python experiments/names_rnn.py --cell gru      another cell; --help lists all settings
    python experiments/names_rnn.py --resume RUN    resumes an interrupted run

1,000 of the 32,033 names validate and 1,000 test, as many as in makemore's script; the others
train. Some names are in the list twice, and so in two parts; that is as makemore has it.

Measured (JAX 0.10.2, 2 cores of an Intel Xeon, shared with other work): seed 0, n = 1, an
LSTM of 178,875 parameters: validation 1.9525, test 1.9677 nats per letter, 416 s. The readme of
makemore states about 1.92 for the test part of its own split, by a transformer of 200,000.
Of its names: yamia leanni glous madrett garleigh jecalah rolanie jaheli jaycei sharena nafeer.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Literal

import jax
import numpy as np

from experiments import shared
from experiments.shared import Count, Fraction, NonNegative, Positive, Root, RunOptions, Static
from fnn import data, losses, models, optim, report, schedules, tree
from fnn.checkpoint import RunDir
from fnn.data import Characters
from fnn.generate import generate
from fnn.keys import fold_name
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import exit_code, fit, make_evaluate, trained_params
from fnn.types import Batch, Data, Hyper, Params, PRNGKey

CELLS = {"rnn": models.rnn_lm.RNN, "lstm": models.rnn_lm.LSTM, "gru": models.rnn_lm.GRU}
END = "."  # before and after each name
PADDING = -1  # a target that is ignored


@dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a recurrent network on names, and sample new ones."""

    root: Root = None
    lr: Positive = 3e-3  # peak of the learning rate
    longest_warmup = 200  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    weight_decay: NonNegative = 0.1  # of kernels, per step and unit of lr
    clip_norm: Positive = 1.0  # largest norm of the gradient; a larger one is scaled down
    dropout_rate: Fraction = 0.25  # fraction of each layer's outputs that a step sets to 0

    cell: Literal["rnn", "lstm", "gru"] = "lstm"  # kind of recurrent cell
    features: Count = 32  # dimensions of a letter's embedding
    widths: shared.Widths = (192,)  # units of each recurrent layer
    steps: Count = 4000  # updates at most
    batch_size: Annotated[int, shared.between(1, 30_033)] = 128  # names per step
    eval_every: Count = 250  # steps between evaluations on the validation part
    patience: Count = 6  # evaluations without a lower loss, after which training stops

    samples: Count = 20  # names to sample
    temperature: Static[Positive] = 1.0  # of sampling; below 1: more typical names


def make_model(config: Config, letters: Characters) -> models.rnn_lm.RNNLMConfig:
    """The shapes and parts of the network."""
    return models.rnn_lm.RNNLMConfig(
        vocab_size=len(letters),
        features=config.features,
        widths=config.widths,
        cell=CELLS[config.cell],
    )


def make_recipe(config: Config, shape: models.rnn_lm.RNNLMConfig) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""

    def recipe(hyper: Hyper) -> Recipe:
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
    """n names, sampled letter by letter."""
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
    with shared.ends_with_message(__file__):
        names = data.load("names", config.root)
        [run] = shared.open_runs(config, "names_rnn")
    run.write_config(asdict(config))
    return shared.resumable(run.path, lambda: train(config, names, run))


def train(config: Config, names: Sequence[str], run: RunDir) -> int:
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
        store=run,
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
    best_step = result.best_step or None
    report.curves.save(result.history, run.path / "curves.png", best_step=best_step)
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")
    return exit_code(result)


if __name__ == "__main__":
    shared.command(main, Config, resumes=True)
