"""Gallery of the images that a classifier misclassified."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float, Integer, Num

from fnn.report.figure import matplotlib

Guess = tuple[str, float]  # a class, and its probability


def gallery(
    images: Num[np.ndarray, "n height width *channels"],
    labels: Integer[np.ndarray, "..."],
    probabilities: Float[np.ndarray, "... classes"],
    *,
    class_names: Sequence[str] | None = None,
    most: int = 24,
) -> str:
    """HTML of the misclassified images, with label, prediction and their probabilities.

    Args:
      images: gray (n, height, width), or RGB (n, height, width, 3); the minimum of all is drawn
        black, the maximum white.
      labels: in [0, classes).
      probabilities: of each class; the largest is the prediction.
      class_names: in the order of the labels; None for their indices.
      most: number of images to show, the most confident mistakes first.

    Raises: ValueError for lengths that differ; ModuleNotFoundError without matplotlib.

    >>> gallery(np.zeros((1, 2, 2)), np.array([1]), np.array([[0.2, 0.8]]))
    '<p>None of the 1 was misclassified.</p>'
    """
    if not len(images) == len(labels) == len(probabilities):
        raise ValueError(
            f"misclassified.gallery: expected images, labels and probabilities of one length, got "
            f"{len(images)}, {len(labels)} and {len(probabilities)}; take all of them from one set"
        )
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    if len(wrong) == 0:
        return f"<p>None of the {len(labels)} was misclassified.</p>"
    classes = range(probabilities.shape[1]) if class_names is None else class_names
    names = [escape(str(name)) for name in classes]
    wrong = wrong[np.argsort(-probabilities[wrong, predictions[wrong]], kind="stable")]
    cards = []
    for i, image in zip(wrong[:most].tolist(), _images(images, wrong[:most]), strict=True):
        label, prediction = (
            (names[c], float(probabilities[i, c])) for c in (labels[i], predictions[i])
        )
        cards.append(_card(image, i, label, prediction))
    rest = f"<p>And {len(wrong) - most} more.</p>" if len(wrong) > most else ""
    return f'<div class="gallery">{"".join(cards)}</div>{rest}'


def _card(image: str, index: int, label: Guess, prediction: Guess) -> str:
    text = f"{label[0]} classified as {prediction[0]}"
    bars = _bar("hit", *label) + _bar("miss", *prediction)
    return (
        f'<figure><img src="{image}" alt="example {index}: {text}">'
        f"<figcaption>{text}{bars}</figcaption></figure>"
    )


def _bar(kind: str, name: str, probability: float) -> str:
    return (
        f'<div class="bar {kind}" style="--fraction:{probability:.3f}">'
        f"<b>{name}</b><span>{_percent(probability)}</span></div>"
    )


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.01 else "&lt; 1 %"


def _images(images: np.ndarray, chosen: np.ndarray) -> list[str]:
    """PNGs as data URIs."""
    low, high = float(images.min()), float(images.max())
    scaled = (images[chosen].astype(np.float64) - low) / (high - low or 1.0)
    return [_png(image[..., 0] if image.shape[2:] == (1,) else image) for image in scaled]


def _png(image: np.ndarray) -> str:
    out = io.BytesIO()
    matplotlib().image.imsave(
        out, image, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": None}
    )
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
