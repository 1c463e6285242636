"""A small convolutional network. B batch, H height, W width, C channels, O outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.layers._axes import expect_images
from fnn.models._common import with_check
from fnn.types import Model, Scalar

__all__ = ["CNNConfig", "cnn"]


@dataclass(frozen=True, kw_only=True)
class CNNConfig:
    """Shapes and layers of a convolutional network."""

    stages: tuple[tuple[int, ...], ...] = ((32,), (64,))  # C of each convolution of each stage
    out_features: int  # O
    kernel_size: int = 3  # height and width
    activation: nn.Layer = relu
    norm: Callable[[], Model] | None = nn.batch_norm  # between the convolution and the activation
    pool: nn.Layer = nn.max_pool((2, 2))  # between two stages
    head_pool: nn.Layer = nn.global_average_pool()  # after the last stage; or nn.flatten()
    kernel_init: Initializer = he_normal()  # of the convolutions
    head_init: Initializer = lecun_normal()  # no activation follows the head


@within(rate="[0, 1]")
def cnn(config: CNNConfig, *, rate: Scalar = 0.0) -> Model:
    """Stages of convolutions, each with norm and activation, then a linear head.

    The last convolution of each stage but the last is followed by the pool, which halves height and
    width.

    Args:
      config: shapes and layers.
      rate: dropout rate before the head; may be traced.

    Apply takes x (B, H, W, C) and returns (B, O). Parameters:
    {'stages': [[{'conv': ..., 'norm': ...}, ...], ...], 'head': {'kernel', 'bias'}}.
    Raises: ValueError for stages without a convolution, and for x of another shape.

    >>> model = cnn(CNNConfig(stages=((4,), (8, 8)), out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> params['stages'][1][0]['conv']['kernel'].shape, params['head']['kernel'].shape
    ((3, 3, 4, 8), (8, 3))
    """
    if not config.stages or not all(config.stages):
        raise ValueError(
            f"cnn: expected one or more features for each stage, got {config.stages}; "
            "remove empty stages"
        )
    model = nn.sequential(
        stages=nn.sequential(*(_stage(config, i) for i in range(len(config.stages)))),
        pool=config.head_pool,
        dropout=nn.dropout(rate),
        head=nn.linear(config.out_features, kernel_init=config.head_init),
    )
    return with_check(model, partial(expect_images, "cnn"))


def _stage(config: CNNConfig, i: int) -> Model:
    *others, last = config.stages[i]
    pool = config.pool if i < len(config.stages) - 1 else None
    return nn.sequential(*(_block(config, n) for n in others), _block(config, last, pool))


def _block(config: CNNConfig, features: int, pool: nn.Layer | None = None) -> Model:
    layer = nn.conv(
        features,
        (config.kernel_size, config.kernel_size),
        bias=config.norm is None,  # a norm subtracts the bias again
        kernel_init=config.kernel_init,
    )
    norm = {"norm": config.norm()} if config.norm else {}
    # Pooling first leaves a quarter of the work for norm and activation.
    pooled = {"pool": pool} if pool else {}
    return nn.sequential(conv=layer, **pooled, **norm, activation=config.activation)


check_exports(__name__)
