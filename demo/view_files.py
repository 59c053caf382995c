"""Binary packs and the wrinkle atlas of the 3D view, which `assets/files.js` reads.

A pack is a little-endian uint32 with the length of a JSON header, the header {"values": ..., "arrays": {name: {type,
start, length}}}, and the arrays, each aligned to four bytes. The model's pack (mesh, texture coordinates, expressions,
attributes) is the same for every head, so a browser loads it once, compressed with gzip; so is the pack of a part, such
as teeth. A head's pack holds only its neutral vertices, its albedo and its expression gains.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
from scipy.spatial.transform import Rotation

import faceverse as fv

_NEGLIGIBLE_M = 2e-5  # smaller offsets are omitted
_OFFSET_STEPS = 32767
_DIRECTION_STEPS = 127
_HAIR_FIELDS = ("top", "sides", "back", "hang", "wave", "phase")
_ATTRIBUTE_STEP_M = 7e-6  # quantisation of attribute offsets over the whole range of the attribute
_TINT_STEPS = 127
_NEGLIGIBLE_TINT = 1e-5  # change of albedo over the range of a direction's amounts
_NEGLIGIBLE_PATH = 1e-6  # relative singular value of a path's direction
_ALBEDO_STEP = 2.0**-14
# Roughness by region of the model; where two regions overlap, the later one applies.
_ROUGHNESS = (
    (("scalp",), 0.8),
    (("eyebrows",), 0.72),
    (("lips",), 0.42),
    (("mouth_inside", "gums", "tongue"), 0.3),
    (("teeth",), 0.22),
    (("eyeballs",), 0.1),
)
_SKIN_ROUGHNESS = 0.58

WRINKLES = (
    {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0},
    {"browDownLeft": 1.0, "browDownRight": 1.0},
    {"eyeSquintLeft": 1.0, "eyeSquintRight": 1.0, "cheekSquintLeft": 1.0, "cheekSquintRight": 1.0},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0},
    {"noseSneerLeft": 1.0, "noseSneerRight": 1.0, "mouthUpperUpLeft": 1.0, "mouthUpperUpRight": 1.0},
    {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0, "mouthShrugLower": 1.0},
    {"mouthPucker": 1.0},
)
"""Expressions whose wrinkles fill the tiles of an atlas, from the second tile on."""
TILE_PX = 256
WRINKLE_SCALE = 0.5
"""Slope that the bytes 1 and 255 of an atlas stand for; 128 is zero."""


def model_pack(model: fv.FaceModel) -> bytes:
    """Mesh, expressions and attributes of a model, compressed with gzip.

    Offsets of expressions are sparse int16 in units of `offsetScale` metres, and so are those of correctives, whose
    weights are products of the weights of two expressions: `correctivePairs`. An attribute moves most of the head along
    a direction, or along several where its path bends. The offsets of a direction are (3, V) int16 per unit in units of
    `scale` metres, each stored as the difference from the previous vertex, which gzip compresses well. Changes of
    albedo per unit are (V, 3) int8 times `tintScale`.
    """
    pairs, corner = np.unique(
        np.stack([model.faces.reshape(-1), model.uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    attributes, directions, arrays = _attributes(model)
    left = _left_side(model)
    values = {
        "names": list(model.expression_names),
        "vertexCount": len(model.mean_vertices),
        "attributes": attributes,
        "directions": directions,
        "wrinkles": [
            {name: w for name, w in wrinkle.items() if name in model.expression_names} for wrinkle in WRINKLES
        ],
        "wrinkleScale": WRINKLE_SCALE,
        "leftSide": left,
        "correctivePairs": [] if model.data.corrective_pairs is None else model.data.corrective_pairs.tolist(),
    }
    pack = _pack(
        values,
        {
            "faces": _index(model.faces),
            "cornerFaces": _index(corner),
            "vertexOfCorner": _index(pairs[:, 0]),
            "uv": model.uv[pairs[:, 1]].astype(np.float32),
            "roughness": np.round(255 * _roughness(model)).astype(np.uint8),
            "inMouth": _in_mouth(model),
            **_sparse("offset", model.expression_modes),
            **_sparse("corrective", () if (modes := model.data.corrective_modes) is None else np.asarray(modes)),
            **arrays,
        },
    )
    return gzip.compress(pack, 6, mtime=0)


def _sparse(name: str, modes: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Offsets (V, 3) that are not negligible, of all modes one after the other, with their vertices and scales."""
    start, vertices, offsets, scales = [0], [np.zeros(0, int)], [np.zeros((0, 3), np.int16)], []
    for mode in modes:
        moved = np.flatnonzero(np.abs(mode).max(axis=1) > _NEGLIGIBLE_M)
        scale = float(np.abs(mode).max()) / _OFFSET_STEPS or 1.0
        vertices.append(moved)
        offsets.append(np.round(mode[moved] / scale).astype(np.int16))
        scales.append(scale)
        start.append(start[-1] + len(moved))
    return {
        f"{name}Start": np.array(start, dtype=np.uint32),
        f"{name}Vertex": _index(np.concatenate(vertices)),
        name: np.concatenate(offsets),
        f"{name}Scale": np.array(scales, dtype=np.float32),
    }


