"""Every augmentation on real examples, in one figure.

    python experiments/augmentation_gallery.py         writes docs/augmentations.png

A photograph that ships inside scikit-learn, a sentence, a tone, and the measurements of irises.
It trains nothing, so there is nothing to resume.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_image

from experiments import shared
from fnn import data
from fnn.data import augment
from fnn.report.figure import INK, TRAIN, VALID, figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = Path(__file__).parents[1] / "docs" / "augmentations.png"
KEY = jax.random.key(7)


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Draw every augmentation of fnn."""

    size: Annotated[int, shared.between(32, 106)] = 96  # height and width of an image, in pixels
    out: Path = FIGURE  # file of the figure


IMAGES: dict[str, Callable] = {
    "flip": augment.flip(1.0),
    "crop": augment.crop(24, reflect=True),
    "rotate": augment.rotate(30.0),
    "affine": augment.affine(degrees=15.0, shift=0.15, scale=0.3, shear=20.0),
    "color_jitter": augment.color_jitter(brightness=0.4, contrast=0.4, saturation=0.6, hue=0.1),
    "adjust_hue": lambda key, x: augment.adjust_hue(x, 0.25),
    "adjust_saturation": lambda key, x: augment.adjust_saturation(x, 2.5),
    "adjust_contrast": lambda key, x: augment.adjust_contrast(x, 2.0),
    "adjust_brightness": lambda key, x: augment.adjust_brightness(x, 1.6),
    "autocontrast": lambda key, x: augment.autocontrast(x),
    "equalize": lambda key, x: augment.equalize(x),
    "solarize": lambda key, x: augment.solarize(x, 0.5),
    "posterize": lambda key, x: augment.posterize(x, 2),
    "adjust_sharpness": lambda key, x: augment.adjust_sharpness(x, 4.0),
    "cutout": augment.cutout(32.0),
    "random_erasing": augment.random_erasing(1.0, mean=128.0, std=60.0),
    "random_augment": lambda key, x: augment.random_augment(3, 0.4)(jax.random.key(11), x),
}
MIXES = {"mixup": augment.mixup(1.0, classes=2), "cutmix": augment.cutmix(1.0, classes=2)}
WORDS = "the quick brown fox jumps over the lazy dog while seven small cats sleep".split()


def photographs(size: int) -> np.ndarray:
    """Two photographs, cropped to squares and averaged down to `size` pixels, uint8."""
    images = []
    for name, left in (("flower.jpg", 180), ("china.jpg", 100)):
        square = load_sample_image(name)[: 4 * size, left : left + 4 * size].astype(np.float32)
        images.append(square.reshape(size, 4, size, 4, 3).mean(axis=(1, 3)))
    return np.stack(images).round().astype(np.uint8)


def sentences() -> dict[str, str]:
    """The text augmentations on a sentence; a word each is a token, 0 pads, 1 masks."""
    vocabulary = ["·", "___", *sorted(set(WORDS)), "swift", "hop", "tiny"]
    index = {word: i for i, word in enumerate(vocabulary)}
    x = jnp.array([index[word] for word in WORDS])
    synonyms = np.full((len(vocabulary), 1), -1)
    for word, other in (("quick", "swift"), ("jumps", "hop"), ("small", "tiny")):
        synonyms[index[word]] = index[other]
    changes = {
        "original": lambda key, x: x,
        "delete_tokens": augment.delete_tokens(0.3, pad=0),
        "swap_tokens": augment.swap_tokens(3, pad=0),
        "replace_by_synonyms": augment.replace_by_synonyms(1.0, jnp.asarray(synonyms)),
        "mask_spans": augment.mask_spans(0.3, mask=1, pad=0),
    }
    return {
        name: " ".join(vocabulary[token] for token in change(KEY, x).tolist())
        for name, change in changes.items()
    }


