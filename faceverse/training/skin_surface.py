"""Skin regions, metric scale and tension lines of a model in UV space, for drawing synthetic skin detail.

Positions are texels of a 512 x 512 map, whatever the size of the map: `x` from the subject's right to left, `y` down,
`side` the distance from the midline. The UV layout of the open model is symmetric about the midline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from ..errors import ParameterError
from ..model.face_model import FaceModel
from ..model.texture_maps import bake_planes, uv_fragments
from .skin_fields import skin_fields, smoothstep

GRID = 512  # side of the map whose texels are the unit of positions
MIDLINE = GRID / 2
FADE_TEXELS = 3.0  # over which detail fades at the rims of eyes and mouth, at 512
INTERIOR = ("eyeballs", "eye_sockets", "teeth", "tongue", "mouth_inside")
_MIRROR = {
    4: 4, 0: 0, 17: 17, 18: 18, 168: 168, 9: 9, 152: 152, 13: 13, 14: 14, 2: 2, 199: 199,
    70: 300, 63: 293, 105: 334, 66: 296, 107: 336, 46: 276, 53: 283, 52: 282, 65: 295, 55: 285,
    33: 263, 7: 249, 163: 390, 144: 373, 145: 374, 153: 380, 154: 381, 155: 382, 133: 362, 159: 386,
    129: 358, 203: 423, 206: 426, 216: 436, 212: 432, 57: 287, 61: 291, 204: 424, 211: 431, 64: 294,
    185: 409, 40: 270, 39: 269, 37: 267, 146: 375, 91: 321, 181: 405, 84: 314, 182: 406, 83: 313, 205: 425, 50: 280,
}  # fmt: skip
# Relaxed skin tension lines (Langer-like): (side, y) in texels and their direction (outwards, down) there.
_TENSION = (
    ((0, 60), (1, 0)), ((0, 130), (1, 0)), ((60, 90), (1, 0)), ((60, 140), (1, -0.15)), ((95, 120), (1, 0.3)),
    ((0, 170), (0.9, 0)), ((18, 165), (0.3, 1)), ((50, 178), (1, 0)), ((56, 205), (1, 0.05)), ((35, 205), (1, 0.4)),
    ((78, 205), (1, -0.35)), ((95, 190), (1, 0)), ((95, 170), (1, -0.4)), ((100, 210), (1, 0.4)),
    ((0, 215), (1, 0)), ((0, 250), (1, 0)), ((25, 230), (0.6, 0.8)), ((35, 265), (0.3, 1)),
    ((60, 240), (0.6, 0.8)), ((65, 275), (0.5, 0.86)), ((90, 290), (0.35, 0.95)), ((120, 250), (0.35, 0.95)),
    ((140, 300), (0.2, 1)), ((0, 295), (0, 1)), ((25, 295), (0.2, 1)), ((48, 300), (0.5, -0.9)), ((72, 330), (0.1, 1)),
    ((0, 330), (0, 1)), ((35, 330), (0.1, 1)), ((0, 370), (1, 0)), ((0, 400), (1, 0)), ((35, 375), (1, 0.5)),
    ((60, 375), (0.5, 1)), ((100, 350), (0.3, 1)), ((0, 430), (1, 0)), ((90, 420), (1, -0.2)), ((170, 400), (1, -0.2)),
)  # fmt: skip
_TENSION_REACH = 22.0


@dataclass(frozen=True)
class SkinSurface:
    """The surface of a model as UV maps of `size` x `size` texels S. Masks are (S, S) float32 in 0..1. Read-only.

    Args:
        size: S.
        x, y: (S, S) float32, the texel's position at 512.
        mm: (S, S) millimetres between texels at 512, smoothed.
        position_mm: (3, S, S) the mean head.
        inside: 1 on skin, 0 on eyes, teeth, mouth cavity and outside the head, soft at the rims.
        bare: the part of it without scalp hair that is visible from the front half.
        lips, eyelids, brows, beard, ears, neck, nose, cheeks, forehead, under_eye, eye_corner, chin: soft masks.
        brow_along: (S, S) 0 at the nose .. 1 at the temple.
        tension: (2, S, S) unit vectors (right, down) along the relaxed skin tension lines.
        places: (2,) texels (side, y) of landmarks of the right half by MediaPipe index, averaged over both halves.
    """

    size: int
    x: np.ndarray
    y: np.ndarray
    mm: np.ndarray
    position_mm: np.ndarray
    inside: np.ndarray
    bare: np.ndarray
    lips: np.ndarray
    eyelids: np.ndarray
    brows: np.ndarray
    brow_along: np.ndarray
    beard: np.ndarray
    ears: np.ndarray
    neck: np.ndarray
    nose: np.ndarray
    cheeks: np.ndarray
    forehead: np.ndarray
    under_eye: np.ndarray
    eye_corner: np.ndarray
    chin: np.ndarray
    tension: np.ndarray
    places: dict[int, np.ndarray]

    @property
    def side(self) -> np.ndarray:
        """(S, S) distance from the midline in texels at 512."""
        return np.abs(self.x - np.float32(MIDLINE))

    @property
    def texels_per_mm(self) -> np.ndarray:
        """(S, S) texels of this map per millimetre."""
        return self.size / GRID / self.mm

    @classmethod
    def of(cls, model: FaceModel, size: int) -> SkinSurface:
        """Prepare the surface of a model.

        Args:
            model: with `landmarks_478` and the regions of the open model.
            size: texels, 64..2048.
        Raises:
            ParameterError: the model lacks landmarks or regions, or a size outside its range.
        """
        needed = {*INTERIOR, "lips", "eyelids", "scalp", "ears", "neck", "eyeball_left", "eyeball_right"}
        if model.landmarks_478 is None or needed - set(model.regions):
            raise ParameterError("training.skin_model", model=model.name)
        if not 64 <= size <= 2048:
            raise ParameterError("training.skin_size", size=size)
        places = _places(model)
        texel = ((np.arange(size, dtype=np.float32) + 0.5) * (GRID / size)).astype(np.float32)
        y, x = np.meshgrid(texel, texel, indexing="ij")
        position = 1000 * bake_planes(model, model.mean_vertices, size)
        masks = _region_masks(model, size)
        inside = _inside(model, masks, places, size)
        soft = _soft_masks(masks, x, y, places)
        front = np.maximum(smoothstep((masks["facing"] + 0.15) / 0.4), soft["neck"] * smoothstep(masks["facing"] + 1.3))
        hair = smoothstep((masks["hairline"] * 1000 + 8) / 22) * (1 - soft["neck"])
        # Dots would become streaks on the head where texels are elongated.
        even = smoothstep((2.1 - _longest_mm(position, inside, size)) / 1.1)
        soft = {name: (mask * inside).astype(np.float32) for name, mask in soft.items()}
        brows, along = _brows(x, y, places)
        return cls(
            size=size,
            x=x,
            y=y,
            mm=_texel_mm(position, inside, size),
            position_mm=position,
            inside=inside,
            bare=(inside * (1 - 0.9 * hair) * front * even).astype(np.float32),
            brows=(brows * inside).astype(np.float32),
            brow_along=along,
            tension=_tension(x, y),
            places=places,
            **soft,
        )


def _places(model: FaceModel) -> dict[int, np.ndarray]:
    points = model.landmarks_478
    assert points is not None
    uv = (model.uv[model.uv_faces[points.triangle]] * points.barycentric[..., None]).sum(1) * GRID
    return {
        right: np.array(
            [(abs(uv[right, 0] - MIDLINE) + abs(uv[left, 0] - MIDLINE)) / 2, (uv[right, 1] + uv[left, 1]) / 2]
        )
        * ((0, 1) if right == left else (1, 1))
        for right, left in _MIRROR.items()
    }


def _region_masks(model: FaceModel, size: int) -> dict[str, np.ndarray]:
    """Maps (S, S) by name: the regions 0..1, `hairline` and `beard_line` in metres, `facing` -1..1."""
    count = len(model.mean_vertices)
    flags = {name: np.isin(np.arange(count), index) for name, index in model.regions.items()}
    lips, eyelids, ears = (flags[name].astype(float) for name in ("lips", "eyelids", "ears"))
    fields = skin_fields(model.mean_vertices.astype(np.float64), flags, lips, eyelids, ears)
    centre = model.mean_vertices[flags["ears"], 2].mean()
    facing = np.clip((model.mean_vertices[:, 2] - centre) / 0.05, -1, 1)
    extra = {"hairline": fields.hairline, "beard_line": fields.beard, "facing": facing}
    names = [*(n for n in flags if n != "face"), *extra]
    values = np.stack([*(flags[n] for n in names[: -len(extra)]), *extra.values()], axis=1)
    planes = bake_planes(model, values.astype(np.float32), size)
    # Averaged over both halves: the mean head is symmetric up to sampling noise.
    return {name: (plane + plane[:, ::-1]) / 2 for name, plane in zip(names, planes)}


def _inside(model: FaceModel, masks: dict[str, np.ndarray], places, size: int) -> np.ndarray:
    skin = uv_fragments(model, size).covered & (sum(masks[n] for n in INTERIOR if n in masks) < 0.25)
    tip = (int(places[4][1] * size / GRID), size // 2)
    parts, _ = label(skin)
    # The face's own UV island only: eyeballs, teeth and the mouth cavity have separate ones.
    skin = parts == parts[tip]
    within = distance_transform_edt(np.pad(skin, 1))[1:-1, 1:-1]
    return smoothstep((within - 0.5) / (FADE_TEXELS * max(size / GRID, 0.5))).astype(np.float32)


def _soft_masks(masks: dict[str, np.ndarray], x, y, places) -> dict[str, np.ndarray]:
    side, blur = np.abs(x - MIDLINE), len(x) / GRID

    def spot(place, wide: float, high: float) -> np.ndarray:
        return np.exp(-0.5 * (((side - place[0]) / wide) ** 2 + ((y - place[1]) / high) ** 2))

    eye = (places[33] + places[133]) / 2
    tip, corner = places[4], places[33]
    beard = smoothstep((masks["beard_line"] * 1000 + 4) / 9)
    forehead = smoothstep((places[105][1] - 4 - y) / 14) * smoothstep((100 - side) / 25)
    return {
        "lips": gaussian_filter(masks["lips"], 1.8 * blur),
        "eyelids": gaussian_filter(masks["eyelids"], 1.5 * blur),
        "ears": masks["ears"],
        "neck": gaussian_filter(masks["neck"], 5 * blur),
        "beard": beard * (1 - gaussian_filter(masks["lips"], 1.8 * blur)),
        "nose": np.maximum(spot(tip + (0, 8), 24, 20), 0.7 * spot(tip - (0, 30), 16, 22)),
        "cheeks": np.maximum(spot(places[205] - (10, 24), 30, 26), 0.75 * spot(places[50] + (20, 10), 38, 38)),
        "forehead": forehead,
        "under_eye": spot(eye + (-3, 24), 26, 9),
        "eye_corner": np.maximum(spot(corner + (24, 4), 20, 22), 0.8 * spot(eye + (0, 22), 32, 11)),
        "chin": spot(places[199], 26, 18),
    }


def _brows(x: np.ndarray, y: np.ndarray, places) -> tuple[np.ndarray, np.ndarray]:
    side = np.abs(x - MIDLINE)
    top = np.array([places[i] for i in (107, 66, 105, 63, 70)])
    bottom = np.array([places[i] for i in (55, 65, 52, 53, 46)])
    upper = np.interp(side, top[:, 0], top[:, 1])
    lower = np.interp(side, bottom[:, 0], bottom[:, 1])
    middle, half = (upper + lower) / 2, np.maximum((lower - upper) / 2, 4.0)
    along = (side - top[0, 0]) / (top[-1, 0] - top[0, 0])
    ends = smoothstep((along + 0.10) / 0.2) * smoothstep((1.08 - along) / 0.2)
    return ends * smoothstep((1.25 - np.abs(y - middle) / half) / 0.5), np.clip(along, 0, 1).astype(np.float32)


def _texel_mm(position: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    along_u, along_v = np.gradient(position, axis=2), np.gradient(position, axis=1)
    area = np.linalg.norm(np.cross(along_u, along_v, axis=0), axis=0)
    mm = np.sqrt(np.clip(area, 0.01, 9)) * size / GRID
    return np.clip(_smooth_inside(mm, inside, size), 0.3, 2.5).astype(np.float32)


def _longest_mm(position: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    """(S, S) length of the longer side of a texel, in millimetres at 512."""
    along = [np.linalg.norm(np.gradient(position, axis=k), axis=0) for k in (1, 2)]
    return _smooth_inside(np.clip(np.maximum(*along) * size / GRID, 0, 6), inside, size)


def _smooth_inside(mm: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    weight = (inside > 0.5).astype(np.float32)
    sigma = 5 * size / GRID
    return gaussian_filter(mm * weight, sigma) / np.maximum(gaussian_filter(weight, sigma), 1e-3)


def _tension(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Direction field of the tension lines, interpolated as double angles because a line has no sign."""
    side, sign = np.abs(x - MIDLINE), np.where(x < MIDLINE, -1.0, 1.0)
    total = np.zeros((2, *x.shape))
    for (at, down), direction in _TENSION:
        angle = 2 * np.arctan2(direction[1], direction[0])
        near = ((side - at) ** 2 + (y - down) ** 2) / (2 * _TENSION_REACH**2)
        weight = 1 / (1 + near) ** 3
        total += weight * np.array([np.cos(angle), np.sin(angle)])[:, None, None]
    angle = 0.5 * np.arctan2(total[1], total[0])
    return np.stack([np.cos(angle) * sign, np.sin(angle)]).astype(np.float32)
