"""Initializers of parameters: `initializer(key, shape, dtype) -> array`."""

from fnn._arguments import check_exports
from fnn.initializers import presets
from fnn.initializers.base import Fan, Initializer, Shape, fans
from fnn.initializers.constant import constant, dirac, identity, ones, zeros
from fnn.initializers.distributions import normal, scaled_residual, truncated_normal, uniform
from fnn.initializers.orthogonal import blockwise, delta_orthogonal, orthogonal
from fnn.initializers.variance_scaling import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
)

# fmt: off
__all__ = [
    "Fan", "Initializer", "Shape", "blockwise", "constant", "delta_orthogonal", "dirac", "fans",
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "lecun_normal",
    "lecun_uniform", "normal", "ones", "orthogonal", "presets", "scaled_residual",
    "truncated_normal", "uniform", "zeros",
]
# fmt: on

check_exports(__name__)
