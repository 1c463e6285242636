"""A small convolutional network. B batch, H height, W width, C channels, O outputs."""

from collections.abc import Callable
from dataclasses import dataclass

from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.layers._axes import expect_images
from fnn.nn import (
    Layer,
    batch_norm,
    conv,
    dropout,
    global_average_pool,
    linear,
    max_pool,
    sequential,
)
from fnn.types import Model, Scalar

__all__ = ["CNNConfig", "cnn"]


@dataclass(frozen=True, kw_only=True)
class CNNConfig:
    """What fixes the shapes and the parts of a convolutional network."""

    stages: tuple[tuple[int, ...], ...] = ((32,), (64,))  # C of each convolution of each stage
    out_features: int  # O
    window: int = 3  # height and width of the kernels
    activation: Layer = relu
    norm: Callable[[], Model] | None = batch_norm  # between the convolution and the activation
    pool: Layer = max_pool((2, 2))  # between two stages
    head_pool: Layer = global_average_pool()  # behind the last stage; flatten() keeps the places
    kernel_init: Initializer = he_normal()  # of the convolutions
    head_init: Initializer = lecun_normal()  # no activation follows the head


@within(rate="[0, 1]")
def cnn(config: CNNConfig, *, rate: Scalar = 0.0) -> Model:
    """Stages of convolutions, each with norm and activation, then a linear head.

    The last convolution of every stage but the last is followed by the pool, so that each stage
    works on an image of half the height and width.

    Args:
      config: shapes and parts.
      rate: drop probability in front of the head; may be traced.

    Apply takes x (B, H, W, C) and returns (B, O). Parameters:
    {'stages': [[{'conv': ..., 'norm': ...}, ...], ...], 'head': {'kernel', 'bias'}}.
    Raises: ValueError for a config without a convolution, and for x without its four axes.

    >>> model = cnn(CNNConfig(stages=((4,), (8, 8)), out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> params['stages'][1][0]['conv']['kernel'].shape, params['head']['kernel'].shape
    ((3, 3, 4, 8), (8, 3))
    """
    if not config.stages or not all(config.stages):
        raise ValueError(
            f"cnn: expected one or more features for each stage, got {config.stages}; "
            "leave empty stages out"
        )
    model = sequential(
        stages=sequential(*(_stage(config, i) for i in range(len(config.stages)))),
        pool=config.head_pool,
        dropout=dropout(rate),
        head=linear(config.out_features, kernel_init=config.head_init),
    )

    def init(key, x):
        expect_images("cnn", x)
        return model.init(key, x)

    return Model(init=init, apply=model.apply)


def _stage(config: CNNConfig, i: int) -> Model:
    *others, last = config.stages[i]
    pool = config.pool if i < len(config.stages) - 1 else None
    blocks = [_block(config, features, None) for features in others]
    return sequential(*blocks, _block(config, last, pool))


def _block(config: CNNConfig, features: int, pool: Layer | None) -> Model:
    # Before a norm a bias has no effect: the norm subtracts it again.
    window = (config.window, config.window)
    linear = conv(features, window, bias=config.norm is None, kernel_init=config.kernel_init)
    norm = {"norm": config.norm()} if config.norm else {}
    # Right behind the convolution, the pool leaves a quarter of the work for norm and activation.
    pooled = {"pool": pool} if pool else {}
    return sequential(conv=linear, **pooled, **norm, activation=config.activation)


check_exports(__name__)
