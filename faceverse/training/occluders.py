"""Draw occluders and appearance changes for training portraits: hair, beards, glasses, hands, cast shadows.

Hair and beard attached to the head are part of the mesh (`add_hair`), so that they change its silhouette; fringes,
curtains of hair, glasses, hands and shadow edges are painted on the rendered image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy.spatial import cKDTree

from ..graphics.camera import Camera, project, transform
from ..landmarks import CHIN, LEFT_EYE, MOUTH, NOSE_BASE, NOSE_TIP, OUTER_EYE_CORNERS, RIGHT_EYE
from ..model.face_model import FaceModel

# MediaPipe landmarks: the hairline from the subject's right to left, and the sides from the forehead to the jaw.
HAIRLINE = (21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251)
SIDES = (
    (109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136),
    (338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365),
)
EYES = (RIGHT_EYE, LEFT_EYE)
HAIR_COLOURS = ((18, 14, 12), (35, 24, 18), (62, 40, 26), (105, 72, 42), (160, 125, 80), (150, 145, 140), (120, 45, 25))
FRINGE, CURTAIN, GLASSES, HAND, SHADOW = 0.4, 0.25, 0.4, 0.12, 0.25  # probabilities in pictures that are not clear
CLEAR = 0.7  # share of the pictures without occluders


@dataclass(frozen=True)
class HeadPose:
    """Pose of a head in a picture.

    Args:
        rotation (3, 3), translation (3,), camera: head to camera to pixels.
        points: (478, 3) metres, the true landmarks in head space.
    """

    rotation: torch.Tensor
    translation: torch.Tensor
    camera: Camera
    points: np.ndarray

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Project head-space points (K, 3) to pixels (K, 2)."""
        posed = transform(torch.from_numpy(np.asarray(points, np.float32)), self.rotation, self.translation)
        return project(posed, self.camera)[:, :2].numpy()

    @property
    def eyes_px(self) -> float:
        """Distance between the outer eye corners in pixels for a frontal view."""
        right, left = self.points[list(OUTER_EYE_CORNERS)]
        return self.camera.focal_px * float(np.linalg.norm(left - right)) / float(-self.translation[2])


def outward(model: FaceModel) -> np.ndarray:
    """(V, 3) unit directions from the centre of the mean head to its vertices."""
    mean = model.mean_vertices
    ray = mean - (mean.min(0) + mean.max(0)) / 2
    return ray / np.linalg.norm(ray, axis=1, keepdims=True)


def hair_colour(rng: np.random.Generator) -> np.ndarray:
    """Random hair colour, (3,) sRGB levels, mostly dark."""
    share = np.array([5, 5, 4, 3, 2, 2, 1], float)
    colour = np.array(HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=share / share.sum())], float)
    return (colour * rng.uniform(0.7, 1.3)).clip(4, 235)


