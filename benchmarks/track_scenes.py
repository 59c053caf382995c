"""Sequences with known motion for benchmarks of tracking: of a rendered head, and of a photograph."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import faceverse as fv
from faceverse.graphics.camera import default_camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.rendering.render import render_head

FPS = 30.0
NEUTRAL_S, BLINK_EVERY_S, BLINK_S = 1.0, 1.7, 0.2
NOISE_LEVELS = 2.5  # standard deviation of a camera's noise, in sRGB levels


@dataclass(frozen=True)
class Scene:
    """A head in T frames.

    Args:
        params: of the person.
        lens: focal length of the camera in units of `default_camera`'s.
        times_s: (T,); rotation: (T, 3, 3); translation: (T, 3) metres; expression: (T, E).
    """

    model: fv.FaceModel
    params: fv.FaceParams
    lens: float
    times_s: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray


def speaking(
    model: fv.FaceModel, seed: int, count: int, *, turn_deg: float = 40.0, lens: float = 1.0, moving: bool = True
) -> Scene:
    """A person who turns by `turn_deg` to both sides, speaks and blinks; neutral during the first second.

    Args:
        lens: focal length in units of the default one; the distance of the head grows with it.
        moving: False for a still head with a neutral face.
    """
    times = np.arange(count) / FPS
    busy = float(moving) * np.clip((times - NEUTRAL_S) / 0.3, 0, 1)
    angles = busy[:, None] * np.stack(
        [turn_deg * np.sin(times * 1.1), 12 * np.sin(times * 0.83 + 1), 8 * np.sin(times * 0.59)], axis=1
    )
    rotation = np.stack([rotation_from_euler_deg(*row).numpy() for row in angles.tolist()])
    translation = np.array([0, -0.01, -0.65]) + busy[:, None] * 0.02 * np.stack(
        [np.sin(times), np.sin(0.7 * times), 2 * np.sin(0.5 * times)], axis=1
    )
    translation = translation * (1, 1, lens)
    expression = np.zeros((count, len(model.expression_names)))

    def put(name: str, values: np.ndarray) -> None:
        expression[:, model.expression_names.index(name)] = np.clip(busy * values, 0, 1)

    syllables = np.clip(np.sin(times * 9.0) * (0.5 + 0.5 * np.sin(times * 1.3)), 0, 1)
    put("jawOpen", 0.7 * syllables)
    put("mouthFunnel", 0.35 * np.clip(np.sin(times * 4.1 + 1), 0, 1))
    put("mouthSmileLeft", 0.6 * np.clip(np.sin(times * 0.9 - 1), 0, 1))
    put("mouthSmileRight", 0.6 * np.clip(np.sin(times * 0.9 - 1), 0, 1))
    put("browInnerUp", 0.5 * np.clip(np.sin(times * 0.7 + 2), 0, 1))
    phase = np.abs((times + 0.6) % BLINK_EVERY_S - BLINK_S / 2) / (BLINK_S / 2)
    for side in ("Left", "Right"):
        put(f"eyeBlink{side}", np.clip(1.6 * (1 - phase), 0, 1))
    return Scene(model, model.random(seed, hair=False), lens, times, rotation, translation, expression)


def pictures(scene: Scene, height: int = 720, seed: int = 0) -> Iterator[np.ndarray]:
    """The scene's frames (H, W, 3) uint8, 16:9, before a blurred background, with a camera's noise."""
    model, rng = scene.model, np.random.default_rng(seed)
    camera = default_camera((height, height * 16 // 9))
    camera = replace(camera, focal_px=scene.lens * camera.focal_px)
    backdrop = gaussian_filter(rng.uniform(0.1, 0.9, (*camera.image_size, 3)), (height / 12, height / 12, 0))
    backdrop = torch.from_numpy(((backdrop - 0.5) * 6 + 0.35).clip(0.05, 0.9)).float()
    identity, albedo = (torch.from_numpy(values)[None] for values in (scene.params.identity, scene.params.albedo))
    color = model.albedo(albedo).clamp(0, 1)
    for rotation, translation, expression in zip(scene.rotation, scene.translation, scene.expression, strict=True):
        weights = torch.from_numpy(expression[None]).float()
        drawn = render_head(
            model.vertices(identity, weights), color, model.tensor("faces"), torch.from_numpy(rotation[None]).float(),
            torch.from_numpy(translation[None]).float(), default_light()[None], camera,
        )  # fmt: skip
        linear = torch.where(drawn.mask[0, ..., None], drawn.rgb[0], backdrop)
        levels = srgb_from_linear(linear).numpy() * 255
        grain = NOISE_LEVELS * rng.standard_normal((*levels.shape[:2], 1))
        yield np.clip(levels + grain + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Moved:
    """Motion of a photograph in T frames, with a still face in it.

    Args:
        times_s: (T,); roll_deg: (T,) counter-clockwise; zoom: (T,) factor; shift_px: (T, 2) right and down.
    """

    times_s: np.ndarray
    roll_deg: np.ndarray
    zoom: np.ndarray
    shift_px: np.ndarray


def swaying(count: int) -> Moved:
    """The motion of a photograph held before a camera; still in the first half second."""
    times = np.arange(count) / FPS
    busy = np.clip((times - 0.5) / 0.3, 0, 1)
    shift = np.stack([40 * np.sin(2.3 * times), 20 * np.sin(3.1 * times)], axis=1)
    return Moved(times, busy * 18 * np.sin(1.9 * times), 1 + 0.2 * busy * np.sin(1.3 * times), busy[:, None] * shift)


def moved_photograph(rgb: np.ndarray, moved: Moved, height: int = 720) -> Iterator[np.ndarray]:
    """A photograph (H, W, 3) uint8 in frames (height, height * 16 / 9, 3) uint8, by `moved` about their middle."""
    width = height * 16 // 9
    picture = Image.fromarray(rgb)
    fit = height / picture.height
    for roll_deg, zoom, shift in zip(moved.roll_deg, moved.zoom, moved.shift_px, strict=True):
        # From frame to photograph: inverse shift, rotation and scale.
        c, s = np.cos(np.radians(roll_deg)) / (zoom * fit), np.sin(np.radians(roll_deg)) / (zoom * fit)
        x, y = width / 2 + shift[0], height / 2 + shift[1]
        matrix = (c, -s, picture.width / 2 - c * x + s * y, s, c, picture.height / 2 - s * x - c * y)
        yield np.asarray(picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
