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
    """keras Dense: kernel glorot uniform.

    >>> sorted(linear())
    ['bias_init', 'kernel_init']
    """
    return {"kernel_init": glorot_uniform(), "bias_init": zeros}


def conv() -> Arguments:
    """keras Conv1D, Conv2D, Conv3D: kernel glorot uniform.

    >>> sorted(conv())
    ['bias_init', 'kernel_init']
    """
    return linear()


def conv_transpose() -> Arguments:
    """keras Conv1DTranspose, 2D, 3D: kernel glorot uniform, which sees no order of the two fans.

    >>> sorted(conv_transpose())
    ['bias_init', 'kernel_init']
    """
    return linear()


def depthwise_conv(window: Shape, in_features: int, *, multiplier: int = 1) -> Arguments:
    """keras DepthwiseConv: glorot uniform for a kernel (*window, in_features, multiplier).

    >>> sorted(depthwise_conv((3, 3), 16))
    ['bias_init', 'kernel_init']
    """
    fans = math.prod(window) * (in_features + multiplier)
    return {"kernel_init": _glorot(fans), "bias_init": zeros}


def embedding() -> Arguments:
    """keras Embedding: uniform in +-0.05.

    >>> embedding()['table_init'](jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return {"table_init": uniform(-0.05, 0.05)}


def rnn() -> Arguments:
    """keras SimpleRNN: kernel glorot uniform, recurrent kernel orthogonal.

    >>> sorted(rnn())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return {**linear(), "recurrent_init": orthogonal()}


def lstm() -> Arguments:
    """keras LSTM: as `rnn`, with the gates side by side in one matrix, and 1 in the forget gate.

    The rows of the whole recurrent kernel (hidden, 4 hidden) are orthonormal, not those of a gate.

    >>> lstm()['forget_bias']
    1.0
    """
    return {**rnn(), "forget_bias": 1.0}


def gru() -> Arguments:
    """keras GRU: as `rnn`, with the gates side by side in one matrix.

    The rows of the whole recurrent kernel (hidden, 3 hidden) are orthonormal, not those of a gate.

    >>> sorted(gru())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return rnn()


def attention(features: int, num_heads: int, head_features: int) -> Arguments:
    """keras MultiHeadAttention: glorot uniform, with the fans of kernels of three axes.

    Keras reads the first axis of (features, heads, head features), and of (heads, head features,
    features) for the output, as the window of a convolution: the bounds are smaller than those of
    the matrices that the kernels are.

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
    """keras BatchNormalization, whose momentum is the share of the old.

    >>> batch_norm()
    {'eps': 0.001, 'decay': 0.99}
    """
    return {"eps": 1e-3, "decay": 0.99}


def group_norm() -> Arguments:
    """keras GroupNormalization.

    >>> group_norm()
    {'groups': 32, 'eps': 0.001}
    """
    return {"groups": 32, "eps": 1e-3}


def rms_norm() -> Arguments:
    """keras RMSNormalization.

    >>> rms_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}


def _glorot(fans: float) -> Any:
    bound = math.sqrt(6 / max(fans, 1))
    return uniform(-bound, bound)
