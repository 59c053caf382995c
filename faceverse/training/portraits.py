"""Render random portraits of a model with ground truth, and run the landmark detector on them.

They train `parameter_regressor`: heads of the model's population and beyond, natural expressions, many lenses,
distances, sizes, lights and qualities, hair, glasses, beards, hands. Only detections and ground truth are kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..errors import ParameterError, WeightsError
from ..graphics.camera import Camera, rotation_from_euler_deg
from ..graphics.lighting import ambient_light, sh_basis, srgb_from_linear
from ..io.archives import read_npz
from ..io.files import write_atomically
from ..io.images import FILM_DIAGONAL_MM
from ..landmarks import BLENDSHAPE_NAMES, DetectedFace, detect_faces
from ..messages import reason_of
from ..model.face_model import FaceModel
from ..model.skin_texture import IRIS_DEG, PUPIL_DEG
from ..rendering.render import render_head
from . import occluders
from .child_sizes import random_age
from .occluders import HeadPose

DIAGONAL_MM = round(FILM_DIAGONAL_MM, 2)  # as for the shipped regressors
FACE_M, FACE_FRONT_M = 0.175, 0.08  # height of an average face; its distance in front of the origin of head space
LENS_MM, DISTANCE_M = (22.0, 90.0), (0.25, 2.5)
FACE_PX = (60.0, 230.0)  # the detector reduces each face to less than 200 pixels: larger pictures only cost time
LARGEST_SHARE = 0.85  # face height in picture height
SHAPES = ((4, 3), (3, 4), (3, 4), (1, 1), (16, 9))  # width to height
YAW_DEG, PITCH_DEG, ROLL_DEG = 65.0, 20.0, 15.0
NEUTRAL_SHARE, BUMPS, MIDDLE_GREY = 1 / 3, 8, 0.22
SPREAD = (0.75, 1.5)  # range of the factor on the identity coefficients
VIEWS, PEOPLE = 3, 100  # pictures per person; people per cache file
FARTHEST = 0.25  # largest mean landmark error, in eye distances, of a valid detection
# Relative probabilities of expressions that people make more often than the others.
COMMON = {"mouthSmile": 5.0, "jawOpen": 4.0, "eyeBlink": 2.5, "eyeSquint": 2.0, "browInnerUp": 1.5, "mouthPress": 1.5}
GAZE = ("eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeLookDown")
DIRECT = np.pi  # scale of a light's harmonics, so that it shades a facing surface with its strength


@dataclass(frozen=True)
class SyntheticPerson:
    """A synthetic person.

    Args:
        identity: (I,) the model's closest fit to the head.
        beyond: (V, 3) metres, residual shape outside the identity space.
        albedo: (V, 3) linear RGB.
        hair: (3,) sRGB levels.
    """

    identity: np.ndarray
    beyond: np.ndarray
    albedo: np.ndarray
    hair: np.ndarray


@dataclass(frozen=True)
class PortraitView:
    """Camera, pose and illumination of a portrait.

    Args:
        camera: of the rendered crop around the face.
        corner_px: (2,) position of the crop in the whole photograph, of `photo_size` (height, width).
        rotation (3, 3), translation (3,): head to camera.
        light: (9, 3) spherical harmonics.
    """

    camera: Camera
    corner_px: np.ndarray
    photo_size: tuple[int, int]
    rotation: torch.Tensor
    translation: torch.Tensor
    light: torch.Tensor


@dataclass(frozen=True)
class PortraitSamples:
    """Detections in N portraits with their ground truth. NumPy.

    Args:
        person: (N,) int64 number of the person.
        identity (N, I), expression (N, E): float32, ground truth.
        landmarks_px (N, 478, 2), depth_px (N, 478), scores (N, 51): float32, see `DetectedFace`; whole photograph.
        photo_size: (N, 2) int64 height and width of the whole photograph.
        focal_px: (N,) float32.
        rotation (N, 3, 3), translation (N, 3): float32, true head to camera.
    """

    person: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    landmarks_px: np.ndarray
    depth_px: np.ndarray
    scores: np.ndarray
    photo_size: np.ndarray
    focal_px: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    def __len__(self) -> int:
        return len(self.person)

    def face(self, number: int) -> DetectedFace:
        """The detection in one portrait, without its rotation."""
        points = self.landmarks_px[number]
        scores = dict(zip(BLENDSHAPE_NAMES, map(float, self.scores[number]), strict=True))
        return DetectedFace(np.concatenate([points.min(0), points.max(0)]), points, self.depth_px[number], scores, None)

    def rows(self, chosen: np.ndarray) -> PortraitSamples:
        """Select samples by number or mask."""
        return PortraitSamples(*(getattr(self, f.name)[chosen] for f in fields(self)))


def concatenate_samples(parts: list[PortraitSamples]) -> PortraitSamples:
    """Concatenate samples."""
    return PortraitSamples(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(PortraitSamples)))


# -- people -----------------------------------------------------------------------------------------------------------
def random_person(model: FaceModel, rng: np.random.Generator) -> SyntheticPerson:
    """Draw a head from the population, or with independent coefficients, from plain to pronounced."""
    params = model.random(int(rng.integers(1 << 30)), age=random_age(model, rng), similar_tone=False, hair=False)
    drawn = params.identity if rng.random() < 0.6 else model.random_identity(rng, params.identity)
    # Real people exceed the model's variance in some features more than in others.
    tilt = np.exp(0.25 * np.interp(np.arange(len(drawn)), np.linspace(0, len(drawn), 6), rng.standard_normal(6)))
    identity = drawn * np.where(model.identity_varies, tilt * rng.uniform(*SPREAD), 1.0)
    bumps = random_bumps(model, rng)
    rows, projection = identity_projection(model)
    within = projection @ bumps[rows].reshape(-1)
    beyond = bumps - np.tensordot(within.astype(np.float32), model.identity_modes, 1)
    albedo = model.albedo(torch.from_numpy(params.albedo)[None])[0].clamp(0.003, 1).numpy()
    painted = _with_iris(model, albedo, params.iris)
    return SyntheticPerson((identity + within).astype(np.float32), beyond, painted, occluders.hair_colour(rng))


def random_bumps(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """(V, 3) metres: smooth random bumps outside the shape basis, because no model spans real heads exactly."""
    mean, face = model.mean_vertices, model.regions.get("face", np.arange(len(model.mean_vertices)))
    outward = occluders.outward(model)
    height = np.zeros(len(mean), np.float32)
    size, mirrored = rng.uniform(0, 0.0018), rng.random() < 0.7
    for place in mean[rng.choice(face, BUMPS)]:
        width, sign = rng.uniform(0.012, 0.04), size * rng.standard_normal()
        for side in (1, -1) if mirrored else (1,):
            distance = ((mean - place * np.array([side, 1, 1], np.float32)) ** 2).sum(1)
            height += sign * np.exp(-distance / (2 * width**2))
    return height[:, None] * outward


@lru_cache(maxsize=2)
def identity_projection(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Face rows (K,) and the matrix (I, 3K) that projects displacements to coefficients, with a unit ridge in mm."""
    rows = np.asarray(model.regions.get("face", np.arange(len(model.mean_vertices))))[::4]
    modes = 1e3 * model.identity_modes[:, rows].reshape(len(model.identity_modes), -1).astype(np.float64)
    return rows, np.linalg.solve(modes @ modes.T + np.eye(len(modes)), 1e3 * modes)


