"""Residual networks: 18 to 101 layers, wide, with pre-activation, for large or small images.

B batch, H height, W width, I inputs, C channels, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.expect import within
from fnn.initializers import Fan, Initializer, he_normal, lecun_normal, ones
from fnn.keys import fold_name
from fnn.layers._axes import expect_images
from fnn.models._common import expect_stages, with_check
from fnn.nn.compact import Run, compact
from fnn.nn.compute import Policy
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar

# fmt: off
__all__ = [
    "ResNetConfig", "average_top", "bare_stem", "basic_block", "bottleneck_block", "cifar_stem",
    "imagenet_stem", "norm_top", "pre_activation_block", "resnet", "resnet101", "resnet18",
    "resnet34", "resnet50", "wide_resnet",
]
# fmt: on

Part = Callable[["ResNetConfig"], Model]
Block = Callable[["ResNetConfig", int, int, Scalar], Model]  # (config, C, stride, rate) -> a block


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Shapes and layers of a residual network; see `resnet18` and the others."""

    out_features: int  # O
    depths: tuple[int, ...]  # blocks of each stage
    widths: tuple[int, ...]  # C of each stage
    stem_features: int  # C of the stem
    stem: Part  # from the image to the first block
    block: Block
    top: Part  # from the last block to the head
    norm: Callable[[], Model] = partial(nn.batch_norm, decay=0.9)
    activation: nn.Layer = relu
    remat: Policy | None = None  # what `nn.remat` of a block saves; None computes nothing twice
    last_scale_init: Initializer = ones  # of a branch's last norm; zeros for identity blocks
    kernel_init: Initializer = he_normal(Fan.OUT)  # of the convolutions
    head_init: Initializer = lecun_normal()  # no activation follows the head


@within(rate="[0, 1]")
def resnet(config: ResNetConfig, *, rate: Scalar = 0.0) -> Model:
    """A stem, stages of residual blocks, average pooling, and a linear head.

        h <- activation(branch(h) + shortcut(h))   for each block; see `basic_block`

    The first block of each stage but the first halves height and width.

    Args:
      config: shapes and layers.
      rate: dropout rate before the last convolution of each block (Zagoruyko & Komodakis 2016,
        section 2.4); may be traced.

    Apply takes x (B, H, W, I) and returns (B, O). Parameters:
    {'stem': {'conv', 'norm'}, 'stages': [[block, ...], ...], 'top', 'head': {'kernel', 'bias'}}.
    Raises: ValueError for x of another shape, and for stages without blocks.
    Source: He et al. 2016, arXiv:1512.03385, sections 3.3 and 4.

    >>> from dataclasses import replace
    >>> small = replace(resnet18(3, stem=cifar_stem), depths=(1, 1), widths=(4, 8), stem_features=4)
    >>> x = jnp.zeros((1, 8, 8, 3))
    >>> params, _ = jax.eval_shape(resnet(small).init, jax.random.key(0), x)
    >>> params['stages'][1][0]['shortcut']['conv']['kernel'].shape, params['head']['kernel'].shape
    ((1, 1, 4, 8), (8, 3))
    """
    expect_stages("resnet", config.depths, config.widths)
    stages = [
        nn.sequential(*(_block(config, width, s, rate) for s in _strides(i, depth)))
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True))
    ]
    model = nn.sequential(
        stem=config.stem(config),
        stages=nn.sequential(*stages),
        top=config.top(config),  # (B, H, W, C) -> (B, C)
        head=nn.linear(config.out_features, kernel_init=config.head_init),
    )
    return with_check(model, partial(expect_images, "resnet"))


def _block(config: ResNetConfig, features: int, stride: int, rate: Scalar) -> Model:
    block = config.block(config, features, stride, rate)
    return block if config.remat is None else nn.remat(block, config.remat)


def _strides(stage: int, depth: int) -> list[int]:
    return [1 if stage == 0 else 2, *[1] * (depth - 1)]


def imagenet_stem(config: ResNetConfig) -> Model:
    """A 7 x 7 convolution and 3 x 3 max pooling, at a quarter of the height and width.

    >>> stem = imagenet_stem(resnet18())
    >>> jax.eval_shape(stem.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[0]['conv']
    {'kernel': ShapeDtypeStruct(shape=(7, 7, 3, 64), dtype=float32)}
    """
    return nn.sequential(
        conv=_conv(config, config.stem_features, 7, 2),
        norm=config.norm(),
        activation=config.activation,
        pool=nn.max_pool((3, 3), stride=2, padding=((1, 1), (1, 1))),
    )


def cifar_stem(config: ResNetConfig) -> Model:
    """A 3 x 3 convolution of stride 1, for images of 32 x 32 pixels.

    >>> stem = cifar_stem(resnet18())
    >>> jax.eval_shape(stem.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[0]['conv']
    {'kernel': ShapeDtypeStruct(shape=(3, 3, 3, 64), dtype=float32)}
    """
    layer = _conv(config, config.stem_features, 3)
    return nn.sequential(conv=layer, norm=config.norm(), activation=config.activation)


