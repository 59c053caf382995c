"""Read official base files (dictionaries of arrays, versions 0 to 4) into the arrays of a FaceModel.

Units, axes, winding and colours are converted to those of camera.py; the order of the vertices is kept. Original:
github.com/LizhenWangT/FaceVerse (model/FaceVerseModel.py, faceversev3_jittor) and FaceVerse_v4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..landmarks import LANDMARKS_68_FROM_478
from ..messages import Message
from ..model.arrays import BASES, TOPOLOGY, packed, unpacked
from ..model.data import Landmarks, ModelData
from ..model.face_model import ARKIT_NAMES
from .conventions import (
    CONVENTIONS,
    EYE_LIMIT_RAD,
    EYE_NAMES,
    FLIP,
    KEYPOINT_OF_68,
    LANDMARK_SPREAD_M,
    OWN_KEY,
    Convention,
    linear_colours,
)
from .reader import CheckedDict
from .unwrap import unwrap_head

BROWS = slice(17, 27)
"""Rows of both eyebrows among the 68 landmarks."""
COMPONENT_LIMIT = 3.0
"""Largest weight, in standard deviations, of the unnamed expressions of versions 0 and 1."""
V4_LIMIT = 1.2
UV_SIDE = {0: 200, 1: 199, 2: 199}
COARSE_KEYS = ("select_id", "tri_select", "point_buf_select", "keypoints_select", "skinmask_select")
# Standard deviation of detected landmarks from keypoints chosen by hand: those of the jaw slide along its contour.
CONTOUR_SIGMA_M, SIGMA_M = 3.0e-3, 1.5e-3
_LEAST_FORWARD = 0.1  # net share of its area that a mask turns to the front; 0 for a closed head
# Version 4 keeps teeth and tongue at a fixed depth behind this lip vertex (FaceVerseModel_torch.get_vs).
TOOTH_VERTEX, LIP_VERTEX = 19496, 6550
NOTE = "FaceVerse (Wang et al. 2022); its files come without a licence: ask its authors before passing them on"


def version_of(raw: Mapping, where: str) -> int:
    """Determine the version, 0 to 4, of a dictionary from its keys and shapes.

    Raises:
        WeightsError: the dictionary is no FaceVerse base file.
    """
    keys = set(raw)
    if "keypoints_mediapipe" in keys:
        return 4
    if keys & {"exBase_52", "mediapipe_keypoints"}:
        return 3
    if "meanshape" not in keys and not {"idBase", "texBase"} <= keys:
        shown = ", ".join(sorted(map(str, keys))[:8]) or Message("word.none")
        code = "official.detail_layout" if "uvmask" in keys else "official.other_keys"
        raise WeightsError(code, path=where, keys=shown)
    bases = ("idBase", "exBase", "texBase")
    columns = {key: np.shape(raw[key])[-1] if key in raw and np.ndim(raw[key]) else 0 for key in bases}
    if keys & {*COARSE_KEYS, "exp_name_list"} or columns["exBase"] == 52:
        return 2
    return 0 if columns["idBase"] == 120 or (columns["exBase"], columns["texBase"]) == (64, 200) else 1


def model_data(raw: Mapping, where: str, *, strict: bool = True) -> ModelData:
    """Convert an official dictionary to the arrays of a FaceModel.

    Args:
        raw: the dictionary, from `faceverse.io.pickles.read_npy`.
        where: name of the file, for messages.
        strict: refuse unknown keys in versions 0 to 2 (files of versions 3 and 4 contain more than is read here).
    Raises:
        WeightsError: missing, extra and misshapen keys, all in one message.
    """
    convention = CONVENTIONS[version_of(raw, where)]
    reader = CheckedDict(raw, where)
    build = _read(reader, convention)
    extra = reader.unread(OWN_KEY)
    reader.finish(extra if strict and convention.version < 3 else ())
    data = build()
    if extra:
        data.info["official"]["unread_keys"] = sorted(map(str, extra))
    return _with_own(raw[OWN_KEY], data, where) if OWN_KEY in raw else data


def _read(reader: CheckedDict, convention: Convention) -> Callable[[], ModelData]:
    """Read and validate every key; return a function that builds the ModelData if there were no problems."""
    version = convention.version
    mean = reader.array("meanshape", (None, 3))
    count = len(mean)
    faces = reader.array("tri", (None, 3), below=count)
    identity = reader.array("idBase", (3 * count, None))
    expression = reader.array("exBase_52" if version == 3 else "exBase", (3 * count, None))
    colour = reader.array("meantex", (count, 3))
    colours = reader.array("texBase", (3 * count, None))
    names = _names(reader, version, expression.shape[1])
    extra = {"point_buf": reader.array("point_buf", (count, None), below=len(faces), required=version < 3)}
    mask = "face_mask" if version > 2 else "skinmask"
    extra["skinmask"] = reader.array(mask, (count,), required=version < 3)
    parts = reader.parts(count) if version > 2 else np.zeros(0, np.int64)
    extra["parts"] = parts
    landmarks = _keypoints(reader, version, count, extra)
    texels = reader.array("uv", (count, 2), below=4096) if version < 3 else None
    coarse: dict[str, Any] = _coarse_mesh(reader, count, extra) if version == 2 else {}
    if version > 2:
        reader.ignore("tri_inds", "parsing", "uvtex", "keypoints", "keypoints_name_list")

    def build() -> ModelData:
        unit = convention.unit_m or _own_unit(reader.raw) or _unit_of_landmarks(mean[landmarks[68]])
        scale = unit * convention.file_scale * (np.ones(3) if convention.file_flipped else FLIP)
        bases = {
            "mean_vertices": (mean * scale).astype(np.float32),
            "identity_modes": _modes(identity, scale),
            "expression_modes": _modes(expression, scale),
        }
        weights: dict[str, Any] = {"expression_names": names, "expression_limits": None}
        weights["named_expressions"] = _named(names)
        if not weights["named_expressions"]:
            limit = V4_LIMIT if version == 4 else COMPONENT_LIMIT
            weights["expression_limits"] = np.tile(np.array([-limit, limit], np.float32), (len(names), 1))
        if version == 4:
            _hold_teeth(bases, parts)
        if convention.eyes and len(parts) > 2:
            _add_eyes(bases, weights, parts, convention, unit)
        outward = _outward(bases["mean_vertices"], faces, version > 2)
        ours = faces if outward else faces[:, ::-1]
        albedo, albedo_modes = linear_colours(colour, _rows(colours))
        uv, uv_faces = _uv(texels, version, ours, bases["mean_vertices"], parts)
        points = {number: _at_vertices(ours, index, number) for number, index in landmarks.items()}
        if coarse:
            coarse["coarse_uv_faces"] = coarse["coarse_vertices"][coarse["coarse_faces"]]
            if not outward:
                coarse.update({key: coarse[key][:, ::-1] for key in ("coarse_faces", "coarse_uv_faces")})
        official = {"version": version, "metres_per_unit": unit, "winding": "as stored" if outward else "reversed"}
        return ModelData(
            **bases,
            **weights,
            mean_albedo=albedo,
            albedo_modes=albedo_modes,
            faces=np.ascontiguousarray(ours),
            uv=uv,
            uv_faces=uv_faces,
            regions=_regions(extra["skinmask"], parts, landmarks[68], count),
            landmarks_478=points.get(478),
            landmarks_68=points[68],
            name=f"FaceVerse version {version}",
            info={"sources": [NOTE], "licence": "not stated by its authors", "official": official},
            extra={key: value for key, value in extra.items() if value is not None and value.size},
            **coarse,
        )

    return build


def _names(reader: CheckedDict, version: int, count: int) -> tuple[str, ...]:
    """Names of the expressions; numbered names if the file has none."""
    key = "exp_name_list_52" if version == 3 else "exp_name_list"
    names = reader.names(key, count, required=version == 2)
    if names is None and version == 3:
        names = ARKIT_NAMES if count == len(ARKIT_NAMES) else None
    return names or tuple(f"expression_{i:0{len(str(count - 1))}d}" for i in range(count))


def _named(names: tuple[str, ...]) -> bool:
    return not names[0].startswith("expression_")


def _keypoints(reader: CheckedDict, version: int, count: int, extra: dict) -> dict[int, np.ndarray]:
    """Vertices (L,) of the landmarks by their count: 68 always, 478 if the file has them."""
    if version < 3:
        extra["keypoints"] = reader.array("keypoints", (66,), below=count)
        return {68: extra["keypoints"][list(KEYPOINT_OF_68)]}
    extra["keypoints"] = reader.array("mediapipe_keypoints" if version == 3 else "keypoints_mediapipe", (478,), count)
    of_68 = reader.array("keypoints_68", (68,), below=count, required=False)
    mapped = extra["keypoints"][list(LANDMARKS_68_FROM_478)]
    return {478: extra["keypoints"], 68: mapped if of_68 is None else of_68}


def _coarse_mesh(reader: CheckedDict, count: int, extra: dict) -> dict[str, np.ndarray]:
    """The coarse mesh of version 2; empty if the file has none of its keys."""
    if not reader.has_any(*COARSE_KEYS):
        return {}
    chosen = reader.array("select_id", (None,), below=count)
    faces = reader.array("tri_select", (None, 3), below=len(chosen))
    # The names of these extra arrays are stored in converted model files.
    extra["light_point_buf"] = reader.array("point_buf_select", (len(chosen), None), below=len(faces))
    extra["light_keypoints"] = reader.array("keypoints_select", (66,), below=len(chosen))
    extra["light_skinmask"] = reader.array("skinmask_select", (len(chosen),))
    if len(np.unique(chosen)) < len(chosen):
        reader.problems.append(Message("array.vertex_twice"))
    return {"coarse_vertices": chosen, "coarse_faces": faces}


def _own_unit(raw: Mapping) -> float | None:
    """Metres per unit if the file states it."""
    own = raw.get(OWN_KEY)
    unit = own.get("metres_per_unit") if isinstance(own, Mapping) else None
    return float(unit) if isinstance(unit, (int, float)) and math.isfinite(unit) and unit > 0 else None


def _with_own(own, data: ModelData, where: str) -> ModelData:
    """Add the data that `writer.official_v2` stored in addition to the official layout."""
    try:
        arrays, text = dict(own["arrays"]), dict(own["text"])
    except (TypeError, KeyError, ValueError) as error:
        raise WeightsError("official.own_damaged", path=where, key=OWN_KEY) from error
    base = packed(data)[0]
    arrays |= {key: base[key] for key in (*BASES, *TOPOLOGY) if key in base}
    arrays |= {key: value for key, value in base.items() if key.startswith("extra.")}
    restored = unpacked(arrays, text, where)
    restored.info["official"] = data.info["official"]
    return restored


def _unit_of_landmarks(points: np.ndarray) -> float:
    """Metres per unit for which landmarks (68, 3) have the spread of an adult's face."""
    points = points[[i for i in range(68) if i not in (48, 54)]].astype(np.float64)
    spread = math.sqrt(((points - points.mean(0)) ** 2).sum(1).mean())
    return LANDMARK_SPREAD_M / spread if spread > 0 else LANDMARK_SPREAD_M


