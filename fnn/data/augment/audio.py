"""Sound. One example is a wave (samples,), or a spectrogram (frames, bins)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from fnn.autodiff import safe_norm
from fnn.data.augment.base import Augment, between
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Wave = Float[Array, " samples"]
_WINDOW, _HOP = 512, 128  # samples of a frame, and between frames


def noise_at(decibels: Scalar) -> Augment:
    """Normal noise at a given ratio of signal to noise.

    Args:
      decibels: 10 log10 of the ratio of the powers; infinity adds none. May be traced. Silence
        stays silent.

    >>> noise_at(jnp.inf)(jax.random.key(0), jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        wide = x.astype(at_least_float32(x))
        rms = safe_norm(wide).reshape(()) / math.sqrt(max(x.size, 1))
        std = rms * 10 ** (-jnp.asarray(decibels, wide.dtype) / 20)
        return (wide + std * jax.random.normal(key, x.shape, wide.dtype)).astype(x.dtype)

    return augment


@within(change="[0, inf)")
def time_stretch(change: Scalar) -> Augment:
    """Slower or faster at the same pitch, by a factor drawn evenly in its logarithm.

    Args:
      change: largest change: factors from 1 / (1 + change) to 1 + change; may be traced.

    The length stays: what is faster ends in silence, what is slower is cut.

    Source: Flanagan & Golden 1966, "Phase vocoder"; Laroche & Dolson 1999.

    >>> jax.jit(time_stretch(0.2))(jax.random.key(0), jnp.zeros(2000)).shape
    (2000,)
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        return stretch(x, _factor(key, change))

    return augment


@within(semitones="[0, inf)")
def pitch_shift(semitones: Scalar) -> Augment:
    """Higher or lower at the same speed, by an interval drawn evenly.

    Args:
      semitones: largest interval, either way; may be traced.

    Stretched in time by `stretch`, then played back faster by as much, with linear interpolation.

    >>> jax.jit(pitch_shift(2.0))(jax.random.key(0), jnp.zeros(2000)).shape
    (2000,)
    """

    def augment(key: PRNGKey, x: Wave) -> Wave:
        limit = jnp.asarray(semitones, jnp.float32)
        factor = jnp.exp2(between(key, -limit, limit) / 12)
        # Slower by the factor needs as many more samples; silence keeps the shape.
        longer = jnp.concatenate([x, jnp.zeros_like(x)])
        slow = stretch(longer, 1 / factor)
        at = jnp.arange(x.size, dtype=jnp.float32) * factor
        low = jnp.floor(at)
        first = jnp.clip(low.astype(jnp.int32), 0, slow.size - 2)
        part = (at - low).astype(x.dtype)
        return jnp.where(factor == 1, x, (1 - part) * slow[first] + part * slow[first + 1])

    return augment


def stretch(x: Wave, speed: Scalar) -> Wave:
    """The sound at another speed and the same pitch, as long as x: a phase vocoder.

    Args:
      speed: above 1 is faster; may be traced. At 1 the sound comes back as it was.

    >>> t = jnp.arange(4000) / 8000
    >>> tone = jnp.sin(2 * jnp.pi * 440 * t)
    >>> loudest = lambda x: jnp.abs(jnp.fft.rfft(x[:2000])).argmax().item()
    >>> loudest(tone), loudest(jax.jit(stretch)(tone, 1.5))
    (110, 110)
    """
    spectra = _analyse(x)
    frames = spectra.shape[0]
    at = jnp.arange(frames, dtype=jnp.float32) * jnp.asarray(speed, jnp.float32)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, frames - 1)
    high = jnp.clip(low + 1, 0, frames - 1)
    part = (at - jnp.floor(at))[:, None].astype(x.dtype)
    size = (1 - part) * jnp.abs(spectra[low]) + part * jnp.abs(spectra[high])
    size = jnp.where((at <= frames - 1)[:, None], size, 0)
    # The phase grows from frame to frame as it does between the two frames of the original.
    angles = jnp.angle(spectra)
    bins = jnp.arange(spectra.shape[1], dtype=x.dtype)
    steady = (2 * jnp.pi * _HOP / _WINDOW) * bins
    growth = angles[high] - angles[low] - steady[None, :]
    growth = growth - 2 * jnp.pi * jnp.round(growth / (2 * jnp.pi)) + steady[None, :]
    phase = angles[:1] + jnp.cumsum(growth, axis=0) - growth
    y = _synthesize(jax.lax.complex(size * jnp.cos(phase), size * jnp.sin(phase)), x.size)
    return jnp.where(jnp.asarray(speed) == 1, x, y)


def mask_times(longest: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Some frames in a row of a spectrogram are hidden.

    Args:
      longest: of the span, in frames; its length is drawn evenly from 0 to that. May be traced.
      fill: what stands there; the mean is 0 after standardizing.

    Source: Park et al. 2019, arXiv:1904.08779, section 2.

    >>> mask_times(0)(jax.random.key(0), jnp.ones((4, 3))).sum().item()
    12.0
    """
    return _mask(0, longest, fill)


def mask_frequencies(longest: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Some bins in a row of a spectrogram are hidden; see `mask_times`.

    >>> mask_frequencies(0)(jax.random.key(0), jnp.ones((4, 3))).sum().item()
    12.0
    """
    return _mask(1, longest, fill)


def _mask(axis: int, longest: Scalar, fill: Scalar) -> Augment:
    def augment(key: PRNGKey, x: Float[Array, "frames bins"]) -> Float[Array, "frames bins"]:
        length_key, place_key = jax.random.split(key)
        n = x.shape[axis]
        length = jnp.floor(between(length_key, 0, jnp.asarray(longest, jnp.float32) + 1))
        length = jnp.minimum(length, n)
        start = jnp.floor(between(place_key, 0, n - length + 1))
        places = jnp.arange(n, dtype=jnp.float32)
        hidden = (places >= start) & (places < start + length)
        hidden = hidden[:, None] if axis == 0 else hidden[None, :]
        return jnp.where(hidden, jnp.asarray(fill, x.dtype), x)

    return augment


def _factor(key: PRNGKey, change: Scalar) -> Float[Array, ""]:
    reach = jnp.log1p(jnp.asarray(change, jnp.float32))
    return jnp.exp(between(key, -reach, reach))


def _window(dtype) -> Float[Array, " window"]:
    return (
        0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(_WINDOW, dtype=jnp.float32) / _WINDOW)
    ).astype(dtype)


def _analyse(x: Wave) -> Complex[Array, "frames bins"]:
    padded = jnp.pad(x, (_WINDOW // 2, _WINDOW + _HOP))
    frames = 1 + (x.size + _WINDOW // 2) // _HOP
    places = jnp.arange(frames)[:, None] * _HOP + jnp.arange(_WINDOW)[None, :]
    return jnp.fft.rfft(padded[places] * _window(x.dtype)[None, :], axis=1)


def _synthesize(spectra: Complex[Array, "frames bins"], samples: int) -> Wave:
    waves = jnp.fft.irfft(spectra, _WINDOW, axis=1)
    window = _window(waves.dtype)
    frames = waves.shape[0]
    places = jnp.arange(frames)[:, None] * _HOP + jnp.arange(_WINDOW)[None, :]
    size = frames * _HOP + _WINDOW
    total = jnp.zeros(size, waves.dtype).at[places].add(waves * window[None, :])
    weight = (
        jnp.zeros(size, waves.dtype)
        .at[places]
        .add(jnp.broadcast_to(jnp.square(window)[None, :], waves.shape))
    )
    y = total / jnp.where(weight > 1e-6, weight, 1)
    return y[_WINDOW // 2 : _WINDOW // 2 + samples]
