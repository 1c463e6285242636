"""Initial values of parameters: `initializer(key, shape, dtype) -> array`."""

from fnn.arguments import check_exports
from fnn.initializers import presets as presets
from fnn.initializers.base import Fan as Fan
from fnn.initializers.base import Initializer as Initializer
from fnn.initializers.base import Shape as Shape
from fnn.initializers.base import fans as fans
from fnn.initializers.fixed import constant as constant
from fnn.initializers.fixed import dirac as dirac
from fnn.initializers.fixed import identity as identity
from fnn.initializers.fixed import ones as ones
from fnn.initializers.fixed import zeros as zeros
from fnn.initializers.orthogonal import blockwise as blockwise
from fnn.initializers.orthogonal import delta_orthogonal as delta_orthogonal
from fnn.initializers.orthogonal import orthogonal as orthogonal
from fnn.initializers.random import normal as normal
from fnn.initializers.random import scaled_residual as scaled_residual
from fnn.initializers.random import truncated_normal as truncated_normal
from fnn.initializers.random import uniform as uniform
from fnn.initializers.scaling import glorot_normal as glorot_normal
from fnn.initializers.scaling import glorot_uniform as glorot_uniform
from fnn.initializers.scaling import he_normal as he_normal
from fnn.initializers.scaling import he_uniform as he_uniform
from fnn.initializers.scaling import lecun_normal as lecun_normal
from fnn.initializers.scaling import lecun_uniform as lecun_uniform

# fmt: off
__all__ = [
    "Fan", "Initializer", "Shape", "blockwise", "constant", "delta_orthogonal", "dirac", "fans",
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "lecun_normal",
    "lecun_uniform", "normal", "ones", "orthogonal", "presets", "scaled_residual",
    "truncated_normal", "uniform", "zeros",
]
# fmt: on

check_exports(__name__)
