"""Order of the data as a pure function of a key and a step: no iterator, no state."""

from fnn._arguments import check_exports
from fnn.order.base import order, order_block
from fnn.order.mixture import mixture

__all__ = ["mixture", "order", "order_block"]

check_exports(__name__)
