"""Rows of the convolutions, pools, resizing layers and linear maps over several axes."""

from fnn import nn
from tests.registry.rows import ModelRow, normal

MODELS = [
    ModelRow(name="conv", make=lambda: nn.conv(3, (3, 3)), x=normal(3, 4, 5, 2)),
    ModelRow(
        name="conv with stride, dilation and groups, causal",
        make=lambda: nn.conv(4, (3,), stride=2, dilation=2, groups=2, padding="CAUSAL", bias=False),
        x=normal(3, 6, 4),
    ),
    ModelRow(
        name="conv of volumes, circular",
        make=lambda: nn.conv(2, (2, 1, 3), padding="CIRCULAR"),
        x=normal(3, 2, 3, 3, 2),
    ),
    ModelRow(
        name="depthwise_conv",
        make=lambda: nn.depthwise_conv((3,), multiplier=2, padding="REFLECT"),
        x=normal(3, 4, 2),
    ),
    ModelRow(
        name="separable_conv",
        make=lambda: nn.separable_conv(3, (2, 2), stride=2, padding=((1, 0), (0, 1))),
        x=normal(3, 4, 4, 2),
    ),
    ModelRow(
        name="conv_transpose",
        make=lambda: nn.conv_transpose(3, (3,), stride=2),
        x=normal(3, 4, 2),
    ),
    ModelRow(name="max_pool", make=lambda: nn.max_pool((2, 2)), x=normal(3, 4, 5, 2)),
    ModelRow(
        name="max_pool with overlap",
        make=lambda: nn.max_pool((3, 3), stride=2, padding="SAME"),
        x=normal(3, 4, 5, 2),
    ),
    ModelRow(
        name="average_pool",
        make=lambda: nn.average_pool((3,), stride=2, padding="SAME"),
        x=normal(3, 6, 2),
    ),
    ModelRow(name="sum_pool", make=lambda: nn.sum_pool((2,)), x=normal(3, 4, 2)),
    ModelRow(name="global_max_pool", make=nn.global_max_pool, x=normal(3, 4, 2)),
    ModelRow(name="global_average_pool", make=nn.global_average_pool, x=normal(3, 4, 2, 2)),
    ModelRow(name="adaptive_max_pool", make=lambda: nn.adaptive_max_pool((2,)), x=normal(3, 5, 2)),
    ModelRow(
        name="adaptive_average_pool",
        make=lambda: nn.adaptive_average_pool((2,)),
        x=normal(3, 5, 2),
    ),
    ModelRow(name="resize_nearest", make=lambda: nn.resize_nearest((5,)), x=normal(3, 3, 2)),
    ModelRow(name="resize_linear", make=lambda: nn.resize_linear((5,)), x=normal(3, 3, 2)),
    ModelRow(name="upsample_nearest", make=lambda: nn.upsample_nearest((2,)), x=normal(3, 3, 2)),
    ModelRow(name="upsample_linear", make=lambda: nn.upsample_linear((2,)), x=normal(3, 3, 2)),
    ModelRow(name="pixel_shuffle", make=lambda: nn.pixel_shuffle((2,)), x=normal(3, 2, 4)),
    ModelRow(name="pixel_unshuffle", make=lambda: nn.pixel_unshuffle((2,)), x=normal(3, 4, 2)),
    ModelRow(name="patchify", make=lambda: nn.patchify((2,)), x=normal(3, 4, 2)),
    ModelRow(name="unpatchify", make=lambda: nn.unpatchify((2,)), x=normal(3, 2, 4)),
    ModelRow(
        name="linear_general",
        make=lambda: nn.linear_general((2, 3), axes=(1, -1)),
        x=normal(3, 2, 2, 3),
    ),
    ModelRow(name="einsum", make=lambda: nn.einsum("bgi,gio->bgo", o=2), x=normal(3, 2, 3)),
    ModelRow(name="bilinear", make=lambda: nn.bilinear(3), x=(normal(3, 2), normal(3, 4, seed=1))),
]

HELPERS = ["layers.patches"]  # tests/test_conv.py
