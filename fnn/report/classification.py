"""The report of an image classifier: curves, confusion matrix, misclassified images, config."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Num

from fnn.report import confusion, curves, html, misclassified
from fnn.types import History


def classification(
    path: str | Path,
    *,
    title: str,
    history: History,
    images: Num[np.ndarray, "n height width *channels"],
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    config: Mapping[str, object],
    headline: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    best_step: int | None = None,
) -> Path:
    """Writes the report of a trained image classifier: report.html and curves.png.

    Args:
      path: an existing directory.
      title: of the page.
      history: of one run.
      images, labels: the test part; images as in `misclassified.gallery`, labels in [0, classes).
      probabilities: of each class, for each image.
      config: what the run was made with.
      headline: figures to show after the accuracy and the number of mistakes, by name.
      class_names: in the order of the labels; None for their indices.
      best_step: step to mark in the curves.

    Returns: the path of the page.
    Raises: ValueError for labels and probabilities that do not fit each other or the images;
      ModuleNotFoundError without matplotlib.

    >>> import tempfile
    >>> history = History(train={'loss': jnp.ones(3)}, eval_steps=jnp.array([3]),
    ...                   valid={'loss': jnp.array([0.5])})
    >>> page = classification(tempfile.mkdtemp(), title='Two classes', history=history,
    ...                       images=np.zeros((2, 4, 4)), labels=np.array([0, 1]),
    ...                       probabilities=np.array([[0.9, 0.1], [0.7, 0.3]]), config={})
    >>> page.name, '<dt>Test accuracy</dt><dd>50.00 %</dd>' in page.read_text()
    ('report.html', True)
    """
    path, (n, classes) = Path(path), probabilities.shape
    predictions = probabilities.argmax(axis=1)
    matrix = confusion.matrix(labels, predictions, classes=classes)
    mistakes = n - int(matrix.trace())
    curves.save(history, path / "curves.png", best_step=best_step)
    html.write(
        path / "report.html",
        title=title,
        headline={
            "Test accuracy": f"{100 * (1 - mistakes / n):.2f} %",
            "Mistakes": f"{mistakes:,} in {n:,}",
            **(headline or {}),
        },
        config=config,
        history=history,
        best_step=best_step,
        sections={
            "Confusion": confusion.table(matrix, class_names),
            "Misclassified": misclassified.gallery(
                images, labels, probabilities, class_names=class_names
            ),
        },
    )
    return path / "report.html"
