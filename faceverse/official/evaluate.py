"""Reference evaluation of the original model in plain NumPy, in its own units and axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ParameterError
from ..graphics.rasterize import interpolate, rasterize
from ..model.face_model import FaceModel
from .conventions import (
    AMBIENT,
    CAMERA_DISTANCE,
    CONVENTIONS,
    EYE_NAMES,
    FLIP,
    SH_FACTORS,
    Convention,
    display_colours,
    rotation_matrix,
    sh_terms,
)
from .writer import V2_UNIT_M, adjacent_faces

CLAY_GREY, CLAY_AMBIENT, CLAY_DIFFUSE = 200.0, 0.1, 0.95
LAMP_DISTANCE = 1e5  # of the lamp in clay renderings, in front of the face


@dataclass(frozen=True)
class CodeSpace:
    """Mapping between a model and the code space of the original, see conventions.py.

    Args:
        convention: of the model's version; 2 for models that were not read from an official file.
        unit_m: metres per unit of code space.
        faces: (F, 3) in the winding with which the original computes normals.
        adjacent: (V, K) triangles around each vertex.
        keypoints: (L,) vertices of the landmarks.
        eyes: (4,) indices of the expressions that rotate the eyeballs, or empty.
    """

    convention: Convention
    unit_m: float
    faces: np.ndarray
    adjacent: np.ndarray
    keypoints: np.ndarray
    eyes: np.ndarray


def code_space(model: FaceModel) -> CodeSpace:
    """Look up the code space of a model."""
    official = model.info.get("official", {})
    convention = CONVENTIONS[official.get("version", 2)]
    extra = model.data.extra
    faces = model.faces[:, ::-1] if official.get("winding") == "reversed" else model.faces
    marks = model.fit_landmarks
    keypoints = extra.get("keypoints", model.faces[marks.triangle, marks.barycentric.argmax(1)])
    adjacent = extra["point_buf"] if "point_buf" in extra else adjacent_faces(faces, len(model.mean_vertices))
    names = model.expression_names
    eyes = np.array([names.index(name) for name in EYE_NAMES if name in names and convention.eyes], np.int64)
    used = faces[:, [0, 2, 1]] if convention.reversed_normals else faces
    return CodeSpace(convention, official.get("metres_per_unit", V2_UNIT_M), used, adjacent, keypoints, eyes)


def evaluate(
    model: FaceModel,
    *,
    identity: np.ndarray,
    expression: np.ndarray,
    texture: np.ndarray,
    angles: np.ndarray,
    gamma: np.ndarray,
    translation: np.ndarray,
    focal_px: float,
    image_size: int,
    eyes: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute what the original FaceVerse code computes from one set of coefficients.

    Args:
        model: from `load_model` of an official file, or its `coarse` (version 2); other models are treated as
            version 2.
        identity: (I,); expression: (E,) without the eyes; texture: (A,).
        angles: (3,) radians; translation: (3,) units; see conventions.py.
        gamma: (27,) light, in the version's order; 0.8 is added to the constant terms, as the original does.
        focal_px: focal length in pixels of a square image with side `image_size`.
        eyes: (4,) radians (versions 3 and 4): pitch and yaw of the left, then of the right eyeball; by default 0.
    Returns:
        float32 arrays: rotation (3, 3), used as v @ R; vertices and normals (V, 3), model space; vertices_camera
        (V, 3), after rotation and translation; albedo and shaded (V, 3), 0..255 and beyond; landmarks_px (L, 2); image
        and clay (size, size, 4), colours 0..255 and coverage 0 or 1 (by the renderer of versions 0 to 2: one face per
        pixel).
    Raises:
        ParameterError: an argument of the wrong shape, or not finite.
    Reference: model/FaceVerseModel.py and model/ModelRenderer.py of github.com/LizhenWangT/FaceVerse.
    """
    space = code_space(model)
    convention = space.convention
    count = len(model.tensor("expression_modes")) - len(space.eyes)
    given = {"identity": (identity, len(model.tensor("identity_modes"))), "expression": (expression, count)}
    given |= {"texture": (texture, len(model.tensor("albedo_modes"))), "angles": (angles, 3), "gamma": (gamma, 27)}
    given |= {"translation": (translation, 3), "eyes": (np.zeros(4) if eyes is None else eyes, 4)}
    value = {name: _vector(name, array, size) for name, (array, size) in given.items()}
    if not (np.isfinite(focal_px) and focal_px > 0) or int(image_size) != image_size or not image_size > 0:
        raise ParameterError("official.camera", focal_px=focal_px, image_size=image_size)
    rotation = rotation_matrix(value["angles"])
    vertices = _vertices(model, space, value)
    normals = vertex_normals(vertices, space)
    in_camera = vertices @ rotation + value["translation"]
    mean_colour, colour_modes = display_colours(model.mean_albedo, model.albedo_modes)
    albedo = mean_colour + np.tensordot(value["texture"], colour_modes, axes=1)
    gamma = value["gamma"].reshape(9, 3).copy() if convention.light_last else value["gamma"].reshape(3, 9).T.copy()
    gamma[0] += AMBIENT
    shaded = albedo * (sh_terms(normals @ rotation) * SH_FACTORS @ gamma)
    landmarks = project(in_camera[space.keypoints], convention, focal_px, int(image_size))[:, :2]
    pictures = _pictures(in_camera, shaded, space, float(focal_px), int(image_size))
    result = {
        "rotation": rotation,
        "vertices": vertices,
        "normals": normals,
        "vertices_camera": in_camera,
        "albedo": albedo,
        "shaded": shaded,
        "landmarks_px": landmarks,
        "image": pictures[0],
        "clay": pictures[1],
    }
    return {key: np.asarray(array, dtype=np.float32) for key, array in result.items()}


