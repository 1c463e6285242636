"""The defaults of torch.nn (2.13): kernels and biases mostly uniform in +-1 / sqrt(fan_in).

In torch this is kaiming_uniform with a = sqrt(5).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.initializers.base import Initializer, Shape
from fnn.initializers.constant import zeros
from fnn.initializers.distributions import normal, uniform
from fnn.types import PRNGKey

Arguments = dict[str, Any]


def linear(in_features: int) -> Arguments:
    """torch.nn.Linear: kernel and bias uniform in +-1 / sqrt(in_features).

    >>> sorted(linear(784))
    ['bias_init', 'kernel_init']
    """
    return _kernel_and_bias(in_features)


def conv(kernel_size: Shape, in_features: int, *, groups: int = 1) -> Arguments:
    """torch.nn.Conv1d, Conv2d, Conv3d: uniform in +-1 / sqrt(size * in_features / groups).

    >>> sorted(conv((3, 3), 16))
    ['bias_init', 'kernel_init']
    """
    return _kernel_and_bias(math.prod(kernel_size) * in_features // groups)


def conv_transpose(kernel_size: Shape, out_features: int, *, groups: int = 1) -> Arguments:
    """torch.nn.ConvTranspose1d, 2d, 3d: uniform in +-1 / sqrt(size * out_features / groups).

    By the outputs: the kernel of torch has them where that of a convolution has its inputs.

    >>> sorted(conv_transpose((3, 3), 32))
    ['bias_init', 'kernel_init']
    """
    return _kernel_and_bias(math.prod(kernel_size) * out_features // groups)


def embedding() -> Arguments:
    """torch.nn.Embedding: standard normal.

    >>> embedding()['table_init'](jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return {"table_init": normal(1.0)}


def rnn(hidden: int) -> Arguments:
    """torch.nn.RNN: all uniform in +-1 / sqrt(hidden).

    torch has two biases, which act as their sum; the single bias here is drawn as that sum.

    >>> sorted(rnn(8))
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return _recurrent(hidden, single=0)


def lstm(hidden: int) -> Arguments:
    """torch.nn.LSTM: as `rnn`, without a bias of the forget gate.

    >>> lstm(8)['forget_bias']
    0.0
    """
    return {**_recurrent(hidden, single=0), "forget_bias": 0.0}


def gru(hidden: int) -> Arguments:
    """torch.nn.GRU: as `rnn`; the two biases of the candidate are separate, as in torch.

    >>> sorted(gru(8))
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return _recurrent(hidden, single=hidden)


def attention(features: int) -> Arguments:
    """torch.nn.MultiheadAttention with queries, keys and values of the same number of features.

    Query, key and value kernels are glorot uniform as one matrix (features, 3 features), the output
    kernel is that of a linear layer, and the biases are 0.

    >>> sorted(attention(8))
    ['bias_init', 'kernel_init', 'out_kernel_init']
    """
    return {
        "kernel_init": _within(math.sqrt(6 / (4 * features))),
        "out_kernel_init": _within(1 / math.sqrt(max(features, 1))),
        "bias_init": zeros,
    }


def layer_norm() -> Arguments:
    """torch.nn.LayerNorm and GroupNorm.

    >>> layer_norm()
    {'eps': 1e-05}
    """
    return {"eps": 1e-5}


group_norm = layer_norm


def batch_norm() -> Arguments:
    """torch.nn.BatchNorm1d, 2d, 3d, whose momentum of 0.1 is 1 - decay.

    Its running variance is the unbiased one; see `layers.batch_norm`.

    >>> batch_norm()
    {'eps': 1e-05, 'decay': 0.9}
    """
    return {"eps": 1e-5, "decay": 0.9}


def instance_norm() -> Arguments:
    """torch.nn.InstanceNorm1d, 2d, 3d: without scale and bias.

    >>> instance_norm()
    {'eps': 1e-05, 'scale': False, 'bias': False}
    """
    return {"eps": 1e-5, "scale": False, "bias": False}


def rms_norm(dtype: Any = jnp.float32) -> Arguments:
    """torch.nn.RMSNorm, whose eps is the machine epsilon of the dtype.

    >>> f"{rms_norm()['eps']:.3g}"
    '1.19e-07'
    """
    return {"eps": float(jnp.finfo(dtype).eps)}


def _within(bound: float) -> Initializer:
    return uniform(-bound, bound)


def _kernel_and_bias(fan: int) -> Arguments:
    within = _within(1 / math.sqrt(max(fan, 1)))
    return {"kernel_init": within, "bias_init": within}


def _recurrent(hidden: int, single: int) -> Arguments:
    kernel = _within(1 / math.sqrt(max(hidden, 1)))
    bias = _sum_of_two(kernel, single)
    return {"kernel_init": kernel, "recurrent_init": kernel, "bias_init": bias}


def _sum_of_two(initializer: Initializer, single: int) -> Initializer:
    """Sums of two draws; the last `single` elements are one draw."""

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        wide = at_least_float32(dtype)
        first, second = (initializer(one, shape, wide) for one in jax.random.split(key))
        both = jnp.arange(shape[0]) < shape[0] - single
        return (first + jnp.where(both, second, 0)).astype(dtype)

    return init
