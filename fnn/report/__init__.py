"""What a run looks like: pictures of its history, and one page that tells all of it."""

from fnn.report import confusion as confusion
from fnn.report import curves as curves
from fnn.report import html as html
from fnn.report import lr_find as lr_find
from fnn.report import misread as misread
from fnn.report import sweep as sweep
from fnn.report.tensorboard import TensorBoard as TensorBoard

__all__ = ["TensorBoard", "confusion", "curves", "html", "lr_find", "misread", "sweep"]
