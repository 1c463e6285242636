"""Optimizers beyond the common ones: without a rate to tune, with the loss, in little memory."""

from fnn.arguments import check_exports
from fnn.optim.contrib.acprop import acprop as acprop
from fnn.optim.contrib.cocob import cocob as cocob
from fnn.optim.contrib.distance import dog as dog
from fnn.optim.contrib.distance import dowg as dowg
from fnn.optim.contrib.fromage import fromage as fromage
from fnn.optim.contrib.galore import galore as galore
from fnn.optim.contrib.madgrad import madgrad as madgrad
from fnn.optim.contrib.mechanic import mechanize as mechanize
from fnn.optim.contrib.momo import momo as momo
from fnn.optim.contrib.momo import momo_adam as momo_adam
from fnn.optim.contrib.noisy import noisy_sgd as noisy_sgd
from fnn.optim.contrib.novograd import novograd as novograd
from fnn.optim.contrib.optimistic import optimistic_adam as optimistic_adam
from fnn.optim.contrib.optimistic import optimistic_gradient_descent as optimistic_gradient_descent
from fnn.optim.contrib.polyak import polyak_sgd as polyak_sgd
from fnn.optim.contrib.simplified_ademamix import simplified_ademamix as simplified_ademamix
from fnn.optim.contrib.sm3 import sm3 as sm3

# fmt: off
__all__ = [
    "acprop", "cocob", "dog", "dowg", "fromage", "galore", "madgrad", "mechanize", "momo",
    "momo_adam", "noisy_sgd", "novograd", "optimistic_adam", "optimistic_gradient_descent",
    "polyak_sgd", "simplified_ademamix", "sm3",
]
# fmt: on

check_exports(__name__)
