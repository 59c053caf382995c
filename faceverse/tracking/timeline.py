"""From solved frames to a track: jitter is removed, gaps are bridged or held."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ..model.face_model import FaceModel
from .person import TrackedPerson
from .result import Track
from .smoothing import smooth_rotations, smooth_values

# One-euro filters: least cut-off in hertz, and hertz per unit of speed. The jitter of a noisy still head falls by about
# half or more, a blink of 0.1 s keeps over nine tenths of its height.
WEIGHT_FILTER, TRANSLATION_FILTER, ROTATION_FILTER = (1.0, 8.0), (0.6, 60.0), (0.6, 6.0)
BRIDGED_S = 0.3  # over gaps up to so long the head goes on evenly to where it is next seen


def assemble(model: FaceModel, person: TrackedPerson, frames: np.ndarray, smooth: bool) -> Track:
    """A track of records (T,), see `journal.record_type`, at least one of which shows a face.

    Filters see only frames with a face; gaps are filled afterwards.
    """
    has_face = frames["confidence"] > 0
    seen = frames[has_face]
    times = seen["seconds"]
    rotation = Rotation.from_matrix(seen["rotation"].astype(np.float64))
    translation, expression = (seen[name].astype(np.float64) for name in ("translation", "expression"))
    if smooth:
        rotation = smooth_rotations(rotation, times, *ROTATION_FILTER)
        translation = smooth_values(translation, times, *TRANSLATION_FILTER)
        expression = np.clip(smooth_values(expression, times, *WEIGHT_FILTER), *model.expression_limits.T)
    before, share = _filled(frames["seconds"], has_face)
    after = np.minimum(before + 1, len(seen) - 1)
    steps = (rotation[before].inv() * rotation[after]).as_rotvec() * share[:, None]
    rotated = (rotation[before] * Rotation.from_rotvec(steps)).as_matrix()
    moved, weights, light = (
        (1 - share[:, None]) * values[before] + share[:, None] * values[after]
        for values in (translation, expression, seen["light"].reshape(len(seen), -1).astype(np.float64))
    )
    values = {
        "rotation": rotated.astype(np.float32),
        "translation": moved.astype(np.float32),
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


def _filled(times_s: np.ndarray, has_face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the last seen one (T,), by its number among those seen, and the share of the next one (T,).

    Frames before the first one that is seen take that one.
    """
    last = np.cumsum(has_face) - 1
    before = np.maximum(last, 0)
    seen = times_s[has_face]
    after = np.minimum(before + 1, len(seen) - 1)
    gap = seen[after] - seen[before]
    short = ~has_face & (last >= 0) & (after > before) & (gap <= BRIDGED_S + 1e-9)
    share = np.where(short, (times_s - seen[before]) / np.where(gap > 0, gap, 1), 0.0)
    return before, share