def bare_stem(config: ResNetConfig) -> Model:
    """The convolution of `cifar_stem` alone, for pre-activation blocks.

    >>> stem = bare_stem(wide_resnet(10, 1, 10))
    >>> sorted(jax.eval_shape(stem.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[0])
    ['conv']
    """
    return nn.sequential(conv=_conv(config, config.stem_features, 3))


def average_top(config: ResNetConfig) -> Model:
    """Global average pooling.

    >>> average_top(resnet18()).apply({}, (), jnp.ones((1, 2, 2, 1)))[0].tolist()
    [[1.0]]
    """
    return nn.global_average_pool()


def norm_top(config: ResNetConfig) -> Model:
    """Norm, activation and global average pooling, for pre-activation blocks.

    >>> top = norm_top(wide_resnet(10, 1, 10))
    >>> params, _ = jax.eval_shape(top.init, jax.random.key(0), jnp.ones((1, 2, 2, 4)))
    >>> params['norm']['scale'].shape
    (4,)
    """
    pool = nn.global_average_pool()
    return nn.sequential(norm=config.norm(), activation=config.activation, pool=pool)


@within(rate="[0, 1]")
def basic_block(config: ResNetConfig, features: int, stride: int, rate: Scalar) -> Model:
    """Two 3 x 3 convolutions with a residual connection.

        activation(norm2(conv2(activation(norm1(conv1 x)))) + shortcut(x))

    The shortcut is x itself if the shapes agree, else a 1 x 1 convolution and a norm.

    Parameters: {'conv1', 'norm1', 'conv2', 'norm2'}, and if needed 'shortcut': {'conv', 'norm'}.
    Source: He et al. 2016, arXiv:1512.03385, figure 2, with shortcuts of option B.

    >>> block = basic_block(resnet18(), 8, 2, 0.0)
    >>> params, _ = jax.eval_shape(block.init, jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    >>> sorted(params)
    ['conv1', 'conv2', 'norm1', 'norm2', 'shortcut']
    """

    def forward(run: Run, x: Any) -> Any:
        y = run("conv1", _conv(config, features, 3, stride), x)
        y = run("activation1", config.activation, run("norm1", config.norm(), y))
        y = run("conv2", _conv(config, features, 3), run("dropout", nn.dropout(rate), y))
        return _add_shortcut(config, run, x, run("norm2", _last_norm(config), y), stride)

    return compact(forward)


@within(rate="[0, 1]")
def bottleneck_block(
    config: ResNetConfig, features: int, stride: int, rate: Scalar, *, reduction: int = 4
) -> Model:
    """A 3 x 3 convolution of fewer features between two of 1 x 1, with a residual connection.

        activation(norm3(conv3(activation(norm2(conv2(activation(norm1(conv1 x))))))) + shortcut(x))

    Args:
      reduction: features / features of the 3 x 3 convolution.

    Parameters: {'conv1', 'norm1', ..., 'norm3'} and 'shortcut', as those of `basic_block`.
    Source: He et al. 2016, arXiv:1512.03385, figure 5. Deviates: the stride is that of the 3 x 3
      convolution, not of the first one ("v1.5": torchvision's, and Goyal et al.'s,
      arXiv:1706.02677).

    >>> block = bottleneck_block(resnet50(), 8, 1, 0.0)
    >>> params, _ = jax.eval_shape(block.init, jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    >>> params['conv2']['kernel'].shape
    (3, 3, 2, 2)
    """
    narrow = features // reduction

    def forward(run: Run, x: Any) -> Any:
        y = run("conv1", _conv(config, narrow, 1), x)
        y = run("activation1", config.activation, run("norm1", config.norm(), y))
        y = run("conv2", _conv(config, narrow, 3, stride), y)
        y = run("activation2", config.activation, run("norm2", config.norm(), y))
        y = run("conv3", _conv(config, features, 1), run("dropout", nn.dropout(rate), y))
        return _add_shortcut(config, run, x, run("norm3", _last_norm(config), y), stride)

    return compact(forward)


@within(rate="[0, 1]")
def pre_activation_block(config: ResNetConfig, features: int, stride: int, rate: Scalar) -> Model:
    """Two 3 x 3 convolutions, each after a norm and an activation, with a residual connection.

        h = activation(norm1 x),   conv2(activation(norm2(conv1 h))) + x or shortcut(h)

    Parameters: {'norm1', 'conv1', 'norm2', 'conv2'}, and if needed 'shortcut': {'conv'}.
    Source: He et al. 2016, arXiv:1603.05027, figure 4(e); Zagoruyko & Komodakis 2016,
      arXiv:1605.07146, table 1. Deviates: `last_scale_init` has no norm to initialize.

    >>> block = pre_activation_block(wide_resnet(10, 1, 10), 8, 1, 0.0)
    >>> params, _ = jax.eval_shape(block.init, jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    >>> sorted(params)
    ['conv1', 'conv2', 'norm1', 'norm2']
    """

    def forward(run: Run, x: Any) -> Any:
        h = run("activation1", config.activation, run("norm1", config.norm(), x))
        y = run("conv1", _conv(config, features, 3, stride), h)
        y = run("activation2", config.activation, run("norm2", config.norm(), y))
        y = run("conv2", _conv(config, features, 3), run("dropout", nn.dropout(rate), y))
        if x.shape != y.shape:
            x = run("shortcut", nn.sequential(conv=_conv(config, features, 1, stride)), h)
        return run("sum", sum, (x, y))

    return compact(forward)


