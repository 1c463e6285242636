"""Models from models. Each combinator is again a pair (init, apply)."""

from fnn.arguments import check_exports
from fnn.combinators.base import Layer as Layer
from fnn.combinators.base import as_model as as_model
from fnn.combinators.base import lift as lift
from fnn.combinators.base import output_of as output_of
from fnn.combinators.compute import cast as cast
from fnn.combinators.compute import remat as remat
from fnn.combinators.join import parallel as parallel
from fnn.combinators.join import residual as residual
from fnn.combinators.join import sequential as sequential
from fnn.combinators.precision import mixed_bfloat16 as mixed_bfloat16
from fnn.combinators.precision import mixed_float16 as mixed_float16
from fnn.combinators.stack import stack as stack

# fmt: off
__all__ = [
    "Layer", "as_model", "cast", "lift", "mixed_bfloat16", "mixed_float16", "output_of",
    "parallel", "remat", "residual", "sequential", "stack",
]
# fmt: on

check_exports(__name__, leave=("layer",))  # which `as_model` refuses
