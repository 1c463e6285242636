"""`linear_call`, and the layers made of it, on two devices; `test_autodiff.py` runs it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fnn import layers, losses
from fnn.initializers import normal as normal_init
from tests.compiled import compiled, expect_same
from tests.registry.rows import normal
from tests.test_autodiff import (
    BATCHED,
    CALLS,
    DIRECTION,
    POINT,
    TRANSFORMS,
    along,
    doubled,
    length,
    of_point,
    wide,
)

MESH = Mesh(np.array(jax.devices()), ("d",))


def test_there_are_two():
    assert len(jax.devices()) == 2


def spread(function, names, check_vma):
    """`function` on each device, which has its own of the leaves of these names."""

    def on_one(point):
        return function({k: x[0] if k in names else x for k, x in point.items()})[None]

    specs = {name: P("d") if name in names else P() for name in POINT}
    of_all = partial(jax.shard_map, mesh=MESH, in_specs=(specs,), out_specs=P("d"))
    return of_all(on_one, check_vma=check_vma)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("names", BATCHED[1:], ids=" ".join)
def test_shards_are_a_batch(names, check_vma):
    byhand, plain = map(of_point, CALLS)
    axes = {name: 0 if name in names else None for name in POINT}
    shards, batch = spread(byhand, names, check_vma), jax.vmap(plain, (axes,))

    def derivatives(f):
        kinds = ["jvp", "forward over reverse", "reverse over reverse"]
        return lambda *args: [TRANSFORMS[kind](f)(*args) for kind in kinds]

    with jax.enable_x64(True):
        pair = [doubled(wide(tree), names) for tree in (POINT, DIRECTION)]
        program = compiled(lambda *args: (derivatives(shards)(*args), derivatives(batch)(*args)))
        expect_same(*program(*pair), rtol=1e-12)


@pytest.mark.parametrize("names", BATCHED[1:], ids=" ".join)
def test_a_derivative_inside_is_summed_over_the_devices_as_jax_sums_it(names):
    specs = {name: P("d") if name in names else P() for name in POINT}

    def inside(call):
        def on_one(point, direction):
            def total(point):
                own = {k: x[0] if k in names else x for k, x in point.items()}
                return jax.lax.psum(length(of_point(call))(own), "d")

            return jax.grad(total)(point), along(jax.grad(total))(point, direction)

        pair = specs, specs
        return jax.shard_map(on_one, mesh=MESH, in_specs=pair, out_specs=pair)

    point, direction = doubled(POINT, names), doubled(DIRECTION, names)
    expect_same(*(compiled(inside(call))(point, direction) for call in CALLS))


def recurrent(init, layer, **options):
    params = init(jax.random.key(0), 3, 2, **options)
    return params, normal(4, 3, 3), layer


QUICK = {"recurrent_init": normal_init(0.5)}  # drawing orthogonal matrices is slow to compile
CONV = {"kernel": normal(3, 3, 2, 2) / 4}
LAYERS = {
    "layer_norm": (layers.layer_norm_init(3), normal(4, 2, 3), layers.layer_norm),
    "rms_norm": (layers.rms_norm_init(3), normal(4, 2, 3), layers.rms_norm),
    "group_norm": (
        layers.group_norm_init(4), normal(4, 2, 4), lambda p, x: layers.group_norm(p, x, 2)
    ),
    "conv": (CONV, normal(4, 3, 4, 2), layers.conv),
    "conv by products": (CONV, normal(4, 4, 4, 2), partial(layers.conv, padding=((3, 0), (0, 3)))),
    "conv by Winograd": (
        {"kernel": normal(3, 3, 32, 32) / 17}, normal(4, 8, 8, 32), layers.conv
    ),
    "conv in parts of the batch": ({"kernel": normal(2, 1, 1)}, normal(18, 256, 1), layers.conv),
    "conv in groups": (
        {"kernel": normal(3, 2, 4)}, normal(4, 4, 4), partial(layers.conv, groups=2)
    ),
    "conv_transpose": (CONV, normal(4, 3, 3, 2), partial(layers.conv_transpose, stride=2)),
    "rnn": recurrent(layers.rnn_cell_init, layers.rnn, **QUICK),
    "lstm": recurrent(layers.lstm_cell_init, layers.lstm, **QUICK),
    "gru": recurrent(layers.gru_cell_init, layers.gru, **QUICK),
    "linear_recurrence": recurrent(layers.linear_recurrence_cell_init, layers.linear_recurrence),
    "moe": (
        layers.moe_init(jax.random.key(0), 3, 4, num_experts=2),
        normal(4, 3),
        lambda p, x: layers.moe(p, x)[0],
    ),
    "fused_cross_entropy": (
        {"kernel": normal(3, 5), "bias": normal(5)},
        normal(4, 3),
        lambda p, x: losses.fused_cross_entropy(
            x, p["kernel"], jnp.argmax(x, axis=1), bias=p["bias"], chunk_rows=1
        ),
    ),
}  # fmt: skip


def derivatives(function, mean):
    """The gradient of something curved, and the second derivative along an arbitrary direction."""

    def curved(params, x):
        return mean(sum(jnp.sin(y).mean() for y in jax.tree.leaves(function(params, x))))

    def slopes(params, x):
        direction = jax.tree.map(jnp.cos, (params, x))
        slope = jax.grad(curved, argnums=(0, 1))
        return slope(params, x), jax.jvp(slope, (params, x), direction)[1]

    return slopes


QUICK_ONES = ["layer_norm", "conv in parts of the batch", "lstm"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK_ONES)) for n in LAYERS],
)
def test_a_layer_on_two_devices_is_the_layer_on_one(name):
    """By shards, each with its part of the batch, and divided by the compiler."""
    params, x, function = LAYERS[name]
    specs = jax.tree.map(lambda _: P(), params), P("d")
    program = derivatives(function, lambda loss: jax.lax.pmean(loss, "d"))
    shards = jax.shard_map(program, mesh=MESH, in_specs=specs, out_specs=(specs, specs))
    alone = compiled(derivatives(function, lambda loss: loss))
    expected = alone(params, x)
    expect_same(compiled(shards)(params, x), expected)
    placed = [jax.device_put(tree, NamedSharding(MESH, spec))
              for tree, spec in ((params, P()), (x, P("d")))]  # fmt: skip
    expect_same(alone(*placed), expected)
