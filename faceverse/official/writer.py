"""Write a face model with named expressions in the layout of official version 2, for the original's scripts."""

from __future__ import annotations

import io

import numpy as np
from scipy.spatial import cKDTree

from ..errors import ParameterError
from ..model.arrays import BASES, TOPOLOGY, packed
from ..model.data import LazyModes, ModelData
from ..model.face_model import FaceModel
from .conventions import FLIP, KEYPOINTS_66, OWN_KEY, display_colours

V2_UNIT_M = 0.1564
"""Metres per unit of version 2: its 0.83 units from brows to chin equal 130 mm on the open model's mean head."""
UV_SIDE = 199
ADJACENT = 8
_NOT_SKIN = ("lips", "eyelids", "eyebrows", "eyeballs", "eye_sockets", "teeth", "tongue", "mouth_inside", "scalp")


def official_v2(model: FaceModel) -> dict:
    """Convert a model to the dictionary that the original's `FaceVerseModel` (version 2) reads.

    It has the official keys, with this model's sizes, and one more, "faceverse", with the data that the layout lacks,
    so that `load_model` restores the same model. The original has no expression gain (see FaceModel): its weights act
    as on the mean head.

    Raises:
        ParameterError: the model has no named expressions.
    """
    data = model.data
    if not data.named_expressions:
        raise ParameterError("official.needs_names", model=model.name)
    colours = np.asarray(data.albedo_modes, np.float64)
    mean_colour, colour_modes = display_colours(data.mean_albedo, colours)
    values = {
        "meanshape": (data.mean_vertices.astype(np.float64) * FLIP / V2_UNIT_M).reshape(1, -1),
        "meantex": mean_colour.reshape(1, -1),
        "idBase": _columns(data.identity_modes, FLIP / V2_UNIT_M),
        "exBase": _columns(data.expression_modes, FLIP / V2_UNIT_M),
        "texBase": _columns(colour_modes, np.ones(3)),
        "tri": data.faces,
        "point_buf": adjacent_faces(data.faces, len(data.mean_vertices)),
        "keypoints": _nearest(data.mean_vertices, data),
        "skinmask": _skin(data)[None],
        "uv": np.round(np.clip(data.uv[: len(data.mean_vertices)], 0, 1) * (UV_SIDE - 1)).astype(np.int64),
        "exp_name_list": list(data.expression_names),
    }
    keep = data.coarse_vertices
    if data.coarse_faces is not None and keep is not None:
        values |= {
            "select_id": keep,
            "tri_select": data.coarse_faces,
            "point_buf_select": adjacent_faces(data.coarse_faces, len(keep)),
            "keypoints_select": _nearest(data.mean_vertices[keep], data),
            "skinmask_select": _skin(data)[None, keep],
        }
    arrays, text = packed(data)
    further = {key: array for key, array in arrays.items() if key not in (*BASES, *TOPOLOGY) and key[:6] != "extra."}
    return {**values, OWN_KEY: {"metres_per_unit": V2_UNIT_M, "arrays": further, "text": text}}


def npy_bytes(values: dict | np.ndarray) -> bytes:
    """Bytes of a .npy file of a dictionary or of coefficients, as the original stores them."""
    stream = io.BytesIO()
    np.save(stream, np.array(values, dtype=object) if isinstance(values, dict) else values)
    return stream.getvalue()


def adjacent_faces(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """(V, K) triangles around each vertex, repeated to fill the row as in the official files.

    K is ADJACENT, or the largest valence if that is more. A vertex without triangles gets the first triangle.
    """
    flat = faces.reshape(-1)
    order = np.argsort(flat, kind="stable")
    valence = np.bincount(flat, minlength=vertex_count)
    first = np.cumsum(valence) - valence
    columns = np.arange(max(ADJACENT, int(valence.max())))
    place = first[:, None] + columns % np.maximum(valence, 1)[:, None]
    around = (order // 3)[np.minimum(place, len(flat) - 1)]
    around[valence == 0] = 0
    return around


def _columns(modes: np.ndarray | LazyModes, scale: np.ndarray) -> np.ndarray:
    """Convert modes (K, V, 3) to columns (3V, K), each axis scaled; double precision for an exact round trip."""
    scaled = np.asarray(modes, np.float64) * scale
    return np.ascontiguousarray(scaled.reshape(len(modes), -1).T)


def _nearest(vertices: np.ndarray, data: ModelData) -> np.ndarray:
    """(1, 66) vertices nearest to the landmarks."""
    marks = data.landmarks_68
    points = (data.mean_vertices[data.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    return cKDTree(vertices).query(points[list(KEYPOINTS_66)])[1][None].astype(np.int64)


def _skin(data: ModelData) -> np.ndarray:
    """(V,) float32 mask, 1 on skin of nearly uniform colour."""
    mask = np.zeros(len(data.mean_vertices), np.float32)
    mask[data.regions.get("face", slice(None))] = 1
    for name in _NOT_SKIN:
        mask[data.regions.get(name, [])] = 0
    return mask
