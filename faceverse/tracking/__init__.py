"""Following one face through a video: pose, expression weights and light of every frame, one identity for all.

The detector's landmarks of each frame are explained by the face model in a Gauss-Newton solve that starts from the
frame before; the detector's blendshape scores are the prior of the weights. No frame is kept: until the identity is
known, a frame waits as its landmarks and a small picture of the face. Conventions: see camera.py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..camera import Camera, default_camera
from ..errors import ImageError, NoFaceError, ParameterError
from ..fitting import Progress
from ..fitting.solver import landmark_model
from ..landmarks import VideoDetector
from ..model import FaceModel, FaceParams
from ..result import FitResult
from ..threads import one_thread
from ..weights import load_model
from .files import load_track
from .frames import checked, open_source
from .motion import export_track
from .result import Track, check_person
from .sight import sights_of, until_known
from .smoothing import smooth_rotations, smooth_values
from .solve import FrameSolver, Reader, State, identify

__all__ = ["Track", "export_track", "load_track", "track"]

# One-euro filters: least cut-off in hertz, and hertz per unit of speed. The jitter of a noisy still head falls by about
# half or more, a blink of 0.1 s keeps over nine tenths of its height.
_WEIGHT_FILTER, _TRANSLATION_FILTER, _ROTATION_FILTER = (1.0, 8.0), (1.0, 60.0), (1.0, 6.0)


def track(
    source: str | os.PathLike | Iterable,
    model: FaceModel | None = None,
    *,
    identity: FitResult | FaceParams | None = None,
    smooth: bool = True,
    on_progress: Progress | None = None,
    fps: float = 30.0,
    focal_px: float | None = None,
) -> Track:
    """Follow the largest face of a video.

    Args:
        source: a video file, a folder of pictures (in the order of their names), or an iterable of frames
            (H, W, 3) uint8 RGB or of pairs (seconds, frame). All frames have one size.
        model: by default that of `identity`, else the open model.
        identity: the person, such as `fit` finds from a photograph; by default the shape is estimated from the first
            60 frames with a face, and skin colour stays the model's mean (its tone then shows in the light).
        smooth: False leaves out the one-euro filters.
        on_progress: called per frame with ("tracking", share of the frames done, None); the share stays 0 where the
            number of frames is unknown.
        fps: frames per second where the source does not tell: folders and frames without a time.
        focal_px: focal length; by default that of `camera.default_camera`.
    Raises:
        ImageError: the source cannot be read, has no frames, or frames of different sizes.
        NoFaceError: no frame shows a face.
        ParameterError: times that do not increase, an identity of another model, fps or focal_px not above 0.
    """
    if not all(value is None or (np.isfinite(value) and value > 0) for value in (fps, focal_px)) or fps is None:
        raise ParameterError(f"fps and focal_px must be above 0, got {fps} and {focal_px}")
    model, person = _choose_person(model, identity)
    frames, total = open_source(source, fps)
    with one_thread(), VideoDetector(max_faces=1) as detector:
        sights = sights_of(checked(frames), detector, total, on_progress)
        waiting = list(until_known(sights))
        if not waiting:
            raise ImageError("the source has no frames; give a video, a folder of pictures or frames")
        seen = [sight for sight in waiting if sight.face is not None]
        if not seen:
            message = f"no face was found in any of {len(waiting)} frames"
            raise NoFaceError(f"{message}; it must be as wide as an eighth of the picture, or more")
        camera = default_camera(waiting[0].image_size, focal_px)
        landmarks, reader = landmark_model(model, model.fit_landmarks), Reader(model, camera)
        if person is None:
            person = model.neutral().replace(identity=identify(seen, landmarks, camera, reader))
        solver = FrameSolver(model, landmarks, person, camera, reader)
        states = [solver(sight) for sight in itertools.chain(waiting, sights)]
    found = _assemble(model, person, camera, states, smooth)
    return replace(found, subject=identity) if isinstance(identity, FitResult) else found


def _choose_person(model: FaceModel | None, identity) -> tuple[FaceModel, FaceParams | None]:
    """The model, and the parameters of the person where they are known."""
    if isinstance(identity, FitResult):
        model, identity = (identity.model if model is None else model), identity.params
    model = load_model() if model is None else model
    if identity is None:
        return model, None
    if not isinstance(identity, FaceParams):
        raise ParameterError(f"identity must be a FitResult or FaceParams, got {type(identity).__name__}")
    check_person(identity, model)
    return model, identity


def _assemble(model: FaceModel, person: FaceParams, camera: Camera, states: list[State], smooth: bool) -> Track:
    """Arrays over time; filters see only frames with a face, gaps are filled afterwards."""
    seen = [state for state in states if state.solution is not None]
    times = np.array([state.seconds for state in seen])
    rotation = Rotation.from_matrix([state.solution.rotation for state in seen])
    translation = np.array([state.solution.translation for state in seen])
    expression = np.array([state.solution.expression for state in seen])
    if smooth:
        rotation = smooth_rotations(rotation, times, *_ROTATION_FILTER)
        translation = smooth_values(translation, times, *_TRANSLATION_FILTER)
        expression = np.clip(smooth_values(expression, times, *_WEIGHT_FILTER), *model.expression_limits.T)
    has_face = np.array([state.solution is not None for state in states])
    source = np.maximum(np.cumsum(has_face) - 1, 0)
    rotation, translation, expression, light = (
        np.asarray(values, dtype=np.float32)[source]
        for values in (rotation.as_matrix(), translation, expression, [state.light for state in seen])
    )
    identity = person.replace(
        rotation=rotation[0].copy(),
        translation=translation[0].copy(),
        expression=expression[0].copy(),
        light=light[0].copy(),
    )
    return Track(
        model=model,
        identity=identity,
        camera=camera,
        times_s=np.array([state.seconds for state in states]),
        rotation=rotation,
        translation=translation,
        expression=expression,
        light=light,
        confidence=np.array([state.confidence for state in states], dtype=np.float32),
        expression_names=model.expression_names,
    )
