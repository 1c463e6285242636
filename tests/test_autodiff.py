"""`linear_call` beside the plain function, under every transform of JAX."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.autodiff import apply_transpose, linear_call, linear_sum, varying_like
from tests.compiled import compiled, expect_same
from tests.registry.rows import normal

HERE = Path(__file__).parent


def forward(residuals, operands):
    """Linear in two operands, curved in the matrix, and different on different platforms."""
    u, v = operands["u"], operands["v"]
    rows = jnp.sin(residuals["matrix"]) @ u

    def shifted(v):
        return residuals["scale"] * jnp.roll(v, residuals["shift"])

    return {"y": rows + jax.lax.platform_dependent(v, cpu=shifted, default=shifted)}


def backward(residuals, cotangents):
    g = cotangents["y"]
    dv = jnp.roll(residuals["scale"] * g, -residuals["shift"])
    return {"u": jnp.sin(residuals["matrix"]).T @ g, "v": dv}


RESIDUALS = {
    "matrix": normal(3, 2),
    "scale": normal(3, seed=1),
    "shift": np.int32(1),
    "absent": None,
}
OPERANDS = {"u": normal(2, seed=2), "v": normal(3, seed=3)}
POINT = {"matrix": RESIDUALS["matrix"], "scale": RESIDUALS["scale"], **OPERANDS}
DIRECTION = {name: normal(*leaf.shape, seed=7 + i) for i, (name, leaf) in enumerate(POINT.items())}
LINEAR_CALL = partial(linear_call, forward, backward)
CALLS = LINEAR_CALL, forward  # with the transpose by hand, and as JAX derives it


def of_point(call):
    """`call` of a point that holds what is differentiated: residuals and operands."""

    def function(point):
        inputs = {**RESIDUALS, "matrix": point["matrix"], "scale": point["scale"]}
        return call(inputs, {"u": point["u"], "v": point["v"]})["y"]

    return function


def length(f):
    return lambda point: jnp.sin(f(point)).sum()


def along(f):
    return lambda point, direction: jax.jvp(f, (point,), (direction,))[1]


def dot(a, b):
    return sum(map(jnp.vdot, jax.tree.leaves(a), jax.tree.leaves(b)))


def forward_over_reverse(f):
    return along(jax.grad(length(f)))


def reverse_over_reverse(f):
    slope = jax.grad(length(f))
    return lambda point, direction: jax.grad(lambda p: dot(slope(p), direction))(point)


def reverse_over_forward(f):
    slope = along(length(f))
    return lambda point, direction: jax.grad(slope)(point, direction)


def third_order(f):
    return lambda point, direction: jax.jvp(
        lambda p: forward_over_reverse(f)(p, direction), (point,), (direction,)
    )[1]


def in_a_scan(f):
    def step(point, _):
        g = jax.grad(length(f))(point)
        return jax.tree.map(lambda p, g: p - 0.1 * g, point, g), length(f)(point)

    return lambda point, direction: jax.lax.scan(step, point, None, length=2)


def through_a_scan(f):
    def total(point):
        return in_a_scan(f)(point, None)[1].sum()

    return lambda point, direction: (jax.grad(total)(point), along(total)(point, direction))


TRANSFORMS = {
    "the value": lambda f: lambda point, direction: f(point),
    "grad": lambda f: lambda point, direction: jax.grad(length(f))(point),
    "jvp": along,
    "jacfwd": lambda f: lambda point, direction: jax.jacfwd(f)(point),
    "jacrev": lambda f: lambda point, direction: jax.jacrev(f)(point),
    "linearize": lambda f: lambda point, direction: jax.linearize(f, point)[1](direction),
    "forward over reverse": forward_over_reverse,
    "reverse over reverse": reverse_over_reverse,
    "reverse over forward": reverse_over_forward,
    "third order": third_order,
    "a scan": in_a_scan,
    "through a scan": through_a_scan,
    "remat": lambda f: forward_over_reverse(jax.checkpoint(f)),
}
transforms = pytest.mark.parametrize("name", TRANSFORMS)


# What has a batch axis: the operands' cotangents are summed over it where they have none.
BATCHED = ["matrix scale u v".split(), ["matrix"], ["v"]]


def batched(function):
    """`function` of the point and direction, and of batches of some of their leaves."""

    def of_batches(point, direction):
        outputs = [function(point, direction)]
        for names in BATCHED:
            axes = {name: 0 if name in names else None for name in POINT}
            pairs = doubled(point, names), doubled(direction, names)
            outputs.append(jax.vmap(function, (axes, axes))(*pairs))
        return outputs

    return of_batches


def doubled(tree, names):
    """With a first axis of two for the leaves of these names."""
    return {k: jnp.stack([x, 2 * x]) if k in names else x for k, x in tree.items()}


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.sampled(12)
@transforms
def test_it_is_the_plain_function_under(name):
    byhand, derived = (batched(TRANSFORMS[name](of_point(call))) for call in CALLS)
    with jax.enable_x64(True):
        program = compiled(lambda *args: (byhand(*args), derived(*args)))
        got, expected = program(wide(POINT), wide(DIRECTION))
    expect_same(got, expected, rtol=1e-12)  # float64 keeps sixteen digits; sums of a few terms


def test_it_is_the_plain_function_outside_of_jit():
    expect_same(*(forward_over_reverse(of_point(call))(POINT, DIRECTION) for call in CALLS))


def scale(factor, x):
    return factor * x


def scale_by_seven(factor, x):
    return 7 * factor * x


def test_its_transpose_is_the_one_by_hand_and_twice_transposed_it_is_itself():
    def f(x):
        return linear_call(scale, scale_by_seven, jnp.float32(3), x)

    def transposed(f):
        return lambda x: jax.linear_transpose(f, x)(x)[0]

    x = jnp.float32(2)
    assert f(x) == 6 and jax.jvp(f, (x,), (x,))[1] == 6
    assert transposed(f)(x) == 42 and jax.grad(f)(x) == 21
    assert transposed(transposed(f))(x) == 6


def test_a_transpose_of_other_shapes_is_refused():
    match = (
        r"linear_call: .* like the operands, \[\(\(3,\), 'float32'\)\], got \[\(\(\), 'float32'\)\]"
    )
    with pytest.raises(ValueError, match=match):
        jax.grad(lambda x: linear_call(scale, lambda r, g: r * g.sum(), 2.0, x).sum())(jnp.ones(3))


def test_its_program_shows_what_is_inside():
    (equation,) = jax.make_jaxpr(partial(linear_call, scale, scale, 3.0))(2.0).eqns
    assert [inner.primitive.name for inner in equation.params["jaxpr"].eqns] == ["mul"]


def test_outside_of_jit_it_compiles_once():
    count = [0]

    def listener(event, duration, **_):
        count[0] += event.endswith("backend_compile_duration")

    def slope(x):
        return jax.grad(lambda x: linear_call(scale, scale, x, x).sum())(x)

    x, other = jnp.arange(3.0), jnp.ones(3)
    slope(x)
    jax.monitoring.register_event_duration_secs_listener(listener)
    slope(other)
    assert count[0] == 0
    jax.jit(lambda x: x + 3.25)(1.0)
    assert count[0] == 1  # the listener hears
    jax.monitoring.unregister_event_duration_listener(listener)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_it_is_lowered_for(platform):
    program = jax.jit(forward_over_reverse(of_point(LINEAR_CALL)))
    exported = jax.export.export(program, platforms=[platform])(POINT, DIRECTION)
    assert exported.platforms == (platform,)
    assert "custom_call" not in exported.mlir_module()


def test_a_sum_leaves_out_what_does_not_move():
    @jax.custom_jvp
    def product(a, b):
        return a * b

    @partial(product.defjvp, symbolic_zeros=True)
    def product_jvp(primals, tangents):
        (a, b), (da, db) = primals, tangents
        return product(a, b), linear_sum((scale, scale, b, da), (scale, scale, a, db))

    one = jax.make_jaxpr(lambda a: jax.jvp(lambda a: product(a, 5.0), (a,), (a,)))(3.0)
    assert sum(e.primitive.name == "fnn_linear_call" for e in one.eqns) == 1
    assert jax.grad(product, (0, 1))(3.0, 5.0) == (5, 3)


def test_a_transpose_is_applied_to_a_cotangent_of_any_batch():
    matrix = jnp.asarray(normal(3, 2))
    g = jnp.asarray(normal(4, 3, seed=1))
    got = jax.vmap(lambda g: apply_transpose(lambda x: matrix @ x, (2,), g, matrix))(g)
    expect_same(got, g @ matrix)


def test_outside_of_shard_map_nothing_varies():
    tree = {"a": jnp.zeros(2), "b": None}
    assert varying_like(tree, jnp.ones(3))["a"] is tree["a"]


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_cases_for_two_devices_pass_in_a_process_that_has_two(cases):
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", cases]
    done = subprocess.run(
        [*command, str(HERE / "autodiff_on_two_devices.py")],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
