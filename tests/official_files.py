"""Random face models in the layouts of the official files, small and built from formulas, and what they should give.

The expected numbers are written down from the equations of the original code, vertex by vertex, in double precision.
"""

from __future__ import annotations

import numpy as np

IDENTITY = {0: 120, 1: 150, 2: 150, 3: 150, 4: 156}
EXPRESSION = {0: 64, 1: 74, 2: 52, 3: 52, 4: 177}
TEXTURE = {0: 200, 1: 251, 2: 251, 3: 251, 4: 251}
SIDE = 13


def sheet(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A bulging sheet (V, 3), y up and z out of the face, and its triangles, counter-clockwise from the front."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(1, -1, side), np.linspace(-0.8, 0.8, side), indexing="ij")
    z = 0.7 * np.cos(x) * np.cos(0.8 * y) + 0.25 * np.exp(-8 * (x**2 + y**2))
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3) + generator.normal(0, 0.01, (side * side, 3))
    corner = np.arange(side * side).reshape(side, side)
    return points, _triangles(corner)


def _triangles(corner: np.ndarray) -> np.ndarray:
    """(F, 3) of a grid of vertex numbers, two for each square."""
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    return np.stack([a, b, c, a, c, d], axis=1).reshape(-1, 3)


def around(faces: np.ndarray, count: int) -> np.ndarray:
    """(V, 8) faces around each vertex, repeated in turn."""
    rows = [[] for _ in range(count)]
    for number, face in enumerate(faces):
        for vertex in face:
            rows[vertex].append(number)
    return np.array([[(row or [0])[k % max(len(row), 1)] for k in range(8)] for row in rows])


def official(version: int, seed: int = 0) -> dict:
    """A dictionary in the layout of one version."""
    generator = np.random.default_rng((version, seed))
    points, faces = sheet(seed)
    parts = {}
    if version > 2:
        points, faces, parts = _with_balls(points * 100, faces, generator, version)
    flip = np.ones(3) if version == 3 else np.array([1, -1, -1])
    count = len(points)
    scale = 0.004 if version < 3 else 0.4
    raw = {
        "meanshape": (points * flip).astype(np.float32).reshape(1, -1),
        "meantex": generator.uniform(60, 200, (1, 3 * count)).astype(np.float32),
        "idBase": generator.normal(0, scale, (3 * count, IDENTITY[version])).astype(np.float32),
        "texBase": generator.normal(0, 2, (3 * count, TEXTURE[version])).astype(np.float32),
        "tri": faces,
        "point_buf": around(faces, count),
    }
    base = generator.normal(0, 2 * scale, (3 * count, EXPRESSION[version])).astype(np.float32)
    raw["exBase_52" if version == 3 else "exBase"] = base
    skin = (generator.uniform(size=count) < 0.7).astype(np.float32)
    if version < 3:
        spots = generator.permutation(SIDE * SIDE)
        raw |= {"keypoints": spots[:66][None], "skinmask": skin[None], "uv": _texels()}
    if version == 2:
        raw |= _coarse_mesh(raw, generator)
    if version == 3:
        raw |= {"mediapipe_keypoints": generator.integers(0, count, (478, 1)), "face_mask": skin}
        raw |= {"exp_name_list_52": [f"shape{i}" for i in range(52)], "uvtex": np.ones((count, 3), np.float32)}
        raw |= {"parsing": np.ones((count, 3), np.float32), **parts}
    if version == 4:
        raw |= {"keypoints_mediapipe": generator.integers(0, count, 478), "face_mask": skin, **parts}
        raw |= {"keypoints_68": generator.integers(0, count, 68), "parsing": {"skin": skin}}
        raw |= {"keypoints": np.arange(5), "keypoints_name_list": {"pupil_left_5": [0]}}
    return raw


