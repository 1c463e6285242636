"""A small GPT on the characters of Shakespeare, with nanoGPT's two configurations.

    python experiments/char_gpt.py cpu                4 blocks of width 128, 2,000 steps
    python experiments/char_gpt.py gpu                6 blocks of width 384, 5,000 steps
    python experiments/char_gpt.py cpu --help         lists all settings
    python experiments/char_gpt.py cpu --resume RUN   resumes an interrupted run

The text is tiny Shakespeare, in --root, FNN_DATA or the user's cache, or fetched; without it, the
sources of Python's standard library. Its last tenth validates, cut into windows that do not
overlap; each position is a target once. A step takes windows at random offsets of the rest.

Measured (JAX 0.10.2, 2 cores of an Intel Xeon; seed 0, n = 1), `cpu`: validation loss 1.8086 nats
per character over 111,488 characters after 2,000 steps, 75 s with compilation and samples, and 60 s
with --devices 2. With nanoGPT's own rates, 1e-3 to 1e-4, it is 1.8964. `gpu` has not been run.
"""

import time
from dataclasses import asdict, dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from experiments import shared
from experiments.shared import Count, Fraction, NonNegative, Positive, Root, RunOptions, Static
from fnn import activations, losses, models, optim, report, schedules, tree
from fnn.checkpoint import RunDir
from fnn.data import Characters
from fnn.generate import generate
from fnn.keys import fold_name
from fnn.nn import cast
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import exit_code, fit, trained_params
from fnn.types import Hyper, Params, PRNGKey


@dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a GPT on characters, and sample text from it."""

    root: Root = None
    lr: Positive = 2e-3  # peak of the learning rate
    last_lr: NonNegative = 2e-4  # learning rate at the end of the cosine
    longest_warmup = 100  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    b2: Fraction = 0.99  # fraction of the second moment kept in a step
    weight_decay: NonNegative = 0.1  # of kernels and embedding tables, per step and unit of lr
    clip_norm: Positive = 1.0  # largest norm of the gradient; a larger one is scaled down

    num_layers: Count = 4  # number of blocks
    num_heads: Count = 4  # attention heads of a block
    features: Count = 128  # width of the blocks
    max_length: Count = 64  # context length, in characters
    dropout_rate: Static[Fraction] = 0.0  # fraction of activations that a step sets to 0
    half: bool = False  # compute in bfloat16, with parameters in float32

    steps: Count = 2000  # updates
    batch_size: Count = 12  # windows per step
    devices: Count = 1  # accelerators, or cores of a CPU, over which a step's windows are divided
    eval_every: Count = 250  # steps between evaluations
    samples: Count = 2  # texts to sample at the end
    sample_length: Count = 400  # characters of each text
    temperature: Static[NonNegative] = 0.8  # of sampling; below 1: more typical text

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.batch_size % self.devices == 0
        shared.expect(self, "batch_size", divides, "a multiple of --devices")
        divides = self.features % self.num_heads == 0
        shared.expect(self, "features", divides, "a multiple of --num-heads")


GPU = Config(
    lr=1e-3,
    last_lr=1e-4,
    num_layers=6,
    num_heads=6,
    features=384,
    max_length=256,
    dropout_rate=0.2,
    half=True,
    steps=5000,
    batch_size=64,
)


def make_model(config: Config, symbols: Characters) -> models.gpt.GPTConfig:
    """The shapes and parts of the network; as in nanoGPT, exact GELU and no biases."""
    return models.gpt.gpt2(
        vocab_size=len(symbols),
        max_length=config.max_length,
        features=config.features,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        activation=activations.gelu,
        bias=False,
    )


def make_recipe(config: Config, shape: models.gpt.GPTConfig) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""
    model = models.gpt.gpt(shape, rate=config.dropout_rate)

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=cast(model, jnp.bfloat16) if config.half else model,
            loss=losses.cross_entropy,
            optimizer=optim.chain(
                optim.clip_by_global_norm(hyper["clip_norm"]),
                optim.adamw(
                    b2=hyper["b2"],
                    weight_decay=hyper["weight_decay"],
                    mask=tree.matching("*kernel", "*table"),
                ),
            ),
            schedule=schedules.warmup_cosine(
                hyper["lr"],
                warmup_steps=hyper["warmup_steps"],
                total_steps=config.steps,
                end=hyper["last_lr"],
            ),
        )

    return recipe


def write(
    config: Config, shape: models.gpt.GPTConfig, params: Params, symbols: Characters, key: PRNGKey
) -> list[str]:
    """Samples texts, each after a line break, in pieces of half a context."""
    begin = symbols.encode("\n" if "\n" in symbols.symbols else symbols.symbols[0])
    decoder, tokens = models.gpt.gpt_decoder(shape), np.repeat(begin[None], config.samples, axis=0)
    texts = [""] * config.samples
    for piece in range(-(-config.sample_length // (config.max_length // 2))):
        new = generate(
            decoder,
            params,
            tokens,
            jax.random.fold_in(key, piece),
            max_tokens=min(config.max_length - tokens.shape[1], config.max_length // 2),
            temperature=config.temperature,
        )
        texts = [text + symbols.decode(row) for text, row in zip(texts, new, strict=True)]
        tokens = np.concatenate([tokens, new], axis=1)[:, -(config.max_length // 2) :]
    return [text[: config.sample_length] for text in texts]


def main(config: Config) -> int:
    """Train in a new directory, or in that of the run to resume; returns the exit code."""
    with shared.ends_with_message(__file__):
        if config.devices > len(jax.devices()):
            raise ValueError(
                f"--devices: expected at most {len(jax.devices())}, got {config.devices}"
            )
        text, source = shared.read_text(config.root)
        [run] = shared.open_runs(config, "char_gpt")
    run.write_config(asdict(config))
    return shared.resumable(run.path, lambda: train(config, text, source, run))


def train(config: Config, text: str, source: str, run: RunDir) -> int:
    """Train, evaluate, and print some text; returns the exit code."""
    start = time.monotonic()
    parts, symbols = shared.text_windows(text, config.max_length)
    key, shape = jax.random.key(config.seed), make_model(config, symbols)
    recipe = make_recipe(config, shape)
    result = fit(
        recipe,
        parts,
        key=key,
        hyper=config.hyper,
        steps=config.steps,
        batch_size=config.batch_size,
        eval_every=config.eval_every,
        eval_batch_size=256,
        store=run,
        resume=config.resume is not None,
        devices=jax.devices()[: config.devices] if config.devices > 1 else (),
    )
    params = trained_params(recipe, result.state, config.hyper)
    print(f"stopped at step {int(result.state.step):,} ({result.stop.value})")
    if "loss" in result.history.valid:  # not if it was interrupted before the first evaluation
        lowest, last = (float(f(result.history.valid["loss"])) for f in (jnp.min, lambda v: v[-1]))
        print(f"{source}: validation loss {last:.4f} after {int(result.history.eval_steps[-1]):,}")
        print(f"steps, lowest {lowest:.4f}; nats per character, over {parts.valid[1].size:,}")
    for sample in write(config, shape, params, symbols, fold_name(key, "sample")):
        print("-" * 72 + "\n" + sample.strip())
    report.curves.save(result.history, run.path / "curves.png")
    print("-" * 72)
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")
    return exit_code(result)


def command(config: Config) -> int:
    """Divide the CPU into as many devices as were asked for, and train."""
    jax.config.update("jax_num_cpu_devices", config.devices)  # has no effect on GPUs
    return main(config)


if __name__ == "__main__":
    settings = {
        "cpu": ("nanoGPT's configuration for a CPU.", Config()),
        "gpu": ("nanoGPT's configuration for a GPU.", GPU),
    }
    shared.command(command, settings, resumes=True)
