"""Reports of runs: figures, self-contained HTML pages, and TensorBoard event files."""

from fnn.report import confusion, curves, html, lr_find, misclassified, sweep
from fnn.report.classification import classification
from fnn.report.tensorboard import TensorBoard

__all__ = [
    "TensorBoard",
    "classification",
    "confusion",
    "curves",
    "html",
    "lr_find",
    "misclassified",
    "sweep",
]
