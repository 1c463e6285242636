"""The order of the data as a pure function of a key and a step: no iterator and no state."""

from fnn.order.base import order as order
from fnn.order.base import order_block as order_block
from fnn.order.mixture import mixture as mixture
