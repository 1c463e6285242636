"""CIFAR-10 to 94 % as fast as possible: data in, accuracy out, one compiled program.

    python experiments/cifar_speedrun.py gpu --runs 200    the full recipe, 200 times
    python experiments/cifar_speedrun.py cpu               a small network, a part of the data
    python experiments/cifar_speedrun.py gpu --help        lists all settings

The recipe is airbench94's (Jordan 2024, arXiv:2404.00498): a first convolution that whitens patches
and is not trained, kernels initialized to the identity, biases with their own learning rate,
label smoothing, lookahead, a flip that alternates with the epochs, and six views of each test
image. The random choices are fnn's own, and the order is that of `fnn.order`: a batch may hold the
end of one epoch and the start of the next. The time is that of `run`, from images on the device to
the accuracy; the time of compilation is printed separately.

No --resume: a run is one compiled program, which stores nothing before its end.

Measured (2 cores of an Intel Xeon, shared with other work, JAX 0.10.2): `cpu`, 240 steps of 125
out of 5,000 images: accuracy 60.9 % on 2,000 test images, n = 1, in 146 s after 29 s of
compilation. `gpu` has not been run yet: neither its accuracy nor its time is known.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from experiments import shared
from experiments.shared import Count, Fraction, NonNegative, Positive, Root, Static
from fnn import activations, data, initializers, layers, losses, nn, optim, schedules
from fnn.data import augment
from fnn.keys import fold_name, run_keys
from fnn.nn import cast, sequential
from fnn.order import order
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import make_init, make_step
from fnn.types import Batch, Hyper, Model, Objective, Optimizer, Params, PRNGKey, TrainState

Run = Callable[[PRNGKey, Hyper, Batch, Batch], tuple[Array, Array]]

PERIOD = 5  # steps between two synchronizations of the fast and the slow weights


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train on CIFAR-10, and print the accuracy and the time."""

    root: Root = None
    lr: Positive = 11.5  # peak, times 1 + 1 / (1 - momentum), for 1,024 examples
    momentum: Fraction = 0.85  # fraction of the velocity kept in a step
    weight_decay: NonNegative = 0.0153  # L2 penalty of kernels, for the same sum
    bias_factor: Positive = 64.0  # learning rate of the norms' biases, as a multiple of lr
    label_smoothing: Fraction = 0.2  # fraction of a target that is spread over all classes
    norm_decay: Fraction = 0.6  # fraction of batch norm's running statistics kept in a step
    slow_decay: Fraction = 0.95  # fraction of the slow weights kept per step, at the end

    widths: tuple[int, int, int] = (64, 256, 256)  # features of the three blocks
    epochs: Static[Positive] = 9.9  # passes over the training part
    whiten_epochs: Static[NonNegative] = 3.0  # until the first convolution's bias is frozen
    batch_size: Count = 1024  # examples per step
    shift: shared.CountOrZero = 2  # largest shift of an image, in pixels
    half: bool = True  # compute in bfloat16, with parameters in float32
    train_examples: int = 50_000  # examples to use, from the beginning of the training part
    test_examples: Count = 10_000  # examples to use, from the beginning of the test part

    seed: int = 0  # of the initial weights, the order of the data and the shifts
    runs: Count = 1  # number of runs, with this seed and the following ones

    @property
    def steps(self) -> int:
        """Updates of a run."""
        return math.ceil(self.epochs * self.train_examples / self.batch_size)

    @property
    def whiten_steps(self) -> int:
        """Updates after which the first convolution's bias is frozen."""
        return math.ceil(self.whiten_epochs * self.train_examples / self.batch_size)

    def __post_init__(self) -> None:
        super().__post_init__()
        shared.expect(self, "widths", min(self.widths) > 0, "three, each above 0")
        enough = self.batch_size <= self.train_examples
        shared.expect(self, "train_examples", enough, "at least --batch-size")


CPU = Config(
    widths=(16, 32, 32),
    epochs=6.0,
    batch_size=125,
    train_examples=5000,
    test_examples=2000,
    half=False,
)


def make_model(config: Config, norm_decay: Any) -> Model:
    """(B, 32, 32, 3) to (B, 10): whitening, three blocks of two convolutions, a linear head."""
    norm = nn.batch_norm(decay=norm_decay, eps=1e-12, scale=False)

    def block(features: int) -> Model:
        conv = nn.conv(features, (3, 3), bias=False, kernel_init=partly_identity)
        return sequential(
            conv1=conv,
            pool=nn.max_pool((2, 2)),
            norm1=norm,
            activation1=activations.gelu,
            conv2=conv,
            norm2=norm,
            activation2=activations.gelu,
        )

    model = sequential(
        whiten=nn.conv(24, (2, 2), padding="VALID"),  # -> (B, 31, 31, 24)
        activation=activations.gelu,
        blocks=sequential(*map(block, config.widths)),  # -> (B, 3, 3, C)
        pool=nn.global_max_pool(),  # -> (B, C)
        head=nn.linear(10, bias=False, kernel_init=_torch_like),
        cooler=lambda logits: logits / 9,
    )
    return cast(model, jnp.bfloat16) if config.half else model


