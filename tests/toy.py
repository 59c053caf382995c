"""A small head for tests: built from formulas, no files, same numbers every time.

180 coarse and 673 fine vertices in our axes; millimetres in the file, metres after loading. The head is a tube of
rings with a nose, open at the collar and closed by a cap; eyeballs, teeth, tongue and the inside of the mouth are
subdivided boxes.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from faceverse.graphics.mesh import subdivide_smooth, subdivision, triangles_from_quads
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.model.file import ModelFile, pack_albedo
from faceverse.weights import model_data

REGIONS = ("face", "lips", "eyelids", "eyeballs", "scalp", "ears", "neck", "teeth", "tongue", "mouth_inside")
IDENTITY, ALBEDO = 8, 5
EYE, MOUTH = np.array([32.0, 22.0]), np.array([0.0, -42.0])

# MediaPipe's points that come closest to the 68 of the iBUG scheme.
POINTS_68 = (
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305]
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]
)

_AZIMUTH_DEG = np.array([-180, -140, -105, -75, -48, -30, -14, 0, 14, 30, 48, 75, 105, 140])
_RING_Y = np.array([-115, -95, -74, -52, -30, -6, 22, 50, 82, 108])
_RING_X = np.array([66, 56, 58, 68, 74, 78, 80, 78, 68, 46])
_RING_Z = np.array([72, 62, 84, 94, 98, 102, 104, 104, 92, 62])
_BOX = np.array([[0, 1, 2, 3], [5, 4, 7, 6], [4, 0, 3, 7], [1, 5, 6, 2], [3, 2, 6, 7], [4, 5, 1, 0]])
_PARTS = {  # region: centre and half extents of a box, millimetres
    "eyeballs": [((-32, 22, 88), (15, 15, 15)), ((32, 22, 88), (15, 15, 15))],
    "teeth": [((0, -42, 76), (22, 10, 8))],
    "tongue": [((0, -50, 64), (14, 6, 20))],
    "mouth_inside": [((0, -44, 40), (30, 24, 30))],
}


@cache
def toy_file() -> ModelFile:
    """The toy head as a model file; shared, so treat its arrays as read-only."""
    vertices, quads, uv, uv_quads, part = _mesh()
    topology = subdivision(quads, len(vertices))
    vertices = vertices * (230.0 / np.ptp(subdivide_smooth(vertices, topology)[:, 1]))
    fine = subdivide_smooth(vertices, topology)
    region_bits = _regions(fine, np.round(subdivide_smooth(part[:, None].astype(float), topology)[:, 0]))
    mean_albedo, albedo_modes = _albedo(fine, region_bits)
    packed, scale = pack_albedo(albedo_modes)
    triangle, barycentric = _landmarks(fine, triangles_from_quads(topology.quads))
    step, estimator = _attributes()
    return ModelFile(
        mean_vertices=vertices.astype(np.float32),
        identity_modes=_identity_modes(vertices).astype(np.float16),
        expression_modes=_expression_modes(vertices, part).astype(np.float16),
        uv=uv.astype(np.float32),
        mean_albedo=mean_albedo.astype(np.float16),
        albedo_modes=packed,
        albedo_scale=scale,
        region_bits=region_bits,
        landmarks_478_triangle=triangle.astype(np.int32),
        landmarks_478_barycentric=barycentric.astype(np.float32),
        landmarks_478_sigma=np.full(478, 0.002, np.float32),
        landmarks_68_triangle=triangle[POINTS_68].astype(np.int32),
        landmarks_68_barycentric=barycentric[POINTS_68].astype(np.float32),
        landmarks_68_sigma=np.full(68, 0.003, np.float32),
        attribute_step=step.astype(np.float32),
        attribute_estimator=estimator.astype(np.float32),
        quads=quads.astype(np.int32),
        uv_quads=uv_quads.astype(np.int32),
        name="toy",
        expression_names=ARKIT_NAMES,
        region_names=REGIONS,
        attributes=(
            {"name": "age", "unit": "years", "minimum": 18.0, "maximum": 80.0},
            {"name": "gender", "unit": "0 female, 1 male", "minimum": 0.0, "maximum": 1.0},
        ),
        info={"licence": "CC0-1.0", "sources": ["formulas of the tests"]},
    )


@cache
def toy_model() -> FaceModel:
    """The toy head, ready to use; shared, so do not change it."""
    return FaceModel(model_data(toy_file()))


def _mesh() -> tuple[np.ndarray, ...]:
    """Vertices (Vc, 3) mm, quads (Q, 4), uv (Uc, 2), uv_quads (Q, 4), part (Vc,): 0 head, k + 1 for k-th of _PARTS."""
    rings, columns = len(_RING_Y), len(_AZIMUTH_DEG)
    azimuth = np.deg2rad(_AZIMUTH_DEG)
    x, z = _RING_X[:, None] * np.sin(azimuth), _RING_Z[:, None] * np.cos(azimuth)
    y = np.broadcast_to(_RING_Y[:, None], x.shape)
    front = np.clip(np.cos(azimuth), 0, None)
    z = z + 24 * np.exp(-((y + 12) ** 2) / 800 - x**2 / 250) * front + 8 * np.exp(-((y + 74) ** 2) / 600) * front**2
    vertices = [np.stack([x, y, z], axis=-1).reshape(-1, 3)]
    row, column = np.indices((rings - 1, columns)).reshape(2, -1)
    corner_row, corner_column = row[:, None] + [0, 0, 1, 1], column[:, None] + [0, 1, 1, 0]
    quads = [corner_row * columns + corner_column % columns]
    corner_uv = [np.stack([0.02 + 0.96 * corner_column / columns, 0.70 - 0.68 * corner_row / (rings - 1)], axis=-1)]
    ring = (rings - 1) * columns
    i = np.arange(columns // 2 - 1)
    cap = np.stack([i, i + 1, columns - 2 - i, columns - 1 - i], axis=1)
    quads.append(ring + cap)
    angle = 2 * np.pi * cap / columns
    corner_uv.append(np.stack([0.10 - 0.08 * np.sin(angle), 0.86 - 0.08 * np.cos(angle)], axis=-1))
    part = [np.zeros(rings * columns, dtype=np.int64)]
    square_signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    signs = np.concatenate([np.insert(square_signs, 2, z, axis=1) for z in (1, -1)])
    boxes = [(k + 1, *box) for k, boxes in enumerate(_PARTS.values()) for box in boxes]
    for cell, (number, centre, half) in enumerate(boxes):
        quads.append(_BOX + sum(map(len, vertices)))
        vertices.append(signs * half + np.array(centre))
        part.append(np.full(8, number))
        square = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * 0.04
        places = np.array([[side % 3, side // 3] for side in range(6)]) * 0.05
        corner_uv.append([0.22 + 0.155 * cell, 0.76] + places[:, None] + square)
    numbered = _number_uv(np.concatenate(quads), np.concatenate(corner_uv))
    return (np.concatenate(vertices), *numbered, np.concatenate(part))


def _number_uv(quads: np.ndarray, corner_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quads, uv and uv_quads: the first UV of each vertex has the vertex's number, different ones follow."""
    numbers: dict[tuple, int] = {}
    first = {}
    uv_quads = np.empty_like(quads)
    extra = []
    for place in np.ndindex(quads.shape):
        vertex, uv = int(quads[place]), tuple(corner_uv[place].round(9))
        first.setdefault(vertex, uv)
        if (vertex, uv) not in numbers:
            numbers[vertex, uv] = vertex if first[vertex] == uv else quads.max() + 1 + len(extra)
            if first[vertex] != uv:
                extra.append(uv)
        uv_quads[place] = numbers[vertex, uv]
    return quads, np.array([first[v] for v in range(quads.max() + 1)] + extra), uv_quads