def _with_iris(model: FaceModel, albedo: np.ndarray, iris: np.ndarray) -> np.ndarray:
    """Paint irises of a colour (3,) and pupils into an albedo (V, 3), at the resolution of the eyeballs' mesh."""
    albedo = albedo.copy()
    for name in ("eyeball_left", "eyeball_right"):
        rows = model.regions.get(name, np.zeros(0, np.int64))
        if len(rows):
            ball = model.mean_vertices[rows]
            ray = ball - (ball.min(0) + ball.max(0)) / 2
            degrees = np.degrees(np.arccos(np.clip(ray[:, 2] / np.linalg.norm(ray, axis=1), -1, 1)))
            albedo[rows[degrees < IRIS_DEG]] = iris
            albedo[rows[degrees < PUPIL_DEG]] = 0.004
    return albedo


def random_expression(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """Random natural weights (E,): neutral, or up to five expressions; the gaze often leaves the camera."""
    names = model.expression_names
    weights = np.zeros(len(names), np.float32)
    place = {name: k for k, name in enumerate(names)}
    if rng.random() < 0.5:
        across, up = 0.3 * rng.standard_normal(2)
        gaze = {"OutLeft": across, "InRight": across, "InLeft": -across, "OutRight": -across}
        gaze |= {"UpLeft": up, "UpRight": up, "DownLeft": -up, "DownRight": -up}
        for name, weight in gaze.items():
            if f"eyeLook{name}" in place:
                weights[place[f"eyeLook{name}"]] = np.clip(weight, 0, 1)
    if rng.random() < NEUTRAL_SHARE:
        return weights
    movements: dict[str, list[int]] = {}
    for name, index in place.items():
        stem = name.removesuffix("Left").removesuffix("Right")
        if stem not in (*GAZE, "tongueOut", "mouthClose", "_neutral", "mouth", "jaw"):
            movements.setdefault(stem, []).append(index)
        elif name in ("mouthLeft", "mouthRight", "jawLeft", "jawRight"):
            movements[name] = [index]
    stems = sorted(movements)
    odds = np.array([COMMON.get(stem, 1.0) for stem in stems])
    count = min(int(rng.integers(1, 6)), len(stems))
    for stem in rng.choice(stems, count, replace=False, p=odds / odds.sum()):
        weight, one_sided = rng.beta(1.4, 1.8), rng.random() < 0.12
        for index in movements[stem]:
            weights[index] = np.clip(weight * (1 + 0.12 * rng.standard_normal()), 0, 1)
        if one_sided:
            weights[movements[stem][rng.integers(len(movements[stem]))]] *= rng.uniform(0, 0.5)
    if "mouthClose" in place and rng.random() < 0.15:  # a jaw that opens behind closed lips
        weights[place["mouthClose"]] = rng.uniform(0.3, 1) * weights[place["jawOpen"]]
    return weights


# -- pictures ---------------------------------------------------------------------------------------------------------
def random_view(rng: np.random.Generator) -> PortraitView:
    """Draw lens, distance, image size, position in the photograph, pose and illumination."""
    face_px, lens_mm, distance = (float(np.exp(rng.uniform(*np.log(v)))) for v in (FACE_PX, LENS_MM, DISTANCE_M))
    wide, high = SHAPES[rng.integers(len(SHAPES))]
    aspect = wide / high
    filling = lens_mm * np.hypot(1, aspect) / DIAGONAL_MM * FACE_M  # distance at which a face fills the height
    distance = max(distance, filling / LARGEST_SHARE)
    share = filling / distance
    height = face_px / share
    width = aspect * height
    focal_px = lens_mm * float(np.hypot(height, width)) / DIAGONAL_MM
    depth = distance + FACE_FRONT_M
    beside = rng.uniform(-0.4, 0.4, 2) * max(1 - share, 0.1) * np.array([width, height]) * depth / focal_px
    facing = rotation_from_euler_deg(*np.degrees(-np.arctan(beside / depth)))
    yaw = YAW_DEG * rng.choice([-1, 1]) * rng.random() ** 1.7
    pitch, roll = (limit * np.clip(0.5 * rng.standard_normal(), -1, 1) for limit in (PITCH_DEG, ROLL_DEG))
    centre = np.array([width / 2, height / 2]) + beside * (1, -1) * focal_px / depth
    side = face_px * rng.uniform(1.45, 1.7)
    corner = np.floor(centre - side / 2 + 0.1 * face_px * rng.uniform(-1, 1, 2))
    principal = (width / 2 - corner[0], height / 2 - corner[1])
    size = int(np.ceil(side))
    return PortraitView(
        Camera(focal_px, principal, (size, size)),
        corner,
        (round(height), round(width)),
        facing @ rotation_from_euler_deg(yaw, pitch, roll),
        torch.tensor([*beside, -depth], dtype=torch.float32),
        random_light(rng),
    )


def random_light(rng: np.random.Generator) -> torch.Tensor:
    """(9, 3): ambient light and one to three lights from the front hemisphere, warm or cold, at any level."""
    light = ambient_light(1.0) * rng.uniform(0.15, 0.8)
    for _ in range(rng.integers(1, 4)):
        direction = rng.standard_normal(3) * (1.0, 0.8, 0.8) + (0, 0.35, 0.7)
        direction[2] = abs(direction[2]) - 0.2
        basis = sh_basis(torch.from_numpy(direction / np.linalg.norm(direction)).float())
        transfer = torch.tensor([1.0, *[2 / 3] * 3, *[1 / 4] * 5])
        tint = torch.from_numpy(np.exp(0.12 * rng.standard_normal(3))).float()
        light = light + rng.uniform(0.1, 0.9) * DIRECT * (basis / transfer)[:, None] * tint
    return light * torch.from_numpy(np.exp(0.08 * rng.standard_normal(3))).float()


def render_portrait(
    model: FaceModel, person: SyntheticPerson, expression: np.ndarray, view: PortraitView, rng: np.random.Generator
) -> tuple[np.ndarray, HeadPose]:
    """Render the face crop as a camera would store it: (S, S, 3) uint8 sRGB, and the pose of the head in it."""
    size = view.camera.image_size[0]
    with torch.no_grad():
        head = model.vertices(torch.from_numpy(person.identity)[None], torch.from_numpy(expression)[None])[0].numpy()
        head = head + person.beyond
        marks = model.fit_landmarks
        points = (head[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
        pose = HeadPose(view.rotation, view.translation, view.camera, points)
        vertices, albedo = occluders.add_hair(model, head, person.albedo, person.hair, rng)
        double = view.camera.cropped((0, 0, size, size), (2 * size, 2 * size))
        shaded = render_head(
            torch.from_numpy(vertices)[None], torch.from_numpy(albedo)[None], model.tensor("faces"),
            view.rotation[None], view.translation[None], view.light[None], double,
        )  # fmt: skip
        drawn = torch.cat([shaded.rgb[0].clamp_min(0), shaded.mask[0, ..., None].float()], -1).permute(2, 0, 1)
        drawn = torch.nn.functional.avg_pool2d(drawn, 2).permute(1, 2, 0)
    colour, covered = drawn[..., :3], drawn[..., 3:].numpy()
    seen = float(colour.sum()) / max(3 * float(covered.sum()), 1.0)
    exposure = (MIDDLE_GREY / max(seen, 1e-3)) ** rng.uniform(0.5, 1) * np.exp(0.3 * rng.standard_normal())
    face = 255 * srgb_from_linear(colour * exposure).numpy() ** rng.uniform(0.8, 1.25)
    back = background(rng, size)
    occluders.draw_background(back, pose, person.hair, rng)
    mixed = face * covered + (1 - covered) * np.asarray(back, np.float32)
    picture = Image.fromarray((mixed + 0.5).clip(0, 255).astype(np.uint8))
    return degrade(occluders.add_occluders(picture, pose, person.hair, rng), rng), pose


def background(rng: np.random.Generator, size: int) -> Image.Image:
    """Random clutter of blobs, bars and edges, size x size."""
    picture = np.zeros((size, size, 3), np.float32)
    for cells, share in ((3, 0.6), (9, 0.3), (40, 0.1)):
        blots = Image.fromarray((255 * rng.beta(1.2, 1.5, (cells, cells, 3))).astype(np.uint8))
        picture += share * np.asarray(blots.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(0.2, 1)  # real scenes are less saturated than random colours
    for _ in range(rng.integers(0, 7)):
        (x0, x1), (y0, y1) = (np.sort(rng.integers(0, size + 1, 2)) for _ in range(2))
        picture[y0:y1, x0:x1] = 0.3 * picture[y0:y1, x0:x1] + 0.7 * rng.uniform(0, 255, 3)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def degrade(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Simulate a camera and file: blur, noise, JPEG; (H, W, 3) uint8."""
    blur = rng.exponential(0.002) * picture.height
    if blur > 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(min(blur, 0.012 * picture.height)))
    noise = rng.exponential(1.5) * rng.standard_normal((picture.height, picture.width, 3), np.float32)
    noisy = (np.asarray(picture, np.float32) + noise + 0.5).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.06:
        noisy = np.repeat(noisy.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=int(rng.integers(35, 96)))
    return np.array(Image.open(file).convert("RGB"))


# -- samples ----------------------------------------------------------------------------------------------------------
def draw_samples(model: FaceModel, people: range, seed: int, views: int = VIEWS) -> PortraitSamples:
    """Draw the portraits of people by number; those in which the face is not detected are omitted.

    Args:
        people: numbers; the same number and seed give the same portraits.
        views: pictures per person, each with another expression.
    """
    parts = []
    for number in people:
        rng = np.random.default_rng([seed, number])
        person = random_person(model, rng)
        for _ in range(views):
            expression, view = random_expression(model, rng), random_view(rng)
            rgb, pose = render_portrait(model, person, expression, view, rng)
            face = _detect(rgb, pose)
            if face is not None:
                parts.append(sample_of(number, person, expression, view, face))
    return concatenate_samples(parts) if parts else empty_samples(model)


def _detect(rgb: np.ndarray, pose: HeadPose) -> DetectedFace | None:
    """The largest detected face, if it is the rendered head."""
    faces = detect_faces(rgb, max_faces=1)
    if not faces:
        return None
    distance = np.linalg.norm(faces[0].landmarks_px - pose.pixels(pose.points), axis=1).mean()
    return faces[0] if distance < FARTHEST * pose.eyes_px else None


def sample_of(
    number: int, person: SyntheticPerson, expression: np.ndarray, view: PortraitView, face: DetectedFace
) -> PortraitSamples:
    """One sample: the detection in a view, and the ground truth."""
    values = {
        "person": np.int64(number),
        "identity": person.identity,
        "expression": expression,
        "landmarks_px": face.landmarks_px + view.corner_px,
        "depth_px": face.landmarks_depth,
        "scores": [face.blendshapes[name] for name in BLENDSHAPE_NAMES],
        "photo_size": np.array(view.photo_size, np.int64),
        "focal_px": view.camera.focal_px,
        "rotation": view.rotation.numpy(),
        "translation": view.translation.numpy(),
    }
    return PortraitSamples(**{
        name: np.asarray(value, None if name in ("person", "photo_size") else np.float32)[None]
        for name, value in values.items()
    })  # fmt: skip


def empty_samples(model: FaceModel) -> PortraitSamples:
    """An empty set of samples."""
    i, e, s = len(model.identity_modes), len(model.expression_names), len(BLENDSHAPE_NAMES)
    whole = {0: np.int64, 6: np.int64}
    shapes = ((), (i,), (e,), (478, 2), (478,), (s,), (2,), (), (3, 3), (3,))
    return PortraitSamples(*(np.zeros((0, *shape), whole.get(k, np.float32)) for k, shape in enumerate(shapes)))


def collect_samples(
    model: FaceModel,
    count: int,
    seed: int,
    cache: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PortraitSamples:
    """Draw `count` portraits or load them from the cache.

    Args:
        count: 1 or more.
        seed: same seed, same portraits.
        cache: folder for the samples, in files of 100 people each; created if missing.
        report: receives a line per file.
    Raises:
        ParameterError: a count below 1, or a model without the 478 landmarks.
        WeightsError: the cache cannot be written, or holds another model's samples.
    """
    if count < 1:
        raise ParameterError("training.samples_count", found=count)
    if model.landmarks_478 is None:
        raise ParameterError("training.portraits_landmarks")
    people, total, parts = min(PEOPLE, -(-count // VIEWS)), 0, list[PortraitSamples]()
    while total < count:
        first = len(parts) * people
        part = cached_samples(model, range(first, first + people), seed, cache)
        if not len(part):
            raise ParameterError("training.portraits_no_face")
        parts.append(part)
        total += len(part)
        report(f"{total} of {count} portraits")
    return concatenate_samples(parts).rows(np.arange(count))


def cached_samples(
    model: FaceModel,
    numbers: range,
    seed: int,
    cache: str | Path | None,
    kind: str = "portraits",
    draw: Callable[[FaceModel, range, int], PortraitSamples] = draw_samples,
) -> PortraitSamples:
    """Load the samples of these numbers from the cache, or draw and store them.

    Args:
        cache: folder, or None; created if missing.
        kind: prefix of the file names.
        draw: draws the samples of a range of numbers.
    Raises:
        WeightsError: the cache cannot be written, or holds another model's samples.
    """
    if cache is None:
        return draw(model, numbers, seed)
    made_for = f"{model.info.get('sha256', model.name)}"
    path = Path(cache) / f"{kind}_{seed}_{numbers.start:06d}_{len(numbers)}.npz"
    with suppress(OSError, ValueError, KeyError):  # missing or damaged: drawn again
        stored = read_npz(path.read_bytes())
        if str(stored["model"]) != made_for:
            raise WeightsError("training.other_model", path=path)
        return PortraitSamples(*(stored[f.name] for f in fields(PortraitSamples)))
    samples = draw(model, numbers, seed)
    content = io.BytesIO()
    np.savez_compressed(content, model=made_for, **{f.name: getattr(samples, f.name) for f in fields(PortraitSamples)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise WeightsError("folder.not_made", folder=path.parent, reason=reason_of(problem)) from problem
    write_atomically(path, content.getvalue(), WeightsError)
    return samples