def partly_identity(key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """The first outputs are the inputs, one each; further ones are drawn at random."""
    is_identity = jnp.arange(shape[-1]) < shape[-2]
    identity = initializers.dirac()(None, shape, dtype)
    drawn = _torch_like(key, shape, dtype)
    return jnp.where(is_identity.reshape((1,) * (len(shape) - 1) + (-1,)), identity, drawn)


def _torch_like(key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    bound = 1 / math.sqrt(initializers.fans(shape)[0])
    return initializers.uniform(-bound, bound)(key, shape, dtype)


def whitening(x: Float[Array, "n height width 3"], eps: float = 5e-4) -> Float[Array, "2 2 3 24"]:
    """Kernels that whiten patches of 2 x 2, and their negatives, of which a GELU keeps one."""
    rows = layers.patches(x, (2, 2)).reshape(-1, 12)
    values, vectors = jnp.linalg.eigh(rows.T @ rows / rows.shape[0])
    kernels = (vectors / jnp.sqrt(values + eps)[None]).reshape(2, 2, 3, 12)
    return jnp.concatenate([kernels, -kernels], axis=-1)


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""
    top = round(0.23 * config.steps)

    def recipe(hyper: Hyper) -> Recipe:
        momentum, bias_factor = hyper["momentum"], hyper["bias_factor"]

        def decayed(l2: Any) -> Optimizer:
            return optim.chain(optim.add_l2(l2), optim.sgd(momentum=momentum, nesterov=True))

        # A velocity that forgets (1 - momentum) of itself moves 1 / (1 - momentum) times as far,
        # and the gradient that nesterov adds moves once. The step's loss is a mean: the batch size
        # makes it a sum again.
        lr = hyper["lr"] * config.batch_size / (1024 * (1 + 1 / (1 - momentum)))
        l2 = hyper["weight_decay"] / hyper["lr"]
        optimizer = optim.groups(
            {
                "whiten/kernel": optim.frozen(),
                "*norm*/bias": faster(decayed(l2 / bias_factor), bias_factor),
                "*": decayed(l2),
            }
        )
        schedule = schedules.piecewise_linear(
            [0.2 * lr, lr, 0.07 * lr], steps=[0, top, config.steps]
        )
        model = make_model(config, hyper["norm_decay"])
        loss = partial(losses.cross_entropy, label_smoothing=hyper["label_smoothing"])
        return Recipe(model=model, loss=loss, optimizer=optimizer, schedule=schedule)

    return recipe


def faster(optimizer: Optimizer, factor: Any) -> Optimizer:
    """The optimizer at a multiple of the learning rate."""

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        return optimizer.update(grads, state, params, lr * factor, objective)

    return optimizer._replace(update=update)


def make_run(config: Config) -> Run:
    """`run(key, hyper, train, test) -> accuracy, losses of the steps`: all of it, and pure."""
    recipe = make_recipe(config)
    init, step = make_init(recipe), make_step(recipe)
    move = augment.per_example(augment.crop(config.shift, reflect=True))

    def run(key: PRNGKey, hyper: Hyper, train: Batch, test: Batch) -> tuple[Array, Array]:
        slow_decay = hyper["slow_decay"]
        hyper = {name: value for name, value in hyper.items() if name != "slow_decay"}
        keys, (x, y) = run_keys(key), train
        x, n, size = shared.cifar_normalize(x), len(y), config.batch_size

        def advance(carry: Any, upcoming: Any) -> tuple[Any, Array]:
            (state, slow), (i, indices) = carry, upcoming
            seen = i * size + jnp.arange(size)
            images = jax.vmap(augment.alternating_flip)(x[indices], indices, seen // n)
            noise = fold_name(jax.random.fold_in(keys.noise, i), "move")
            new, metrics = step(state, move(noise, (images, y[indices])), keys.noise, hyper)
            new = with_bias(new, state, i < config.whiten_steps)
            kept = slow_decay**PERIOD * (new.step / config.steps) ** 3
            return meet(new, slow, kept, new.step % PERIOD == 0), metrics["loss"]

        state = init(keys.init, hyper, x[:size])
        whiten = {**state.params["whiten"], "kernel": whitening(x[:5000])}
        state = replace(state, params={**state.params, "whiten": whiten})
        steps = jnp.arange(config.steps)
        batches = jax.vmap(lambda i: order(keys.order, i, n, size))(steps)
        carry = state, (state.params, state.model_state)
        (_, slow), values = jax.lax.scan(advance, carry, (steps, batches))
        return accuracy(recipe(hyper).model, slow, shared.cifar_normalize(test.x), test.y), values

    return run


def with_bias(new: TrainState, old: TrainState, trains: Array) -> TrainState:
    """The new state, with the old bias of the whitening unless it still trains."""
    kept = jnp.where(trains, new.params["whiten"]["bias"], old.params["whiten"]["bias"])
    whiten = {**new.params["whiten"], "bias": kept}
    return replace(new, params={**new.params, "whiten": whiten})


def meet(state: TrainState, slow: Any, kept: Array, now: Array) -> tuple[TrainState, Any]:
    """If `now`, move the slow weights towards the fast ones, and set the fast ones to the result.

    Lookahead in which the running statistics are averaged as well, unlike in `optim.lookahead`.

    Args:
      kept: fraction of the slow weights that is kept.
    """
    fast = state.params, state.model_state
    met = jax.tree.map(lambda s, f: kept * s + (1 - kept) * f, slow, fast)
    choose = partial(jax.tree.map, lambda new, old: jnp.where(now, new, old))
    params, model_state = choose(met, fast)
    return replace(state, params=params, model_state=model_state), choose(met, slow)


def accuracy(
    model: Model, weights: Any, x: Float[Array, "n height width 3"], y: Int[Array, " n"]
) -> Float[Array, ""]:
    """The accuracy of the mean logits of six views of each image."""
    size, (params, model_state) = math.gcd(len(y), 2000), weights

    def correct(batch: Any) -> Array:
        logits = views(lambda x: model.apply(params, model_state, x)[0], batch[0])
        return (logits.argmax(axis=-1) == batch[1]).sum()

    batches = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), (x, y))
    return jax.lax.map(correct, batches).sum() / len(y)


def views(
    net: Callable[[Array], Array], x: Float[Array, "n height width 3"]
) -> Float[Array, "n classes"]:
    """Mean logits of x and its mirror image: half unshifted, half shifted by a pixel."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifts = jnp.stack([x, wide[:, :-2, :-2], wide[:, 2:, 2:]])
    both = jnp.stack([shifts, shifts[:, :, :, ::-1]])
    logits = net(both.reshape(-1, *x.shape[1:])).reshape(2, 3, len(x), -1).mean(axis=0)
    return logits[0] / 2 + (logits[1] + logits[2]) / 4


def load(config: Config) -> tuple[Batch, Batch]:
    """The first examples of both parts, as bytes on the device.

    Raises: ValueError for more than there are.
    """
    cifar = data.load("cifar10", config.root)
    asked = {"--train-examples": config.train_examples, "--test-examples": config.test_examples}
    parts = []
    for (flag, n), part in zip(asked.items(), (cifar.train, cifar.test), strict=True):
        if n > len(part.y):
            raise ValueError(f"{flag}: expected at most {len(part.y):,}, got {n:,}")
        parts.append(Batch(*(jax.device_put(a[:n]) for a in part)))
    return parts[0], parts[1]


def main(config: Config, load: Callable[[Config], tuple[Batch, Batch]] = load) -> None:
    """Compile, then run, and print the time of each."""
    with shared.ends_with_message(__file__):
        train, test = load(config)
    start = time.monotonic()
    arguments = (jax.random.key(config.seed), config.hyper, train, test)
    run = jax.jit(make_run(config)).lower(*arguments).compile()
    print(f"{config.steps} steps, compiled in {time.monotonic() - start:.1f} s")
    accuracies, seconds = [], []
    for seed in range(config.seed, config.seed + config.runs):
        start = time.monotonic()
        fraction, values = run(jax.random.key(seed), config.hyper, train, test)
        accuracies.append(100 * float(fraction))
        seconds.append(time.monotonic() - start)
        loss = float(values[-1])
        print(f"seed {seed}: {accuracies[-1]:.2f} % in {seconds[-1]:.3f} s, last loss {loss:.3f}")
    if config.runs > 1:
        mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(
            f"test accuracy over {config.runs} runs: mean {mean:.2f} %, std {std:.2f} %; "
            f"median time {statistics.median(seconds):.3f} s"
        )


if __name__ == "__main__":
    settings = {
        "cpu": ("A small network on a tenth of the data.", CPU),
        "gpu": ("airbench94's configuration.", Config()),
    }
    shared.command(main, settings)
