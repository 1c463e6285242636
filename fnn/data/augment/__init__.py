"""Augmentations: pure functions of a key and an example, to be put inside the step."""

from fnn.arguments import check_exports
from fnn.data.augment.audio import mask_frequencies as mask_frequencies
from fnn.data.augment.audio import mask_times as mask_times
from fnn.data.augment.audio import noise_at as noise_at
from fnn.data.augment.audio import pitch_shift as pitch_shift
from fnn.data.augment.audio import stretch as stretch
from fnn.data.augment.audio import time_stretch as time_stretch
from fnn.data.augment.base import chain as chain
from fnn.data.augment.base import per_example as per_example
from fnn.data.augment.base import sometimes as sometimes
from fnn.data.augment.colour import autocontrast as autocontrast
from fnn.data.augment.colour import brighten as brighten
from fnn.data.augment.colour import change_contrast as change_contrast
from fnn.data.augment.colour import colour_jitter as colour_jitter
from fnn.data.augment.colour import equalize as equalize
from fnn.data.augment.colour import posterize as posterize
from fnn.data.augment.colour import saturate as saturate
from fnn.data.augment.colour import sharpen as sharpen
from fnn.data.augment.colour import solarize as solarize
from fnn.data.augment.colour import turn_hue as turn_hue
from fnn.data.augment.erase import cutout as cutout
from fnn.data.augment.erase import random_erasing as random_erasing
from fnn.data.augment.geometry import affine as affine
from fnn.data.augment.geometry import alternating_flip as alternating_flip
from fnn.data.augment.geometry import crop as crop
from fnn.data.augment.geometry import flip as flip
from fnn.data.augment.geometry import rotate as rotate
from fnn.data.augment.geometry import warp as warp
from fnn.data.augment.mix import cutmix as cutmix
from fnn.data.augment.mix import mixup as mixup
from fnn.data.augment.random_augment import random_augment as random_augment
from fnn.data.augment.tabular import feature_noise as feature_noise
from fnn.data.augment.tabular import smote as smote
from fnn.data.augment.text import delete_tokens as delete_tokens
from fnn.data.augment.text import mask_spans as mask_spans
from fnn.data.augment.text import replace_by_synonyms as replace_by_synonyms
from fnn.data.augment.text import swap_tokens as swap_tokens

# fmt: off
__all__ = [
    "affine", "alternating_flip", "autocontrast", "brighten", "chain", "change_contrast",
    "colour_jitter", "crop", "cutmix", "cutout", "delete_tokens", "equalize", "feature_noise",
    "flip", "mask_frequencies", "mask_spans", "mask_times", "mixup", "noise_at", "per_example",
    "pitch_shift", "posterize", "random_augment", "random_erasing", "replace_by_synonyms",
    "rotate", "saturate", "sharpen", "smote", "solarize", "sometimes", "stretch", "swap_tokens",
    "time_stretch", "turn_hue", "warp",
]
# fmt: on

check_exports(__name__, leave=("x",))  # of which `smote` is called on the host
