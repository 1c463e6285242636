"""What a summary says agrees with what is computed, and it computes nothing."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import models, nn, optim
from fnn.activations import relu
from fnn.diagnose import summary
from fnn.flops import count_flops
from fnn.nn import cast, remat, residual, sequential, stack
from fnn.train import compile_cache
from fnn.types import Model

MLP = models.mlp.mlp(
    models.mlp.MLPConfig(widths=(8, 8), out_features=3, norm=nn.batch_norm), rate=0.5
)
X = np.zeros((4, 5), np.float32)
SPEC = jax.ShapeDtypeStruct


def test_leaves_counts_and_bytes_are_those_of_the_parameters():
    table = summary(MLP, X)
    params, model_state = MLP.init(jax.random.key(0), X)
    for leaves, values in ((table.params, params), (table.model_state, model_state)):
        arrays = jax.tree.leaves(values)
        assert [leaf.shape for leaf in leaves] == [a.shape for a in arrays]
        assert [leaf.dtype for leaf in leaves] == [a.dtype.name for a in arrays]
        assert [leaf.bytes for leaf in leaves] == [a.nbytes for a in arrays]
    assert table.count == sum(a.size for a in jax.tree.leaves(params))
    assert table.bytes == 4 * table.count
    assert (table.inputs, table.outputs) == ("float32[4,5]", "float32[4,3]")


def test_a_linear_map_costs_what_its_products_do():
    n, d, k = 16, 64, 32
    table = summary(nn.linear(k, bias=False), SPEC((n, d), jnp.float32))
    product = 2 * n * d * k
    assert product <= table.forward_flops < 1.01 * product
    # The gradient to the kernel is one more product; the input needs none. The sum and the last
    # layer's cotangents are elementwise.
    assert 2 * product <= table.step_flops < 2.1 * product


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (stack(nn.linear(16), n), SPEC((4, 16), jnp.float32)),
        lambda n: (nn.gru(8), SPEC((4, n, 6), jnp.float32)),
    ],
    ids=["layers of a stack", "steps of a recurrent layer"],
)
def test_what_a_scan_repeats_is_counted_as_often(make):
    few, many = (summary(*make(n)) for n in (5, 20))
    for name in ("forward_flops", "step_flops"):
        assert 3.8 < getattr(many, name) / getattr(few, name) <= 4.1, name


def test_scans_in_scans_are_multiplied():
    def nested(x):
        inner = lambda x, _: (x @ x, None)  # noqa: E731
        outer = lambda x, _: (jax.lax.scan(inner, x, None, length=3)[0], None)  # noqa: E731
        return jax.lax.scan(outer, jax.lax.scan(inner, x, None, length=2)[0], None, length=5)[0]

    product = 2 * 8**3
    flops = count_flops(jax.jit(nested), SPEC((8, 8), jnp.float32))
    assert 17 * product <= flops < 17.2 * product  # 2 + 5 * 3, and the counters of the loops


def test_nothing_is_computed():
    def never(*_):
        raise AssertionError("computed")

    inner = nn.linear(4)

    def apply(params, model_state, x, *, key=None, train=False):
        jax.debug.callback(never)
        return inner.apply(params, model_state, x, key=key, train=train)

    huge = SPEC((10**6, 10**5), jnp.float32)  # 400 GB
    assert summary(Model(inner.init, apply), huge).count == 4 * 10**5 + 4


def test_models_of_trees_integers_and_no_parameters_have_a_summary():
    pair = (SPEC((2, 3), jnp.float32), SPEC((2, 4), jnp.float32))
    assert summary(nn.bilinear(5), pair).inputs == "0: float32[2,3], 1: float32[2,4]"
    words = summary(sequential(nn.embedding(7, 3), nn.linear(2)), np.zeros((2, 4), np.int32))
    assert (words.inputs, words.outputs) == ("int32[2,4]", "float32[2,4,2]")
    empty = summary(nn.flatten(), X)
    assert (empty.count, empty.bytes, empty.params) == (0, 0, ())
    assert "parameters: 0 (0 B)" in str(empty)


def layers_by_path(model, x):
    return {layer.path: layer for layer in summary(model, x).layers}


B, T, E, H = 4, 6, 16, 24
WORDS = SPEC((B, T), jnp.int32)
SERIES = SPEC((B, T, E), jnp.float32)
IMAGES = SPEC((B, 8, 8, 3), jnp.float32)


@pytest.mark.parametrize(
    ("model", "x", "kind", "output", "count", "products"),
    [
        (nn.linear(H), SERIES, "linear", (B, T, H), E * H + H, 2 * B * T * E * H),
        (nn.conv(H, (3, 3)), IMAGES, "conv", (B, 8, 8, H), 27 * H + H, 2 * B * 64 * 27 * H),
        (nn.conv(H, (3, 3), stride=2, bias=False), IMAGES, "conv", (B, 4, 4, H), 27 * H,
         2 * B * 16 * 27 * H),
        (nn.depthwise_conv((3, 3)), SPEC((B, 8, 8, H), jnp.float32), "depthwise_conv",
         (B, 8, 8, H),
         9 * H + H, 2 * B * 64 * 9 * H),
        (nn.self_attention(2), SERIES, "self_attention", (B, T, E), 4 * (E * E + E),
         4 * 2 * B * T * E * E + 2 * 2 * B * T * T * E),
        (nn.lstm(H), SERIES, "lstm", (B, T, H), 4 * H * (E + H) + 4 * H,
         2 * B * T * 4 * H * (E + H)),
        (nn.embedding(100, E), WORDS, "embedding", (B, T, E), 100 * E, 0),
        (nn.layer_norm(), SERIES, "layer_norm", (B, T, E), 2 * E, 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_numbers_of_a_layer_are_those_by_hand(model, x, kind, output, count, products):
    [layer] = summary(model, x).layers
    assert (layer.kind, layer.output, layer.count) == (kind, str(output), count)
    # Biases, gates, normalizations and softmax: a few dozen operations for an element.
    elements = 40 * B * T * H if kind not in ("conv", "depthwise_conv") else B * 64 * H
    if kind == "self_attention":
        elements += 12 * B * 2 * T * T
    assert products <= layer.flops <= products + elements
    if kind == "linear":
        assert layer.flops == products + B * T * H


def test_layers_have_kinds_shapes_and_sums_that_agree_with_the_totals():
    table = summary(MLP, X)
    found = {layer.path: (layer.kind, layer.output, layer.count) for layer in table.layers}
    assert found == {
        "hidden/0/linear": ("linear", "(4, 8)", 40),
        "hidden/0/norm": ("batch_norm", "(4, 8)", 16),
        "hidden/0/activation": ("relu", "(4, 8)", 0),
        "hidden/1/linear": ("linear", "(4, 8)", 64),
        "hidden/1/norm": ("batch_norm", "(4, 8)", 16),
        "hidden/1/activation": ("relu", "(4, 8)", 0),
        "head": ("linear", "(4, 3)", 27),
    }
    assert sum(layer.count for layer in table.layers) == table.count
    assert sum(layer.flops for layer in table.layers) == table.forward_flops


BLOCK = residual(
    sequential(norm=nn.layer_norm(), up=nn.linear(32), act=jnp.tanh, down=nn.linear(16))
)
PER_BLOCK = 2 * 16 + 16 * 32 + 32 + 32 * 16 + 16


@pytest.mark.sampled(2)
@pytest.mark.parametrize("scan", [True, False])
def test_a_stack_is_one_line_with_the_layers_of_one_below(scan):
    model = sequential(nn.linear(16), stack(BLOCK, 12, scan=scan), nn.linear(3))
    table = summary(model, X)
    _, blocks, head, *other = table.layers
    assert (blocks.times, blocks.count) == (12, 12 * PER_BLOCK)
    assert [layer.kind for layer in blocks.layers] == ["layer_norm", "linear", "tanh", "linear"]
    assert [layer.count for layer in blocks.layers] == [32, 16 * 32 + 32, 0, 32 * 16 + 16]
    assert blocks.flops == 12 * sum(layer.flops for layer in blocks.layers)
    assert head.count == 16 * 3 + 3 and [layer.kind for layer in other] == ["(other)"]
    assert sum(layer.count for layer in table.layers) == table.count
    lines = str(table).splitlines()
    assert sum(" x 12 " in line for line in lines) == 1
    assert sum(line.startswith("  ") for line in lines) == 4


def test_blocks_of_a_list_that_are_alike_are_one_line():
    table = summary(sequential(*[nn.linear(5)] * 3, nn.linear(3)), X)
    assert [(layer.path, layer.times, layer.count) for layer in table.layers] == [
        ("0-2", 3, 3 * 30),
        ("3", 1, 18),
    ]
    config = models.gpt.gpt2(vocab_size=11, max_length=6, features=8, num_layers=3, num_heads=2)
    [blocks] = [layer for layer in summary(models.gpt.gpt(config), WORDS).layers if layer.layers]
    assert (blocks.path, blocks.times) == ("blocks/0-2", 3)
    assert [layer.path.split("/")[-1] for layer in blocks.layers] == [
        "attention_norm", "attention", "mlp_norm", "mlp",
    ]  # fmt: skip


def test_layers_of_any_function_are_found_with_what_is_not_used_and_what_is_in_none():
    def init(key, x):
        draw = lambda *shape: jnp.ones(shape)  # noqa: E731
        return {"a": {"w": draw(5, 7)}, "b": {"w": draw(7, 2)}, "c": {"w": draw(9)}}, ()

    def project(params, x):
        return x @ params["w"]

    def apply(params, model_state, x, *, key=None, train=False):
        h = project(params["a"], x)
        return project(params["b"], h * h), model_state

    found = layers_by_path(Model(init, apply), X)
    assert [(p, layer.kind, layer.output, layer.count) for p, layer in found.items()] == [
        ("a", "project", "(4, 7)", 35),
        ("b", "project", "(4, 2)", 14),
        ("c", "(unused)", "", 9),
        ("", "(other)", "", 0),
    ]
    assert found["a"].flops == 2 * 4 * 5 * 7 and found[""].flops == 4 * 7


def test_parameters_that_two_layers_share_are_counted_once():
    config = models.gpt.gpt2(vocab_size=11, max_length=6, features=8, num_layers=1, num_heads=2)
    table = summary(models.gpt.gpt(config), WORDS)
    kinds = [layer.kind for layer in table.layers if layer.path == "tokens"]
    assert kinds == ["embedding", "unembed"]
    assert sum(layer.count for layer in table.layers) == table.count


@pytest.mark.parametrize(
    "wrap", [remat, jax.jit, lambda m: cast(m, jnp.bfloat16)], ids=["remat", "jit", "cast"]
)
def test_layers_are_found_inside_of_what_computes_them_in_another_way(wrap):
    model = sequential(nn.linear(8), relu, nn.linear(3))
    wrapped = (
        Model(model.init, jax.jit(model.apply, static_argnames="train"))
        if wrap is jax.jit
        else wrap(model)
    )
    plain, found = summary(model, X), summary(wrapped, X)
    assert [(a.path, a.kind, a.count) for a in found.layers if a.kind[0] != "("] == [
        (a.path, a.kind, a.count) for a in plain.layers
    ]


def test_the_state_of_the_optimizer_is_counted_in_bytes():
    table = summary(MLP, X, optimizer=optim.adam())
    assert sum(leaf.bytes for leaf in table.opt_state) == 2 * table.bytes + 4
    assert "optimizer state: " in str(table) and "optimizer state" not in str(summary(MLP, X))


def test_the_table_is_aligned_and_has_at_most_80_columns():
    lines = str(summary(MLP, X)).splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    assert lines[0].split() == ["layer", "kind", "output", "params", "FLOPs"]
    assert len({len(line) for line in lines[: rule + 1]}) == 1  # aligned to the right
    assert [line.split(":")[0] for line in lines[rule + 1 :]] == [
        "parameters", "model state", "input", "output", "FLOPs of the batch",
    ]  # fmt: skip
    long = {f"a_name_that_is_as_long_as_it_can_be_{i}": nn.linear(10**6) for i in range(2)}
    nested = sequential(outer_part_with_a_long_name=sequential(**long))
    lines = str(summary(nested, SPEC((1024, 10**6), jnp.float32))).splitlines()
    assert max(map(len, lines)) <= 80 and any("..." in line for line in lines)


CACHED = """
import sys, jax
from fnn.train import compile_cache
print(compile_cache(*sys.argv[1:]))
jax.jit(lambda x: x * 2 + 1)(1.0)
"""


@pytest.mark.slow
def test_the_second_start_finds_what_the_first_compiled(tmp_path):
    def start(*arguments, **variables):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
        ran = subprocess.run(
            [sys.executable, "-c", CACHED, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    assert start(str(tmp_path / "a")) == str(tmp_path / "a")
    entries = {f.name for f in (tmp_path / "a").iterdir() if f.name.endswith("-cache")}
    assert entries
    assert start(FNN_CACHE=str(tmp_path / "a")) == str(tmp_path / "a")
    assert {f.name for f in (tmp_path / "a").iterdir() if f.name.endswith("-cache")} == entries


def test_the_cache_is_in_the_users_own_by_default(tmp_path, monkeypatch):
    set_to = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    monkeypatch.delenv("FNN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache() == tmp_path / "fnn" / "compiled"
    assert set_to["jax_compilation_cache_dir"] == str(tmp_path / "fnn" / "compiled")
    assert compile_cache(tmp_path / "own") == tmp_path / "own"


def test_a_cache_that_cannot_be_written_to_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="got '.*file/a'.*; give another path, or set FNN_CACHE"):
        compile_cache(tmp_path / "file" / "a")
