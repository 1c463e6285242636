"""The defaults of Keras (3): glorot uniform kernels, biases of 0, and norms with a large eps."""

import math
from typing import Any

from fnn.initializers.base import Shape
from fnn.initializers.constant import zeros
from fnn.initializers.distributions import uniform
from fnn.initializers.orthogonal import orthogonal
from fnn.initializers.variance_scaling import glorot_uniform

Arguments = dict[str, Any]


def linear() -> Arguments:
    """keras Dense, Conv1D to 3D and Conv1DTranspose to 3D: kernel glorot uniform.

    >>> sorted(linear())
    ['bias_init', 'kernel_init']
    """
    return {"kernel_init": glorot_uniform(), "bias_init": zeros}


conv = conv_transpose = linear


def depthwise_conv(kernel_size: Shape, in_features: int, *, multiplier: int = 1) -> Arguments:
    """keras DepthwiseConv: glorot uniform for a kernel (*kernel_size, in_features, multiplier).

    >>> sorted(depthwise_conv((3, 3), 16))
    ['bias_init', 'kernel_init']
    """
    fans = math.prod(kernel_size) * (in_features + multiplier)
    return {"kernel_init": _glorot(fans), "bias_init": zeros}


def embedding() -> Arguments:
    """keras Embedding: uniform in +-0.05.

    >>> embedding()['table_init'](jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return {"table_init": uniform(-0.05, 0.05)}


def rnn() -> Arguments:
    """keras SimpleRNN and GRU: kernel glorot uniform, recurrent kernel orthogonal.

    The recurrent kernel of all gates, (hidden, gates * hidden), is orthogonal as one matrix.

    >>> sorted(rnn())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return {**linear(), "recurrent_init": orthogonal()}


gru = rnn


def lstm() -> Arguments:
    """keras LSTM: as `rnn`, with a bias of 1 of the forget gate.

    >>> lstm()['forget_bias']
    1.0
    """
    return {**rnn(), "forget_bias": 1.0}


def attention(features: int, num_heads: int, head_features: int) -> Arguments:
    """keras MultiHeadAttention: glorot uniform, with fans of kernels of three axes.

    Keras takes the first axis of (features, heads, head features), and of (heads, head features,
    features) for the output, as a window, so that the bounds are smaller than those of matrices.

    >>> sorted(attention(16, 4, 4))
    ['bias_init', 'kernel_init', 'out_kernel_init']
    """
    return {
        "kernel_init": _glorot(features * (num_heads + head_features)),
        "out_kernel_init": _glorot(num_heads * (head_features + features)),
        "bias_init": zeros,
    }


def layer_norm() -> Arguments:
    """keras LayerNormalization.

    >>> layer_norm()
    {'eps': 0.001}
    """
    return {"eps": 1e-3}


def batch_norm() -> Arguments:
    """keras BatchNormalization, whose momentum is the decay.

    >>> batch_norm()
    {'eps': 0.001, 'decay': 0.99}
    """
    return {"eps": 1e-3, "decay": 0.99}


def group_norm() -> Arguments:
    """keras GroupNormalization.

    >>> group_norm()
    {'num_groups': 32, 'eps': 0.001}
    """
    return {"num_groups": 32, "eps": 1e-3}


def rms_norm() -> Arguments:
    """keras RMSNormalization.

    >>> rms_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}


def _glorot(fans: float) -> Any:
    bound = math.sqrt(6 / max(fans, 1))
    return uniform(-bound, bound)
