"""Attention by tiles and by kernels is the dense one, in memory linear in the length."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import layers, xla
from fnn.layers import AttentionMask, attention, dot_product_attention
from fnn.layers.attention import kernels
from fnn.layers.attention.blockwise import Masks, TileRule
from tests.compiled import expect_same
from tests.registry.rows import normal
from tests.shapes import unchecked

SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [2] * 10])
MEMORY_SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3, 3], [2] * 13])


def drawn(*shape):
    return np.random.default_rng(6).random(shape) < 0.5


# name: mask, T, S, H, K, options
CASES = {
    "nothing masked, one query": (None, 1, 13, 2, 1, {}),
    "causal": (AttentionMask(causal=True), 10, 10, 2, 2, {}),
    "causal, more keys": (AttentionMask(causal=True), 7, 13, 2, 1, {}),
    "causal, more queries": (AttentionMask(causal=True), 13, 7, 2, 1, {}),
    "window": (AttentionMask(window=(3, 2)), 13, 13, 2, 1, {"scale": 0.3}),
    "causal window, softcap": (
        AttentionMask(causal=True, window=(4, 0)), 16, 16, 4, 2, {"softcap": 2.0},
    ),
    "window that leaves queries without keys": (AttentionMask(window=(0, 0)), 13, 7, 2, 2, {}),
    "lengths": (AttentionMask(lengths=np.array([0, 9])), 10, 13, 2, 1, {}),
    "segments": (AttentionMask(causal=True, segments=SEGMENTS), 10, 10, 2, 2, {}),
    "segments of a memory, lengths": (
        AttentionMask(
            segments=SEGMENTS, memory_segments=MEMORY_SEGMENTS, lengths=np.array([3, 9])
        ), 10, 13, 4, 1, {},
    ),
    "segments and a mask of keys": (
        AttentionMask(segments=SEGMENTS, mask=drawn(2, 1, 1, 10)), 10, 10, 2, 2, {},
    ),
    "array": (drawn(2, 4, 10, 13), 10, 13, 4, 2, {}),
    "array for all heads and examples": (drawn(1, 1, 10, 13), 10, 13, 4, 2, {}),
    "array of queries": (drawn(2, 4, 10, 1), 10, 13, 4, 2, {}),
    "array of keys": (drawn(2, 1, 1, 13), 10, 13, 4, 2, {}),
    "array of keys by head": (drawn(1, 4, 1, 13), 10, 13, 4, 2, {"scale": np.float64(0.7)}),
}  # fmt: skip


def arrays(queries, keys, heads, kv_heads, dtype=np.float64):
    shapes = (2, queries, heads, 4), (2, keys, kv_heads, 4), (2, keys, kv_heads, 3)
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def all_derivatives(function, inputs, directions, weights):
    """The value, its gradients and tangent, and the tangent of the gradients."""

    def loss(*inputs):
        return (weights * function(*inputs)).sum()

    argnums = (0, 1, 2)
    value, tangent = jax.jvp(function, inputs, directions)
    gradients, second = jax.jvp(jax.grad(loss, argnums), inputs, directions)
    return value, tangent, gradients, second


@pytest.mark.parametrize("name", CASES)
def test_attention_by_tiles_is_the_dense_one_with_all_its_derivatives(name):
    mask, queries, keys, heads, kv_heads, options = CASES[name]
    with jax.enable_x64(True):
        inputs = tuple(map(jnp.asarray, arrays(queries, keys, heads, kv_heads)))
        directions = tuple(jnp.asarray(normal(*x.shape, seed=7)).astype(x.dtype) for x in inputs)
        weights = jnp.asarray(normal(2, queries, heads, 3, seed=8), jnp.float64)
        mask = jax.tree.map(jnp.asarray, mask)
        given = {"mask": mask, **options}

        @jax.jit
        def both(inputs):
            tiles = partial(attention, **given, implementation="blockwise", block_size=4)
            dense = partial(dot_product_attention, **given)
            return [all_derivatives(f, inputs, directions, weights) for f in (tiles, dense)]

        got, wanted = both(inputs)
    # A query with one key has gradients of 0, of which some are roundings here.
    same = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(same, got, wanted)


def test_a_vmap_over_queries_with_shared_keys_is_a_loop():
    query, key, value = (jnp.asarray(x) for x in arrays(10, 10, 2, 2, np.float32))
    queries = jnp.stack([query, 2 * query])

    def gradients(query, key):
        tiles = partial(
            attention, mask=AttentionMask(causal=True), implementation="blockwise", block_size=4
        )
        return jax.grad(lambda *x: jnp.square(tiles(*x, value)).sum(), (0, 1))(query, key)

    got = jax.jit(jax.vmap(gradients, (0, None)))(queries, key)
    expect_same(got, jax.tree.map(lambda *x: jnp.stack(x), *(gradients(q, key) for q in queries)))


def test_in_bfloat16_the_sums_are_of_float32():
    wide = [jnp.asarray(x) for x in arrays(40, 40, 2, 2, np.float32)]
    narrow = [x.astype(jnp.bfloat16) for x in wide]

    def result(inputs, implementation):
        rule = partial(
            attention, mask=AttentionMask(causal=True), implementation=implementation, block_size=8
        )
        loss = lambda *x: rule(*x).astype(jnp.float32).sum()  # noqa: E731
        return rule(*inputs), jax.grad(loss, (0, 1, 2))(*inputs)

    got = jax.jit(partial(result, implementation="blockwise"))(narrow)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(got))
    rounded = [x.astype(jnp.float32) for x in narrow]
    # Inputs and outputs are rounded by up to 2^-9, and weights are before their product.
    expect_same(got, jax.jit(partial(result, implementation="dense"))(rounded), 4 * 2**-8)


def test_where_kernels_stand_by_every_derivative_and_vmap_is_that_of_the_tiles():
    """On this machine the tiles run; what JAX traces for a TPU stands beside them."""
    shapes = (2, 256, 2, 64), (2, 256, 1, 64), (2, 256, 1, 64)
    inputs, directions = (
        tuple(jnp.asarray(normal(*shape, seed=i + s)) for i, shape in enumerate(shapes))
        for s in (0, 5)
    )
    weights = jnp.asarray(normal(2, 256, 2, 64, seed=8))

    @jax.jit
    def both():
        rules = [
            partial(attention, mask=AttentionMask(causal=True), implementation=implementation)
            for implementation in ("auto", "blockwise")
        ]
        batched = [jax.vmap(rule)(*(x[None] for x in inputs)) for rule in rules]
        return [all_derivatives(f, inputs, directions, weights) for f in rules], batched

    (got, wanted), (got_batch, wanted_batch) = both()
    expect_same(got, wanted)
    expect_same(got_batch, wanted_batch)


def test_a_program_for_several_tpus_has_tiles_in_place_of_the_kernel():
    from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    shape = jax.ShapeDtypeStruct(
        (2, 256, 2, 64),
        jnp.bfloat16,
        sharding=NamedSharding(mesh, PartitionSpec("data")),
    )

    def loss(*heads):
        return attention(*heads, mask=AttentionMask(causal=True)).astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(loss)).trace(*[shape] * 3).lower(lowering_platforms=("tpu",))
    assert "tpu_custom_call" not in lowered.as_text()


def memory_of(length, implementation, derivative):
    """Bytes of temporaries of attention to one head."""
    shape = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    rule = partial(
        attention,
        mask=AttentionMask(causal=True),
        implementation=implementation,
        block_size=128,
    )
    functions = {
        "value": rule,
        "gradient": jax.grad(lambda *x: rule(*x).sum(), (0, 1, 2)),
        "tangent": lambda *x: jax.jvp(rule, x, x)[1],
    }
    compiled = jax.jit(functions[derivative]).lower(*[shape] * 3).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("derivative", ["value", "gradient", "tangent"])
def test_the_memory_is_linear_in_the_length(derivative):
    short, long = (memory_of(n, "auto", derivative) for n in (1024, 8192))
    assert long < 9 * short  # 64 times, were it quadratic
    assert long < memory_of(8192, "dense", derivative) / 20


@pytest.mark.parametrize("length, kernel", [(512, True), (511, False)])
def test_a_tpu_gets_the_kernel_where_it_computes_the_same(length, kernel):
    shapes = [jax.ShapeDtypeStruct((2, length, heads, 64), jnp.bfloat16) for heads in (4, 2, 2)]
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)

    def loss(query, key, value, lengths):
        mask = AttentionMask(causal=True, window=(99, 0), lengths=lengths)
        return attention(query, key, value, mask=mask, softcap=30.0).astype(jnp.float32).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2)))
    exported = jax.export.export(program, platforms=["tpu"])(*shapes, lengths)
    assert ("tpu_custom_call" in exported.mlir_module()) == kernel


def test_the_kernel_of_the_tpu_is_the_dense_attention(monkeypatch):
    """By Pallas' interpreter, at sizes that it can run."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    interpreted = partial(splash.make_splash_mha_single_device, interpret=True)
    monkeypatch.setattr(splash, "make_splash_mha_single_device", interpreted)
    shapes = (2, 256, 2, 64), (2, 256, 1, 64), (2, 256, 1, 64)
    inputs = [jnp.asarray(normal(*shape, seed=i)) for i, shape in enumerate(shapes)]
    segments = jnp.repeat(jnp.array([[0, 1, 1, 2], [0, 0, 0, 0]]), 64, axis=1)
    mask = AttentionMask(
        causal=True, window=(99, 0), segments=segments, lengths=jnp.array([0, 200])
    )

    def result(implementation):
        rule = partial(attention, mask=mask, implementation=implementation)
        return rule(*inputs), jax.grad(lambda *x: jnp.square(rule(*x)).sum(), (0, 1, 2))(*inputs)

    # The kernel multiplies in bfloat16 where a TPU does; the interpreter is told the same.
    expect_same(jax.jit(partial(result, "splash"))(), jax.jit(partial(result, "dense"))(), 1e-4)


