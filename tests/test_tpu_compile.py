"""Training steps compiled for a TPU v5e by its own compiler, on a machine that has none.

`make test-tpu` runs this; without libtpu it is skipped. See `fnn.plan` for what the compiler says.
"""

import importlib.util
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from fnn import Recipe, losses, models, nn, optim, plan, schedules, tree
from fnn.generate import generate
from fnn.train import make_init, make_run, make_step
from fnn.types import Batch, Data
from tests import registry
from tests.registry import models as model_rows
from tests.registry.rows import normal
from tests.test_lowering import mean_square

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]
KEY = jax.eval_shape(lambda: jax.random.key(0))
HYPER = {"lr": jax.ShapeDtypeStruct((), jnp.float32)}


@pytest.fixture(scope="module")
def tpu():
    return SingleDeviceSharding(plan.tpu_devices("v5e")[0])


def compiled(function, tpu, *shapes):
    def on_tpu(a):
        where = tpu if isinstance(a, jax.Array) else a.sharding or tpu
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where)

    placed = jax.tree.map(on_tpu, shapes)
    return plan.compile_for_tpu(jax.jit(function), *placed)


def compiled_step(recipe, tpu, x, y):
    state = jax.eval_shape(make_init(recipe), KEY, HYPER, x)
    return compiled(make_step(recipe), tpu, state, (x, y), KEY, HYPER)


@pytest.mark.parametrize("row", model_rows.MODELS, ids=lambda row: row.name)
def test_the_step_of_a_model_compiles(row, tpu):
    def recipe(hyper):
        return Recipe(row.make(), mean_square, optim.sgd(), schedules.constant(hyper["lr"]))

    x = jax.tree.map(jnp.asarray, row.x)
    examples = len(jax.tree.leaves(x)[0])
    assert compiled_step(recipe, tpu, x, jnp.asarray(normal(examples)))


OPTIMIZERS = [r for r in registry.OPTIMIZERS if r.name in ("adam", "muon", "shampoo", "adafactor")]


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
def test_the_step_of_an_optimizer_compiles(row, tpu):
    def recipe(hyper):
        optimizer = row.make(**row.scalars)
        return Recipe(
            nn.linear(2), losses.mean_squared_error, optimizer, schedules.constant(hyper["lr"])
        )

    assert compiled_step(recipe, tpu, jnp.ones((4, 3)), jnp.ones((4, 2)))


CONFIG = models.gpt.gpt2(
    vocab_size=256, max_length=256, features=128, num_layers=2, num_heads=2, scan=True
)
TOKENS = jax.ShapeDtypeStruct((2, 256), jnp.int32)


def language_model(hyper):
    return nn.mixed_bfloat16(
        Recipe(
            models.gpt.gpt(CONFIG),
            losses.cross_entropy,
            optim.adamw(weight_decay=0.1),
            schedules.constant(hyper["lr"]),
        )
    )


def test_attention_is_the_kernel_of_the_tpu(tpu):
    text = compiled_step(language_model, tpu, TOKENS, TOKENS).as_text()
    assert "splash" in text


def test_products_in_8_bits_compile(tpu):
    for change in (nn.fp8, partial(nn.fp8, scaling="delayed")):
        recipe = lambda hyper, change=change: change(language_model(hyper))  # noqa: E731
        assert "f8e4m3" in compiled_step(recipe, tpu, TOKENS, TOKENS).as_text()


def test_offloaded_states_and_values_lie_in_host_memory(tpu):
    block = replace(CONFIG.block, remat=nn.offload("mlp_hidden"))

    def recipe(hyper):
        plain = language_model(hyper)
        model = models.gpt.gpt(replace(CONFIG, block=block))
        return plain._replace(model=model, optimizer=optim.offload(plain.optimizer))

    state = jax.eval_shape(make_init(recipe), KEY, HYPER, TOKENS)
    host = tpu.with_memory_kind("pinned_host")
    placed = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=host if a.ndim else tpu),
        state.opt_state,
    )
    program = compiled(
        make_step(recipe),
        tpu,
        replace(state, opt_state=placed),
        (TOKENS, TOKENS),
        KEY,
        HYPER,
    )
    memory = program.memory_analysis()
    assert memory.host_argument_size_in_bytes >= 2 * tree.nbytes(state.params)
    assert memory.host_temp_size_in_bytes > 0


def test_forward_mode_compiles(tpu):
    model = models.gpt.gpt(CONFIG)
    params, _ = jax.eval_shape(model.init, KEY, TOKENS)

    def tangent(params, tokens):
        def loss(params):
            logits, _ = model.apply(params, (), tokens, train=True)
            return losses.cross_entropy(logits, tokens).mean()

        return jax.jvp(loss, (params,), (params,))

    assert compiled(tangent, tpu, params, TOKENS)


def test_a_run_and_a_sweep_of_runs_compile(tpu):
    def recipe(hyper):
        return Recipe(
            nn.sequential(nn.linear(8), jax.nn.relu, nn.linear(2)),
            losses.cross_entropy,
            optim.adam(),
            schedules.constant(hyper["lr"]),
        )

    x, y = np.zeros((64, 4), np.float32), np.zeros(64, np.int32)
    data = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), Data(train=Batch(x, y), valid=Batch(x, y))
    )
    run = make_run(recipe, steps=10, batch_size=16)
    assert compiled(run, tpu, KEY, HYPER, data)
    many = {"lr": jax.ShapeDtypeStruct((8,), jnp.float32)}
    assert compiled(jax.vmap(run, (None, 0, None)), tpu, KEY, many, data)


def test_generation_compiles(tpu):
    decoder = models.gpt.gpt_decoder(CONFIG)
    params, _ = jax.eval_shape(models.gpt.gpt(CONFIG).init, KEY, TOKENS)
    prompt = jax.ShapeDtypeStruct((2, 8), jnp.int32)

    def sampled(params, prompt, key):
        return generate(decoder, params, prompt, key, max_tokens=8, top_k=5)

    assert compiled(sampled, tpu, params, prompt, KEY)
