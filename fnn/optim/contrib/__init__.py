"""Optimizers beyond the common ones: without a rate to tune, with the loss, in little memory."""

from fnn._arguments import check_exports
from fnn.optim.contrib.adam_variants import acprop, adan, ademamix, adopt, simplified_ademamix
from fnn.optim.contrib.algoperf import algoperf_nadamw, algoperf_schedule_free_adamw
from fnn.optim.contrib.cocob import cocob
from fnn.optim.contrib.dog import dog, dowg
from fnn.optim.contrib.fromage import fromage
from fnn.optim.contrib.galore import galore
from fnn.optim.contrib.kron import kron
from fnn.optim.contrib.madgrad import madgrad
from fnn.optim.contrib.mechanic import mechanize
from fnn.optim.contrib.noisy_sgd import noisy_sgd
from fnn.optim.contrib.novograd import novograd
from fnn.optim.contrib.optimistic import optimistic_adam, optimistic_gradient_descent
from fnn.optim.contrib.polyak import momo, momo_adam, polyak_sgd
from fnn.optim.contrib.prodigy import dadapt_adam, prodigy
from fnn.optim.contrib.shampoo import shampoo
from fnn.optim.contrib.sm3 import sm3
from fnn.optim.contrib.soap import soap
from fnn.optim.contrib.sophia import sophia

# fmt: off
__all__ = [
    "acprop", "adan", "ademamix", "adopt", "algoperf_nadamw", "algoperf_schedule_free_adamw",
    "cocob", "dadapt_adam", "dog", "dowg", "fromage", "galore", "kron", "madgrad", "mechanize",
    "momo", "momo_adam", "noisy_sgd", "novograd", "optimistic_adam",
    "optimistic_gradient_descent", "polyak_sgd", "prodigy", "shampoo", "simplified_ademamix",
    "sm3", "soap", "sophia",
]
# fmt: on

check_exports(__name__)