def _regions(fine: np.ndarray, part: np.ndarray) -> np.ndarray:
    x, y, z = fine.T
    head, front = part == 0, z > 20
    eye = np.hypot(np.abs(x) - EYE[0], y - EYE[1])
    mouth = np.hypot((x - MOUTH[0]) / 1.6, y - MOUTH[1])
    neck, scalp = head & (y < -85), head & ((y > 80) | ((z < 0) & (y > -20)))
    ears = head & (np.abs(z) < 25) & (np.abs(y) < 25)
    member = {
        "face": head & front & ~neck & ~scalp & ~ears,
        "lips": head & front & (mouth < 18),
        "eyelids": head & front & (eye < 22),
        "scalp": scalp & ~ears,
        "ears": ears,
        "neck": neck,
    }
    member |= {name: part == k + 1 for k, name in enumerate(_PARTS)}
    return sum((member[name].astype(np.uint16) << k for k, name in enumerate(REGIONS)), np.zeros(len(fine), np.uint16))


def _identity_modes(vertices: np.ndarray) -> np.ndarray:
    x, y, z = (vertices / 100).T
    zero = np.zeros_like(x)
    nose = np.exp(-(x**2) / 0.05 - (y + 0.1) ** 2 / 0.1) * (z > 0)
    jaw = np.exp(-((y + 0.6) ** 2) / 0.1) * np.clip(z + 0.5, 0, 1)
    brow = np.exp(-((y - 0.5) ** 2) / 0.06) * np.clip(z, 0, 1)
    fields = [
        (4 * x, zero, zero), (zero, 5 * y, zero), (zero, zero, 4 * z), (5 * x * jaw, zero, zero),
        (zero, zero, 5 * nose), (zero, -3 * jaw, 3 * jaw), (zero, zero, 4 * brow),
        (2 * np.sin(2 * y), zero, 1.5 * np.cos(3 * x)),
    ]  # fmt: skip
    return np.stack([np.stack(components, axis=1) for components in fields])