def waves() -> dict[str, np.ndarray]:
    """The audio augmentations on a chirp."""
    t = jnp.arange(4000) / 8000.0
    x = jnp.sin(2 * jnp.pi * (200 * t + 600 * t**2)) * jnp.exp(-6 * t)
    changes = {
        "a chirp": lambda key, x: x,
        "add_noise 10 dB": augment.add_noise(10.0),
        "time_stretch": lambda key, x: augment.stretch(x, 1.6),
        "pitch_shift": augment.pitch_shift(12.0),
    }
    return {name: np.asarray(change(KEY, x)) for name, change in changes.items()}


def draw_images(axes: Any, size: int) -> None:
    """The originals and each augmentation, one on each of `axes`."""
    both = jnp.asarray(photographs(size))
    shown = {"original": both[0]}
    shown |= {name: change(KEY, both[0]) for name, change in IMAGES.items()}
    labels = jnp.array([0, 1])
    for name, mix in MIXES.items():
        mixed = (mix(jax.random.key(seed), (both, labels)) for seed in range(9))
        # A partner may be the image itself: take a key that mixes.
        shown[name] = next(x[0] for x, y in mixed if 0.3 < y[0, 0] < 0.7)
    for panel, (name, image) in zip(axes, shown.items(), strict=False):
        panel.imshow(np.asarray(image))
        panel.set_title(name, loc="left", fontsize=9, fontweight="bold", color=INK)
    for panel in axes:
        panel.set_axis_off()


def draw_waves(axes: Any) -> None:
    """The chirp and its augmentations."""
    for panel, (name, wave) in zip(axes, waves().items(), strict=True):
        panel.plot(wave, color=TRAIN, linewidth=0.4)
        tidy(panel, name)
        panel.set(xticks=[], yticks=[], ylim=(-1.2, 1.2))


def draw_spectrogram(panel: "Axes") -> None:
    """A spectrogram with masked times and frequencies."""
    tones = np.abs(np.sin(np.outer(np.arange(40) / 6, np.arange(1, 31) / 5))).astype(np.float32)
    hide = augment.chain(augment.mask_times(12), augment.mask_frequencies(10))
    panel.imshow(np.asarray(hide(KEY, jnp.asarray(tones))).T, aspect="auto", cmap="Blues")
    tidy(panel, "mask_times, mask_frequencies")
    panel.set(xticks=[], yticks=[])


def draw_rows(noisy: "Axes", made: "Axes") -> None:
    """Augmented rows of a table: two measurements of irises."""
    flowers = data.load("iris").train
    x = jnp.asarray(flowers.x[:, 2:])
    rare = x[np.flatnonzero(flowers.y == 2)[:12]]
    moved = augment.per_example(augment.feature_noise(0.15))(KEY, (x, flowers.y))[0]
    new = augment.smote(KEY, rare, 60)
    for panel, old, added, name in (
        (noisy, x, moved, "feature_noise"),
        (made, rare, new, "smote of twelve rows"),
    ):
        for rows, size, color, label in ((added, 6, VALID, "made"), (old, 10, TRAIN, "given")):
            panel.scatter(rows[:, 0], rows[:, 1], s=size, color=color, label=label)
        tidy(panel, name)
        panel.legend(fontsize=7, frameon=False)


def main(config: Config) -> None:
    """Draw all augmentations in one figure."""
    canvas = figure(14, 11.5)
    parts = canvas.subfigures(3, 1, height_ratios=[3.1, 1.1, 1.6])
    top, middle, bottom = np.asarray(parts).ravel().tolist()
    draw_images(top.subplots(3, 7).ravel(), config.size)
    text = middle.subplots()
    text.set_axis_off()
    for i, (name, sentence) in enumerate(sentences().items()):
        height = 0.9 - 0.2 * i
        text.text(0, height, name, fontsize=10, fontweight="bold", color=INK)
        text.text(0.16, height, sentence, fontsize=10, color=INK, family="monospace")
    panels = bottom.subplots(2, 4)
    draw_waves(panels[0])
    draw_spectrogram(panels[1, 0])
    draw_rows(panels[1, 1], panels[1, 2])
    panels[1, 3].set_axis_off()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(config.out, dpi=75)
    print(f"figure: {config.out}")


if __name__ == "__main__":
    shared.command(main, Config)
