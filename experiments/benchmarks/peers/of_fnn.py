"""fnn: a call for each step, the chunks of `fit`, and the scan of `run`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.peers.loops import on_device, repeated, value_and_grads
from experiments.benchmarks.peers.work import (
    B2,
    BLOCKS,
    CLIP_NORM,
    DEPTH,
    EMBEDDED,
    FEATURES,
    HEADS,
    HIDDEN,
    LENGTH,
    LR,
    VOCABULARY,
    WEIGHT_DECAY,
    WIDTH,
    Work,
)
from fnn import layers, losses, models, optim, schedules, tree
from fnn.activations import gelu, relu
from fnn.combinators import sequential, stack
from fnn.keys import run_keys
from fnn.train import make_init, make_step, microbatches
from fnn.train.chunks import chunks
from fnn.train.devices import everywhere
from fnn.train.run import example, steps_maker
from fnn.types import Batch, Model, Optimizer, Recipe

KEY, CHUNK_STEPS = jax.random.key(0), 4096  # the most that fit makes in a chunk
SHARED = {"cnn", "gpt", "lstm"}  # workloads that gain by a part of the batch for each core
IN_PARTS = {"cnn": 4}  # by parts of those, one after another, whose activations stay in the cache


def _mlp(*sizes: int) -> Model:
    return models.mlp(models.MLPConfig(widths=sizes[:-1], out_features=sizes[-1]))


def _cnn() -> Model:
    return sequential(
        models.conv(32, 3),
        relu,
        models.max_pool(2),
        models.conv(64, 3),
        relu,
        models.max_pool(2),
        models.flatten(),
        models.dense(128),
        relu,
        models.dense(10),
    )


def _gpt() -> Model:
    shape = models.gpt2(
        vocabulary=VOCABULARY,
        max_length=LENGTH,
        features=FEATURES,
        num_layers=BLOCKS,
        num_heads=HEADS,
        activation=gelu,
        bias=False,
    )
    return models.gpt(shape)


def _deep() -> Model:
    widths = (WIDTH,) * DEPTH
    return models.mlp(models.MLPConfig(widths=widths, out_features=10, norm=models.batch_norm))


def _stacked() -> Model:
    """The same, compiled as one block that a loop repeats."""
    block = sequential(models.dense(WIDTH), models.batch_norm(), relu)
    return sequential(stack(block, DEPTH), models.dense(10))


def _lstm() -> Model:
    config = models.RNNLMConfig(vocabulary=VOCABULARY, features=EMBEDDED, widths=(HIDDEN,))
    return models.rnn_lm(config)


MODELS: dict[str, Callable[[], Model]] = {
    "tiny": lambda: _mlp(16, 2),
    "mlp": lambda: _mlp(512, 256, 10),
    "cnn": _cnn,
    "gpt": _gpt,
    "deep": _deep,
    "stacked": _stacked,
    "lstm": _lstm,
    "resnet": lambda: models.resnet(models.resnet18(10, stem=models.cifar_stem)),
}


def _norm_gelu(params: Any, x: Any, y: Any) -> Any:
    return (gelu(layers.layer_norm(params, x)) * y).sum()


def _cross_entropy(params: Any, x: Any, y: Any) -> Any:
    return losses.cross_entropy(x, y).mean()


FUNCTIONS: dict[str, tuple[Callable, Callable[[], Any]]] = {
    "norm_gelu": (_norm_gelu, lambda: layers.layer_norm_init(512)),
    "cross_entropy": (_cross_entropy, dict),
}


def _optimizer(work: Work) -> Optimizer:
    return clipped_adamw() if work.adamw else optim.adam()


def clipped_adamw() -> Optimizer:
    """Decays matrices and tables alone."""
    matrices = tree.matching("*kernel", "*table")
    adamw = optim.adamw(b2=B2, weight_decay=WEIGHT_DECAY, mask=matrices)
    return optim.chain(optim.clip_by_global_norm(CLIP_NORM), adamw)


def _devices(work: Work) -> Sequence[jax.Device]:
    """The cores, where the one who runs the workload has made each of them a device of JAX."""
    cores = jax.devices("cpu")
    gains = work.name in SHARED and work.batch_size % len(cores) == 0
    return cores if gains and jax.default_backend() == "cpu" else ()


def recipe_of(work: Work, norms: bool = True) -> Callable[[Any], Recipe]:
    model, devices = MODELS[work.name](), _devices(work)
    parts = IN_PARTS.get(work.name, 1) if devices else 1

    def recipe(hyper):
        return Recipe(
            model=model,
            loss=losses.cross_entropy,
            optimizer=_optimizer(work),
            schedule=schedules.constant(hyper["lr"]),
            gradient=microbatches(parts),
            norms=norms,
            devices=devices,
        )

    return recipe


def _hyper() -> dict[str, Any]:
    return {"lr": jnp.float32(LR)}


def by_steps(work: Work) -> Any:
    """A call of `make_step` for each step; of a function, a call of its compiled gradient."""
    if work.is_function:
        function, params = FUNCTIONS[work.name]
        return value_and_grads(function, params(), work)
    recipe, hyper, batches = recipe_of(work), _hyper(), on_device(work)
    step = make_step(recipe)
    state = make_init(recipe)(KEY, hyper, batches[0][0])

    def one(state, x, y):
        state, metrics = step(state, (x, y), KEY, hyper)
        return state, metrics.values

    return repeated(one, state, batches)


def by_fit(work: Work, norms: bool = True) -> Any:
    """The chunks that `fit` makes, with the examples on the device and new batches every epoch."""
    recipe, hyper, keys = recipe_of(work, norms), _hyper(), run_keys(KEY)
    train = everywhere(_devices(work), Batch(*map(jnp.asarray, work.examples())))
    state = make_init(recipe)(keys.init, hyper, example(train, work.batch_size))
    # Of examples on the device there is nothing to close when the context ends.
    with chunks(recipe, work.batch_size, keys, hyper, train, 0, CHUNK_STEPS) as advance:
        pass

    def steps(n: int) -> None:
        nonlocal state
        for start in range(0, n, CHUNK_STEPS):
            state, rows = advance(state, min(CHUNK_STEPS, n - start))
            np.asarray(rows)  # fit reads them after each chunk

    return steps


def by_fit_without_norms(work: Work) -> Any:
    """The same, with the loss alone measured, as the peers' steps do."""
    return by_fit(work, norms=False)


def by_run(work: Work) -> Any:
    """The scan that `run` is made of, `run_steps` steps a call; n is rounded up to such calls."""
    recipe, hyper, keys = recipe_of(work), _hyper(), run_keys(KEY)
    train = everywhere(_devices(work), Batch(*map(jnp.asarray, work.examples())))
    state = make_init(recipe)(keys.init, hyper, example(train, work.batch_size))
    make_steps = steps_maker(recipe, work.batch_size)

    @partial(jax.jit, donate_argnums=0)
    def scan(state, keys, hyper, train):
        return make_steps(state, keys, hyper, train, work.run_steps)

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(-(-n // work.run_steps)):
            state, metrics = scan(state, keys, hyper, train)
        jax.block_until_ready(metrics.values)

    return steps