def _attributes(model: fv.FaceModel) -> tuple[list[dict], list[dict], dict[str, np.ndarray]]:
    """Header entries of all attributes and of the directions along which they move a head; arrays of the directions."""
    described: list[dict] = []
    steps: list[np.ndarray] = []  # (I + A,) per unit
    spans: list[float] = []  # range of the amounts
    for attribute in model.data.attributes:
        entry = {key: getattr(attribute, key) for key in ("name", "unit", "minimum", "maximum")}
        entry["first"] = len(steps)
        span = max(attribute.maximum - attribute.minimum, 1e-9)
        if attribute.path is None:
            steps.append(attribute.step)
            spans.append(span)
        else:
            rows, entry["path"] = _path(attribute)
            steps += rows
            spans += [2.0] * len(rows)
        described.append(entry)
    directions, arrays = _directions(model, steps, spans)
    for entry, last in zip(described, [*(later["first"] for later in described[1:]), len(steps)]):
        entry["colours"] = any(direction["tintScale"] for direction in directions[entry["first"] : last])
    return described, directions, arrays


def _path(attribute) -> tuple[list[np.ndarray], dict]:
    """Directions (I + A,) that span the path of an attribute, and the path in their coordinates, each in -1..1."""
    path = attribute.path
    knots = np.concatenate([path.offsets, path.modulated]).astype(np.float64)
    left, singular, right = np.linalg.svd(knots, full_matrices=False)
    rank = int((singular > _NEGLIGIBLE_PATH * singular[0]).sum())
    places = left[:, :rank] * singular[:rank]
    size = np.abs(places).max(axis=0)
    offsets, modulated = np.split(places / size, 2)
    entry = {"values": path.values.tolist(), "offsets": offsets.tolist(), "modulated": modulated.tolist()}
    entry["shares"] = path.shares.tolist()
    return list(right[:rank] * size[:, None]), entry | {"modulator": path.modulator}


