"""An axis that is missing, or one too many, is refused; no layer reads one axis as another."""

import re

import jax
import jax.numpy as jnp
import pytest

from fnn import layers, models, nn
from fnn.data import augment
from tests.shapes import unchecked

KEY = jax.random.key(0)
# Layers with a window, by their name and how they are made for a window.
WINDOWED = {
    "conv": lambda window: nn.conv(16, window),
    "depthwise_conv": nn.depthwise_conv,
    "separable_conv": lambda window: nn.separable_conv(16, window),
    "conv_transpose": lambda window: nn.conv_transpose(16, window),
    "max_pool": nn.max_pool,
    "average_pool": nn.average_pool,
    "sum_pool": nn.sum_pool,
    "adaptive_max_pool": nn.adaptive_max_pool,
    "adaptive_average_pool": nn.adaptive_average_pool,
    "resize_nearest": nn.resize_nearest,
    "resize_linear": nn.resize_linear,
    "upsample_nearest": nn.upsample_nearest,
    "upsample_linear": nn.upsample_linear,
    "pixel_shuffle": nn.pixel_shuffle,
    "pixel_unshuffle": nn.pixel_unshuffle,
    "patchify": nn.patchify,
    "unpatchify": nn.unpatchify,
}
# Layers over all axes between batch and features, whose number may be stated.
STATED = {
    "global_max_pool": nn.global_max_pool,
    "global_average_pool": nn.global_average_pool,
    "group_norm": lambda ndim=None: nn.group_norm(4, ndim=ndim),
    "instance_norm": lambda ndim=None: nn.instance_norm(ndim=ndim),
    "squeeze_excite": lambda ndim=None: nn.squeeze_excite(4, ndim=ndim),
}
NETWORKS = {
    "cnn": lambda: models.cnn.cnn(models.cnn.CNNConfig(out_features=2)),
    "lenet": lambda: models.lenet.lenet(models.lenet.LeNetConfig()),
    "resnet": lambda: models.resnet.resnet(models.resnet.resnet18(2)),
    "convnext": lambda: models.convnext.convnext(
        models.convnext.ConvNeXtConfig(depths=(1,), widths=(2,), out_features=2)
    ),
    "unet": lambda: models.unet.unet(models.unet.UNetConfig(widths=(2,), out_features=1)),
    "vit": lambda: models.vit.vit(
        models.vit.vit_base(patch_size=4, features=4, num_layers=1, num_heads=1)
    ),
    "mixer": lambda: models.mixer.mixer(
        models.mixer.MixerConfig(
            patch_size=4,
            features=2,
            num_layers=1,
            token_features=2,
            channel_features=2,
            out_features=2,
        )
    ),
}
AUGMENTS = {
    "flip": augment.flip(1.0),
    "crop": augment.crop(2),
    "affine": augment.rotate(10.0),
    "cutout": augment.cutout(4),
    "random_erasing": augment.random_erasing(1.0),
    "color_jitter": augment.color_jitter(brightness=0.1),
    "random_augment": augment.random_augment(1),
}


def shape_of(model, *shape):
    """Shapes and dtypes of the model's outputs for x of this shape."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, state = jax.eval_shape(model.init, KEY, x)
    return jax.eval_shape(model.apply, params, state, x)[0].shape


def refusal(where, got, call):
    """The message of the ValueError that the call raises."""
    pattern = f"^{where}: expected .* got {re.escape(str(got))}"
    with pytest.raises(ValueError, match=pattern) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("name", WINDOWED)
def test_one_number_states_no_window(name):
    message = refusal(name, 2, lambda: WINDOWED[name](2))
    assert "write (2, 2) for images (batch, height, width, channels)" in message
    assert "or (2,) for sequences (batch, time, channels)" in message


@pytest.mark.parametrize("name", sorted(n for n in WINDOWED if "conv" not in n))
def test_nor_does_it_for_the_function(name):
    refusal(name, 2, lambda: unchecked(getattr(layers, name))(jnp.ones((2, 8, 8, 4)), 2))


@pytest.mark.parametrize("name", WINDOWED)
def test_images_without_a_channel_axis_are_refused(name):
    model = WINDOWED[name]((2, 2))
    message = refusal(name, (32, 28, 28), lambda: shape_of(model, 32, 28, 28))
    assert "(batch, height, width, channels) for 2 window axes" in message
    assert "add a channel axis, x[..., None]" in message
    assert "a window of 1 axis, for (batch, time, channels)" in message
    assert shape_of(model, 32, 28, 28, 4)[0] == 32


@pytest.mark.parametrize("name", WINDOWED)
def test_images_are_no_sequences(name):
    model = WINDOWED[name]((2,))
    message = refusal(name, (3, 8, 8, 4), lambda: shape_of(model, 3, 8, 8, 4))
    assert "(batch, time, channels) for 1 window axis" in message
    assert "a window of 2 axes, for (batch, height, width, channels)" in message
    assert "add a channel axis" not in message
    assert len(shape_of(model, 3, 8, 4)) == 3


@pytest.mark.parametrize("name", STATED)
def test_a_stated_number_of_axes_is_kept_to(name):
    make = STATED[name]
    message = refusal(name, (32, 28, 28), lambda: shape_of(make(ndim=2), 32, 28, 28))
    assert "add a channel axis, x[..., None]" in message
    assert shape_of(make(ndim=2), 32, 8, 8, 4) == shape_of(make(), 32, 8, 8, 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_refuse_images_without_a_channel_axis(name):
    message = refusal(name, (32, 28, 28), lambda: shape_of(NETWORKS[name](), 32, 28, 28))
    assert "add a channel axis, x[..., None]" in message


@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentations_refuse_images_without_a_channel_axis(name):
    batch = jnp.zeros((3, 8, 8)), jnp.zeros(3)
    refusal(name, (8, 8), lambda: augment.per_example(AUGMENTS[name])(KEY, batch))


def test_flattening_needs_no_channel_axis():
    assert shape_of(nn.flatten(), 32, 28, 28) == shape_of(nn.flatten(), 32, 28, 28, 1)
