"""Synthetic portraits with ground truth, made like the photographs people take, and the errors of a fit to them.

`bm_fit.py` measures with them; docs/fitting.md explains the figures.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from common import HELD_OUT_SEED, held_out_heads, jpeg_round_trip
from PIL import Image

import faceverse as fv
from faceverse.graphics.camera import Camera, project, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.io.images import FILM_DIAGONAL_MM
from faceverse.landmarks import OUTER_EYE_CORNERS
from faceverse.rendering.render import render_head
from faceverse.training.shape_population import draw_settings, rigid_fit
from faceverse.training.skin_reflectance import ita_deg
from faceverse.training.sources import ANCESTRIES

DIAGONAL_MM = round(FILM_DIAGONAL_MM, 2)
ASPECT = 0.75  # width over height, upright as a phone is held
FACE_M = 0.175  # height of the landmarks' box of an average face
FACE_FRONT_M = 0.08  # distance of the face from the origin of head space
LENS_MM, FACE_PX, DISTANCE_M = (24.0, 85.0), (90.0, 800.0), (0.30, 2.5)
SHARE = (0.10, 0.60)  # face height in picture height
TALLEST_PX = 2400
YAW_DEG, PITCH_DEG, ROLL_DEG = 60.0, 15.0, 12.0
NEUTRAL_SHARE = 1 / 3  # of the heads have no expression
MIDDLE_GREY = 0.22  # linear intensity that the exposure aims at
SUPERSAMPLE_BELOW_PX = 700
AGES = ((20, 40), (40, 60), (60, 81))
TONES = ((41.0, "light"), (10.0, "intermediate"), (-90.0, "dark"))  # least ITA in degrees


@dataclass(frozen=True)
class SyntheticPerson:
    """A head with its ground truth.

    Args:
        neutral, vertices: (V, 3) metres, without and with expression.
        albedo: (V, 3) linear RGB.
        groups: labels that the tables split by, for example {"sex": "female"}.
    """

    neutral: np.ndarray
    vertices: np.ndarray
    albedo: np.ndarray
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """How a person is photographed.

    Args:
        camera, rotation (3, 3), translation (3,): head to camera to pixels.
        light: (9, 3) spherical harmonics; its level is set by the exposure.
        yaw_deg: rotation of the face from the line of sight.
        noise: standard deviation in sRGB levels.
        quality: of the JPEG.
        seed: of background and noise.
    """

    camera: Camera
    rotation: torch.Tensor
    translation: torch.Tensor
    light: torch.Tensor
    yaw_deg: float
    noise: float
    quality: int
    seed: int


@dataclass(frozen=True)
class Portrait:
    """A synthetic photograph and its ground truth.

    Args:
        rgb: (H, W, 3) uint8 sRGB.
        landmarks_px: (L, 2) true positions of `model.fit_landmarks`.
        eyes_px: distance of the outer eye corners in a frontal view.
        groups: those of the person, and yaw, face size and distance of the scene.
    """

    rgb: np.ndarray
    person: SyntheticPerson
    scene: Scene
    landmarks_px: np.ndarray
    eyes_px: float
    groups: dict[str, str]


# -- people -----------------------------------------------------------------------------------------------------------
def synthetic_people(model: fv.FaceModel, count: int) -> tuple[list[SyntheticPerson], bool]:
    """People to render, and whether they are held out.

    Held-out heads come from a generator setting that the model was not trained on. Without their source, or for a model
    with another topology, they are random heads of the model itself, with the skin tone as their only group.
    """
    heads = held_out_heads(count)
    if heads is None or heads.shape[1] != len(model.mean_vertices):
        people = [model.random(5000 + number, hair=False) for number in range(count)]
        neutral = model.vertices(torch.from_numpy(np.stack([p.identity for p in people]))).numpy()
        return [_person(model, head, number, {}) for number, head in enumerate(neutral)], False
    # The heads were drawn from these settings, in this order.
    settings = draw_settings(max(count, 200), np.random.default_rng(HELD_OUT_SEED))
    face, made = face_rows(model), []
    for number, head in enumerate(heads):
        rotation, translation = rigid_fit(head[face], model.mean_vertices[face].astype(np.float64))
        strongest = int(settings.ancestry[number].argmax())
        groups = {
            "sex": "male" if settings.male[number] > 0.5 else "female",
            "age": next(f"{a}-{b - 1}" for a, b in AGES if settings.years[number] < b),
            "ancestry": ANCESTRIES[strongest] if settings.ancestry[number, strongest] > 0.6 else "mixed",
        }
        made.append(_person(model, head @ rotation.T + translation, number, groups))
    return made, True


def _person(model: fv.FaceModel, neutral: np.ndarray, number: int, groups: dict[str, str]) -> SyntheticPerson:
    """Add an expression and a random albedo to a head (V, 3)."""
    weights = random_expression(model, np.random.default_rng(7000 + number))
    modes = model.expression_modes_of(closest_identity(model, neutral))
    coefficients = torch.from_numpy(model.random(6000 + number).albedo)[None]
    albedo = model.albedo(coefficients)[0].clamp(0.003, 1).numpy()
    tone = {"skin": skin_tone(albedo[_plain_rows(model)].mean(0))}
    vertices = neutral + np.tensordot(weights, modes, 1)
    return SyntheticPerson(neutral.astype(np.float32), vertices.astype(np.float32), albedo, {**groups, **tone})


def random_expression(model: fv.FaceModel, rng: np.random.Generator) -> np.ndarray:
    """Weights (E,): none, or one to four movements, roughly the same on both sides."""
    weights = np.zeros(len(model.expression_names), np.float32)
    if rng.random() < NEUTRAL_SHARE:
        return weights
    movements: dict[str, list[int]] = {}
    for index, name in enumerate(model.expression_names):
        if name not in ("tongueOut", "mouthClose", "_neutral"):  # mouthClose belongs to an open jaw
            movements.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(index)
    for movement in rng.choice(sorted(movements), rng.integers(1, 5), replace=False):
        weight = rng.uniform(0.15, 0.8)
        for index in movements[movement]:
            weights[index] = np.clip(weight + 0.08 * rng.standard_normal(), 0, 1)
    return weights


def closest_identity(model: fv.FaceModel, head: np.ndarray) -> np.ndarray:
    """Coefficients (I,) of the model's head that is closest to a head (V, 3): least squares with a unit ridge in mm."""
    rows = face_rows(model)[::4]
    modes = 1e3 * model.identity_modes[:, rows].reshape(len(model.identity_modes), -1).astype(np.float64)
    difference = 1e3 * (head[rows] - model.mean_vertices[rows]).reshape(-1)
    return np.linalg.solve(modes @ modes.T + np.eye(len(modes)), modes @ difference).astype(np.float32)


