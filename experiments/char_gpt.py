"""Shakespeare letter by letter: a small GPT, with nanoGPT's two configurations.

    python experiments/char_gpt.py cpu            4 blocks of width 128, 2,000 steps
    python experiments/char_gpt.py gpu            6 blocks of width 384, 5,000 steps
    python experiments/char_gpt.py cpu --help     lists all settings

The text is tiny Shakespeare, in --root, FNN_DATA or the user's cache, or fetched; without it, the
sources of Python's standard library. Its last tenth validates, cut into windows that do not
overlap; each position is a target once. A step sees windows that begin anywhere in the rest.

Measured (JAX 0.10.2, 2 cores of an Intel Xeon; seed 0, n = 1), `cpu`: validation loss 1.8086 nats
per character over 111,488 characters after 2,000 steps, 75 s with compilation and samples, and 60 s
with --devices 2. With nanoGPT's own rates, 1e-3 to 1e-4, it is 1.8964. `gpu` has not been run.
"""

import json
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from fnn import activations, data, losses, models, optim, report, schedules, tree
from fnn.checkpoint import new_runs
from fnn.combinators import cast
from fnn.data import Characters
from fnn.generate import generate
from fnn.keys import fold_name
from fnn.recipe import Recipe
from fnn.train import compile_cache, fit, trained_params
from fnn.types import Data, Params, PRNGKey

RecipeFunction = Callable[[dict[str, float]], Recipe]


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Arguments of the compiled program: other values need no new compilation."""

    lr: float = 2e-3  # peak of the learning rate
    last_lr: float = 2e-4  # at the end of the cosine
    warmup_steps: int = 100  # steps up to the peak
    b2: float = 0.99  # share of the second moment that a step keeps
    weight_decay: float = 0.1  # of kernels and tables, per unit of lr
    clip_norm: float = 1.0  # longest gradient that is taken as it is


@dataclass(frozen=True, kw_only=True)
class Config(Hyper):
    """Train a GPT on characters, and let it write."""

    root: str | None = None  # the folder that has tinyshakespeare/
    num_layers: int = 4
    num_heads: int = 4
    features: int = 128
    max_length: int = 64  # characters that are seen at once
    dropout_rate: float = 0.0  # static: a plain 0 leaves the dropout out
    half: bool = False  # compute in bfloat16, with parameters in float32

    steps: int = 2000  # updates
    batch_size: int = 12  # windows of a step
    devices: int = 1  # accelerators, or cores of a CPU, that share each step's windows
    eval_every: int = 250  # steps between evaluations
    samples: int = 2  # texts to write at the end
    sample_length: int = 400  # characters of each
    temperature: float = 0.8  # below 1: more usual text
    seed: int = 0  # of the first weights, the order of the data and the noise
    out: Path | None = None  # a new directory; runs/char_gpt/<time> if left out

    @property
    def hyper(self) -> dict[str, float]:
        """The part that may be traced, as the recipe takes it."""
        return {field.name: getattr(self, field.name) for field in fields(Hyper)}

    def __post_init__(self) -> None:
        above = ("lr", "clip_norm", "num_layers", "num_heads", "features", "max_length", "steps")
        for name in (*above, "batch_size", "devices", "eval_every", "samples", "sample_length"):
            self._expect(name, 0 < getattr(self, name) < float("inf"), "a number above 0")
        self._expect("temperature", 0 <= self.temperature < float("inf"), "0 or more")
        self._expect("dropout_rate", 0 <= self.dropout_rate < 1, "a share in [0, 1)")
        self._expect("b2", 0 <= self.b2 < 1, "a share in [0, 1)")
        self._expect("warmup_steps", 0 <= self.warmup_steps < self.steps, "from 0 to below --steps")
        self._expect("batch_size", self.batch_size % self.devices == 0, "a multiple of --devices")
        self._expect("features", self.features % self.num_heads == 0, "a multiple of --num-heads")

    def _expect(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag}: expected {expected}, got {getattr(self, name)}")


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


def make_model(config: Config, symbols: Characters) -> models.GPTConfig:
    """The shapes and parts of the network; as in nanoGPT, exact GELU and no biases."""
    return models.gpt2(
        vocabulary=len(symbols),
        max_length=config.max_length,
        features=config.features,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        activation=activations.gelu,
        bias=False,
    )


def make_recipe(config: Config, shape: models.GPTConfig) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of what may be traced."""
    model = models.gpt(shape, rate=config.dropout_rate)

    def recipe(hyper):
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


def examples(text: str, length: int) -> tuple[Data, Characters]:
    """Windows of the first nine tenths and of the last, and the characters."""
    symbols = Characters.of(text)
    tokens = symbols.encode(text).astype(np.uint8 if len(symbols) <= 256 else np.int32)
    train, valid = np.split(tokens, [9 * len(tokens) // 10])
    return Data(
        train=data.windows(train, length, stride=1), valid=data.windows(valid, length)
    ), symbols


def write(
    config: Config, shape: models.GPTConfig, params: Params, symbols: Characters, key: PRNGKey
) -> list[str]:
    """Texts from the network, each behind a line break; a window holds what it can go on from."""
    begin = symbols.encode("\n" if "\n" in symbols.symbols else symbols.symbols[0])
    decoder, tokens = models.gpt_decoder(shape), np.repeat(begin[None], config.samples, axis=0)
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


def main(config: Config) -> None:
    """Train, evaluate, and print some text."""
    start = time.monotonic()
    try:
        if config.devices > len(jax.devices()):
            raise ValueError(
                f"--devices: expected at most {len(jax.devices())}, got {config.devices}"
            )
        text, source = read_text(config.root)
        parts, symbols = examples(text, config.max_length)
        [store] = new_runs(config.out, "char_gpt")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"char_gpt.py: {error}")
    (store.path / "config.json").write_text(json.dumps(asdict(config), indent=2, default=str))
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
        store=store,
        devices=jax.devices()[: config.devices] if config.devices > 1 else (),
    )
    params = trained_params(recipe, result.state, config.hyper)
    lowest, last = (float(f(result.history.valid["loss"])) for f in (jnp.min, lambda v: v[-1]))
    print(f"{source}: validation loss {last:.4f} after {int(result.state.step):,} steps,")
    print(f"lowest {lowest:.4f}; nats per character, over {parts.valid[1].size:,} characters")
    for sample in write(config, shape, params, symbols, fold_name(key, "sample")):
        print("-" * 72 + "\n" + sample.strip())
    report.curves.save(result.history, store.path / "curves.png")
    print("-" * 72)
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    compile_cache()
    chosen = tyro.extras.overridable_config_cli(
        {
            "cpu": ("nanoGPT's configuration for a CPU.", Config()),
            "gpu": ("nanoGPT's configuration for a GPU.", GPU),
        }
    )
    jax.config.update("jax_num_cpu_devices", chosen.devices)  # says nothing of GPUs
    main(chosen)