def _add_shortcut(config: ResNetConfig, run: Run, x: Any, y: Any, stride: int) -> Any:
    if x.shape != y.shape:
        layer = _conv(config, y.shape[-1], 1, stride)
        x = run("shortcut", nn.sequential(conv=layer, norm=config.norm()), x)
    return run("activation", config.activation, run("sum", sum, (x, y)))


def _conv(config: ResNetConfig, features: int, kernel_size: int, stride: int = 1) -> Model:
    # Symmetric padding as in PyTorch, which for a stride of 2 differs from 'SAME'. No bias: a norm
    # follows, and would subtract it again.
    border = (kernel_size // 2, kernel_size // 2)
    return nn.conv(
        features,
        (kernel_size, kernel_size),
        stride=stride,
        padding=(border, border),
        bias=False,
        kernel_init=config.kernel_init,
    )


def _last_norm(config: ResNetConfig) -> Model:
    norm = config.norm()

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params, state = norm.init(key, x)
        if "scale" not in params:
            return params, state
        scale = config.last_scale_init(fold_name(key, "scale"), params["scale"].shape)
        return {**params, "scale": scale}, state

    return Model(init=init, apply=norm.apply)


_BASIC = partial(
    ResNetConfig, widths=(64, 128, 256, 512), stem_features=64, block=basic_block, top=average_top
)
_BOTTLENECK = partial(_BASIC, widths=(256, 512, 1024, 2048), block=bottleneck_block)


def resnet18(out_features: int = 1000, *, stem: Part = imagenet_stem) -> ResNetConfig:
    """ResNet-18: 11,689,512 parameters for three channels and 1,000 classes.

    Source: He et al. 2016, arXiv:1512.03385, table 1.

    >>> resnet18().depths
    (2, 2, 2, 2)
    """
    return _BASIC(out_features=out_features, stem=stem, depths=(2, 2, 2, 2))


def resnet34(out_features: int = 1000, *, stem: Part = imagenet_stem) -> ResNetConfig:
    """ResNet-34: 21,797,672 parameters for three channels and 1,000 classes.

    Source: He et al. 2016, arXiv:1512.03385, table 1.

    >>> resnet34().depths
    (3, 4, 6, 3)
    """
    return _BASIC(out_features=out_features, stem=stem, depths=(3, 4, 6, 3))


def resnet50(out_features: int = 1000, *, stem: Part = imagenet_stem) -> ResNetConfig:
    """ResNet-50, with bottlenecks: 25,557,032 parameters for three channels and 1,000 classes.

    Source: He et al. 2016, arXiv:1512.03385, table 1.

    >>> resnet50().widths
    (256, 512, 1024, 2048)
    """
    return _BOTTLENECK(out_features=out_features, stem=stem, depths=(3, 4, 6, 3))


def resnet101(out_features: int = 1000, *, stem: Part = imagenet_stem) -> ResNetConfig:
    """ResNet-101, with bottlenecks: 44,549,160 parameters for three channels and 1,000 classes.

    Source: He et al. 2016, arXiv:1512.03385, table 1.

    >>> resnet101().depths
    (3, 4, 23, 3)
    """
    return _BOTTLENECK(out_features=out_features, stem=stem, depths=(3, 4, 23, 3))


def wide_resnet(
    num_layers: int, factor: int, out_features: int, *, stem: Part = bare_stem
) -> ResNetConfig:
    """WRN-num_layers-factor, such as WRN-28-10: pre-activation, for small images.

    Args:
      num_layers: 6 n + 4, for n blocks in each of three stages.
      factor: multiplies the widths 16, 32 and 64.

    Raises: ValueError for a number of layers of another form.
    Source: Zagoruyko & Komodakis 2016, arXiv:1605.07146, table 1. With factor 1 it is the
      pre-activation ResNet of He et al. 2016, arXiv:1603.05027, for CIFAR.

    >>> wide_resnet(28, 10, 10).widths
    (160, 320, 640)
    """
    if num_layers < 10 or num_layers % 6 != 4:
        raise ValueError(
            f"wide_resnet: expected 6 n + 4 layers, n of at least 1, got {num_layers}; "
            "use 10, 16, 22, 28 or 40"
        )
    return ResNetConfig(
        out_features=out_features,
        depths=((num_layers - 4) // 6,) * 3,
        widths=(16 * factor, 32 * factor, 64 * factor),
        stem_features=16,
        stem=stem,
        block=pre_activation_block,
        top=norm_top,
    )


check_exports(__name__)
