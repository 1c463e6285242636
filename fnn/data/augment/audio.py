"""Audio augmentations of a waveform (samples,) or a spectrogram (frames, bins)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from fnn.autodiff import safe_norm
from fnn.data.augment._base import Augment, interval_mask, log_uniform, symmetric, uniform
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Wave = Float[Array, " samples"]
_WINDOW, _HOP = 512, 128  # samples of a frame, and between frames


def add_noise(snr: Scalar) -> Augment:
    """Adds normal noise at a given signal-to-noise ratio.

    Args:
      snr: in decibels, 10 log10 of the ratio of the powers; infinity adds none. May be traced.
        Silence stays silent.

    >>> add_noise(jnp.inf)(jax.random.key(0), jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        wide = x.astype(at_least_float32(x))
        rms = safe_norm(wide).reshape(()) / math.sqrt(max(x.size, 1))
        std = rms * 10 ** (-jnp.asarray(snr, wide.dtype) / 20)
        return (wide + std * jax.random.normal(key, x.shape, wide.dtype)).astype(x.dtype)

    return augment


@within(change="[0, inf)")
def time_stretch(change: Scalar) -> Augment:
    """Changes the speed at the same pitch, by a factor drawn uniformly in its logarithm.

    Args:
      change: largest change: factors from 1 / (1 + change) to 1 + change; may be traced.

    The length is unchanged: faster audio is padded with silence, slower audio is cut.

    Source: Flanagan & Golden 1966, "Phase vocoder"; Laroche & Dolson 1999.

    >>> jax.jit(time_stretch(0.2))(jax.random.key(0), jnp.zeros(2000)).shape
    (2000,)
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        return stretch(x, log_uniform(key, change))

    return augment


@within(semitones="[0, inf)")
def pitch_shift(semitones: Scalar) -> Augment:
    """Changes the pitch at the same speed, by an interval drawn uniformly.

    Stretched in time by `stretch`, then resampled by the same factor with linear interpolation.

    Args:
      semitones: largest interval, in either direction; may be traced.

    >>> jax.jit(pitch_shift(2.0))(jax.random.key(0), jnp.zeros(2000)).shape
    (2000,)
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        factor = jnp.exp2(symmetric(key, semitones) / 12)
        # The slower version is longer by the factor; padding keeps the shape static.
        slow = stretch(jnp.concatenate([x, jnp.zeros_like(x)]), 1 / factor)
        at = jnp.arange(x.size, dtype=jnp.float32) * factor
        low = jnp.floor(at)
        first = jnp.clip(low.astype(jnp.int32), 0, slow.size - 2)
        part = (at - low).astype(x.dtype)
        return jnp.where(factor == 1, x, (1 - part) * slow[first] + part * slow[first + 1])

    return augment


def stretch(x: Wave, speed: Scalar) -> Wave:
    """Phase vocoder: changes the speed at the same pitch and the same number of samples.

    Args:
      speed: above 1 is faster; may be traced. At 1 the audio is unchanged.

    >>> t = jnp.arange(4000) / 8000
    >>> tone = jnp.sin(2 * jnp.pi * 440 * t)
    >>> loudest = lambda x: jnp.abs(jnp.fft.rfft(x[:2000])).argmax().item()
    >>> loudest(tone), loudest(jax.jit(stretch)(tone, 1.5))
    (110, 110)
    """
    spectra = _stft(x)
    frames = spectra.shape[0]
    at = jnp.arange(frames, dtype=jnp.float32) * jnp.asarray(speed, jnp.float32)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, frames - 1)
    high = jnp.clip(low + 1, 0, frames - 1)
    part = (at - jnp.floor(at))[:, None].astype(x.dtype)
    magnitude = (1 - part) * jnp.abs(spectra[low]) + part * jnp.abs(spectra[high])
    magnitude = jnp.where((at <= frames - 1)[:, None], magnitude, 0)
    # Phases advance from frame to frame as between the two source frames.
    angles = jnp.angle(spectra)
    bins = jnp.arange(spectra.shape[1], dtype=x.dtype)
    expected = (2 * jnp.pi * _HOP / _WINDOW) * bins
    advance = angles[high] - angles[low] - expected[None, :]
    advance = advance - 2 * jnp.pi * jnp.round(advance / (2 * jnp.pi)) + expected[None, :]
    phase = angles[:1] + jnp.cumsum(advance, axis=0) - advance
    y = _istft(jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)), x.size)
    return jnp.where(jnp.asarray(speed) == 1, x, y)


def mask_times(max_length: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Masks a span of frames of a spectrogram.

    Args:
      max_length: frames; the length is drawn uniformly from 0 to that. May be traced.
      fill: value of the masked entries; 0 is the mean after standardizing.

    Source: Park et al. 2019, arXiv:1904.08779, section 2.

    >>> mask_times(0)(jax.random.key(0), jnp.ones((4, 3))).sum().item()
    12.0
    """
    return _mask(0, max_length, fill)


def mask_frequencies(max_length: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Masks a span of bins of a spectrogram; see `mask_times`.

    >>> mask_frequencies(0)(jax.random.key(0), jnp.ones((4, 3))).sum().item()
    12.0
    """
    return _mask(1, max_length, fill)


def _mask(axis: int, max_length: Scalar, fill: Scalar) -> Augment:
    def augment(key: PRNGKey, x: Float[Array, "frames bins"]) -> Float[Array, "frames bins"]:
        length_key, start_key = jax.random.split(key)
        n = x.shape[axis]
        length = jnp.floor(uniform(length_key, 0, jnp.asarray(max_length, jnp.float32) + 1))
        length = jnp.minimum(length, n)
        start = jnp.floor(uniform(start_key, 0, n - length + 1))
        masked = jnp.expand_dims(interval_mask(n, start, length), 1 - axis)
        return jnp.where(masked, jnp.asarray(fill, x.dtype), x)

    return augment


def _hann(dtype: Any) -> Float[Array, " window"]:
    angle = 2 * jnp.pi * jnp.arange(_WINDOW, dtype=jnp.float32) / _WINDOW
    return (0.5 - 0.5 * jnp.cos(angle)).astype(dtype)


def _frame_indices(frames: int) -> Int[Array, "frames window"]:
    return jnp.arange(frames)[:, None] * _HOP + jnp.arange(_WINDOW)[None, :]


def _stft(x: Wave) -> Complex[Array, "frames bins"]:
    padded = jnp.pad(x, (_WINDOW // 2, _WINDOW + _HOP))
    indices = _frame_indices(1 + (x.size + _WINDOW // 2) // _HOP)
    return jnp.fft.rfft(padded[indices] * _hann(x.dtype)[None, :], axis=1)


def _istft(spectra: Complex[Array, "frames bins"], samples: int) -> Wave:
    waves = jnp.fft.irfft(spectra, _WINDOW, axis=1)
    window, frames = _hann(waves.dtype), waves.shape[0]
    indices = _frame_indices(frames)
    zeros = jnp.zeros(frames * _HOP + _WINDOW, waves.dtype)
    total = zeros.at[indices].add(waves * window[None, :])
    squares = jnp.broadcast_to(jnp.square(window)[None, :], waves.shape)
    weight = zeros.at[indices].add(squares)
    y = total / jnp.where(weight > 1e-6, weight, 1)
    return y[_WINDOW // 2 : _WINDOW // 2 + samples]
