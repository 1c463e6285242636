"""Convolutions and transposed convolutions over any number of spatial axes."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import Size, Sizes, expect_axes, stated
from fnn.layers._convolve import convolve, convolve_transposed
from fnn.layers._window import Padding, Pairs, Window, explicit_pairs, extend, make_window
from fnn.layers.linear import add_bias
from fnn.types import Params, PRNGKey


def conv_init(
    key: PRNGKey,
    in_features: int,
    out_features: int,
    window: Sizes,
    *,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `conv`.

    Args:
      window: size of the kernel along each window axis; (3, 3) for images.
      groups: into how many runs the features are cut; divides both feature counts.
      bias: whether there is a bias.
      kernel_init, bias_init: initializers of the two.

    Returns: {'kernel': (*window, in_features / groups, out_features), 'bias': (out_features,)},
      float32.
    Raises: ValueError if groups does not divide the features, or the window is one number.

    >>> params = conv_init(jax.random.key(0), 4, 6, (3, 3), groups=2)
    >>> params['kernel'].shape, params['bias'].shape
    ((3, 3, 2, 6), (6,))
    """
    if groups < 1 or in_features % groups or out_features % groups:
        raise ValueError(
            f"conv_init: expected groups to divide {in_features} input and {out_features} output "
            f"features, got {groups}; every group needs as many of each"
        )
    shape = (*stated("conv_init", "window", window), in_features // groups, out_features)
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
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
) -> Float[Array, "batch *places out"]:
    """Convolution with the kernel's window over the axes between batch and features.

        y[b, p, o] = bias[o] + sum over t, i of x[b, stride p + dilation t - before, i] k[t, i, o]

    p and t run over one, two, three or more axes. With groups, the input and output features are
    cut into as many runs, and each run of outputs is made of its own run of inputs.

    Args:
      stride: distance between neighboring windows; one number, or one for each axis.
      dilation: distance between neighboring entries inside the window; likewise.
      groups: the number that the parameters were made for.
      padding: a `Padding`, or explicit pairs of zeros (before, after), one for each window axis.

    Returns: (batch, *places, out_features) in the dtype of x.
    Raises: ValueError if x does not fit the kernel, in axes, features or dtype, or the padding
      does not fit the window.
    Source: LeCun et al. 1989, Neural Computation 1(4); dilation: Yu & Koltun 2016,
      arXiv:1511.07122. Deviates: a correlation (the kernel is not mirrored), as in every peer.
      PyTorch's kernel is (out, in / groups, *window), its images (batch, features, *sizes), and
      its default padding is VALID.

    >>> params = {'kernel': jnp.ones((3, 1, 1)), 'bias': jnp.array([0.5])}
    >>> conv(params, jnp.arange(4.0).reshape(1, 4, 1)).ravel().tolist()
    [1.5, 3.5, 6.5, 5.5]
    """
    kernel = params["kernel"]
    expect_fit("conv", x, kernel, groups)
    window = make_window("conv", x, kernel.shape[:-2], stride, dilation)
    x, pairs = extend("conv", x, window, padding)
    return add_bias(params, convolve(x, kernel, window, pairs, groups))


