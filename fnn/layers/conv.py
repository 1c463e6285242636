"""Convolutions and transposed convolutions over any number of spatial axes."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import Size, Sizes, expect_axes
from fnn.layers._convolve import convolve, convolve_transposed
from fnn.layers._window import Padding, Pairs, Window, explicit_pairs, make_window, pad_copies
from fnn.layers.linear import add_bias
from fnn.types import Params, PRNGKey


def conv_init(
    key: PRNGKey,
    in_features: int,
    out_features: int,
    kernel_size: Sizes,
    *,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `conv`.

    Args:
      kernel_size: along each window axis; (3, 3) for images, (3,) for sequences.
      groups: number of groups of features; divides both feature counts.
      bias: whether to add a bias.
      kernel_init, bias_init: initializers of the two.

    Returns: {'kernel': (*kernel_size, in_features / groups, out_features), 'bias':
      (out_features,)}, float32.
    Raises: ValueError if groups does not divide the features, or kernel_size is one number.

    >>> params = conv_init(jax.random.key(0), 4, 6, (3, 3), groups=2)
    >>> params['kernel'].shape, params['bias'].shape
    ((3, 3, 2, 6), (6,))
    """
    if groups < 1 or in_features % groups or out_features % groups:
        raise ValueError(
            f"conv_init: expected groups to divide {in_features} input and {out_features} output "
            f"features, got {groups}; all groups have the same size"
        )
    shape = (*kernel_size, in_features // groups, out_features)
    params = {"kernel": kernel_init(fold_name(key, "kernel"), shape)}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), (out_features,))
    return params


