"""Conversions of torchvision's residual networks.

names = resnet(resnet50());  params, model_state = names.to_fnn(state_dict)
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fnn import models
from fnn.interop import torch
from fnn.interop.rules import Conversion, Rule, conversion
from fnn.models.resnet import ResNetConfig
from fnn.types import Params


def resnet(config: ResNetConfig, *, channels: int = 3) -> Conversion:
    """torchvision's ResNet as `resnet(resnet18())`, or another without pre-activation.

    Args:
      channels: of the images.

    Raises: ValueError for a config with pre-activation, which torchvision lacks.

    >>> from dataclasses import replace
    >>> config = replace(models.resnet.resnet18(3), depths=(1, 1), widths=(4, 8), stem_features=4)
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> shapes = jax.eval_shape(models.resnet.resnet(config).init, jax.random.key(0), x)
    >>> weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> resnet(config).to_torch(*weights)['layer2.0.downsample.0.weight'].shape
    (8, 4, 1, 1)
    """
    x = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    params, state = jax.eval_shape(models.resnet.resnet(config).init, jax.random.key(0), x)
    if "norm" not in params["stem"]:
        raise ValueError(
            "torchvision.resnet: expected a stem with a norm, got one without; torchvision has no "
            "pre-activation: use your own rules"
        )
    blocks = [
        rule
        for s, stage in enumerate(params["stages"])
        for i, block in enumerate(stage)
        for rule in _block(f"layer{s + 1}.{i}", f"stages/{s}/{i}", block)
    ]
    rules = [*_conv_and_norm("conv1", "bn1", "stem"), *blocks, *torch.linear("fc", "head")]
    return conversion(rules, (params, state))


def _block(name: str, path: str, block: Params) -> Sequence[Rule]:
    """The convolutions of a block, and its residual connection."""
    rules: list[Rule] = []
    for i in range(1, 4):
        if f"conv{i}" in block:
            rules += torch.conv(f"{name}.conv{i}", f"{path}/conv{i}", bias=False)
            rules += torch.batch_norm(f"{name}.bn{i}", f"{path}/norm{i}")
    if "shortcut" in block:
        shortcut = f"{name}.downsample"
        rules += _conv_and_norm(f"{shortcut}.0", f"{shortcut}.1", f"{path}/shortcut")
    return rules


def _conv_and_norm(conv: str, norm: str, path: str) -> list[Rule]:
    return [*torch.conv(conv, f"{path}/conv", bias=False), *torch.batch_norm(norm, f"{path}/norm")]