def _expression_modes(vertices: np.ndarray, part: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(52)
    heights = {"brow": 45, "eye": 22, "cheek": -12, "nose": -15, "jaw": -70, "mouth": -42, "tongue": -48}
    modes = []
    for name in ARKIT_NAMES:
        kind = next(k for k in heights if name.startswith(k))
        side = 1 if "Left" in name else -1 if "Right" in name else 0
        spread = {"brow": 30, "eye": 32, "cheek": 45, "nose": 12, "mouth": 24}.get(kind, 0)
        centre = np.array([side * spread, heights[kind], 90]) + generator.normal(0, 3, 3)
        direction = generator.normal(0, 1, 3) * [1, 1, 0.6]
        amplitude = 4.0
        if name == "jawOpen":
            direction, amplitude = np.array([0, -1, 0]), 12.0
        weight = np.exp(-((vertices - centre) ** 2).sum(1) / (2 * 25.0**2))
        weight = np.where((part == 1) & (kind != "eye"), 0, weight)
        modes.append(amplitude * weight[:, None] * direction / np.linalg.norm(direction))
    return np.stack(modes)


def _albedo(fine: np.ndarray, region_bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.tile([0.48, 0.27, 0.19], (len(fine), 1))
    colours = {
        "lips": (0.42, 0.16, 0.14), "eyeballs": (0.7, 0.7, 0.7), "scalp": (0.10, 0.06, 0.04),
        "teeth": (0.65, 0.6, 0.5), "tongue": (0.4, 0.12, 0.1), "mouth_inside": (0.2, 0.05, 0.05),
    }  # fmt: skip
    for name, colour in colours.items():
        mean[(region_bits >> REGIONS.index(name) & 1).astype(bool)] = colour
    x, y, z = (fine / 100).T
    skin = (region_bits >> REGIONS.index("eyeballs") & 1) == 0
    patterns = [np.ones_like(x), np.ones_like(x), np.sin(3 * y), np.cos(4 * x) * z, np.sin(5 * x + 4 * y)]
    tints = [(0.08, 0.06, 0.05), (0.03, -0.01, -0.01), (0.03, 0.01, 0.01), (0.02, 0.02, 0.01), (0.01, 0.02, 0.02)]
    modes = np.stack([(p * skin)[:, None] * np.array(t) for p, t in zip(patterns, tints, strict=True)])
    return mean, modes


def _landmarks(fine: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of a frontal drawing of a face, cast along z onto the first surface: triangle (478,), barycentric."""
    golden = np.pi * (3 - 5**0.5)
    k = np.arange(478)
    radius = np.sqrt((k + 0.5) / 478)
    points = np.stack([60 * radius * np.cos(k * golden), -5 + 72 * radius * np.sin(k * golden)], axis=1)
    points[POINTS_68] = _drawing_68()
    turn = np.arange(4) * np.pi / 2
    for first, side in ((468, -1), (473, 1)):
        points[first] = EYE * [side, 1]
        points[first + 1 : first + 5] = points[first] + 5 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    corners = fine[faces]
    a, b, c = (corners[:, i, :2] for i in range(3))
    area = _cross(b - a, c - a)
    seen = area > 1e-6
    p = points[:, None]
    weights = np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], axis=-1)
    weights = weights / np.where(seen, area, 1)[:, None]
    depth = np.where(seen & (weights >= -1e-9).all(-1), (weights * corners[:, :, 2]).sum(-1), -np.inf)
    triangle = depth.argmax(1)
    if not np.isfinite(depth[k, triangle]).all():
        raise ValueError("a landmark of the toy misses its head")
    chosen = np.clip(weights[k, triangle], 0, None)
    return triangle, chosen / chosen.sum(1, keepdims=True)


def _drawing_68() -> np.ndarray:
    """(68, 2) x and y in millimetres of the iBUG points, from the subject's right (-x) to the left."""
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([-60 * np.cos(turn), 10 - 88 * np.sin(turn)], axis=1)
    brow = np.stack([np.linspace(-50, -16, 5), 44 + 5 * np.sin(np.linspace(0.3, 2.8, 5))], axis=1)
    bridge = np.stack([np.zeros(4), np.linspace(20, -10, 4)], axis=1)
    base = np.stack([np.linspace(-14, 14, 5), -22 - 3 * np.sin(np.linspace(0, np.pi, 5))], axis=1)
    eye = -EYE * [1, -1] + np.array([[-14, 0], [-5, 5], [5, 5], [14, 0], [5, -5], [-5, -5]])
    mirror = np.array([-1, 1])
    ring = np.pi - np.arange(12) * np.pi / 6
    outer = MOUTH + np.stack([26 * np.cos(ring), 11 * np.sin(ring)], axis=1)
    inner = MOUTH + np.stack([20 * np.cos(ring := np.pi - np.arange(8) * np.pi / 4), 4 * np.sin(ring)], axis=1)
    other_eye = (eye * mirror)[[3, 2, 1, 0, 5, 4]]
    return np.concatenate([jaw, brow, (brow * mirror)[::-1], bridge, base, eye, other_eye, outer, inner])


def _attributes() -> tuple[np.ndarray, np.ndarray]:
    """Two orthogonal directions, and the estimators that read them back: age 40 and gender 0.5 at the mean head."""
    directions = np.linalg.qr(np.random.default_rng(7).normal(size=(IDENTITY + ALBEDO, 2)))[0].T
    step = directions * np.array([[0.04], [2.0]])
    weights = step / (step**2).sum(1, keepdims=True)
    return step, np.concatenate([weights, [[40.0], [0.5]]], axis=1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
