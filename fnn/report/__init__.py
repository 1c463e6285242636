"""What a run looks like: images of its history, and one page that tells all of it."""

from fnn.report import confusion, curves, html, lr_find, misclassified, sweep
from fnn.report.tensorboard import TensorBoard

__all__ = ["TensorBoard", "confusion", "curves", "html", "lr_find", "misclassified", "sweep"]
