"""Render random video clips of a model with ground truth, and run the landmark detector on them.

They train the expression regressor (`faceverse.training.expression_regressor`): a synthetic person with a fixed camera
and illumination, first neutral and then with moving head and face. Only the detections and the ground truth are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import ParameterError
from ..graphics.camera import rotation_from_euler_deg
from ..landmarks import DetectedFace, VideoDetector
from ..model.face_model import FaceModel
from ..model.presets import EXPRESSION_PRESETS
from .portraits import (
    FARTHEST,
    PortraitSamples,
    PortraitView,
    cached_samples,
    concatenate_samples,
    empty_samples,
    random_expression,
    random_person,
    random_view,
    render_portrait,
    sample_of,
)

FRAMES = 6  # per clip, the first of them neutral
CLIPS = 50  # per cache file
DETECTIONS_PER_FRAME = 3  # detections per frame: the video detector tracks faces and has converged at the third
YAW_DEG, PITCH_DEG, ROLL_DEG = 60.0, 14.0, 9.0  # maximum yaw, standard deviations of pitch and roll
NEUTRAL_DEG = (7.0, 5.0, 3.0)  # standard deviations of the angles in neutral frames
DRIFT = 0.12  # range of head translation within the picture, relative to the head's height
NEUTRAL_SHARE, SPEECH_SHARE, PRESET_SHARE = 0.2, 0.35, 0.15  # the others move at random
BLINK_SHARE = 0.25
# Mouth shapes of speech, and their amplitude relative to the jaw.
SPEECH = {
    "mouthFunnel": 0.5, "mouthPucker": 0.5, "mouthClose": 0.3, "mouthLowerDown": 0.5, "mouthUpperUp": 0.4,
    "mouthStretch": 0.4, "mouthPress": 0.4, "mouthRollLower": 0.4, "mouthRollUpper": 0.3, "mouthShrugLower": 0.4,
    "mouthShrugUpper": 0.3, "mouthSmile": 0.6, "mouthDimple": 0.3, "mouthFrown": 0.3,
}  # fmt: skip


def random_motion(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """Weights (E,) of one frame: neutral, speech, a preset or random, often with averted gaze or a blink."""
    names = model.expression_names
    weights, kind = np.zeros(len(names), np.float32), rng.random()

    def add(stem: str, weight: float) -> None:
        for name in (stem, f"{stem}Left", f"{stem}Right"):
            if name in names:
                varied = weight * (1 + 0.1 * rng.standard_normal())
                weights[names.index(name)] = np.clip(weights[names.index(name)] + varied, 0, 1)

    if kind > NEUTRAL_SHARE + SPEECH_SHARE + PRESET_SHARE:
        weights = random_expression(model, rng)
    elif kind > NEUTRAL_SHARE + SPEECH_SHARE:
        chosen = EXPRESSION_PRESETS[str(rng.choice(sorted(EXPRESSION_PRESETS)))]
        size = rng.uniform(0.2, 1.0)
        for name, weight in chosen.items():
            if name in names:
                weights[names.index(name)] = size * weight
    elif kind > NEUTRAL_SHARE:
        add("jawOpen", 0.8 * rng.beta(1.0, 1.6))
        for stem in rng.choice(sorted(SPEECH), rng.integers(0, 4), replace=False):
            add(str(stem), SPEECH[str(stem)] * rng.random())
        if rng.random() < 0.3:
            add(str(rng.choice(["browInnerUp", "browOuterUp", "browDown", "eyeSquint"])), 0.7 * rng.random())
    if rng.random() < BLINK_SHARE:
        add("eyeBlink", float(rng.choice([rng.random(), 1.0])))
    if rng.random() < 0.35:
        _avert_gaze(weights, names, 0.3 * rng.standard_normal(2))
    return weights


def _avert_gaze(weights: np.ndarray, names: tuple[str, ...], gaze: np.ndarray) -> None:
    across, up = gaze
    turns = {"OutLeft": across, "InRight": across, "InLeft": -across, "OutRight": -across}
    turns |= {"UpLeft": up, "UpRight": up, "DownLeft": -up, "DownRight": -up}
    for name, weight in turns.items():
        if f"eyeLook{name}" in names:
            weights[names.index(f"eyeLook{name}")] = np.clip(weight, 0, 1)


def _frame(base: PortraitView, angles: tuple[float, float, float], rng: np.random.Generator) -> PortraitView:
    """Change the rotation of a view's head and translate it slightly."""
    depth = float(-base.translation[2])
    face_m = 0.175 * DRIFT * rng.uniform(-0.5, 0.5, 2)
    place = base.translation + torch.tensor([*face_m, 0.0], dtype=torch.float32)
    beside = (place[:2] / depth).numpy()
    facing = rotation_from_euler_deg(*np.degrees(-np.arctan(beside)))
    return replace(base, rotation=facing @ rotation_from_euler_deg(*angles), translation=place)


def draw_clips(model: FaceModel, clips: range, seed: int) -> PortraitSamples:
    """Draw clips by number and run the detector; clips whose first frame has no detected face are omitted.

    Args:
        clips: numbers; the same number and seed give the same clip.
    """
    parts = []
    with VideoDetector(max_faces=1) as detector:
        time_ms = 0
        for number in clips:
            rng = np.random.default_rng([seed, number])
            person, base = random_person(model, rng), random_view(rng)
            for index in range(FRAMES):
                if index == 0:
                    angles = np.array(NEUTRAL_DEG) * np.clip(rng.standard_normal(3), -2, 2)
                    expression = np.zeros(len(model.expression_names), np.float32)
                else:
                    turn = YAW_DEG * rng.choice([-1, 1]) * rng.random() ** 1.4
                    angles = np.array([turn, *np.clip(rng.standard_normal(2), -2, 2) * (PITCH_DEG, ROLL_DEG)])
                    expression = random_motion(model, rng)
                view = _frame(base, tuple(angles.tolist()), rng)
                # The same hair, glasses, light and noise in all frames of a clip.
                rgb, pose = render_portrait(model, person, expression, view, np.random.default_rng([seed, number, 1]))
                found: list[DetectedFace] = []
                for _ in range(DETECTIONS_PER_FRAME):
                    time_ms += 33
                    found = detector(rgb, time_ms)
                good = found and (
                    np.linalg.norm(found[0].landmarks_px - pose.pixels(pose.points), axis=1).mean()
                    < FARTHEST * pose.eyes_px
                )
                if not good and index == 0:
                    break
                if good:
                    parts.append(sample_of(number, person, expression, view, found[0]))
    return concatenate_samples(parts) if parts else empty_samples(model)


def collect_clips(
    model: FaceModel,
    count: int,
    seed: int,
    cache: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PortraitSamples:
    """Draw the frames of `count` clips or load them from the cache.

    Args:
        count: 1 or more; rounded up to whole cache files.
        seed: same seed, same clips.
        cache: folder for the frames; created if missing.
        report: receives a line per file.
    Raises:
        ParameterError: a count below 1, or a model without the 478 landmarks.
        WeightsError: the cache cannot be written, or holds another model's frames.
    """
    if count < 1:
        raise ParameterError("training.clips_count", found=count)
    if model.landmarks_478 is None:
        raise ParameterError("training.clips_landmarks")
    size, parts = min(CLIPS, count), []
    for first in range(0, count, size):
        parts.append(cached_samples(model, range(first, first + size), seed, cache, "clips", draw_clips))
        report(f"{min(first + size, count)} of {count} clips")
    return concatenate_samples(parts)
