"""Files and conventions of the original FaceVerse code; the rest of this library uses the conventions of camera.py.

`layout` reads the base files for `load_model`, `coefficients` converts coefficient files for `load_result` and
`export`, `evaluate` reproduces the original's numbers, and `official_v2` writes a model in its layout.
`faceverse.detail.official` reads its generators.
"""

from .coefficients import camera_of, coefficients_from_params, params_from_coefficients, stored_coefficients
from .evaluate import evaluate
from .layout import model_data
from .writer import npy_bytes, official_v2

__all__ = [
    "camera_of",
    "coefficients_from_params",
    "evaluate",
    "model_data",
    "npy_bytes",
    "official_v2",
    "params_from_coefficients",
    "stored_coefficients",
]
