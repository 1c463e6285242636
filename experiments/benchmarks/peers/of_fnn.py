"""fnn: a call for each step, the chunks of `fit`, and the scan of `run`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

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
from fnn import layers, losses, models, nn, optim, schedules, tree
from fnn.activations import gelu, relu
from fnn.measures import norms
from fnn.nn import sequential, stack
from fnn.recipe import Recipe
from fnn.train import _compiled as compiled
from fnn.train import make_init, make_step, microbatches
from fnn.train._chunks import chunks, most_steps
from fnn.train._job import Job, make_job
from fnn.train._scan import gather, scan_steps
from fnn.train.devices import everywhere
from fnn.types import Batch, Data, Measure, Model, Optimizer
from fnn.xla import plain

KEY = jax.random.key(0)
SHARED = {"cnn", "gpt", "lstm"}  # workloads that gain by a part of the batch for each core
IN_PARTS = {"cnn": 4}  # by parts of those, one after another, whose activations stay in the cache


def _mlp(*sizes: int) -> Model:
    return models.mlp.mlp(models.mlp.MLPConfig(widths=sizes[:-1], out_features=sizes[-1]))


def _cnn() -> Model:
    return sequential(
        nn.conv(32, (3, 3)),
        relu,
        nn.max_pool((2, 2)),
        nn.conv(64, (3, 3)),
        relu,
        nn.max_pool((2, 2)),
        nn.flatten(),
        nn.linear(128),
        relu,
        nn.linear(10),
    )


def _gpt() -> Model:
    shape = models.gpt.gpt2(
        vocab_size=VOCABULARY,
        max_length=LENGTH,
        features=FEATURES,
        num_layers=BLOCKS,
        num_heads=HEADS,
        activation=gelu,
        bias=False,
    )
    return models.gpt.gpt(shape)


def _deep() -> Model:
    widths = (WIDTH,) * DEPTH
    return models.mlp.mlp(models.mlp.MLPConfig(widths=widths, out_features=10, norm=nn.batch_norm))


def _stacked() -> Model:
    """The same, compiled as one block that a loop repeats."""
    block = sequential(nn.linear(WIDTH), nn.batch_norm(), relu)
    return sequential(stack(block, DEPTH), nn.linear(10))


def _lstm() -> Model:
    config = models.rnn_lm.RNNLMConfig(vocab_size=VOCABULARY, features=EMBEDDED, widths=(HIDDEN,))
    return models.rnn_lm.rnn_lm(config)


MODELS: dict[str, Callable[[], Model]] = {
    "tiny": lambda: _mlp(16, 2),
    "mlp": lambda: _mlp(512, 256, 10),
    "cnn": _cnn,
    "gpt": _gpt,
    "deep": _deep,
    "stacked": _stacked,
    "lstm": _lstm,
    "resnet": lambda: models.resnet.resnet(
        models.resnet.resnet18(10, stem=models.resnet.cifar_stem)
    ),
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


def recipe_of(
    work: Work, measures: Sequence[Measure] = (norms,)
) -> tuple[Callable[[Any], Recipe], Sequence[jax.Device]]:
    """The recipe of a workload, and the devices that share its batches."""
    model, devices = MODELS[work.name](), _devices(work)
    parts = IN_PARTS.get(work.name, 1) if devices else 1

    def recipe(hyper):
        return Recipe(
            model=model,
            loss=losses.cross_entropy,
            optimizer=_optimizer(work),
            schedule=schedules.constant(hyper["lr"]),
            gradient=microbatches(parts),
            measures=measures,
        )

    return recipe, devices


def _hyper() -> dict[str, Any]:
    return {"lr": jnp.float32(LR)}


def by_steps(work: Work) -> Any:
    """A call of a jitted `make_step` for each step, which measures the loss alone, as the peers do.

    Of a function, a call of its compiled gradient.
    """
    if work.is_function:
        function, params = FUNCTIONS[work.name]
        return value_and_grads(function, params(), work)
    (recipe, devices), hyper, batches = recipe_of(work, ()), _hyper(), on_device(work)
    step = jax.jit(make_step(recipe, devices=devices), donate_argnums=0)
    state = jax.jit(make_init(recipe))(KEY, hyper, batches[0][0])

    def one(state, x, y):
        state, metrics = step(state, (x, y), KEY, hyper)
        return state, metrics["loss"]

    return repeated(one, everywhere(devices, state), batches)


def _job(work: Work, measures: Sequence[Measure] = (norms,)) -> Job:
    (recipe, devices), examples = recipe_of(work, measures), Batch(*work.examples())
    return make_job(
        recipe,
        Data(train=examples, valid=examples),
        key=KEY,
        hyper=_hyper(),
        batch_size=work.batch_size,
        devices=devices,
    )


def by_fit(work: Work, measures: Sequence[Measure] = (norms,)) -> Any:
    """The chunks that `fit` makes, with the examples on the device and new batches every epoch."""
    job = _job(work, measures)
    state, most = job.init(), most_steps(job)
    # Of examples on the device there is nothing to close when the context ends.
    with chunks(job, 0) as advance:
        pass

    def steps(n: int) -> None:
        nonlocal state
        for start in range(0, n, most):
            state, recorded = advance(state, min(most, n - start))
            jax.device_get(recorded)  # fit reads them after each chunk

    return steps


def by_fit_without_measures(work: Work) -> Any:
    """The same, with the loss alone measured, as the peers' steps do."""
    return by_fit(work, measures=())


def by_fit_plain(work: Work) -> Any:
    """The same as by_fit, without the workarounds of `fnn.xla`."""
    with plain():
        steps = by_fit(work)

    def plain_steps(n: int) -> None:
        with plain():
            steps(n)

    return plain_steps


def by_run(work: Work) -> Any:
    """The scan that `run` is made of, `run_steps` steps a call; n is rounded up to such calls."""
    job = _job(work)
    state = job.init()

    @partial(jax.jit, donate_argnums=0)
    def scan(state, keys, hyper, train):
        def advance(state, step, indices):
            batch = gather(train, indices)
            return compiled.step(job.recipe, job.devices, state, batch, keys.noise, hyper)

        return scan_steps(
            advance,
            state,
            state.step,
            keys=keys,
            train=train,
            batch_size=work.batch_size,
            length=work.run_steps,
        )

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(-(-n // work.run_steps)):
            state, recorded = scan(state, job.keys, job.hyper, job.data.train)
        jax.block_until_ready(recorded)

    return steps
