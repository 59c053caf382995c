"""Random hair for a person of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..parts.hair_choice import available_styles, random_hair
from ..parts.hair_styles import BALD, with_hair_style

if TYPE_CHECKING:
    from .face_model import FaceModel, FaceParams

_PALENESS = (0.10, 0.38)  # linear luminance of dark and of pale skin, with which the colours of hair vary
_STREAM = 1  # of random numbers, so that a face does not depend on its hair
_AGE, _GENDER = 35.0, 0.0  # of models that do not tell them


def with_random_hair(model: FaceModel, person: FaceParams, seed: int) -> FaceParams:
    """The person with hair that is usual for age, sex and skin; a model without hair leaves it as it is.

    Args:
        model: of the person.
        person: parameters.
        seed: same seed, same hair for the same person.
    """
    if not available_styles(model.parts):
        return person
    values = model.attributes(person)
    low, high = _PALENESS
    paleness = float(np.clip((model.skin_luminance(person.albedo) - low) / (high - low), 0, 1))
    generator = np.random.default_rng((seed, _STREAM))
    slots, hair = random_hair(model.parts, generator, values.get("age", _AGE), values.get("gender", _GENDER), paleness)
    return person.replace(styles=with_hair_style(person.styles, BALD) | slots, hair=hair)
