"""Convolutions beside torch's with the same weights, their derivatives of every order, and laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import layers, nn
from tests.against_torch import expect_like_torch
from tests.compiled import compiled, expect_same
from tests.registry.rows import normal
from tests.shapes import unchecked

torch.set_num_threads(1)


@st.composite
def geometries(draw):
    """Sizes, window, stride, dilation, pairs and groups, with room for one place at least."""
    n = draw(st.sampled_from([2, 1, 3]))

    def each(*choices):
        return tuple(draw(st.sampled_from(choices)) for _ in range(n))

    # Volumes get small windows: each of their places is code to compile.
    window, stride, dilation = each(2, 3, 1) if n < 3 else each(2, 1), each(1, 2, 3), each(1, 2)
    reach = [d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True)]
    before, after = each(0, 1, 2), each(1, 0, -1, 2)
    least = [max(r - a - b, 1 - min(b, 0)) for r, a, b in zip(reach, before, after, strict=True)]
    return {
        "sizes": tuple(n + more for n, more in zip(least, each(5, 0, 4, 1, 6), strict=True)),
        "window": window,
        "stride": stride,
        "dilation": dilation,
        "padding": tuple(zip(before, after, strict=True)),
        "groups": draw(st.sampled_from([1, 2, 3])),
        "features": (draw(st.sampled_from([2, 1, 4, 3])), draw(st.integers(1, 2))),  # of a group
        "batch": draw(st.integers(1, 2)),
    }


def arguments(g):
    """x, kernel and bias for a geometry."""
    ins, outs = (n * g["groups"] for n in g["features"])
    x = normal(g["batch"], *g["sizes"], ins)
    return x, normal(*g["window"], g["features"][0], outs, seed=1), normal(outs, seed=2)


def torch_function(name, axes):
    return getattr(F, f"{name}{axes}d")


def torch_pad(x, padding, mode="constant"):
    """x (batch, *sizes, features) with its features first and its edges padded."""
    flat = [n for pair in reversed(padding) for n in pair]
    return F.pad(x.movedim(-1, 1), flat, mode=mode)


def torch_conv(x, kernel, bias, *, padding, mode="constant", **options):
    conv = torch_function("conv", x.ndim - 2)
    # Without contiguous(), torch 2.13 fails in the gradient.
    weight = kernel.movedim((-1, -2), (0, 1)).contiguous()
    return conv(torch_pad(x, padding, mode), weight, bias, **options).movedim(1, -1)


@pytest.mark.slow
@settings(max_examples=10)  # each compiles two programs
@given(geometries())
def test_a_convolution_and_its_gradients_are_those_of_torch(g):
    options = {name: g[name] for name in ("stride", "dilation", "groups", "padding")}
    case = (
        lambda x, kernel, bias: layers.conv({"kernel": kernel, "bias": bias}, x, **options),
        lambda x, kernel, bias: torch_conv(x, kernel, bias, **options),
    )
    expect_like_torch({"conv": case}, *arguments(g), moving=3)


def torch_conv_transpose(x, kernel, bias, *, stride, dilation, groups, padding):
    *window, ins, outs = kernel.shape
    weight = kernel.reshape(*window, ins, groups, outs // groups)
    weight = weight.movedim((-2, -3, -1), (0, 1, 2)).reshape(ins * groups, -1, *window)
    transposed = torch_function("conv_transpose", len(window))
    # Without contiguous(), torch 2.13 fails in the gradient.
    y = transposed(
        x.movedim(-1, 1), weight.contiguous(), stride=stride, dilation=dilation, groups=groups
    )
    # A pair of padding is what torch calls padding=p, output_padding=q with q = p - after.
    y = F.pad(y, [-n for pair in reversed(padding) for n in pair]).movedim(1, -1)
    return y + bias


@pytest.mark.slow
@settings(max_examples=10)  # each compiles two programs
@given(geometries())
def test_a_transposed_convolution_and_its_gradients_are_those_of_torch(g):
    options = {name: g[name] for name in ("stride", "dilation", "groups")}
    full = zip(g["sizes"], g["window"], g["stride"], g["dilation"], strict=True)
    room = [(n - 1) * s + d * (w - 1) for n, w, s, d in full]
    options["padding"] = tuple(
        (min(before, n), min(after, n - min(before, n)))
        for (before, after), n in zip(g["padding"], room, strict=True)
    )
    case = (
        lambda x, k, bias: layers.conv_transpose({"kernel": k, "bias": bias}, x, **options),
        lambda x, k, bias: torch_conv_transpose(x, k, bias, **options),
    )
    expect_like_torch({"conv_transpose": case}, *arguments(g), moving=3)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [5, 6])
def test_padding_by_name_is_that_of_torch(size):
    options = {"dilation": 2, "groups": 1}
    cases = {}
    for padding, pair, mode in [
        ("VALID", (0, 0), "constant"),
        ("CAUSAL", (4, 0), "constant"),
        ("CIRCULAR", (2, 2), "circular"),
        ("REFLECT", (2, 2), "reflect"),
    ]:
        cases[padding] = (
            lambda x, k, b, p=padding: layers.conv(
                {"kernel": k, "bias": b}, x, stride=2, padding=p, **options
            ),
            lambda x, k, b, p=pair, m=mode: torch_conv(
                x, k, b, stride=2, padding=(p,), mode=m, **options
            ),
        )
    cases["same"] = (
        lambda x, k, b: layers.conv({"kernel": k, "bias": b}, x, padding="SAME", **options),
        lambda x, k, b: F.conv1d(
            x.movedim(-1, 1), k.movedim((-1, -2), (0, 1)), b, padding="same", **options
        ).movedim(1, -1),
    )
    x, kernel, bias = normal(2, size, 2), normal(3, 2, 3, seed=1), normal(3, seed=2)
    expect_like_torch(cases, x, kernel, bias, moving=3)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3))
def test_same_gives_the_size_divided_by_the_stride_rounded_up(size, window, stride, dilation):
    x = jax.ShapeDtypeStruct((1, size, 1), jnp.float32)
    kernel = jax.ShapeDtypeStruct((window, 1, 1), jnp.float32)
    options = {"stride": stride, "dilation": dilation, "padding": "SAME"}
    of = lambda f: jax.eval_shape(lambda k, x: f({"kernel": k}, x, **options), kernel, x)  # noqa: E731
    assert of(layers.conv).shape == (1, -(-size // stride), 1)
    assert of(layers.conv_transpose).shape == (1, size * stride, 1)


# Derivatives of every order, alone and in a batch. Each of these shapes takes another way through
# the code for CPUs: XLA's convolution, groups, one feature to a group, products of matrices.
WAYS = {
    "by XLA": ((2, 5, 6, 2), (3, 2, 2, 4), {"stride": 2}),
    "in groups": ((2, 6, 4), (2, 2, 6), {"groups": 2, "dilation": 2}),
    "depthwise": ((2, 4, 4, 2), (3, 3, 1, 4), {"groups": 2}),
    "with three colors": ((1, 5, 3), (3, 3, 2), {"stride": 2}),
    "of volumes": ((2, 3, 3, 2, 1), (2, 2, 2, 1, 2), {"padding": "CIRCULAR"}),
    "larger than its input": ((2, 2, 2), (4, 2, 2), {}),
    "in parts of the batch": ((9, 256, 1), (2, 1, 1), {}),
    "by Winograd": ((3, 9, 8, 32), (3, 3, 32, 32), {}),
    "of a point": ((2, 5, 4), (1, 4, 3), {"stride": 2}),
    "strided, of many features": ((1, 4, 5, 64), (3, 3, 64, 64), {"stride": 2}),
}
BY_XLA = ["by XLA", "in groups", "in parts of the batch"]
ways = pytest.mark.parametrize("way", WAYS)


def of_way(way):
    shape, window, options = WAYS[way]
    kernel = normal(*window, seed=1) / np.sqrt(np.prod(window[:-1]), dtype=np.float32)
    return functools.partial(_conv, options), normal(*shape), kernel


def _conv(options, x, kernel):
    return layers.conv({"kernel": kernel}, x, **options)


def _native(options, x, kernel):
    """The same by XLA's convolution and JAX's derivatives of it."""
    from fnn.layers._convolve import _by_xla
    from fnn.layers._window import make_window, pad_copies

    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    window = make_window("conv", x, kernel.shape[:-2], stride, dilation)
    x, pairs = pad_copies("conv", x, window, options.get("padding", "SAME"))
    return _by_xla(window, pairs, options.get("groups", 1), x, kernel)


def slopes(conv, x, kernel):
    """First derivatives of something curved, and second ones along them, in both modes."""

    def curved(x, kernel):
        return jnp.sin(conv(x, kernel)).sum()

    def length(x, kernel):
        return sum(jnp.square(g).sum() for g in jax.grad(curved, (0, 1))(x, kernel))

    first, along = jax.grad(curved, (0, 1)), (jnp.cos(x), jnp.cos(kernel))
    forward = jax.jvp(lambda *point: (curved(*point), first(*point)), (x, kernel), along)[1]
    return first(x, kernel), jax.grad(length, (0, 1))(x, kernel), forward


@pytest.mark.sampled(12)
@ways
def test_second_derivatives_are_those_of_xlas_own_convolution(way):
    conv, x, kernel = of_way(way)
    native = functools.partial(_native, WAYS[way][2])
    with jax.enable_x64(True):
        x, kernel = x.astype(np.float64), kernel.astype(np.float64)
        got, expected = (compiled(functools.partial(slopes, f))(x, kernel) for f in (conv, native))
    expect_same(got, expected, rtol=1e-12)  # float64 keeps sixteen digits; sums of a few hundred


@pytest.mark.sampled(12)
@ways
def test_a_batch_of_convolutions_and_of_their_gradients_is_a_loop_over_them(way):
    conv, x, kernel = of_way(way)
    xs, kernels = np.stack([x, 2 * x]), np.stack([kernel, 2 * kernel])

    def both(x, kernel):
        y, pull = jax.vjp(conv, x, kernel)
        return y, pull(jnp.cos(y))

    one = compiled(both)
    for batched in [(0, 0), (None, 0), (0, None)]:
        pairs = [(xs[i] if batched[0] == 0 else x, kernels[i] if batched[1] == 0 else kernel)
                 for i in range(2)]  # fmt: skip
        loop = jax.tree.map(lambda *leaves: np.stack(leaves), *(one(*pair) for pair in pairs))
        arguments = (xs if batched[0] == 0 else x, kernels if batched[1] == 0 else kernel)
        expect_same(compiled(jax.vmap(both, batched))(*arguments), loop)


@pytest.mark.sampled(6)
@ways
def test_in_a_loop_every_convolution_has_its_axes_in_the_order_that_is_quick(way):
    # In another order a CPU takes up to a hundred times as long, there and only there.
    conv, x, kernel = of_way(way)

    def step(carry, _):
        gradients = jax.grad(lambda x, k: jnp.square(conv(x, k)).sum(), (0, 1))(*carry)
        return jax.tree.map(lambda a, g: a - 0.1 * g, carry, gradients), None

    program = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=3)[0])
    text = program.lower((jnp.asarray(x), jnp.asarray(kernel))).compile().as_text()
    lines = [line for line in text.splitlines() if " convolution(" in line]
    assert len(lines) == (3 if way in BY_XLA else 0)
    for line in lines:
        assert "b01f_01io->b01f" in line or "b0f_0io->b0f" in line
        assert "rhs_reversal" not in line and "group_count" not in line


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way", BY_XLA)
def test_a_batch_of_kernels_makes_no_grouped_convolution_which_is_slow_on_a_cpu(way):
    conv, x, kernel = of_way(way)
    slope = jax.vmap(jax.grad(lambda x, k: jnp.square(conv(x, k)).sum(), (0, 1)))
    text = jax.jit(slope).lower(np.stack([x, x]), np.stack([kernel, kernel])).compile().as_text()
    assert " convolution(" in text and "group_count" not in text


@ways
def test_the_gradient_keeps_nothing_but_the_input_and_the_kernel(way):
    conv, x, kernel = of_way(way)
    _, pull = jax.eval_shape(functools.partial(jax.vjp, conv), x, kernel)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
    held = {"of volumes": 2 * 4 * 4 * 3}.get(way, x.size)  # there, with its circular border
    assert kept <= held + kernel.size


@ways
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_elsewhere_than_on_a_cpu_the_convolution_and_its_gradients_are_xlas_own(way, platform):
    conv, x, kernel = of_way(way)

    def lowered(conv):
        both = jax.jit(jax.value_and_grad(lambda x, k: jnp.square(conv(x, k)).sum(), (0, 1)))
        text = both.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        return sorted(line.split(" : ")[0].split("(")[-1].split(")", 1)[-1] 
                      for line in text.splitlines() if "stablehlo.convolution" in line)  # fmt: skip

    got, expected = lowered(conv), lowered(functools.partial(_native, WAYS[way][2]))
    assert len(got) == 3 and got == expected


def test_an_eager_call_compiles_nothing_the_second_time():
    count = [0]

    def listener(event, duration, **_):
        count[0] += event.endswith("backend_compile_duration")

    conv, x, kernel = of_way("depthwise")
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    slope = jax.grad(lambda kernel: jnp.square(conv(x, kernel)).sum())
    slope(kernel)
    jax.monitoring.register_event_duration_secs_listener(listener)
    slope(kernel)
    assert count[0] == 0
    jax.jit(lambda x: x + 3.25)(1.0)
    assert count[0] == 1  # the listener hears
    jax.monitoring.unregister_event_duration_listener(listener)


# Laws.


def test_a_window_of_ones_is_a_linear_layer():
    x, kernel, bias = normal(2, 3, 2, 4), normal(4, 5, seed=1), normal(5, seed=2)
    conv = compiled(lambda k, b, x: layers.conv({"kernel": k[None, None], "bias": b}, x))
    linear = compiled(lambda k, b, x: layers.linear({"kernel": k, "bias": b}, x))
    expect_same(conv(kernel, bias, x), linear(kernel, bias, x))


def test_a_convolution_is_a_linear_layer_over_patches():
    x, kernel = normal(2, 6, 5, 2), normal(2, 3, 2, 4, seed=1)
    options = {"stride": (2, 1), "dilation": (1, 2), "padding": "SAME"}
    columns = compiled(lambda x: layers.patches(x, (2, 3), **options))(x)
    conv = compiled(functools.partial(_conv, options))
    expect_same(conv(x, kernel), columns @ kernel.reshape(-1, 4))


@pytest.mark.parametrize("groups", [1, 2])
def test_moving_the_input_around_a_circle_moves_the_output(groups):
    x, kernel = normal(1, 5, 4, 2), normal(3, 2, 2 // groups, 2, seed=1)
    conv = compiled(functools.partial(_conv, {"groups": groups, "padding": "CIRCULAR"}))
    move = functools.partial(np.roll, shift=(2, 1), axis=(1, 2))
    expect_same(conv(move(x), kernel), move(conv(x, kernel)))


@pytest.mark.parametrize("layer", [layers.conv, layers.conv_transpose])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_causal_convolution_sees_no_later_input(layer, groups):
    stride = 1 if layer is layers.conv else 2
    x, kernel = normal(1, 6, 2), normal(3, 2 // groups, 2, seed=1)
    options = {"stride": stride, "groups": groups, "padding": "CAUSAL"}
    slope = jax.jacrev(lambda x, k: layer({"kernel": k}, x, **options)[0].sum(-1))
    seen = np.abs(compiled(slope)(x, kernel)).max(axis=(1, 3)) > 0  # (output, input)
    now, inputs = np.arange(6 * stride)[:, None] // stride, np.arange(6)[None]
    assert not seen[inputs > now].any() and seen[inputs == now].all()


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one():
    x, first, last = normal(2, 5, 4, 2), normal(3, 3, 1, 4, seed=1), normal(4, 3, seed=2)
    params = {"depthwise": {"kernel": first}, "pointwise": {"kernel": last[None, None]}}
    y = compiled(lambda p, x: layers.separable_conv(p, x, stride=2))(params, x)
    conv = compiled(functools.partial(_conv, {"stride": 2}))
    parts = [conv(x[..., i : i + 1], first[..., 2 * i : 2 * i + 2]) for i in range(2)]
    expect_same(y, np.concatenate(parts, axis=-1) @ last)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("padding", ["SAME", "VALID", "CAUSAL", ((2, 0),)])
def test_a_transposed_convolution_is_the_transpose(padding):
    # Forwards from the longer side, whose length the transposed one must find again.
    short, kernel = normal(2, 3, 6), normal(3, 2, 6, seed=1)
    options = {"stride": 2, "groups": 2}
    swapped = kernel.reshape(3, 2, 2, 3).swapaxes(-1, -3).reshape(3, 3, 4)
    transposed = functools.partial(layers.conv_transpose, padding=padding, **options)
    long = compiled(lambda k, g: transposed({"kernel": k}, g))(swapped, short)
    x = normal(*long.shape, seed=2)
    forwards = ((0, 1),) if padding == "CAUSAL" else padding  # the transpose looks ahead
    y = compiled(functools.partial(_conv, options | {"padding": forwards}))(x, kernel)
    assert y.shape == short.shape
    # Sums of some hundred float32 numbers.
    np.testing.assert_allclose((y * short).sum(), (x * long).sum(), rtol=1e-5)


def test_half_precision_is_summed_in_single():
    x = jnp.broadcast_to(jnp.array([256, 1, 1], jnp.bfloat16)[None, :, None], (1, 3, 2))
    kernel = jnp.ones((3, 1, 2), jnp.bfloat16)
    y = layers.depthwise_conv({"kernel": kernel}, x, padding="VALID")
    assert y.dtype == jnp.bfloat16 and y.tolist() == [[[258, 258]]]  # there, 256 + 1 is 256


# Errors.


def refused(match, function, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as error:
        unchecked(function)(*args, **kwargs)
    assert "expected" in str(error.value) and "got" in str(error.value)


def test_bad_input_is_refused_with_what_was_expected():
    params, x = {"kernel": jnp.ones((3, 3, 2, 4))}, jnp.ones((1, 5, 5, 2))
    refused("2 window axes", layers.conv, params, jnp.ones((1, 5, 2)))
    refused("2 features", layers.conv, params, jnp.ones((1, 5, 5, 3)))
    refused("groups=2", layers.conv, params, x, groups=2)
    refused("dtype of the kernel", layers.conv, params, x.astype(jnp.bfloat16))
    refused("stride to be a positive", layers.conv, params, x, stride=0)
    refused("dilation to be a positive", layers.conv, params, x, dilation=(1, 1, 1))
    refused("one pair", layers.conv, params, x, padding=((1, 1),))
    refused("one window axis", layers.conv, params, x, padding="CAUSAL")
    refused("longer than their padding", layers.conv, params, x[:, :1], padding="REFLECT")
    refused("at least", layers.conv, params, x[:, :2], padding="VALID")
    refused("'SAME', 'VALID'", layers.conv_transpose, params, x, padding="CIRCULAR")
    refused("below the", layers.conv_transpose, params, x, padding=((7, 0), (0, 0)))
    refused("2 window axes", layers.conv_transpose, params, jnp.ones((1, 5, 2)))
    refused("groups to divide", layers.conv_init, jax.random.key(0), 4, 6, (3,), groups=4)
    refused("1 window axis", nn.conv(2, (3,)).init, jax.random.key(0), jnp.ones((1, 2)))
    refused("that the patch", layers.patchify, x, (2, 2))
    refused("that 4 divides", layers.unpatchify, x, (2, 2))