def coefficients(version: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Arguments of `official.evaluate` by name, of a head that looks at the camera."""
    generator = np.random.default_rng((version, seed, 1))
    values = {
        "identity": generator.normal(size=IDENTITY[version]),
        "expression": generator.uniform(0, 1, EXPRESSION[version]),
        "texture": generator.normal(size=TEXTURE[version]),
        "angles": generator.normal(0, 0.2, 3) + [np.pi if version < 3 else 0, 0, 0],
        "gamma": generator.normal(0, 0.1, 27),
        "translation": generator.normal(0, 0.05, 3) + [0, 0, 5.5 if version < 3 else -5.5],
    }
    return values | ({"eyes": generator.normal(0, 0.3, 4)} if version > 2 else {})


def expected(raw: dict, version: int, value: dict, focal_px: float, size: int) -> dict[str, np.ndarray]:
    """The original's numbers (no pictures), from its equations."""
    scale = {3: 0.01, 4: 0.01}.get(version, 1.0) * np.array([1, -1, -1] if version == 3 else [1, 1, 1])
    base = raw["exBase_52" if version == 3 else "exBase"]
    rows = np.asarray(raw["meanshape"], np.float64).reshape(-1) + raw["idBase"].astype(np.float64) @ value["identity"]
    neutral = rows.reshape(-1, 3) * scale
    vertices = (rows + base.astype(np.float64) @ value["expression"]).reshape(-1, 3) * scale
    if version > 2:
        bounds = raw["ver_inds"]
        for side in range(2):
            ball = slice(bounds[side], bounds[side + 1])
            centre = neutral[ball].mean(0) + [0, 0, 0.005 if version == 3 else 0]
            turn = _turn([*value["eyes"][2 * side : 2 * side + 2], 0]).T
            vertices[ball] = (vertices[ball] - centre) @ turn + centre + (0.01 if version == 3 else 0)
    faces = raw["tri"][:, [0, 2, 1]] if version == 3 else raw["tri"]
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(a - b, b - c)[raw["point_buf"]].sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    rotation = _turn(value["angles"]).T
    camera = vertices @ rotation + value["translation"]
    albedo = (np.asarray(raw["meantex"], np.float64).reshape(-1) + raw["texBase"] @ value["texture"]).reshape(-1, 3)
    gamma = value["gamma"].reshape(9, 3).copy() if version == 4 else value["gamma"].reshape(3, 9).T.copy()
    gamma[0] += 0.8
    keys = {3: "mediapipe_keypoints", 4: "keypoints_mediapipe"}
    marks = camera[np.asarray(raw[keys.get(version, "keypoints")]).reshape(-1)]
    if version < 3:
        flat = focal_px * marks[:, :2] / (10 - marks[:, 2:]) + size // 2
        landmarks = np.stack([flat[:, 0], size - flat[:, 1]], axis=1)
    else:
        landmarks = focal_px * marks[:, :2] / (marks[:, 2:] + 10) + (size // 2 if version == 3 else size / 2 - 0.5)
    return {
        "rotation": rotation,
        "vertices": vertices,
        "normals": normals,
        "vertices_camera": camera,
        "albedo": albedo,
        "shaded": albedo * (_harmonics(normals @ rotation) @ gamma),
        "landmarks_px": landmarks,
    }


def _turn(angles) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return z @ y @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])


def _harmonics(normals: np.ndarray) -> np.ndarray:
    x, y, z = normals.T
    a1, a2 = 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
    c1, c2 = np.sqrt(3 / (4 * np.pi)), 3 * np.sqrt(5 / (12 * np.pi))
    columns = [np.full_like(x, np.pi / np.sqrt(4 * np.pi)), -a1 * c1 * y, a1 * c1 * z, -a1 * c1 * x]
    columns += [a2 * c2 * x * y, -a2 * c2 * y * z, a2 * c2 * 0.5 / np.sqrt(3) * (3 * z * z - 1), -a2 * c2 * x * z]
    return np.stack([*columns, a2 * c2 * (x * x - y * y) / 2], axis=1)


def _texels() -> np.ndarray:
    row, column = np.indices((SIDE, SIDE)).reshape(2, -1)
    return np.stack([6 + 15 * column, 6 + 15 * row], axis=1)


def _coarse_mesh(raw: dict, generator: np.random.Generator) -> dict:
    """Every vertex with even row and column, in a random order, and the keypoints nearest to the full ones."""
    grid = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[::2, ::2]
    order = generator.permutation(grid.size)
    chosen = grid.reshape(-1)[order]
    place = np.empty(grid.size, np.int64)
    place[order] = np.arange(grid.size)
    corner = place.reshape(grid.shape)
    faces = _triangles(corner)
    return {
        "exp_name_list": [f"shape{i}" for i in range(52)],
        "select_id": chosen,
        "tri_select": faces,
        "point_buf_select": around(faces, len(chosen)),
        "keypoints_select": generator.integers(0, len(chosen), (1, 66)),
        "skinmask_select": raw["skinmask"][:, chosen],
    }


def _with_balls(points: np.ndarray, faces: np.ndarray, generator: np.random.Generator, version: int):
    """The sheet closed to a head, with two eyeballs and, in version 4, three more parts; millimetres."""
    back = points * [1, 1, -1]
    groups, triangles = [np.concatenate([points, back])], [np.concatenate([faces, faces[:, ::-1] + len(points)])]
    ball, ball_faces = _ball()
    centres = [(30, 30, 60), (-30, 30, 60), *([(0, -30, 50), (0, -36, 50), (0, -40, 45)] if version == 4 else [])]
    bounds, edges = [2 * len(points)], [len(triangles[0])]
    for centre in centres:
        triangles.append(ball_faces + bounds[-1])
        groups.append(ball * 12 + centre + generator.normal(0, 0.1, ball.shape))
        bounds.append(bounds[-1] + len(ball))
        edges.append(edges[-1] + len(ball_faces))
    parts = {"ver_inds": np.array(bounds), "tri_inds": np.array(edges)}
    return np.concatenate(groups), np.concatenate(triangles), parts


def _ball() -> tuple[np.ndarray, np.ndarray]:
    """An octahedron: vertices (6, 3), triangles (8, 3), counter-clockwise from outside."""
    points = np.concatenate([np.eye(3), -np.eye(3)])
    faces = [[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    turned = [f if np.linalg.det(points[f]) > 0 else f[::-1] for f in faces]
    return points, np.array(turned)