def add_hair(
    model: FaceModel, vertices: np.ndarray, albedo: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add hair to the scalp and sometimes a beard: vertices (V, 3) moved outwards, albedo (V, 3) recoloured.

    Args:
        colour: (3,) sRGB levels of the hair.
    """
    vertices, albedo = vertices.copy(), albedo.copy()
    linear = ((colour / 255) ** 2.2).astype(np.float32)
    mean = model.mean_vertices
    grain = np.exp(0.35 * rng.standard_normal(len(mean)))[:, None].astype(np.float32)
    if "scalp" in model.regions and rng.random() < 0.7:
        top = model.regions["scalp"]
        bare = np.setdiff1d(model.regions["face"], top)
        inside = np.clip(cKDTree(mean[bare]).query(mean[top])[0] / 0.03, 0, 1)  # thin at the hairline
        volume = rng.choice([0.002, 0.006, 0.012, 0.03]) * inside * np.exp(0.06 * rng.standard_normal(len(top)))
        vertices[top] += (volume[:, None] * outward(model)[top]).astype(np.float32)
        cover = np.clip(4 * inside, 0, 1)[:, None].astype(np.float32)
        albedo[top] = (1 - cover) * albedo[top] + cover * linear * grain[top]
    if rng.random() < 0.15:
        cover = _beard(model, rng)
        strength, length = rng.uniform(0.3, 1), rng.choice([0, 0.002, 0.006, 0.018])
        grown = (strength * cover[:, None] * (0.75 + 0.25 * grain)).clip(0, 1).astype(np.float32)
        albedo = albedo * (1 - grown) + linear * grain * grown
        vertices += (length * cover[:, None] * np.array([0, -0.5, 0.85])).astype(np.float32)
    return vertices, albedo.clip(0.002, 1)


def _beard(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """(V,) 0..1 beard density at each vertex: full beard, goatee or moustache."""
    mean, marks = model.mean_vertices, model.landmarks_478
    assert marks is not None
    points = (mean[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    skin = np.zeros(len(mean), bool)
    skin[model.regions["face"]] = True
    skin[model.regions.get("neck", [])] = True
    skin[model.regions.get("lips", [])] = False
    x, y = mean[:, 0], mean[:, 1]
    nose, mouth, chin = (points[k, 1] for k in (NOSE_BASE, MOUTH[0], CHIN))
    side = np.clip(np.abs(x) / np.abs(points[454, 0]), 0, 1)
    line = mouth + (nose + 0.03 - mouth) * side**2 + rng.uniform(-0.006, 0.006)  # the border on the cheek
    full = np.clip((line - y) / 0.006, 0, 1)
    moustache = np.clip((nose - 0.002 - y) / 0.003, 0, 1) * (y > mouth - 0.004) * (np.abs(x) < 0.032)
    small = np.clip((mouth - 0.012 - y) / 0.004, 0, 1) * np.clip((0.026 - np.abs(x)) / 0.004, 0, 1)
    cover = (np.maximum(full, moustache), np.maximum(small, moustache), moustache)[rng.choice(3, p=(0.6, 0.25, 0.15))]
    return cover * skin * np.clip((y - (chin - 0.035)) / 0.01, 0, 1)


def draw_background(rgb: Image.Image, pose: HeadPose, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the background of the face: shoulders, and sometimes long hair."""
    draw, unit = ImageDraw.Draw(rgb), pose.eyes_px
    middle = pose.pixels(pose.points[[NOSE_TIP]] - [0, 0.02, 0.08])[0]
    down = pose.pixels(pose.points[[CHIN]])[0] - pose.pixels(pose.points[[10]])[0]
    down /= max(np.linalg.norm(down), 1e-6)
    if rng.random() < 0.45:
        wide, tall = unit * rng.uniform(0.85, 1.2), unit * rng.uniform(1.2, 2.2)
        centre = middle + down * (tall - 1.35 * unit)
        draw.ellipse(_box(centre, wide, tall), fill=_fill(colour))
    neck = middle + down * unit * rng.uniform(2.6, 3.0)
    clothes = _fill(rng.uniform(10, 230, 3))
    draw.ellipse(_box(neck + [0, unit], unit * rng.uniform(1.8, 2.6), unit * rng.uniform(1.1, 1.5)), fill=clothes)


def add_occluders(rgb: Image.Image, pose: HeadPose, colour: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Paint random occluders in front of the face.

    Args:
        rgb: sRGB.
        colour: (3,) sRGB levels of the hair.
    """
    if rng.random() < CLEAR:
        return rgb
    if rng.random() < SHADOW:
        rgb = _shadow(rgb, pose, rng)
    if rng.random() < GLASSES:
        rgb = _glasses(rgb, pose, rng)
    if rng.random() < FRINGE:
        rgb = draw_hair(rgb, fringe_polygon(pose, rng), pose, colour, rng)
    for side in SIDES:
        if rng.random() < CURTAIN:
            rgb = draw_hair(rgb, _curtain(pose, side, rng), pose, colour, rng)
    if rng.random() < HAND:
        rgb = _hand(rgb, pose, rng)
    return rgb


def fringe_polygon(pose: HeadPose, rng: np.random.Generator) -> np.ndarray:
    """(K, 2) polygon in pixels: hair over the forehead, down to the brows at most."""
    line = pose.points[list(HAIRLINE)]
    brows = (pose.points[105, 1] + pose.points[334, 1]) / 2
    depth = np.interp(np.arange(len(line)), np.linspace(0, len(line), 5), rng.uniform(0, rng.uniform(0.2, 1.0), 5))
    lower = line + depth[:, None] * (np.array([0, 1, 0]) * (brows - line[:, 1:2])) + [0, 0, 0.006]
    upper = line + np.array([0, rng.uniform(0.05, 0.09), -0.03])
    return pose.pixels(np.concatenate([lower, upper[::-1]]))


def _curtain(pose: HeadPose, side: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(K, 2) polygon in pixels: hair hanging over one side of the face."""
    line = pose.points[list(side)][: rng.integers(8, len(side) + 1)]
    inwards = -np.sign(line[-1, 0])
    cover = np.interp(np.arange(len(line)), np.linspace(0, len(line), 4), rng.uniform(0, rng.uniform(0.01, 0.03), 4))
    inner = line + inwards * cover[:, None] * [1, 0, 0] + [0, 0, 0.008]
    out = np.linspace(0.005, rng.uniform(0.02, 0.05), len(line))[:, None]
    outer = line - inwards * out * [1, 0, 0] + [0, 0.02, -0.02]
    return pose.pixels(np.concatenate([inner, outer[::-1]]))


def draw_hair(
    rgb: Image.Image, polygon: np.ndarray, pose: HeadPose, colour: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """Fill a polygon (K, 2) with hair, with strands that leave it."""
    mask = Image.new("L", rgb.size)
    draw, unit = ImageDraw.Draw(mask), pose.eyes_px
    draw.polygon([tuple(map(float, p)) for p in polygon], fill=255)
    lower = polygon[: len(polygon) // 2]
    for _ in range(rng.integers(3, 25)):
        start = lower[rng.integers(len(lower))] + unit * 0.08 * rng.standard_normal(2)
        bend = unit * rng.uniform(0.05, 0.35) * np.array([0.6 * rng.standard_normal(), 1])
        curl = unit * 0.04 * rng.standard_normal(2)
        path = [tuple(map(float, start + bend * t + curl * np.sin(2 * t))) for t in np.linspace(-1, 1, 6)]
        draw.line(path, fill=int(rng.uniform(120, 255)), width=max(1, round(unit * rng.uniform(0.005, 0.03))))
    mask = mask.filter(ImageFilter.GaussianBlur(max(0.6, 0.012 * unit)))
    width, height = rgb.size
    streaks = rng.uniform(0.6, 1.4, (max(2, height // 40), max(8, width // 3), 1))
    shade = (colour * streaks).clip(0, 255).astype(np.uint8)
    drawn = Image.fromarray(shade).resize(rgb.size, Image.Resampling.BICUBIC)
    return Image.composite(drawn, rgb, mask)


def _glasses(rgb: Image.Image, pose: HeadPose, rng: np.random.Generator) -> Image.Image:
    """Draw glasses: two rims with clear, tinted or reflecting lenses, a bridge and the temple on the near side."""
    angle = np.linspace(0, 2 * np.pi, 40)
    half = np.array([rng.uniform(0.021, 0.029), rng.uniform(0.014, 0.024)])
    power = rng.choice([1.0, 0.7, 0.5])  # from an ellipse to almost a rectangle
    round_ = np.stack([np.abs(f(angle)) ** power * np.sign(f(angle)) for f in (np.cos, np.sin)], 1) * half
    bridge = np.array([0, pose.points[168, 1], pose.points[168, 2] + 0.006])
    drop, lenses = rng.uniform(0.004, 0.014), []
    for corners in EYES:
        centre = pose.points[list(corners)].mean(0)
        rim = np.stack([centre[0] + round_[:, 0], centre[1] - drop + 0.006 + round_[:, 1], np.zeros(40)], 1)
        rim[:, 2] = bridge[2] - 0.25 * np.maximum(np.abs(rim[:, 0]) - 0.01, 0)
        lenses.append(pose.pixels(rim))
    colour = _fill(rng.choice([15, 40, 90, 160]) * rng.uniform(0.6, 1.3, 3))
    over, opacity = rgb.copy(), rng.choice([0.04, 0.12, 0.35, 0.9], p=(0.55, 0.25, 0.1, 0.1))
    draw, width = ImageDraw.Draw(over), max(1, round(pose.eyes_px * rng.uniform(0.008, 0.05)))
    tint = _fill(rng.uniform(0, 60, 3) if rng.random() < 0.8 else rng.uniform(150, 255, 3))
    for lens in lenses:
        draw.polygon([tuple(map(float, p)) for p in lens], fill=tint)
    rgb = Image.blend(rgb, over, opacity)
    draw = ImageDraw.Draw(rgb)
    for lens in lenses:
        draw.line([tuple(map(float, p)) for p in (*lens, lens[0])], fill=colour, width=width, joint="curve")
    inner = [lens[np.abs(lens[:, 0] - other[:, 0].mean()).argmin()] for lens, other in (lenses, lenses[::-1])]
    draw.line([tuple(map(float, p)) for p in inner], fill=colour, width=width)
    near = 0 if float(pose.rotation[0, 2]) > 0 else 1  # a face turned to the picture's right shows its right side
    ear = pose.points[[(127, 356)[near]]] + [[0, 0.004, -0.035]]
    outer = lenses[near][[20, 0][near]]
    draw.line([tuple(map(float, p)) for p in (outer, pose.pixels(ear)[0])], fill=colour, width=width)
    return rgb


def _hand(rgb: Image.Image, pose: HeadPose, rng: np.random.Generator) -> Image.Image:
    """Draw a hand at the chin or a cheek: a blob with fingers in the colour of the face."""
    unit = pose.eyes_px
    at = np.clip(pose.pixels(pose.points[[50]])[0], 0, np.array(rgb.size) - 1).astype(int)
    skin = np.array(rgb.getpixel((int(at[0]), int(at[1]))), float)
    place = pose.pixels(pose.points[[int(rng.choice([CHIN, 172, 397, 234, 454, 21, 251]))]])[0]
    away = place - pose.pixels(pose.points[[NOSE_TIP]])[0]
    away /= max(np.linalg.norm(away), 1e-6)
    mask = Image.new("L", rgb.size)
    draw = ImageDraw.Draw(mask)
    draw.ellipse(_box(place + away * unit * rng.uniform(0.3, 0.5), unit * 0.45, unit * 0.45), fill=255)
    across = np.array([-away[1], away[0]])
    for offset in (-0.3, -0.1, 0.1, 0.3):
        start = place + unit * (0.4 * away + offset * across)
        end = start - away * unit * rng.uniform(0.35, 0.75) + across * unit * rng.uniform(-0.1, 0.1)
        draw.line([tuple(map(float, p)) for p in (start, end)], fill=255, width=max(1, round(0.17 * unit)))
        draw.ellipse(_box(end, 0.085 * unit, 0.085 * unit), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(max(0.6, 0.015 * unit)))
    edges = mask.filter(ImageFilter.GaussianBlur(0.06 * unit))
    shade = (0.45 + 0.55 * np.asarray(edges, float)[..., None] / 255) * skin * rng.uniform(0.8, 1.15)
    return Image.composite(Image.fromarray(shade.clip(0, 255).astype(np.uint8)), rgb, mask)


def _shadow(rgb: Image.Image, pose: HeadPose, rng: np.random.Generator) -> Image.Image:
    """Darken one side of a cast shadow's edge across the face, straight or wavy, sharp or soft."""
    width, height = rgb.size
    unit, centre = pose.eyes_px, pose.pixels(pose.points[[NOSE_TIP]])[0]
    angle = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[:height, :width]
    along = -normal[1] * (x - centre[0]) + normal[0] * (y - centre[1])
    across = normal[0] * (x - centre[0]) + normal[1] * (y - centre[1]) + unit * rng.uniform(-0.8, 0.8)
    across += unit * rng.uniform(0, 0.25) * np.sin(along / unit * rng.uniform(1, 8) + rng.uniform(0, 6))
    share = np.clip(0.5 + across / (unit * rng.uniform(0.02, 0.6)), 0, 1)[..., None]
    tint = rng.uniform(0.2, 0.75) * np.exp(0.05 * rng.standard_normal(3))
    linear = (np.asarray(rgb, float) / 255) ** 2.2 * (1 - share * (1 - tint))
    return Image.fromarray((255 * linear.clip(0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8))


def _box(centre: np.ndarray, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    x, y = map(float, centre)
    return x - half_width, y - half_height, x + half_width, y + half_height


def _fill(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(colour, 0, 255))
    return red, green, blue
