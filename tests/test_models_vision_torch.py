"""The models of images against torch code of the same architecture, in float64 there.

Logits agree within 2e-5 and gradients within 1e-4 of the largest: float32 against float64, through
up to ten layers.
"""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fnn import models, tree
from fnn.activations import silu
from fnn.models.resnet import ResNetConfig
from fnn.nn import group_norm
from tests.against_torch import cotangent, expect_close


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def start(model, x):
    """Parameters and state without a value that an omission would leave unnoticed, such as 0."""
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    noise = np.random.default_rng(1)
    return jax.tree.map(
        lambda a: a + 0.1 * np.abs(noise.normal(size=a.shape)).astype(np.float32), (params, state)
    )


def ours(model, params, state, x):
    """Logits in evaluation; logits, gradients and the new state in training; one program."""

    @jax.jit
    def both(params, state, x):
        def total(params):
            y, new = model.apply(params, state, x, train=True)
            return (y * jnp.asarray(cotangent(y.shape), y.dtype)).sum(), (y, new)

        gradients, (y, new) = jax.grad(total, has_aux=True)(params)
        return model.apply(params, state, x)[0], y, gradients, new

    return both(params, state, x)


def channels_first(x) -> torch.Tensor:
    return torch.tensor(np.asarray(x, np.float64)).permute(0, 3, 1, 2)


def weighted(y: torch.Tensor) -> torch.Tensor:
    return (y * torch.tensor(cotangent(tuple(y.shape)))).sum()


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs // 4)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs // 4)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + self.downsample(x))


class PreActivation(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        alike = inputs == outputs and stride == 1
        around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.downsample = None if alike else nn.Sequential(around)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(h))))
        return y + (x if self.downsample is None else self.downsample(h))


def downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    def __init__(self, block: type[nn.Module], config: ResNetConfig, large: bool) -> None:
        super().__init__()
        last, self.large = config.stem_features, large
        window, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, last, window, stride, padding=window // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(last)
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(block(last, width, 2 if i and j == 0 else 1))
                last = width
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(last, config.out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, padding=1) if self.large else x
        return self.fc(self.layer2(self.layer1(x)).mean(dim=(2, 3)))


class WideResNet(ResNet):
    def __init__(self, block: type[nn.Module], config: ResNetConfig, large: bool) -> None:
        super().__init__(block, config, large)
        del self.bn1
        self.last = nn.BatchNorm2d(config.widths[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.fc(F.relu(self.last(x)).mean(dim=(2, 3)))


RENAMED = [
    (r"stem/", ""), (r"top/norm", "last"), (r"head", "fc"), (r"shortcut/conv", "downsample/0"),
    (r"shortcut/norm", "downsample/1"), (r"norm", "bn"), (r"(conv|bn)/", r"\g<1>1/"),
    (r"kernel|scale", "weight"), (r"mean$", "running_mean"), (r"var$", "running_var"),
    (r"stages/(\d)", lambda found: f"layer{int(found[1]) + 1}"), (r"/", "."),
]  # fmt: skip


def as_torch(numbers) -> dict[str, np.ndarray]:
    """Parameters, gradients or running statistics by torchvision's names, in torch's layout."""
    named = {}
    for path, leaf in zip(tree.paths(numbers), jax.tree.leaves(numbers), strict=True):
        for pattern, new in RENAMED:
            path = re.sub(pattern, new, path)
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[leaf.ndim]
        named[path] = np.asarray(leaf, np.float64).transpose(axes)
    return named


def reference(net: nn.Module, params, state, x):
    """Logits in evaluation and in training; gradients and running statistics by torch's names."""
    net = net.double()
    weights = {**as_torch(params), **as_torch(state)}
    counted = [name for name in net.state_dict() if name.endswith("num_batches_tracked")]
    weights |= {name: np.zeros((), np.int64) for name in counted}
    net.load_state_dict({name: torch.tensor(a) for name, a in weights.items()})
    evaluated = net.eval()(channels_first(x))
    unbiased = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, given, made, name=name: unbiased.update({name: given[0][:, 0].numel()})
            )
    y = net.train()(channels_first(x))
    weighted(y).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    running = {name: a.numpy() for name, a in net.state_dict().items()}
    for name, n in unbiased.items():  # torch adds n / (n - 1) times the batch's biased variance
        old, path = weights[f"{name}.running_var"], f"{name}.running_var"
        running[path] = 0.9 * old + (running[path] - 0.9 * old) * (n - 1) / n
    return evaluated.detach().numpy(), y.detach().numpy(), gradients, running


SMALL = {"depths": (1, 1), "stem_features": 4}
NETS = {
    "basic": (
        replace(models.resnet.resnet18(3), widths=(4, 8), **SMALL),
        lambda config: ResNet(Basic, config, large=True),
    ),
    "bottleneck": (
        replace(models.resnet.resnet50(3, stem=models.resnet.cifar_stem), widths=(8, 16), **SMALL),
        lambda config: ResNet(Bottleneck, config, large=False),
    ),
    "pre-activation": (
        replace(models.resnet.wide_resnet(10, 1, 3), widths=(4, 8), **SMALL),
        lambda config: WideResNet(PreActivation, config, large=False),
    ),
}


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "name", ["basic", "bottleneck", pytest.param("pre-activation", marks=pytest.mark.slow)]
)
def test_a_resnet_computes_what_it_computes_in_torch(name):
    config, make = NETS[name]
    # With a stride of 2, an even size tells a symmetric border from SAME.
    x, model = images(3, 12, 10, 3), models.resnet.resnet(config)
    params, state = start(model, x)
    evaluated, y, gradients, new = ours(model, params, state, x)
    expected = reference(make(config), params, state, x)
    np.testing.assert_allclose(evaluated, expected[0], atol=2e-5, rtol=2e-5)
    np.testing.assert_allclose(y, expected[1], atol=2e-5, rtol=2e-5)
    named = as_torch(gradients)
    assert named.keys() == expected[2].keys()
    for leaf, gradient in named.items():
        expect_close(f"gradient of {leaf}", gradient, expected[2][leaf], 1e-4)
    for leaf, value in as_torch(new).items():  # a sum of hundreds of float32 numbers
        expect_close(leaf, value, expected[3][leaf], 1e-5)