def vertex_normals(vertices: np.ndarray, space: CodeSpace) -> np.ndarray:
    """(V, 3) unit vertex normals as in the original: triangles listed twice in `adjacent` count twice."""
    a, b, c = (vertices[space.faces[:, k]] for k in range(3))
    total = np.cross(a - b, b - c)[space.adjacent].sum(1)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9)


def project(in_camera: np.ndarray, convention: Convention, focal_px: float, size: int) -> np.ndarray:
    """Project camera space (V, 3) to the original's pixels x, y and depth in units, (V, 3)."""
    x, y, z = in_camera.T
    depth = CAMERA_DISTANCE + (z if convention.looks_forward else -z)
    centre = size / 2 - convention.pixel_offset if convention.version == 4 else size // 2
    u, v = focal_px * x / depth + centre, focal_px * y / depth + centre
    return np.stack([u, v if convention.looks_forward else size - v, depth], axis=1)


def _vector(name: str, value, size: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64).reshape(-1) if value is not None else np.zeros(0)
    if array.size != size or not np.isfinite(array).all():
        raise ParameterError("official.coefficient_count", name=name, expected=size, found=array.size)
    return array


def _vertices(model: FaceModel, space: CodeSpace, value: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices (V, 3) in code space, with the eyeballs rotated about their centres."""
    convention = space.convention
    modes = np.delete(model.expression_modes, space.eyes, axis=0) if len(space.eyes) else model.expression_modes
    neutral = model.mean_vertices + np.tensordot(value["identity"], model.identity_modes, axes=1)
    vertices = (neutral + np.tensordot(value["expression"], modes, axes=1)) * FLIP / space.unit_m
    parts = model.data.extra.get("parts", ())
    if not convention.eyes or len(parts) < 3:
        return vertices
    neutral = neutral * FLIP / space.unit_m
    for side in range(2):
        ball = slice(parts[side], parts[side + 1])
        centre = neutral[ball].mean(0) - convention.eye_shift + np.array([0, 0, convention.eye_depth])
        pitch, yaw = value["eyes"][2 * side : 2 * side + 2]
        rotation = rotation_matrix(np.array([pitch, yaw, 0.0]))
        vertices[ball] = (vertices[ball] - convention.eye_shift - centre) @ rotation + centre + convention.eye_shift
    return vertices


def _pictures(in_camera: np.ndarray, shaded: np.ndarray, space: CodeSpace, focal_px: float, size: int):
    """Render image and clay (S, S, 4): vertex colours, and flat grey faces lit by a distant lamp (HardFlatShader)."""
    convention = space.convention
    x, y, depth = project(in_camera, convention, focal_px, size).T
    if convention.version < 3:
        # The original's field of view is 2 atan((size // 2) / focal), which scales images of odd size.
        zoom = size / 2 / (size // 2) if size > 1 else 1.0
        x = (x - size // 2) * zoom + size / 2
        y = (y - (size - size // 2)) * zoom + size / 2
    pixels = np.stack([x + convention.pixel_offset, y + convention.pixel_offset, depth * space.unit_m], axis=1)
    faces = torch.from_numpy(np.ascontiguousarray(space.faces))
    hits = rasterize(torch.from_numpy(pixels)[None], faces, (size, size))
    colour = interpolate(hits, torch.from_numpy(np.ascontiguousarray(shaded))[None], faces)[0].numpy()
    mask = hits.mask[0].numpy()[..., None].astype(np.float64)
    corners = in_camera[space.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    if convention.reversed_normals:
        normal = -normal
    lamp = np.array([0, 0, -LAMP_DISTANCE if convention.looks_forward else LAMP_DISTANCE])
    towards = lamp - corners.mean(1)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    grey = CLAY_GREY * (CLAY_AMBIENT + CLAY_DIFFUSE * np.clip((normal * towards).sum(1), 0, None))
    clay = np.where(mask > 0, grey[np.maximum(hits.triangle[0].numpy(), 0)][..., None], 0).repeat(3, axis=2)
    return np.concatenate([colour, mask], axis=2), np.concatenate([clay, mask], axis=2)
