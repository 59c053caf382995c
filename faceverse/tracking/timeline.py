"""From solved frames to a track: jitter is filtered, short gaps are interpolated, long ones held."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ..model.face_model import FaceModel
from .person import TrackedPerson
from .result import Track
from .smoothing import smooth_rotations, smooth_values

# One-euro filters: least cut-off frequency in hertz, and hertz per unit of speed. They at least halve the jitter of a
# noisy still head, and keep over nine tenths of the height of a blink of 0.1 s.
WEIGHT_FILTER, TRANSLATION_FILTER, ROTATION_FILTER = (1.0, 8.0), (0.6, 60.0), (0.6, 6.0)
MAX_INTERPOLATED_S = 0.3  # longer gaps are held, not interpolated


def assemble(model: FaceModel, person: TrackedPerson, frames: np.ndarray, smooth: bool) -> Track:
    """Assemble a track of records (T,), see `journal.record_type`, at least one of which shows a face.

    Only frames with a face are filtered; gaps are filled afterwards.

    Args:
        model: the face model.
        person: identity, camera and warnings.
        frames: the records.
        smooth: whether to filter.
    """
    has_face = frames["confidence"] > 0
    with_face = frames[has_face]
    times = with_face["seconds"]
    rotation = Rotation.from_matrix(with_face["rotation"].astype(np.float64))
    translation, expression = (with_face[name].astype(np.float64) for name in ("translation", "expression"))
    if smooth:
        rotation = smooth_rotations(rotation, times, *ROTATION_FILTER)
        translation = smooth_values(translation, times, *TRANSLATION_FILTER)
        expression = np.clip(smooth_values(expression, times, *WEIGHT_FILTER), *model.expression_limits.T)
    before, share = interpolation(frames["seconds"], has_face)
    after = np.minimum(before + 1, len(with_face) - 1)
    steps = (rotation[before].inv() * rotation[after]).as_rotvec() * share[:, None]
    rotations = (rotation[before] * Rotation.from_rotvec(steps)).as_matrix()
    translations, weights, light = (
        (1 - share[:, None]) * values[before] + share[:, None] * values[after]
        for values in (translation, expression, with_face["light"].reshape(len(with_face), -1).astype(np.float64))
    )
    values = {
        "rotation": rotations.astype(np.float32),
        "translation": translations.astype(np.float32),
        "expression": weights.astype(np.float32),
        "light": light.reshape(-1, 9, 3).astype(np.float32),
    }
    return Track(
        model=model,
        identity=person.params.replace(**{name: array[0].copy() for name, array in values.items()}),
        camera=person.camera,
        times_s=frames["seconds"].copy(),
        confidence=frames["confidence"].copy(),
        expression_names=model.expression_names,
        warnings=person.warnings,
        **values,
    )


def interpolation(times_s: np.ndarray, has_face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the index (T,) of the last frame with a face, among those, and the weight (T,) of the next one.

    Frames before the first face take that frame.
    """
    last = np.cumsum(has_face) - 1
    before = np.maximum(last, 0)
    face_times = times_s[has_face]
    after = np.minimum(before + 1, len(face_times) - 1)
    gap = face_times[after] - face_times[before]
    short = ~has_face & (last >= 0) & (after > before) & (gap <= MAX_INTERPOLATED_S + 1e-9)
    share = np.where(short, (times_s - face_times[before]) / np.where(gap > 0, gap, 1), 0.0)
    return before, share