def expect_like(reference, model, x) -> None:
    """`reference(params, x)`, of torch tensors with channels last, gives what `model` does.

    Of the gradients, finite differences speak: the laws of models in test_laws.py.
    """
    params, state = start(model, x)
    y, _ = jax.jit(model.apply)(params, state, x)
    tensors = jax.tree.map(lambda a: torch.tensor(np.asarray(a, np.float64)), (params, x))
    np.testing.assert_allclose(y, reference(*tensors), atol=2e-5, rtol=2e-5)


def conv(params, x, **kwargs) -> torch.Tensor:
    kernel, x = params["kernel"].permute(3, 2, 0, 1), x.permute(0, 3, 1, 2)
    return F.conv2d(x, kernel, params.get("bias"), **kwargs).permute(0, 2, 3, 1)


def linear(params, x) -> torch.Tensor:
    return x @ params["kernel"] + params["bias"]


def layer_norm(params, x) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], params["scale"], params["bias"], eps=1e-6)


def mlp(params, x) -> torch.Tensor:
    return linear(params["down"], F.gelu(linear(params["up"], x)))


@pytest.mark.slow
def test_a_convnext_computes_what_it_computes_in_torch():
    def block(params, x):
        y = conv(params["depthwise"], x, padding=1, groups=x.shape[-1])
        return x + params["scale"]["scale"] * mlp(params["mlp"], layer_norm(params["norm"], y))

    def net(params, x):
        first, second = params["stages"]
        x = layer_norm(first["entry"]["norm"], conv(first["entry"]["conv"], x, stride=2))
        x = block(first["blocks"][0], x)
        x = conv(second["entry"]["conv"], layer_norm(second["entry"]["norm"], x), stride=2)
        x = block(second["blocks"][0], x)
        return linear(params["head"], layer_norm(params["norm"], x.mean(dim=(1, 2))))

    config = models.convnext.ConvNeXtConfig(
        depths=(1, 1), widths=(3, 4), patch_size=2, kernel_size=3, out_features=2
    )
    expect_like(net, models.convnext.convnext(config), images(3, 8, 12, 3))


@pytest.mark.slow
def test_a_mixer_computes_what_it_computes_in_torch():
    def net(params, x):
        x = conv(params["patches"], x, stride=4).flatten(1, 2)
        for block in params["blocks"]:
            tokens, channels = block["tokens"], block["channels"]
            x = x + mlp(tokens["mlp"], layer_norm(tokens["norm"], x).mT).mT
            x = x + mlp(channels["mlp"], layer_norm(channels["norm"], x))
        return linear(params["head"], layer_norm(params["norm"], x).mean(dim=1))

    config = models.mixer.MixerConfig(
        patch_size=4, features=3, num_layers=2, token_features=5, channel_features=6, out_features=2
    )
    expect_like(net, models.mixer.mixer(config), images(3, 8, 12, 3))


@pytest.mark.slow
def test_a_unet_with_a_condition_computes_what_it_computes_in_torch():
    def block(params, x, condition):
        for i, unit in enumerate(params["units"]):
            x = conv(unit["conv"], x, padding=1)
            x = F.group_norm(
                x.permute(0, 3, 1, 2), 2, unit["norm"]["scale"], unit["norm"]["bias"], eps=1e-6
            ).permute(0, 2, 3, 1)
            if i == 0:
                x = x + linear(params["condition"], condition)[:, None, None]
            x = F.silu(x)
        return x

    def net(params, given):
        x, condition = given
        across = block(params["down"][0], x, condition)
        x = F.max_pool2d(across.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        x = block(params["down"][1], x, condition)
        kernel = params["up"][0]["kernel"].permute(2, 3, 0, 1)  # to (in, out, height, width)
        x = F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, params["up"][0]["bias"], stride=2)
        x = torch.cat([across, x.permute(0, 2, 3, 1)], dim=-1)
        return conv(params["head"], block(params["join"][0], x, condition))

    config = models.unet.UNetConfig(
        widths=(4, 6), out_features=2, activation=silu, norm=partial(group_norm, 2)
    )
    expect_like(net, models.unet.unet(config), (images(3, 4, 6, 3), images(3, 5)))
