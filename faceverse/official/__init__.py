"""The original FaceVerse files and the conventions of their code; everything else of this library works in camera.py's.

`load_model` reads the base files with `layout`, `load_result` and `export` the coefficient files with `coefficients`;
`evaluate` gives the original's numbers, `official_v2` writes a model in its layout. Its generators are read by
`faceverse.detail.official`.
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
