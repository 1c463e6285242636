"""Training in every mode of JAX that a user may switch on. Strict promotion is on in all tests."""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import diagnose, losses, measures, metrics, models, nn, optim, schedules, train
from fnn.checkpoint import RunDir
from fnn.generate import generate
from fnn.recipe import Recipe
from fnn.train import silent
from fnn.types import Batch, Data
from tests.registry.rows import integers, normal

MODES = {
    "float64": lambda: jax.enable_x64(True),
    "rbg keys": lambda: jax.default_prng_impl("rbg"),
    "debug_nans": lambda: jax.debug_nans(True),
    "disable_jit": lambda: jax.disable_jit(),
    "checking_leaks": lambda: jax.checking_leaks(),
    "as usual": nullcontext,
}
STEPS, EVERY, BATCH = 4, 2, 3

GPT = models.gpt.gpt2(vocab_size=5, max_length=6, features=4, num_layers=1, num_heads=2)
RNN = models.rnn_lm.RNNLMConfig(vocab_size=5, features=4, widths=(4,))
CNN = models.cnn.CNNConfig(stages=((2,), (3,)), out_features=2)
MLP = models.mlp.MLPConfig(widths=(4,), out_features=2, norm=nn.batch_norm)
TOKENS = integers(7, 4, below=5)
NETWORKS = {
    "mlp": (partial(models.mlp.mlp, MLP), normal(7, 3), integers(7, below=2)),
    "cnn": (partial(models.cnn.cnn, CNN), normal(7, 4, 4, 1), integers(7, below=2)),
    "rnn": (partial(models.rnn_lm.rnn_lm, RNN), TOKENS, TOKENS),
    "gpt": (partial(models.gpt.gpt, GPT), TOKENS, TOKENS),
}


def problem(network):
    """A recipe with all that a step may contain, made anew so that nothing is compiled yet."""
    model, *examples = NETWORKS[network]
    x, y = map(jnp.asarray, examples)

    def recipe(hyper):
        return Recipe(
            model(rate=hyper["rate"]),
            losses.cross_entropy,
            optim.chain(
                optim.clip_by_global_norm(1.0), optim.ema(optim.adamw(weight_decay=hyper["decay"]))
            ),
            schedules.warmup_cosine(hyper["lr"], warmup_steps=2, total_steps=STEPS),
            metrics={"accuracy": metrics.accuracy()},
            measures=(measures.norms, measures.every(3, measures.grad_norms_by_layer)),
        )

    return recipe, Data(train=Batch(x, y), valid=Batch(x[:4], y[:4]))


def hyper():
    return {"lr": 0.01, "rate": 0.1, "decay": 0.1}


def sizes(**more):
    return {"hyper": hyper(), "batch_size": BATCH, **more}


def key():
    return jax.random.key(0)


def fitted(network, folder=None, steps=STEPS, **options):
    recipe, data = problem(network)
    store = None if folder is None else RunDir(folder)
    settings = sizes(steps=steps, eval_every=EVERY, store=store, progress=silent, **options)
    return train.fit(recipe, data, key=key(), **settings)


def fit_with_store(network, folder):
    result = fitted(network, folder / "run")
    again = fitted(network, folder / "run", steps=STEPS + EVERY, resume=True)
    assert again.state.step == STEPS + EVERY
    return [result.state.params, again.state.params, result.history.train]


def run(network, folder):
    recipe, data = problem(network)
    run = train.make_run(recipe, steps=STEPS, batch_size=BATCH, eval_every=EVERY)
    state, history = jax.jit(run)(key(), hyper(), data)
    return [state.params, history.valid, history.train]


def swept(network, folder):
    recipe, data = problem(network)
    settings = {**hyper(), "lr": np.array([0.01, 0.02], np.float32)}
    settings |= {name: np.full(2, settings[name], np.float32) for name in ("rate", "decay")}
    result = train.sweep(
        recipe, data, settings, jax.random.split(key(), 2),
        steps=STEPS, batch_size=BATCH, eval_every=EVERY, progress=silent,
    )  # fmt: skip
    return [result.history.valid]


def range_test(network, folder):
    recipe, data = problem(network)
    curve = diagnose.lr_find(recipe, data, key=key(), **sizes(steps=4, seeds=2, lr_max=0.1))
    return [curve.losses]


def forked(network, folder):
    recipe, data = problem(network)
    state = fitted(network).state
    edits = {"higher": lambda hyper: {**hyper, "lr": 2 * hyper["lr"]}}
    diagnose.fork(recipe, state, data, key=key(), edits=edits, **sizes(steps=2, seeds=2))
    return []


def evaluated(network, folder):
    recipe, data = problem(network)
    state = jax.jit(train.make_init(recipe))(key(), hyper(), data.train.x)
    evaluate = jax.jit(train.make_evaluate(recipe, batch_size=2))
    return [evaluate(state, data.valid, hyper())]


def stepped(network, folder):
    """Two steps, of which the second has an unmeasured measure."""
    recipe, data = problem(network)
    state = jax.jit(train.make_init(recipe))(key(), hyper(), data.train.x)
    step = jax.jit(train.make_step(recipe))
    for _ in range(2):
        state, _ = step(state, data.train, key(), hyper())
    return [state.params]


TASKS = {
    "step": stepped,
    "fit": fit_with_store,
    "run": run,
    "evaluate": evaluated,
    "sweep": swept,
    "lr_find": range_test,
    "fork": forked,
}
# In the default suite all modes see a step, and the one whose numbers differ most a whole fit.
QUICK = {("step", mode) for mode in MODES if mode not in ("disable_jit", "checking_leaks")} | {
    ("fit", "float64")
}
CASES = [
    pytest.param(
        MODES[mode],
        network,
        TASKS[task],
        id=f"{task} of {network}, {mode}",
        marks=[pytest.mark.slow] * (network != "mlp" or (task, mode) not in QUICK),
    )
    for task in TASKS
    for network in NETWORKS
    for mode in MODES
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("mode", "network", "task"), CASES)
def test_training_works(mode, network, task, tmp_path):
    with mode():
        for leaf in jax.tree.leaves(task(network, tmp_path)):
            assert np.isfinite(np.asarray(leaf)).all()
            assert not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(MODES[name], id=name, marks=[pytest.mark.slow] * (name != "float64"))
        for name in MODES
    ],
)
def test_generation_works(mode):
    config = models.gpt.gpt2(vocab_size=5, max_length=6, features=4, num_layers=1, num_heads=2)
    with mode():
        params, _ = models.gpt.gpt(config).init(key(), TOKENS)
        tokens = generate(
            models.gpt.gpt_decoder(config),
            params,
            jnp.asarray(TOKENS[:2]),
            key(),
            max_tokens=2,
            top_k=2,
            top_p=0.9,
        )
        assert tokens.shape == (2, 2) and tokens.dtype == jnp.int32
