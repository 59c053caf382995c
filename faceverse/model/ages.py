"""Change the age of a person's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ParameterError

if TYPE_CHECKING:
    from .face_model import FaceModel, FaceParams


def at_age(model: FaceModel, params: FaceParams, age: float) -> FaceParams:
    """The person at an age in years.

    Raises:
        ParameterError: an age outside the range of the attribute, or a model without it.
    """
    if "age" not in model.attribute_names:
        raise ParameterError("attribute.none_in_model", model=model.name, name="age")
    years, values = model.data.attributes[model.attribute_names.index("age")], model.attributes(params)
    if not years.minimum <= age <= years.maximum:
        raise ParameterError("model.age", low=years.minimum, high=years.maximum, age=age)
    coefficients = np.concatenate([params.identity, params.albedo])
    modulator = values.get(years.path.modulator, 0.0) if years.path else 0.0
    coefficients = coefficients + years.change(coefficients, values["age"], age, (modulator, modulator))
    identity, albedo = np.split(coefficients.astype(np.float32), [len(params.identity)])
    return params.replace(identity=identity, albedo=albedo)