def _directions(
    model: fv.FaceModel, steps: list[np.ndarray], spans: list[float]
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Header entries and arrays of directions, each (I + A,) per unit, for amounts over a range each."""
    count = len(model.identity_modes)
    described, moves, tints, gains = [], [], [], []
    for step, span in zip(steps, spans, strict=True):
        identity, albedo = step[:count], step[count:]
        offset = np.tensordot(identity, model.identity_modes, 1)
        tint = np.tensordot(albedo, model.albedo_modes, 1)
        scale = max(_ATTRIBUTE_STEP_M / span, float(np.abs(offset).max(initial=0)) / _OFFSET_STEPS)
        rounded = np.round(offset.T / scale).astype(np.int16)
        moves.append(np.diff(rounded, axis=1, prepend=np.int16(0)))
        largest = float(np.abs(tint).max(initial=0))
        coloured = largest * span > _NEGLIGIBLE_TINT
        if coloured:
            tints.append(np.round(tint * (_TINT_STEPS / largest)).astype(np.int8))
        gains.append(_gain_change(model, identity))
        described.append({"scale": scale, "tintScale": largest / _TINT_STEPS if coloured else 0.0})
    return described, {
        "attributeOffset": np.array(moves, dtype=np.int16),
        "attributeTint": np.array(tints, dtype=np.int8),
        "attributeGain": np.array(gains, dtype=np.float32),
    }


def _in_mouth(model: fv.FaceModel) -> np.ndarray:
    """(V,) uint8: 1 for the inside of the mouth."""
    inside = np.zeros(len(model.mean_vertices), np.uint8)
    inside[model.regions.get("mouth_inside", np.zeros(0, np.int64))] = 1
    return inside


def _roughness(model: fv.FaceModel) -> np.ndarray:
    """(V,) 0..1."""
    roughness = np.full(len(model.mean_vertices), _SKIN_ROUGHNESS)
    for regions, value in _ROUGHNESS:
        for name in regions:
            roughness[model.regions.get(name, np.zeros(0, int))] = value
    return roughness


def _left_side(model: fv.FaceModel) -> int:
    """1 if the subject's left is on the right half of the texture, else -1."""
    mean = model.mean_vertices
    return 1 if float((mean[:, 0] * (model.uv[: len(mean), 0] - 0.5)).sum()) > 0 else -1


def part_pack(part: fv.Part) -> bytes:
    """Mesh, binding and surface of a part, compressed with gzip.

    Parts that move as a whole are stored as they were made: `made`, in units of `madeScale` metres from the mean of
    `referenceMade`. Parts that follow the triangles of the model have `triangle`, `weights` and `offset` in units of
    `offsetScale` metres.
    """
    return gzip.compress(_pack(*_part_content(part)), 6, mtime=0)


def _part_content(part: fv.Part) -> tuple[dict, dict[str, np.ndarray]]:
    """Values and arrays of a part's pack."""
    binding, material = part.binding, part.material
    pairs, corner = np.unique(
        np.stack([part.faces.reshape(-1), part.uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    used, vertex_of_corner = np.unique(pairs[:, 0], return_inverse=True)
    made = binding.made[used] - binding.reference_m.mean(axis=0, dtype=np.float64)
    values = {
        "kind": binding.kind,
        "roughness": material.roughness,
        "alphaMode": material.alpha_mode,
        "alphaCutoff": material.alpha_cutoff,
        "irisUv": part.iris_uv,
    }
    arrays = {
        "reference": _index(binding.reference),
        "referenceMade": binding.reference_m.astype(np.float32),
        "cornerFaces": _index(corner),
        "vertexOfCorner": _index(vertex_of_corner),
        "uv": part.uv[pairs[:, 1]].astype(np.float32),
    }
    if binding.kind == "surface":
        values["offsetScale"], arrays["offset"] = _steps(binding.offset[used])
        arrays |= {"triangle": _index(binding.triangle[used]), "weights": binding.weights[used].astype(np.float32)}
    else:
        values["madeScale"], arrays["made"] = _steps(made)
    return values, arrays


def hair_pack(result: fv.FitResult) -> bytes:
    """Pack of the strands of a head's hair, compressed with gzip.

    Besides what `part_pack` has: the corners of `referenceMade` to which each vertex belongs, with `weights` and its
    `distance` from the skull in metres; the fields of the shape functions by name; `strand`, (P, 3) directions of
    strands, int8; `light`, shares of the light that arrives, uint8; vertices of the model that hair touches, `touched`,
    of eyeballs (`leftBall` left ones first), brows and ears.
    """
    part, fields, regions = result.parts["hair"], result.hair_fields, result.model.regions
    assert fields is not None and result.hair_surface is not None  # a head with hair has both
    binding, used = part.binding, np.unique(part.faces)
    values, arrays = _part_content(part)
    values |= {"shape": dict(part.shape), "shortness": fields.shortness, "gap": fields.gap.tolist()}
    balls = [np.asarray(regions.get(f"eyeball_{side}", ()), np.int64) for side in ("left", "right")]
    values["leftBall"] = len(balls[0])
    arrays |= {
        "corner": _index(np.searchsorted(binding.reference, binding.triangle[used])),
        "weights": binding.weights[used].astype(np.float32),
        "distance": np.linalg.norm(binding.offset[used], axis=1).astype(np.float32),
        **{name: getattr(fields, name)[used].astype(np.float32) for name in _HAIR_FIELDS},
        "overEars": fields.over_ears[used].astype(np.float32),
        "strand": np.round(_DIRECTION_STEPS * result.hair_frames["hair"].tangents[used]).astype(np.int8),
        "light": np.round(255 * result.part_occlusion["hair"][used]).astype(np.uint8),
        "touched": _index(result.hair_surface.touched),
        "eyeballs": _index(np.concatenate(balls)),
        "brows": _index(np.asarray(regions.get("eyebrows", ()), np.int64)),
        "ears": _index(np.asarray(regions.get("ears", ()), np.int64)),
    }
    return gzip.compress(_pack(values, arrays), 6, mtime=0)


def _steps(values: np.ndarray) -> tuple[float, np.ndarray]:
    """Values as int16 steps, and the size of a step."""
    step = float(np.abs(values).max(initial=0)) / _OFFSET_STEPS or 1.0
    return step, np.round(values / step).astype(np.int16)


def head_pack(result: fv.FitResult) -> bytes:
    """Pack of a head.

    It holds neutral vertices, albedo (linear RGB before clipping, in units of `albedoScale`), gains of the expressions,
    estimates of the attributes, the point that the camera looks at, one bit for each face that parts leave (`isSkin`),
    and points on the edges of the openings that let light in: `edges` counts those of each opening, upper and lower
    edge together. Where an attribute has a path, also what is individual about the head: (V, 3) offsets and changes of
    albedo, and its share of the gains.
    """
    model = result.model
    vertices = result.neutral_vertices.astype(np.float32)
    gain = model.gain_of(result.params.identity)
    albedo = model.mean_albedo + np.tensordot(result.params.albedo, model.albedo_modes, 1)
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    own_values, own_arrays = _individual(result)
    edges = result.light_edges if result.parts else {}
    rows = np.concatenate([np.zeros(0, np.int64), *(pair.reshape(-1) for pair in edges.values())])
    warped = {}
    if (fields := result.hair_fields) is not None and result.params.hair.warp.any():
        used = np.unique(result.parts["hair"].faces)
        warped["hairWarp"] = (fields.basis @ result.params.hair.warp)[used].astype(np.float32)
    return _pack(
        {
            "center": center.tolist(),
            "albedoScale": _ALBEDO_STEP,
            "estimates": model.attributes(result.params),
            **own_values,
            "edges": {name: pair.size for name, pair in edges.items()},
        },
        {
            "neutral": vertices,
            "gain": gain,
            "isSkin": np.packbits(result.is_skin),
            "edgeTriangle": _index(model.faces[model.fit_landmarks.triangle[rows]]),
            "edgeWeights": model.fit_landmarks.barycentric[rows].astype(np.float32),
            "albedo": np.clip(np.round(albedo / _ALBEDO_STEP), -_OFFSET_STEPS, _OFFSET_STEPS).astype(np.int16),
            **own_arrays,
            **warped,
        },
    )


def _individual(result: fv.FitResult) -> tuple[dict, dict[str, np.ndarray]]:
    """Displacement, colours and gains by the individual features, which a path scales; empty without a path."""
    model, params = result.model, result.params
    paths = [attribute.path for attribute in model.data.attributes if attribute.path is not None]
    if not paths:
        return {}, {}
    own = paths[0].individual(np.concatenate([params.identity, params.albedo]))
    identity, albedo = np.split(own, [len(params.identity)])
    offset, tint = np.tensordot(identity, model.identity_modes, 1), np.tensordot(albedo, model.albedo_modes, 1)
    scale = max(float(np.abs(offset).max()), 1e-6) / _OFFSET_STEPS
    tint_scale = max(float(np.abs(tint).max()), 1e-6) / _TINT_STEPS
    return {"individualScale": scale, "individualTintScale": tint_scale}, {
        "individual": np.round(offset / scale).astype(np.int16),
        "individualTint": np.round(tint / tint_scale).astype(np.int8),
        "individualGain": _gain_change(model, identity),
    }


def _gain_change(model: fv.FaceModel, identity: np.ndarray) -> np.ndarray:
    """Change (E,) of the gains by identity coefficients (I,), before they meet their limits."""
    # Gains are linear in the identity until they meet their limits; a short step stays within them.
    short = 1e-2 / max(1.0, float(np.linalg.norm(identity)))
    unmoved = model.gain_of(np.zeros(len(identity), np.float32))
    return (model.gain_of((short * identity).astype(np.float32)) - unmoved) / short


def wrinkle_atlas(result: fv.FitResult) -> np.ndarray | None:
    """Atlas of expression wrinkles, which the 3D view blends as sliders move.

    Eight tiles of TILE_PX, four in a row: the wrinkles of the head's own expression, then those of `WRINKLES`. Red and
    green are the x and y slope that the expression adds to the normal map of the neutral face: 128 + 127 * slope /
    WRINKLE_SCALE. Each tile takes one edit of the head.

    Returns:
        (2 * TILE_PX, 4 * TILE_PX, 3) uint8, or None for a head without displacement.
    """
    if result.normal_map is None:
        return None
    names = result.model.expression_names

    def slopes_of(expression: np.ndarray) -> np.ndarray:
        normal_map = fv.edit(result, expression=expression).normal_map
        assert normal_map is not None  # an edit keeps the detail
        return slopes(normal_map)

    neutral = slopes_of(np.zeros(len(names), np.float32))
    atlas = np.full((2 * TILE_PX, 4 * TILE_PX, 3), 128, np.uint8)
    for tile, wanted in enumerate((_weights(result), *WRINKLES)):
        known = {name: weight for name, weight in wanted.items() if name in names}
        if not any(known.values()):
            continue
        weights = np.array([known.get(name, 0.0) for name in names], np.float32)
        wrinkles = slopes_of(weights) - neutral
        row, column = divmod(tile, 4)
        place = (slice(row * TILE_PX, (row + 1) * TILE_PX), slice(column * TILE_PX, (column + 1) * TILE_PX))
        atlas[place][..., :2] = np.clip(np.round(128 + 127 * resampled(wrinkles) / WRINKLE_SCALE), 1, 255)
    return atlas


def _weights(result: fv.FitResult) -> Mapping[str, float]:
    return dict(zip(result.model.expression_names, result.params.expression.tolist()))


def slopes(normal_map: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: x / z and y / z."""
    normals = normal_map.astype(np.float32) / 127.5 - 1
    return normals[..., :2] / np.maximum(normals[..., 2:], 0.1)


def resampled(slopes: np.ndarray) -> np.ndarray:
    """Resample to TILE_PX: mean over blocks of texels where the size is a multiple, else nearest neighbour."""
    for axis in (0, 1):
        size = slopes.shape[axis]
        if size % TILE_PX == 0:
            shape = (*slopes.shape[:axis], TILE_PX, size // TILE_PX, *slopes.shape[axis + 1 :])
            slopes = slopes.reshape(shape).mean(axis=axis + 1)
        else:
            slopes = np.take(slopes, np.arange(TILE_PX) * size // TILE_PX, axis=axis)
    return slopes


def file_url(path: Path) -> str:
    """URL of a file, relative to the page."""
    return f"gradio_api/file={quote(path.as_posix())}"


def _index(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1).astype(np.uint16 if values.max(initial=0) < 65536 else np.uint32)


def motion_pack(track: fv.Track) -> bytes:
    """Pack of a motion, compressed with gzip: `rows` (T, 8 + E) float32, see `motion_row`."""
    angles = track.euler_deg()
    rows = np.column_stack(
        [track.times_s - track.times_s[0], track.confidence, angles, track.translation, track.expression]
    )
    values = {"names": list(track.expression_names), "frames": len(rows)}
    return gzip.compress(_pack(values, {"rows": rows.astype(np.float32)}), 5)


def motion_row(frame: fv.TrackedFrame) -> np.ndarray:
    """(8 + E,) float32: seconds, confidence, yaw, pitch and roll in degrees, translation in metres, weights."""
    minus_pitch, yaw, roll = Rotation.from_matrix(frame.rotation).as_euler("xyz", degrees=True)
    head = [frame.seconds, frame.confidence, yaw, -minus_pitch, roll, *frame.translation]
    return np.concatenate([head, frame.expression]).astype(np.float32)


def _pack(values: dict, arrays: dict[str, np.ndarray]) -> bytes:
    entries, chunks, position = {}, [], 0
    for name, array in arrays.items():
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        entries[name] = {"type": array.dtype.name, "start": position, "length": array.size}
        content += bytes(-len(content) % 4)
        chunks.append(content)
        position += len(content)
    header = json.dumps({"values": values, "arrays": entries}).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([np.array(len(header), dtype="<u4").tobytes(), header, *chunks])