def face_rows(model: fv.FaceModel) -> np.ndarray:
    """(K,) vertices of the face with lips and lids; all vertices of a model without a face region."""
    return np.asarray(model.regions.get("face", np.arange(len(model.mean_vertices))))


def _plain_rows(model: fv.FaceModel) -> np.ndarray:
    """(K,) vertices of the face's skin without lips, lids and brows."""
    other = [model.regions[name] for name in ("lips", "eyelids", "eyebrows") if name in model.regions]
    return np.setdiff1d(face_rows(model), np.concatenate([*other, []]))


def skin_tone(linear: np.ndarray) -> str:
    """Light, intermediate or dark, by the individual typology angle of a colour (3,)."""
    return next(name for least, name in TONES if ita_deg(np.asarray(linear)) >= least)


# -- pictures ---------------------------------------------------------------------------------------------------------
def random_scene(number: int) -> Scene:
    """Lens, distance, size, pose, light and file quality of a picture."""
    rng = np.random.default_rng(1000 + number)
    lens_mm, face_px = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in (LENS_MM, FACE_PX))
    # At this distance in metres a face is as high as the picture.
    filling = lens_mm * np.hypot(1, ASPECT) / DIAGONAL_MM * FACE_M
    least = max(SHARE[0], face_px / TALLEST_PX, filling / DISTANCE_M[1])
    share = np.exp(rng.uniform(np.log(least), np.log(max(least, min(SHARE[1], filling / DISTANCE_M[0])))))
    height = round(face_px / share)
    width = round(ASPECT * height)
    focal_px = lens_mm * float(np.hypot(height, width)) / DIAGONAL_MM
    depth = filling / share + FACE_FRONT_M
    yaw_deg, pitch_deg, roll_deg = (rng.uniform(-1, 1) * limit for limit in (YAW_DEG, PITCH_DEG, ROLL_DEG))
    beside = rng.uniform(-0.5, 0.5, 2) * (1 - share) * np.array([0.5 * width, 0.6 * height]) * depth / focal_px
    # A near head off the optical axis shows another side than its rotation tells: rotate it to face the camera first.
    facing = rotation_from_euler_deg(*np.degrees(-np.arctan(beside / depth)))
    return Scene(
        Camera(focal_px, (width / 2, height / 2), (height, width)),
        facing @ rotation_from_euler_deg(yaw_deg, pitch_deg, roll_deg),
        torch.tensor([*beside, -depth], dtype=torch.float32),
        _random_light(rng),
        yaw_deg,
        noise=float(rng.uniform(0.5, 4)),
        quality=int(rng.integers(60, 96)),
        seed=2000 + number,
    )


