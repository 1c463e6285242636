"""The examples that a classifier got wrong, as images."""

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
    """The misread images for a page: what was seen, what it was, and how sure the model was.

    Args:
      images: gray (n, height, width), or with 3 colors (n, height, width, 3); any range of
        values, of which the least is drawn black and the greatest white.
      labels: the truth, in [0, classes).
      probabilities: of each class; the largest is the prediction.
      class_names: in the order of the labels; None for their numbers.
      most: how many images to show, the most confident mistakes first.

    Raises: ValueError for lengths that differ; ModuleNotFoundError without matplotlib.

    >>> gallery(np.zeros((1, 2, 2)), np.array([1]), np.array([[0.2, 0.8]]))
    '<p>None of the 1 was misread.</p>'
    """
    if not len(images) == len(labels) == len(probabilities):
        raise ValueError(
            f"misclassified.gallery: expected images, labels and probabilities of one length, got "
            f"{len(images)}, {len(labels)} and {len(probabilities)}; take all of them from one set"
        )
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    if len(wrong) == 0:
        return f"<p>None of the {len(labels)} was misread.</p>"
    classes = range(probabilities.shape[1]) if class_names is None else class_names
    names = [escape(str(name)) for name in classes]
    wrong = wrong[np.argsort(-probabilities[wrong, predictions[wrong]], kind="stable")]
    cards = []
    for i, image in zip(wrong[:most].tolist(), _images(images, wrong[:most]), strict=True):
        truth, prediction = (
            (names[c], float(probabilities[i, c])) for c in (labels[i], predictions[i])
        )
        cards.append(_card(image, i, truth, prediction))
    rest = f"<p>And {len(wrong) - most} more.</p>" if len(wrong) > most else ""
    return f'<div class="gallery">{"".join(cards)}</div>{rest}'


def _card(image: str, index: int, truth: Guess, prediction: Guess) -> str:
    text = f"{truth[0]} read as {prediction[0]}"
    bars = _bar("hit", *truth) + _bar("miss", *prediction)
    return (
        f'<figure><img src="{image}" alt="example {index}: {text}">'
        f"<figcaption>{text}{bars}</figcaption></figure>"
    )


def _bar(kind: str, name: str, probability: float) -> str:
    return (
        f'<div class="bar {kind}" style="--share:{probability:.3f}">'
        f"<b>{name}</b><span>{_percent(probability)}</span></div>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "&lt; 1 %"


def _images(images: np.ndarray, chosen: np.ndarray) -> list[str]:
    """PNGs as addresses that hold their content."""
    low, high = float(images.min()), float(images.max())
    scaled = (images[chosen].astype(np.float64) - low) / (high - low or 1.0)
    return [_png(image[..., 0] if image.shape[2:] == (1,) else image) for image in scaled]


def _png(image: np.ndarray) -> str:
    out = io.BytesIO()
    matplotlib().image.imsave(
        out, image, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": None}
    )
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
