"""Augmentations: pure functions of a key and an example, for use inside the step."""

from fnn._arguments import check_exports
from fnn.data.augment.audio import (
    add_noise,
    mask_frequencies,
    mask_times,
    pitch_shift,
    stretch,
    time_stretch,
)
from fnn.data.augment.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    adjust_sharpness,
    autocontrast,
    color_jitter,
    equalize,
    posterize,
    solarize,
)
from fnn.data.augment.compose import chain, per_example, sometimes
from fnn.data.augment.erase import cutout, random_erasing
from fnn.data.augment.geometry import affine, alternating_flip, crop, flip, rotate, warp
from fnn.data.augment.mix import cutmix, mixup
from fnn.data.augment.random_augment import random_augment
from fnn.data.augment.tabular import feature_noise, smote
from fnn.data.augment.text import delete_tokens, mask_spans, replace_by_synonyms, swap_tokens

# fmt: off
__all__ = [
    "add_noise", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation",
    "adjust_sharpness", "affine", "alternating_flip", "autocontrast", "chain", "color_jitter",
    "crop", "cutmix", "cutout", "delete_tokens", "equalize", "feature_noise", "flip",
    "mask_frequencies", "mask_spans", "mask_times", "mixup", "per_example", "pitch_shift",
    "posterize", "random_augment", "random_erasing", "replace_by_synonyms", "rotate", "smote",
    "solarize", "sometimes", "stretch", "swap_tokens", "time_stretch", "warp",
]
# fmt: on

check_exports(__name__, leave=("x",))  # of which `smote` is called on the host
