"""The maximal update parametrization (muP): hyperparameters that transfer across widths.

Under the standard parametrization, an Adam step changes a layer's outputs by an amount that grows
with its width, so that each width needs its own learning rate. With these configs and
`optim.scaled_for_width` it does not depend on the width.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fnn._arguments import check_exports
from fnn.initializers import Initializer
from fnn.models.gpt import GPTConfig
from fnn.models.mlp import MLPConfig
from fnn.types import PRNGKey

__all__ = ["mup_gpt", "mup_mlp"]


def mup_mlp(config: MLPConfig, base: MLPConfig) -> MLPConfig:
    """The config in muP; unchanged at the base's widths.

        std(head) <- std(head) sqrt(base width / width)

    The hidden layers' initializers scale with fan-in already.

    Args:
      config: of any widths, as many as the base has.
      base: of the widths at which the learning rate was tuned.

    Train with `optim.scaled_for_width(optim.adam(), base=shapes of the base's parameters)`.
    Raises: ValueError for another number of hidden layers.
    Source: Yang et al. 2022, arXiv:2203.03466, table 3: variance 1 / fan_in^2 of the head, and
      1 / fan_in of the other kernels.

    >>> base = MLPConfig(widths=(64,), out_features=2)
    >>> wide = mup_mlp(replace(base, widths=(256,)), base)
    >>> std = lambda config: config.head_init(jax.random.key(0), (256, 2)).std()
    >>> (std(wide) / std(base)).round(3).item()
    0.5
    """
    if len(config.widths) != len(base.widths):
        raise ValueError(
            f"mup_mlp: expected {len(base.widths)} hidden layers, as the base has, got "
            f"{len(config.widths)}; only the width may differ"
        )
    if not config.widths:
        return config
    factor = (base.widths[-1] / config.widths[-1]) ** 0.5
    return replace(config, head_init=_scaled(config.head_init, factor))


def mup_gpt(config: GPTConfig, base: GPTConfig) -> GPTConfig:
    """The config in muP; unchanged at the base's width.

        m = features / base features,   D features of a head
        std(kernels of blocks) <- std / sqrt(m),   attention logits q.k sqrt(base D) / D
        tied: logits <- logits / m;   else: std(head) <- std / m

    Args:
      config: `gpt2(...)` or `llama(...)`, wider than the base by one factor in all its parts, with
        the base's initializers, whose scales do not depend on the width.
      base: of the width at which the learning rate was tuned.

    Train with `optim.scaled_for_width(optim.adamw(), base=shapes of the base's parameters)`.
    Raises: ValueError if hidden features are not wider by the same factor, or layers differ.
    Source: Yang et al. 2022, arXiv:2203.03466, tables 3 and 8 (tied tables) and definition 4.1.

    >>> from fnn.models.gpt import gpt2
    >>> base = gpt2(features=64, num_layers=2, num_heads=4)
    >>> mup_gpt(gpt2(features=256, num_layers=2, num_heads=4), base).head_multiplier
    0.25
    """
    m = config.features / base.features
    _expect_same_depth(config, base, m)
    block, out = config.block, config.block.out_kernel_init
    scale = _head_features(base) ** 0.5 / _head_features(config)
    block = replace(
        block,
        kernel_init=_scaled(block.kernel_init, m**-0.5),
        out_kernel_init=None if out is None else _scaled(out, m**-0.5),
        attend=partial(block.attend, scale=scale),
    )
    return replace(
        config,
        block=block,
        head_multiplier=config.head_multiplier / m if config.tied else config.head_multiplier,
        head_init=_scaled(config.head_init, 1 / m),
    )


def _scaled(initializer: Initializer, factor: float) -> Initializer:
    def init(key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.asarray(factor, dtype) * initializer(key, shape, dtype)

    return init


def _head_features(config: GPTConfig) -> int:
    return config.block.head_features or config.features // config.block.num_heads


def _expect_same_depth(config: GPTConfig, base: GPTConfig, m: float) -> None:
    hidden = config.block.hidden_features / base.block.hidden_features
    if config.num_layers != base.num_layers or hidden != m:
        raise ValueError(
            f"mup_gpt: expected {base.num_layers} layers and hidden features {m:g} times the "
            f"base's, as the features are, got {config.num_layers} and {hidden:g} times; only the "
            "width may differ"
        )


check_exports(__name__)