def _modes(base: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Convert columns (3V, K) of the file to modes (K, V, 3) float32, each axis scaled."""
    return (_rows(base) * scale.astype(_exact(base))).astype(np.float32, copy=False)


def _rows(base: np.ndarray) -> np.ndarray:
    """Rearrange columns (3V, K) to (K, V, 3)."""
    return np.ascontiguousarray(base.T, dtype=_exact(base)).reshape(base.shape[1], -1, 3)


def _exact(base: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if base.dtype == np.float64 else np.float32)


def _hold_teeth(bases: dict[str, np.ndarray], parts: np.ndarray) -> None:
    """Add version 4's motion of teeth and tongue, in depth with a lip vertex, to the modes: it is linear."""
    if len(parts) < 6 or TOOTH_VERTEX >= len(bases["mean_vertices"]):
        return
    for key in ("identity_modes", "expression_modes"):
        modes = bases[key]
        follow = modes[:, TOOTH_VERTEX, 2] - modes[:, LIP_VERTEX, 2]
        modes[:, parts[2] : parts[5], 2] -= follow[:, None]


def _add_eyes(bases: dict, weights: dict, parts: np.ndarray, convention: Convention, unit: float) -> None:
    """Add four expressions that rotate the eyeballs: the original's rotations to first order on the mean head."""
    mean = bases["mean_vertices"]
    gaze_modes = np.zeros((4, *mean.shape), np.float32)
    for side in range(2):
        ball = slice(parts[side], parts[side + 1])
        shift = unit * FLIP * np.array([0, 0, convention.eye_depth])
        from_centre = mean[ball] - mean[ball].mean(0) - shift
        zero = np.zeros(len(from_centre))
        x, y, z = from_centre.T
        # Derivatives of rotations about x and y; FLIP reverses the sign of the second.
        gaze_modes[2 * side, ball] = np.stack([zero, -z, y], axis=1)
        gaze_modes[2 * side + 1, ball] = -np.stack([z, zero, -x], axis=1)
    both = slice(parts[0], parts[2])
    mean[both] += (unit * FLIP * convention.eye_shift).astype(np.float32)
    bases["expression_modes"] = np.concatenate([bases["expression_modes"], gaze_modes])
    limits = weights["expression_limits"]
    if limits is None:
        limits = np.tile(np.array([0, 1], np.float32), (len(weights["expression_names"]), 1))
    of_eyes = np.tile(np.array([-EYE_LIMIT_RAD, EYE_LIMIT_RAD], np.float32), (4, 1))
    weights["expression_limits"] = np.concatenate([limits, of_eyes])
    weights["expression_names"] = (*weights["expression_names"], *EYE_NAMES)


def _outward(vertices: np.ndarray, faces: np.ndarray, whole_head: bool) -> bool:
    """Whether triangles are counter-clockwise from outside: normals of a mask point forward, of a head outward."""
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    forward, area = float(normals[:, 2].sum()), float(np.linalg.norm(normals, axis=1).sum())
    if whole_head or abs(forward) < _LEAST_FORWARD * area:  # a closed head in a version of masks
        return float((normals * (corners.mean(1) - vertices.mean(0))).sum()) >= 0
    return forward >= 0


def _uv(texels, version: int, faces: np.ndarray, vertices: np.ndarray, parts: np.ndarray):
    """Texture coordinates and their triangles: the file's texels, or an unwrapped layout for whole heads."""
    if texels is None:
        return unwrap_head(vertices, faces, parts)
    side = max(UV_SIDE[version], int(texels.max()) + 1)
    return ((texels + 0.5) / side).astype(np.float32), np.ascontiguousarray(faces)


def _at_vertices(faces: np.ndarray, vertices: np.ndarray, number: int) -> Landmarks:
    """Landmarks at vertices of the mesh."""
    first = np.full(max(int(faces.max()), int(vertices.max())) + 1, -1, np.int64)
    first[faces[::-1].reshape(-1)] = np.repeat(np.arange(len(faces))[::-1], 3)
    triangle = np.maximum(first[vertices], 0)  # a vertex without triangles is never visible
    barycentric = (faces[triangle] == vertices[:, None]).astype(np.float32)
    barycentric[first[vertices] < 0] = (1, 0, 0)
    detected = np.array(LANDMARKS_68_FROM_478) if number == 68 else None
    contour = np.isin(np.arange(478) if detected is None else detected, LANDMARKS_68_FROM_478[:17])
    sigma = np.where(contour, CONTOUR_SIGMA_M, SIGMA_M).astype(np.float32)
    return Landmarks(triangle, barycentric, sigma, None, detected)


def _regions(mask: np.ndarray | None, parts: np.ndarray, points: np.ndarray, count: int) -> dict[str, np.ndarray]:
    head = int(parts[0]) if len(parts) else count
    skin = np.arange(head) if mask is None else np.flatnonzero(np.asarray(mask[:head]) > 0.5)
    regions = {"face": skin if len(skin) else np.arange(head), "eyebrows": np.unique(points[BROWS])}
    if len(parts) > 2:
        regions["eyeball_left"], regions["eyeball_right"] = np.arange(*parts[:2]), np.arange(*parts[1:3])
        regions["eyeballs"] = np.arange(parts[0], parts[2])
    if len(parts) > 5:
        regions["teeth"] = np.arange(parts[2], parts[5])
    return regions