def _random_light(rng: np.random.Generator) -> torch.Tensor:
    """(9, 3) of random direction, softness and colour."""
    light = default_light()
    light[1:4] += torch.from_numpy(0.4 * rng.standard_normal((3, 1))).float()
    light[4:] += torch.from_numpy(0.15 * rng.standard_normal((5, 1))).float()
    return light * torch.from_numpy(np.exp(0.08 * rng.standard_normal(3))).float()


def photograph(model: fv.FaceModel, person: SyntheticPerson, scene: Scene) -> Portrait:
    """Render a person in a scene before a featureless background, with noise and JPEG compression."""
    rng = np.random.default_rng(scene.seed)
    height, width = scene.camera.image_size
    posed = transform(torch.from_numpy(person.vertices), scene.rotation, scene.translation)
    pixels = project(posed, scene.camera)
    x0, y0 = (max(0, int(v) - 2) for v in pixels[:, :2].amin(0))
    x1, y1 = (min(limit, int(v) + 3) for v, limit in zip(pixels[:, :2].amax(0), (width, height), strict=True))
    factor = 2 if max(x1 - x0, y1 - y0) < SUPERSAMPLE_BELOW_PX else 1
    camera = scene.camera.cropped((x0, y0, x1, y1), (factor * (y1 - y0), factor * (x1 - x0)))
    with torch.no_grad():
        shaded = render_head(
            torch.from_numpy(person.vertices)[None], torch.from_numpy(person.albedo)[None], model.tensor("faces"),
            scene.rotation[None], scene.translation[None], scene.light[None], camera,
        )  # fmt: skip
    drawn = torch.cat([shaded.rgb[0].clamp_min(0), shaded.mask[0, ..., None].float()], -1).permute(2, 0, 1)
    drawn = torch.nn.functional.avg_pool2d(drawn, factor).permute(1, 2, 0)
    colour, covered = drawn[..., :3], drawn[..., 3:]
    # Exposure follows the brightness in part only: a dark face stays darker than a light one.
    brightness = float(colour.sum() / (3 * covered.sum()))
    colour = colour * (MIDDLE_GREY / max(brightness, 1e-3)) ** 0.6
    linear = torch.from_numpy(_background(rng, height, width))
    linear[y0:y1, x0:x1] = colour + (1 - covered) * linear[y0:y1, x0:x1]
    noisy = 255 * srgb_from_linear(linear).numpy() + scene.noise * rng.standard_normal((height, width, 3), np.float32)
    points, eyes_px = landmarks_of(model, person.vertices, scene.rotation, scene.translation, scene.camera)
    rgb = jpeg_round_trip((noisy + 0.5).clip(0, 255).astype(np.uint8), scene.quality)
    return Portrait(rgb, person, scene, points, eyes_px, {**person.groups, **_groups_of(points, scene)})


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32 linear RGB: soft blots of any colour."""
    blots = Image.fromarray((255 * rng.beta(1.5, 2, (7, 5, 3))).astype(np.uint8))
    return np.asarray(blots.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255


def _groups_of(points_px: np.ndarray, scene: Scene) -> dict[str, str]:
    """Groups of a picture by yaw, size of the face and distance of the camera."""
    yaw, distance, face_px = (
        abs(scene.yaw_deg),
        -float(scene.translation[2]) - FACE_FRONT_M,
        float(np.ptp(points_px[:, 1])),
    )
    return {
        "yaw": "0-15" if yaw < 15 else "15-30" if yaw < 30 else "30-60",
        "face px": "below 180" if face_px < 180 else "180-400" if face_px < 400 else "above 400",
        "camera": "below 0.5 m" if distance < 0.5 else "0.5-1 m" if distance < 1 else "above 1 m",
    }


def landmarks_of(model: fv.FaceModel, vertices: np.ndarray, rotation, translation, camera: Camera):
    """Pixels (L, 2) of `model.fit_landmarks` on posed vertices (V, 3), and the eye distance of a frontal view."""
    marks = model.fit_landmarks
    points = (vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    posed = torch.from_numpy(points @ rotation.T + translation)
    corners = OUTER_EYE_CORNERS
    if marks.detected is not None:
        corners = [int(np.flatnonzero(marks.detected == k)[0]) for k in corners]
    right, left = (posed[row] for row in corners)
    eyes_px = camera.focal_px * float((right - left).norm() / -(right + left)[2]) * 2
    return project(posed, camera)[:, :2].numpy(), eyes_px


def draw_head(model: fv.FaceModel, number: int, size: int = 512) -> dict:
    """An easy portrait of a random head of the model: square, rotated by at most 30 degrees, every second one neutral.

    Returns:
        picture (size, size, 3) uint8, focal_px, rotation (3, 3), neutral (V, 3) metres, landmarks_px (L, 2).
    """
    rng = np.random.default_rng(1000 + number)
    identity = torch.from_numpy(model.random(5000 + number).identity)[None]
    neutral = model.vertices(identity)[0].numpy()
    person = _person(model, neutral, number, {})
    person = person if number % 2 else SyntheticPerson(neutral, neutral, person.albedo)
    depth, yaw_deg = float(rng.uniform(0.5, 0.9)), float(rng.uniform(-30, 30))
    scene = Scene(
        Camera(size * 1.6 * depth / 0.62, (size / 2, size / 2), (size, size)),
        rotation_from_euler_deg(yaw_deg, rng.uniform(-12, 12), rng.uniform(-8, 8)),
        torch.tensor([*(0.01 * rng.standard_normal(2)), -depth], dtype=torch.float32),
        _random_light(rng),
        yaw_deg,
        noise=0.0,
        quality=95,
        seed=number,
    )
    portrait = photograph(model, person, scene)
    return {
        "picture": portrait.rgb,
        "focal_px": scene.camera.focal_px,
        "rotation": scene.rotation.numpy(),
        "neutral": neutral,
        "landmarks_px": portrait.landmarks_px,
    }


# -- errors -----------------------------------------------------------------------------------------------------------
def shape_error_mm(found: np.ndarray, truth: np.ndarray, face: np.ndarray) -> float:
    """Mean distance of corresponding face vertices after the best similarity transform, in millimetres."""
    a, b = found[face].astype(np.float64), truth[face].astype(np.float64)
    matrix, translation = rigid_fit(a, b, scale=True)
    return 1000 * float(np.linalg.norm(a @ matrix.T + translation - b, axis=1).mean())


def pose_error_deg(found: np.ndarray, truth: np.ndarray, face: np.ndarray) -> float:
    """Angle between two posed neutral heads (V, 3): of the rotation that aligns their faces best."""
    rotation, _ = rigid_fit(found[face].astype(np.float64), truth[face].astype(np.float64))
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
