"""The convolutional networks, compared with PyTorch's layers put together by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fnn import models
from fnn.models.lenet import LeNetConfig, lenet, scaled_tanh

CONFIG = models.cnn.CNNConfig(stages=((3,), (4, 5)), out_features=2)


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def start(model, x):
    """Parameters and state without a value that an omission would leave unnoticed, such as 0."""
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    leaves, structure = jax.tree.flatten((params, state))
    noise = np.random.default_rng(1)
    moved = [leaf + 0.03 * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def conv(params, x: torch.Tensor, padding: int) -> torch.Tensor:
    kernel = tensor(params["kernel"]).permute(3, 2, 0, 1)  # (rows, columns, in, out) here
    bias = tensor(params["bias"]) if "bias" in params else None
    return F.conv2d(x, kernel, bias, padding=padding)


def linear(params, x: torch.Tensor) -> torch.Tensor:
    return x @ tensor(params["kernel"]) + tensor(params["bias"])


def norm(params, state, x: torch.Tensor) -> torch.Tensor:
    mean, var, scale, bias = map(
        tensor, (state["mean"], state["var"], params["scale"], params["bias"])
    )
    return F.batch_norm(x, mean, var, scale, bias, eps=1e-5)


def block(params, state, x: torch.Tensor) -> torch.Tensor:
    return F.relu(norm(params["norm"], state["norm"], conv(params["conv"], x, 1)))


def test_cnn_is_what_its_layers_give_one_after_another():
    x = images(2, 6, 6, 1)
    params, state = start(models.cnn.cnn(CONFIG), x)
    ours, _ = jax.jit(models.cnn.cnn(CONFIG).apply)(params, state, x)
    (first,), others = params["stages"]
    (first_state,), other_states = state["stages"]
    h = tensor(x).permute(0, 3, 1, 2)
    h = F.max_pool2d(conv(first["conv"], h, 1), 2)  # pooled before the norm, to the same effect
    h = F.relu(norm(first["norm"], first_state["norm"], h))
    for own, own_state in zip(others, other_states, strict=True):
        h = block(own, own_state, h)
    theirs = linear(params["head"], h.mean(dim=(2, 3)))
    # Sums of at most 45 float32 products of numbers around 1, through four layers.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_max_pool_before_norm_and_activation_is_max_pool_behind_them():
    x = images(2, 6, 6, 1)
    params, state = start(models.cnn.cnn(CONFIG), x)
    h = tensor(x).permute(0, 3, 1, 2)
    own, own_state = params["stages"][0][0], state["stages"][0][0]
    before = norm(own["norm"], own_state["norm"], F.max_pool2d(conv(own["conv"], h, 1), 2))
    behind = F.max_pool2d(block(own, own_state, h), 2)
    assert torch.equal(F.relu(before), behind)


def test_only_convolutions_without_a_norm_have_a_bias():
    x = images(1, 4, 4, 1)
    params, _ = models.cnn.cnn(CONFIG).init(jax.random.key(0), x)
    assert all("bias" not in own["conv"] for stage in params["stages"] for own in stage)
    bare = models.cnn.CNNConfig(stages=((3,),), out_features=2, norm=None)
    params, state = models.cnn.cnn(bare).init(jax.random.key(0), x)
    assert sorted(params["stages"][0][0]) == ["conv"] and state == ()
    assert sorted(params["stages"][0][0]["conv"]) == ["bias", "kernel"]


@pytest.mark.parametrize("stages", [(), ((3,), ())])
def test_cnn_refuses_stages_without_a_convolution(stages):
    with pytest.raises(ValueError, match="cnn: expected one or more features for each stage"):
        models.cnn.cnn(models.cnn.CNNConfig(stages=stages, out_features=2))


def test_cnn_refuses_images_without_channels():
    with pytest.raises(ValueError, match=r"cnn: expected x of shape .*, got \(3, 8, 8\)"):
        models.cnn.cnn(CONFIG).init(jax.random.key(0), jnp.zeros((3, 8, 8)))


@pytest.mark.slow
def test_lenet_is_what_its_layers_give_one_after_another():
    x = images(2, 28, 28, 1)
    params, _ = start(lenet(LeNetConfig()), x)
    ours, _ = jax.jit(lenet(LeNetConfig()).apply)(params, (), x)
    h = F.pad(tensor(x).permute(0, 3, 1, 2), (2, 2, 2, 2))  # the paper's images of 32 x 32
    for name in ("c1", "c3"):
        h = F.avg_pool2d(1.7159 * torch.tanh(2 / 3 * conv(params[name], h, 0)), 2)
    h = h.permute(0, 2, 3, 1).reshape(2, -1)  # features last, as ours
    for name in ("c5", "f6"):
        h = 1.7159 * torch.tanh(2 / 3 * linear(params[name], h))
    theirs = linear(params["head"], h)
    assert h.abs().max() < 1.6  # nothing is saturated, so every layer has its say
    # Sums of up to 400 float32 products, through five layers.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_layers_of_lenet_are_as_large_as_in_the_paper():
    params, _ = jax.eval_shape(
        lambda: lenet(LeNetConfig()).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    )
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()
    }
    # The paper's C1, C5 and F6; its C3 has 1,516, for it leaves connections out.
    assert sizes == {"c1": 156, "c3": 2416, "c5": 48120, "f6": 10164, "head": 850}


def test_the_squashing_function_of_lenet_has_its_steepest_turn_at_one():
    # The paper chose it so that f(1) = 1 and the second derivative is largest in size at 1.
    x = jnp.linspace(0, 3, 301)
    bend = jnp.abs(jax.vmap(jax.grad(jax.grad(scaled_tanh)))(x))
    assert abs(float(x[bend.argmax()]) - 1) < 0.02  # 0.9877, that is 1.5 atanh(1 / sqrt 3)
    assert abs(float(scaled_tanh(jnp.float32(1.0))) - 1) < 1e-4


def test_lenet_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"lenet: expected x of shape \(batch, 28, 28, channels\)"):
        lenet(LeNetConfig()).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