HEADS = [jnp.zeros((1, 8, 2, 8))] * 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bias": jnp.zeros((1, 1, 8, 8)), "implementation": "blockwise"}, "for a bias"),
        ({"drop": lambda w: w, "implementation": "cudnn"}, "for dropout of the weights"),
        ({"implementation": "splash"}, "takes lengths in multiples of 128"),
        ({"implementation": "flash"}, "implementation"),
        ({"block_size": 0}, "block_size"),
    ],
)
def test_an_implementation_that_cannot_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unchecked(layers.attention)(*HEADS, **options)


@pytest.mark.parametrize(
    "mask, message",
    [
        (AttentionMask(window=(-1, 0)), r"window \(before, after\) .* got \(-1, 0\)"),
        (AttentionMask(memory_segments=jnp.zeros((1, 8), int)), "expected segments with"),
        (AttentionMask(segments=jnp.zeros((8,), int)), r"segments of integers \(1, 8\)"),
        (
            AttentionMask(lengths=jnp.zeros((2,), int)),
            r"lengths of integers \(1,\), got int32\[2\]",
        ),
        (AttentionMask(lengths=jnp.zeros((1,))), r"lengths of integers .* float32\[1\]"),
    ],
)
@pytest.mark.parametrize("function", [attention, dot_product_attention])
def test_a_rule_that_does_not_fit_is_refused(function, mask, message):
    with pytest.raises(ValueError, match=message):
        unchecked(function)(*HEADS, mask=mask)