def conv(
    params: Params,
    x: Float[Array, "batch *sizes in"],
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch *out_sizes out"]:
    """Convolution over the axes between batch and features.

        y[b, p, o] = bias[o] + sum over t, i of x[b, stride p + dilation t - before, i] k[t, i, o]

    p and t run over one, two, three or more axes. With groups, the features are split into
    `groups` contiguous groups; each output group sees only its own input group.

    Args:
      stride: distance between neighboring windows; one number, or one for each axis.
      dilation: distance between neighboring entries inside the window; likewise.
      groups: that of `conv_init`.
      padding: explicit pairs of zeros (before, after), one for each window axis, or
        'SAME': zeros on both sides, an odd one after, for ceil(size / stride) outputs;
        'VALID': none, the window stays inside;
        'CAUSAL': zeros before the first entry, for one window axis: no output sees a later input;
        'CIRCULAR': entries of the other end;
        'REFLECT': the mirror image without the edge itself.
        The last three add reach - 1 entries, with reach = dilation (kernel_size - 1) + 1.

    Returns: (batch, *out_sizes, out_features) in the dtype of x.
    Raises: ValueError if x does not fit the kernel, in axes, features or dtype, or the padding
      does not fit the window.
    Source: LeCun et al. 1989, Neural Computation 1(4); dilation: Yu & Koltun 2016,
      arXiv:1511.07122. Deviates: a correlation (the kernel is not mirrored), as in every peer.
      PyTorch's kernel is (out, in / groups, *kernel_size), its images (batch, features, *sizes),
      and its default padding is 'VALID'.

    >>> params = {'kernel': jnp.ones((3, 1, 1)), 'bias': jnp.array([0.5])}
    >>> conv(params, jnp.arange(4.0).reshape(1, 4, 1)).ravel().tolist()
    [1.5, 3.5, 6.5, 5.5]
    """
    kernel = params["kernel"]
    _expect_fit("conv", x, kernel, groups)
    window = make_window("conv", x, kernel.shape[:-2], stride, dilation)
    x, pairs = pad_copies("conv", x, window, padding)
    y = add_bias(params, convolve(x, kernel, window, pairs, groups))
    return checkpoint_name(y, "conv")


def depthwise_conv_init(
    key: PRNGKey,
    features: int,
    kernel_size: Sizes,
    *,
    multiplier: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `depthwise_conv`.

    Args:
      multiplier: outputs for each feature.

    Returns: {'kernel': (*kernel_size, 1, features * multiplier), 'bias': (features *
      multiplier,)}.

    >>> depthwise_conv_init(jax.random.key(0), 4, (3, 3))['kernel'].shape
    (3, 3, 1, 4)
    """
    return conv_init(
        key,
        features,
        features * multiplier,
        kernel_size,
        groups=features,
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
    )


def depthwise_conv(
    params: Params,
    x: Float[Array, "batch *sizes in"],
    *,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch *out_sizes out"]:
    """Convolution of each feature by itself: `conv` with as many groups as features.

    Args:
      stride, dilation, padding: as in `conv`.

    Returns: (batch, *out_sizes, features * multiplier); the outputs of a feature are neighbors.
    Raises: ValueError as `conv` does.
    Source: Howard et al. 2017, MobileNets, arXiv:1704.04861, section 3.1.

    >>> params = {'kernel': jnp.array([[[1.0, 2.0]]])}
    >>> depthwise_conv(params, jnp.array([[[3.0, 5.0]]])).tolist()
    [[[3.0, 10.0]]]
    """
    return conv(params, x, stride=stride, dilation=dilation, groups=x.shape[-1], padding=padding)


def separable_conv_init(
    key: PRNGKey,
    in_features: int,
    out_features: int,
    kernel_size: Sizes,
    *,
    multiplier: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `separable_conv`.

    Args:
      multiplier: outputs of the depthwise part for each input feature.

    Returns: {'depthwise': {'kernel'}, 'pointwise': {'kernel', 'bias'}}, as of `depthwise_conv`
      and of a `conv` with a kernel of one entry.

    >>> params = separable_conv_init(jax.random.key(0), 4, 6, (3, 3))
    >>> params['depthwise']['kernel'].shape, params['pointwise']['kernel'].shape
    ((3, 3, 1, 4), (1, 1, 4, 6))
    """
    depthwise = depthwise_conv_init(
        fold_name(key, "depthwise"),
        in_features,
        kernel_size,
        multiplier=multiplier,
        bias=False,
        kernel_init=kernel_init,
    )
    pointwise = conv_init(
        fold_name(key, "pointwise"),
        in_features * multiplier,
        out_features,
        (1,) * len(kernel_size),
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
    )
    return {"depthwise": depthwise, "pointwise": pointwise}


def separable_conv(
    params: Params,
    x: Float[Array, "batch *sizes in"],
    *,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch *out_sizes out"]:
    """A depthwise convolution, then a linear map of the features at each position.

    Args:
      stride, dilation, padding: of the depthwise part, as in `conv`.

    Returns: (batch, *out_sizes, out_features).
    Raises: ValueError as `conv` does.
    Source: Chollet 2017, Xception, arXiv:1610.02357. Without an activation between the two, as in
      Keras' SeparableConv.

    >>> params = separable_conv_init(jax.random.key(0), 4, 6, (3,))
    >>> separable_conv(params, jnp.ones((2, 5, 4)), stride=2).shape
    (2, 3, 6)
    """
    x = depthwise_conv(params["depthwise"], x, stride=stride, dilation=dilation, padding=padding)
    return conv(params["pointwise"], x)


def _expect_fit(where: str, x: Array, kernel: Array, groups: int) -> None:
    expect_axes(where, x, kernel.ndim - 2)
    features = kernel.shape[-2] * groups
    if x.shape[-1] != features or kernel.shape[-1] % groups:
        raise ValueError(
            f"{where}: expected x with {features} features in its last axis, got shape {x.shape}; "
            f"the kernel is {kernel.shape} with groups={groups}: give it the inputs that it was "
            "made for"
        )
    if x.dtype != kernel.dtype:
        raise ValueError(
            f"{where}: expected x in the dtype of the kernel, {kernel.dtype}, got {x.dtype}; "
            "cast one to the other"
        )


def conv_transpose_init(
    key: PRNGKey,
    in_features: int,
    out_features: int,
    kernel_size: Sizes,
    *,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `conv_transpose`.

    Args: as of `conv_init`; the fan-in is the kernel size times the inputs of a group, as in Flax
      (PyTorch counts the outputs instead).

    Returns: {'kernel': (*kernel_size, in_features / groups, out_features), 'bias':
      (out_features,)}, float32.
    Raises: ValueError if groups does not divide the features.

    >>> conv_transpose_init(jax.random.key(0), 4, 6, (2, 2))['kernel'].shape
    (2, 2, 4, 6)
    """
    return conv_init(
        key,
        in_features,
        out_features,
        kernel_size,
        groups=groups,
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
    )


def conv_transpose(
    params: Params,
    x: Float[Array, "batch *sizes in"],
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch *out_sizes out"]:
    """Transposed convolution: each input adds the kernel, times itself, to the output.

        y[b, stride p + dilation t - before, o] = bias[o] + sum of x[b, p, i] k[t, i, o]

    Args:
      stride: distance between the outputs of neighboring inputs; the upsampling factor.
      dilation: distance between neighboring entries of the kernel.
      groups: that of `conv_transpose_init`.
      padding: that of the convolution whose transpose this is. With n inputs along an axis and
        reach = dilation (kernel_size - 1) + 1, the number of outputs is
        'SAME': stride n;
        'CAUSAL': stride n, cropped at the end only, so that no output sees a later input;
        'VALID': stride (n - 1) + reach;
        explicit pairs (before, after): that many fewer, and more where a number is negative.

    Returns: (batch, *out_sizes, out_features) in the dtype of x.
    Raises: ValueError if x does not fit the kernel, or for padding 'CIRCULAR' and 'REFLECT'.
    Source: Zeiler et al. 2010, Deconvolutional networks; Dumoulin & Visin 2016, arXiv:1603.07285,
      chapter 4. The kernel is not mirrored: PyTorch's (in, out / groups, *kernel_size) with its
      axes moved gives the same values, its padding=p and output_padding=q being the pair
      (p, p - q). Deviates from Flax, which mirrors the kernel.

    >>> params = {'kernel': jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}
    >>> x = jnp.array([1.0, 10.0]).reshape(1, 2, 1)
    >>> conv_transpose(params, x, stride=2, padding='VALID').ravel().tolist()
    [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    kernel = params["kernel"]
    _expect_fit("conv_transpose", x, kernel, groups)
    window = make_window("conv_transpose", x, kernel.shape[:-2], stride, dilation)
    sizes, pairs = _outputs(x.shape[1:-1], window, padding)
    swapped = _swap_features(kernel, groups)
    return add_bias(params, convolve_transposed(x, swapped, sizes, window, pairs, groups))


def _swap_features(kernel: Array, groups: int) -> Array:
    """(*kernel_size, in / groups, out) to (*kernel_size, out / groups, in)."""
    split = kernel.reshape(*kernel.shape[:-1], groups, kernel.shape[-1] // groups)
    swapped = jnp.swapaxes(split, -1, -3)
    return lax.collapse(swapped, swapped.ndim - 2)


def _outputs(
    sizes: Sequence[int], window: Window, padding: Padding
) -> tuple[tuple[int, ...], Pairs]:
    """The sizes of the output, and the padding of the convolution that leads back."""
    if padding in ("CIRCULAR", "REFLECT"):
        raise ValueError(
            "conv_transpose: expected padding 'SAME', 'VALID', 'CAUSAL' or explicit pairs, got "
            f"{padding!r}; extend the input before, and crop the output after"
        )
    surplus = [max(reach - s, 0) for reach, s in zip(window.reach, window.stride, strict=True)]
    if padding in ("SAME", "CAUSAL"):
        before = [0 if padding == "CAUSAL" else n // 2 for n in surplus]
        outputs = tuple(n * s for n, s in zip(sizes, window.stride, strict=True))
        return outputs, tuple((n, total - n) for n, total in zip(before, surplus, strict=True))
    pairs = explicit_pairs("conv_transpose", padding, len(sizes))
    full = [(n - 1) * s + r for n, s, r in zip(sizes, window.stride, window.reach, strict=True)]
    outputs = tuple(n - sum(pair) for n, pair in zip(full, pairs, strict=True))
    if min(outputs) < 1:
        raise ValueError(
            f"conv_transpose: expected padding below the {tuple(full)} entries of the output, got "
            f"{pairs}; use less padding"
        )
    return outputs, pairs