def depthwise_conv_init(
    key: PRNGKey,
    features: int,
    window: Sizes,
    *,
    multiplier: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `depthwise_conv`.

    Args:
      multiplier: outputs for each feature.

    Returns: {'kernel': (*window, 1, features * multiplier), 'bias': (features * multiplier,)}.

    >>> depthwise_conv_init(jax.random.key(0), 4, (3, 3))['kernel'].shape
    (3, 3, 1, 4)
    """
    return conv_init(
        key,
        features,
        features * multiplier,
        window,
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
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
) -> Float[Array, "batch *places out"]:
    """Convolution of each feature by itself: `conv` with as many groups as features.

    Args:
      stride, dilation, padding: as in `conv`.

    Returns: (batch, *places, features * multiplier); the outputs of a feature are neighbors.
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
    window: Sizes,
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
      and of a `conv` with a window of ones.

    >>> params = separable_conv_init(jax.random.key(0), 4, 6, (3, 3))
    >>> params['depthwise']['kernel'].shape, params['pointwise']['kernel'].shape
    ((3, 3, 1, 4), (1, 1, 4, 6))
    """
    depthwise = depthwise_conv_init(
        fold_name(key, "depthwise"),
        in_features,
        window,
        multiplier=multiplier,
        bias=False,
        kernel_init=kernel_init,
    )
    pointwise = conv_init(
        fold_name(key, "pointwise"),
        in_features * multiplier,
        out_features,
        (1,) * len(window),
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
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
) -> Float[Array, "batch *places out"]:
    """A depthwise convolution, then a linear map of the features at each place.

    Args:
      stride, dilation, padding: of the depthwise part, as in `conv`.

    Returns: (batch, *places, out_features).
    Raises: ValueError as `conv` does.
    Source: Chollet 2017, Xception, arXiv:1610.02357. Without an activation between the two, as in
      Keras' SeparableConv.

    >>> params = separable_conv_init(jax.random.key(0), 4, 6, (3,))
    >>> separable_conv(params, jnp.ones((2, 5, 4)), stride=2).shape
    (2, 3, 6)
    """
    x = depthwise_conv(params["depthwise"], x, stride=stride, dilation=dilation, padding=padding)
    return conv(params["pointwise"], x)


def expect_fit(where: str, x: Array, kernel: Array, groups: int) -> None:
    """Raise a ValueError, which begins with `where`, unless x suits the kernel.

    >>> expect_fit('conv', jnp.ones((1, 5, 4)), jnp.ones((3, 2, 6)), 2)
    """
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
    window: Sizes,
    *,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `conv_transpose`.

    Args:
      window, groups, bias, kernel_init, bias_init: as of `conv_init`; the fan-in is the window
        times the inputs of a group, as in Flax (PyTorch counts the outputs instead).

    Returns: {'kernel': (*window, in_features / groups, out_features), 'bias': (out_features,)},
      float32.
    Raises: ValueError if groups does not divide the features.

    >>> conv_transpose_init(jax.random.key(0), 4, 6, (2, 2))['kernel'].shape
    (2, 2, 4, 6)
    """
    return conv_init(
        key,
        in_features,
        out_features,
        window,
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
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
) -> Float[Array, "batch *places out"]:
    """The transpose of a convolution: every input stamps the kernel, times itself, on the output.

        y[b, stride p + dilation t - before, o] = bias[o] + sum of x[b, p, i] k[t, i, o]

    Args:
      stride: distance between neighboring stamps; the factor by which the output is larger.
      dilation: distance between neighboring entries of a stamp.
      groups: the number that the parameters were made for.
      padding: what the convolution has that this is the transpose of. With n inputs along an axis
        and a stamp of reach = dilation (window - 1) + 1, the output has: with SAME, stride n
        entries; with CAUSAL too, cut at the end only, so that no output sees a later input; with
        VALID, stride (n - 1) + reach; with explicit pairs (before, after), that many fewer, and
        more where a number is negative.

    Returns: (batch, *places, out_features) in the dtype of x.
    Raises: ValueError if x does not fit the kernel, or for Padding.CIRCULAR and REFLECT.
    Source: Zeiler et al. 2010, Deconvolutional networks; Dumoulin & Visin 2016, arXiv:1603.07285,
      chapter 4. The kernel is not mirrored: PyTorch's (in, out / groups, *window) with its axes
      moved gives the same numbers, its padding=p and output_padding=q being the pair (p, p - q).
      Deviates from Flax, which mirrors the kernel.

    >>> params = {'kernel': jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}
    >>> x = jnp.array([1.0, 10.0]).reshape(1, 2, 1)
    >>> conv_transpose(params, x, stride=2, padding=Padding.VALID).ravel().tolist()
    [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    kernel = params["kernel"]
    expect_fit("conv_transpose", x, kernel, groups)
    window = make_window("conv_transpose", x, kernel.shape[:-2], stride, dilation)
    sizes, pairs = _outputs(x.shape[1:-1], window, padding)
    swapped = _swap_features(kernel, groups)
    return add_bias(params, convolve_transposed(x, swapped, sizes, window, pairs, groups))


def _swap_features(kernel: Array, groups: int) -> Array:
    """(*window, in / groups, out) to (*window, out / groups, in)."""
    split = kernel.reshape(*kernel.shape[:-1], groups, kernel.shape[-1] // groups)
    swapped = jnp.swapaxes(split, -1, -3)
    return lax.collapse(swapped, swapped.ndim - 2)


def _outputs(
    sizes: Sequence[int], window: Window, padding: Padding | Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], Pairs]:
    """The sizes of the output, and the zeros of the convolution that leads back."""
    if padding in (Padding.CIRCULAR, Padding.REFLECT):
        raise ValueError(
            f"conv_transpose: expected Padding.SAME, VALID, CAUSAL or explicit pairs, got {padding}"
            "; extend the input before, and cut the output after"
        )
    surplus = [max(reach - s, 0) for reach, s in zip(window.reach, window.stride, strict=True)]
    if padding in (Padding.SAME, Padding.CAUSAL):
        cut = [0 if padding is Padding.CAUSAL else n // 2 for n in surplus]
        places = tuple(n * s for n, s in zip(sizes, window.stride, strict=True))
        return places, tuple((n, total - n) for n, total in zip(cut, surplus, strict=True))
    pairs = explicit_pairs("conv_transpose", padding, len(sizes))
    full = [(n - 1) * s + r for n, s, r in zip(sizes, window.stride, window.reach, strict=True)]
    places = tuple(n - sum(pair) for n, pair in zip(full, pairs, strict=True))
    if min(places) < 1:
        raise ValueError(
            f"conv_transpose: expected padding below the {tuple(full)} entries of the output, got "
            f"{pairs}; cut less"
        )
    return places, pairs
