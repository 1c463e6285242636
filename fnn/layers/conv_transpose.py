"""Transposed convolution: a convolution's input gradient as a layer of its own."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers.axes import Size, Sizes
from fnn.layers.conv import conv_init, expect_fit
from fnn.layers.convolve import convolve_transposed
from fnn.layers.linear import add_bias
from fnn.layers.window import Padding, Pairs, Window, explicit_pairs, make_window
from fnn.types import Params, PRNGKey


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
      stride: distance between neighbouring stamps; the factor by which the output is larger.
      dilation: distance between neighbouring entries of a stamp.
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