def test_segments_of_other_keys_are_asked_for():
    query, key, value = (jnp.zeros((1, n, 2, 8)) for n in (8, 9, 9))
    with pytest.raises(ValueError, match="expected memory_segments for 8 queries and 9 keys"):
        attention(query, key, value, mask=AttentionMask(segments=jnp.zeros((1, 8), int)))


def test_the_choice_is_logged_once_with_its_reason(caplog):
    x = jnp.zeros((1, 300, 1, 8))
    with caplog.at_level(logging.INFO, logger="fnn.layers.attention.attention"):
        attention(x, x, x)
        attention(x, x, x)
        attention(x, x, x, bias=jnp.zeros((1, 1, 300, 300)))
    assert [record.getMessage() for record in caplog.records] == [
        "attention of float32 queries (1, 300, 1, 8): blockwise",
        "attention of float32 queries (1, 300, 1, 8): dense, for a bias",
    ]


def test_without_workarounds_it_is_the_textbook_expression():
    x = jnp.asarray(normal(1, 300, 1, 8))
    with xla.plain():
        text = str(jax.make_jaxpr(attention)(x, x, x))
    assert "fnn_linear_call" not in text and "scan" not in text


def test_what_the_kernels_lack_is_said():
    x = jnp.zeros((1, 256, 2, 64), jnp.float32)
    rule, masks = TileRule(False, None, 1.0, None, 128), Masks(None, None, None, None)
    assert kernels.why_not_splash(rule, x, x, x, masks) == ""
    assert kernels.why_not_cudnn(rule, x, x, x, masks) != ""


@pytest.mark.parametrize("rule", ["causal", "all keys", "lengths", "odd keys, even queries"])
def test_cudnn_gets_even_lengths(rule, monkeypatch):
    # Its backward pass refuses odd ones, as those of a ViT: 14 x 14 patches and a class token.
    plain = jax.nn.dot_product_attention

    def even_lengths(query, key, value, *, implementation, **how):
        assert query.shape[1] % 2 == key.shape[1] % 2 == 0 and implementation == "cudnn"
        return plain(query, key, value, implementation="xla", **how)

    monkeypatch.setattr(jax.nn, "dot_product_attention", even_lengths)
    queries = 12 if rule == "odd keys, even queries" else 13
    query, key, value = (
        jnp.asarray(normal(2, n, 2, 8, seed=i), jnp.float32)
        for i, n in enumerate([queries, 13, 13])
    )
    lengths = jnp.array([0, 5]) if rule == "lengths" else None
    tiles = TileRule(rule == "causal", None, 0.3, None, 128)
    masks = Masks(None, None, lengths, None)
    wanted = dot_product_attention(
        query,
        key,
        value,
        scale=0.3,
        mask=AttentionMask(causal=tiles.causal, lengths=lengths).dense(queries, 13),
    )
    np.testing.assert_allclose(
        kernels.cudnn(tiles, query, key, value, masks), wanted, rtol=1e-5, atol=1e-5
    )
