"""The models of images by themselves: their sizes, their options, their errors."""

import operator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import models, nn
from fnn.initializers import zeros
from fnn.models.convnext import _depth_rates
from fnn.models.resnet import basic_block, bottleneck_block
from fnn.nn.compact import compact

KEY = jax.random.key(0)
UNET = models.unet.UNetConfig(widths=(4, 6), out_features=2, norm=partial(nn.group_norm, 2))


def numbers(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def shapes(model, *shape: int):
    """Parameters and state as shapes; nothing is computed."""
    return jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


PUBLISHED = {
    "ResNet-18": (models.resnet.resnet(models.resnet.resnet18()), 64, 11_689_512),
    "ResNet-50": (models.resnet.resnet(models.resnet.resnet50()), 64, 25_557_032),
    "WRN-28-10": (models.resnet.resnet(models.resnet.wide_resnet(28, 10, 10)), 32, 36_479_194),
    "ConvNeXt-T": (models.convnext.convnext(models.convnext.ConvNeXtConfig()), 64, 28_589_128),
    "Mixer-B/16": (models.mixer.mixer(models.mixer.MixerConfig()), 224, 59_880_472),
    "U-Net": (models.unet.unet(models.unet.UNetConfig(out_features=2)), 32, 31_037_698),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_as_many_parameters_as_was_published(name):
    model, size, expected = PUBLISHED[name]
    params, _ = shapes(model, 1, size, size, 3)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.sampled(2)
@pytest.mark.parametrize("block", [basic_block, bottleneck_block])
def test_with_a_last_scale_of_zero_a_block_begins_as_the_identity(block):
    config = replace(models.resnet.resnet18(), last_scale_init=zeros)
    x = jnp.abs(numbers(2, 4, 4, 8))  # its last activation is a relu
    model = block(config, 8, 1, 0.0)
    params, state = jax.jit(model.init)(KEY, x)
    apply = jax.jit(model.apply)
    np.testing.assert_array_equal(apply(params, state, x)[0], x)
    # By that norm alone: with the default scale of 1 the branch is there.
    last = max(name for name in params if name.startswith("norm"))
    scaled = {**params, last: {**params[last], "scale": jnp.ones(8)}}
    assert float(jnp.abs(apply(scaled, state, x)[0] - x).max()) > 0.1


def test_a_kernel_of_a_resnet_begins_as_large_as_its_fan_out_asks():
    model = basic_block(models.resnet.resnet18(), 64, 1, 0.0)
    params, _ = jax.jit(model.init)(KEY, jax.ShapeDtypeStruct((1, 4, 4, 64), jnp.float32))
    # The std of 36,864 draws is known to 1 / sqrt(2 * 36,864) = 0.4 %.
    assert float(params["conv1"]["kernel"].std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


MODELS = {
    "resnet": partial(
        models.resnet.resnet,
        replace(models.resnet.resnet18(2, stem=models.resnet.cifar_stem), depths=(1,), widths=(4,)),
    ),
    "convnext": partial(
        models.convnext.convnext,
        models.convnext.ConvNeXtConfig(depths=(2,), widths=(3,), patch_size=4, out_features=2),
    ),
    "mixer": partial(
        models.mixer.mixer, models.mixer.MixerConfig(patch_size=4, features=3, num_layers=1)
    ),
    "unet": partial(models.unet.unet, UNET),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", MODELS)
def test_a_drop_rate_may_be_traced_and_then_asks_for_a_key(name):
    params, state = shapes(MODELS[name](), 2, 8, 8, 3)
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)

    def apply(params, state, x, rate, **key):
        return MODELS[name](rate=rate).apply(params, state, x, train=True, **key)[0]

    jax.eval_shape(partial(apply, key=KEY), params, state, x, 0.5)
    with pytest.raises(ValueError, match="expected a key with train=True"):
        jax.eval_shape(apply, params, state, x, 0.5)


@pytest.mark.parametrize("name", MODELS)
def test_a_image_without_its_four_axes_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: expected x of shape"):
        shapes(MODELS[name](), 8, 8, 3)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["convnext", "mixer", "unet"])
def test_sizes_that_do_not_divide_are_refused_at_init_and_later(name):
    model = MODELS[name]()
    params, state = shapes(model, 1, 8, 8, 3)
    for size in (9, 7):
        with pytest.raises(
            ValueError, match=f"{name}: expected a height and width that .* divides"
        ):
            shapes(model, 1, 8, size, 3)
        with pytest.raises(
            ValueError, match=f"{name}: expected a height and width that .* divides"
        ):
            x = jax.ShapeDtypeStruct((1, size, 8, 3), jnp.float32)
            jax.eval_shape(model.apply, params, state, x)


def test_configs_that_make_no_network_are_refused():
    with pytest.raises(ValueError, match="resnet: expected the depth and the width of each"):
        models.resnet.resnet(replace(models.resnet.resnet18(), depths=(1, 2)))
    with pytest.raises(ValueError, match="convnext: expected the depth and the width of each"):
        models.convnext.convnext(models.convnext.ConvNeXtConfig(depths=(), widths=()))
    with pytest.raises(ValueError, match=r"wide_resnet: expected 6 n \+ 4 layers"):
        models.resnet.wide_resnet(18, 1, 10)
    with pytest.raises(
        ValueError, match="UNetConfig: expected convs_per_block to be a positive integer"
    ):
        models.unet.unet(models.unet.UNetConfig(out_features=1, convs_per_block=0))


def test_the_condition_of_a_unet_has_one_row_for_each_example():
    x = jnp.zeros((2, 4, 4, 1))
    for condition in (jnp.zeros(2), jnp.zeros((3, 5))):
        with pytest.raises(
            ValueError, match=r"unet: expected a condition of shape \(2, features\)"
        ):
            jax.eval_shape(models.unet.unet(UNET).init, KEY, (x, condition))


def test_a_unet_has_the_parts_that_its_config_names():
    params, state = shapes(models.unet.unet(UNET), 1, 4, 4, 1)
    assert state == () and params["join"][0]["units"][0]["conv"]["kernel"].shape == (3, 3, 8, 4)
    added = models.unet.unet(replace(UNET, join=operator.add, norm=None))
    params, _ = shapes(added, 1, 4, 4, 1)
    unit = params["join"][0]["units"][0]
    assert unit["conv"]["kernel"].shape == (3, 3, 4, 4) and unit.keys() == {"conv"}
    assert unit["conv"]["bias"].shape == (4,)  # no norm subtracts it


@pytest.mark.slow
def test_a_scanned_mixer_is_the_mixer():
    config = models.mixer.MixerConfig(
        patch_size=2, features=3, num_layers=2, token_features=4, channel_features=5, out_features=2
    )
    x = numbers(2, 4, 4, 1)
    lists, scanned = (models.mixer.mixer(replace(config, scan=scan)) for scan in (False, True))
    params, _ = jax.jit(lists.init)(KEY, x)
    stacked, _ = jax.jit(scanned.init)(KEY, x)
    blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["blocks"])
    # Drawn one by one or under vmap: the compiler may round an inverse error function otherwise.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), stacked["blocks"], blocks)
    same = jax.jit(scanned.apply)({**params, "blocks": blocks}, (), x)[0]
    np.testing.assert_allclose(same, jax.jit(lists.apply)(params, (), x)[0], atol=1e-6)


def test_the_share_of_examples_that_pass_a_branch_by_rises_evenly():
    rates = _depth_rates(0.4, (2, 3))
    np.testing.assert_allclose(np.concatenate(rates), [0, 0.1, 0.2, 0.3, 0.4])
    assert [len(stage) for stage in rates] == [2, 3] and _depth_rates(0.4, (1,)) == [[0.0]]


def test_a_part_of_compact_draws_by_its_name_and_index():
    def forward(run, x, more):
        for i in range(1 + more):
            x = run("dense", nn.linear(3), x, i)
        return run("noise", nn.dropout(0.5), x)

    x = jnp.ones((2, 3))
    few, many = (compact(partial(forward, more=more)).init(KEY, x)[0] for more in (0, 1))
    np.testing.assert_array_equal(few["dense"][0]["kernel"], many["dense"][0]["kernel"])
    assert (many["dense"][0]["kernel"] != many["dense"][1]["kernel"]).any()
    assert few.keys() == {"dense"}  # dropout has nothing to keep
