"""Write a binary glTF 2.0 file (GLB) with morph targets and their animation from plain arrays.

Reference: Khronos Group, "glTF 2.0 Specification" (ISO/IEC 12113:2022), sections 3.6, 3.7.2, 3.10, 3.11 and 4.4.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graphics.mesh import tangents

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTEX_DATA, _INDEX_DATA = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_NEAR_M = 0.01


@dataclass(frozen=True)
class MorphTarget:
    """Offsets of one morph target at weight 1.

    Args:
        name: shown by viewers.
        positions: (V, 3) metres.
        normals: (V, 3) differences of unit normals, or None for none.
    """

    name: str
    positions: np.ndarray
    normals: np.ndarray | None = None


@dataclass(frozen=True)
class GltfMesh:
    """One mesh with one primitive, so that viewers show one set of morph weights.

    Args:
        name: of the node and the mesh.
        positions: (V, 3) metres, +y up.
        normals: (V, 3) unit length.
        uv: (V, 2) origin top left.
        faces: (F, 3) counter-clockwise.
        targets: morph targets, all with normals or all without.
        weights: (T,) initial weights of the targets.
    """

    name: str
    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    targets: tuple[MorphTarget, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class GltfMaterial:
    """Encoded pictures (PNG or JPEG bytes) of a non-metallic surface.

    Args:
        base_color: sRGB.
        roughness: green 0..255 is roughness 0..1, blue is 0.
        normal: tangent space, or None.
    """

    name: str
    base_color: bytes
    roughness: bytes
    normal: bytes | None = None


@dataclass(frozen=True)
class GltfAnimation:
    """One animation of the mesh's node, linear between K keyframes.

    Args:
        name: shown by viewers.
        times_s: (K,) from 0 on, increasing also as float32.
        weights: (K, T) of the morph targets.
        rotation: (K, 4) unit quaternions x, y, z, w; the dot product of neighbours is positive, so that interpolation
            takes the shorter way.
        translation: (K, 3) metres.
    """

    name: str
    times_s: np.ndarray
    weights: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True)
class GltfCamera:
    """A camera that looks along -z: position (3,) metres, vertical field of view in radians, width over height."""

    position: np.ndarray
    yfov: float
    aspect: float


def write_glb(
    mesh: GltfMesh,
    material: GltfMaterial,
    generator: str,
    *,
    tolerance: float = 1e-6,
    animation: GltfAnimation | None = None,
    camera: GltfCamera | None = None,
) -> bytes:
    """Serialise a mesh with its material to the bytes of a .glb.

    Args:
        generator: program named in the file's `asset` entry.
        animation: its first keyframe is also the node's transform.
        camera: a second node of the scene.
        tolerance: rows of a morph target whose components are all below it count as zero. A target is stored sparse
            (only its other rows) wherever that is smaller.
    """
    builder = _Builder()
    attributes = {
        "POSITION": builder.vertex_data(mesh.positions, bounds=True),
        "NORMAL": builder.vertex_data(mesh.normals),
        "TEXCOORD_0": builder.vertex_data(mesh.uv),
    }
    if material.normal is not None:
        attributes["TANGENT"] = builder.vertex_data(tangents(mesh.positions, mesh.normals, mesh.uv, mesh.faces))
    indices = builder.indices(mesh.faces)
    primitive: dict[str, Any] = {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
    gltf_mesh: dict[str, Any] = {"name": mesh.name, "primitives": [primitive]}
    if mesh.targets:
        primitive["targets"] = [builder.target(target, tolerance) for target in mesh.targets]
        gltf_mesh["weights"] = [float(w) for w in mesh.weights]
        gltf_mesh["extras"] = {"targetNames": [target.name for target in mesh.targets]}
    gltf_material = builder.material(material)
    node, optional = {"name": mesh.name, "mesh": 0}, {}
    if animation is not None:
        optional["animations"] = [builder.animation(animation)]
        node |= {"rotation": animation.rotation[0].tolist(), "translation": animation.translation[0].tolist()}
    nodes = [node]
    if camera is not None:
        nodes.append({"name": "camera", "camera": 0, "translation": [float(v) for v in camera.position]})
        perspective = {"yfov": float(camera.yfov), "aspectRatio": float(camera.aspect), "znear": _NEAR_M}
        optional["cameras"] = [{"type": "perspective", "perspective": perspective}]
    document = {
        "asset": {"version": "2.0", "generator": generator},
        "scene": 0,
        "scenes": [{"name": "Scene", "nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": [gltf_mesh],
        "materials": [gltf_material],
        "textures": [{"sampler": 0, "source": i} for i in range(len(builder.images))],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "images": builder.images,
        **optional,
        "accessors": builder.accessors,
        "bufferViews": builder.views,
        "buffers": [{"byteLength": len(builder.buffer)}],
    }
    return _container(document, builder.buffer)


def _container(document: dict, buffer: bytearray) -> bytes:
    """Header, JSON chunk (padded with spaces), binary chunk (padded with zeros)."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary = bytes(buffer) + b"\0" * (-len(buffer) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total)
    return b"".join(
        [header, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(binary), b"BIN\0"), binary]
    )


class _Builder:
    """The binary buffer under construction, with the accessors, buffer views and images that describe it."""

    def __init__(self):
        self.buffer = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self.images: list[dict] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.buffer.extend(b"\0" * (-len(self.buffer) % 4))
        entry = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        self.buffer.extend(data)
        self.views.append(entry)
        return len(self.views) - 1

    def accessor(self, **entry) -> int:
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def vertex_data(self, values: np.ndarray, *, bounds: bool = False) -> int:
        """Add an accessor of a dense (V, 2), (V, 3) or (V, 4) float array; POSITION must state its bounds."""
        values = np.ascontiguousarray(values, dtype="<f4")
        kind = f"VEC{values.shape[1]}"
        view = self.view(values.tobytes(), _VERTEX_DATA)
        limits = _bounds(values) if bounds else {}
        return self.accessor(bufferView=view, componentType=_FLOAT, count=len(values), type=kind, **limits)

    def indices(self, faces: np.ndarray) -> int:
        flat, component = _small_integers(faces.reshape(-1), int(faces.max()) + 1)
        view = self.view(flat.tobytes(), _INDEX_DATA)
        return self.accessor(bufferView=view, componentType=component, count=len(flat), type="SCALAR")

    def target(self, target: MorphTarget, tolerance: float) -> dict[str, int]:
        """Add the accessors of a morph target; positions and normals share the sparse index list."""
        parts = {"POSITION": target.positions}
        moved = np.abs(target.positions).max(axis=1) >= tolerance
        if target.normals is not None:
            parts["NORMAL"] = target.normals
            moved |= np.abs(target.normals).max(axis=1) >= 1e-3
        rows = np.flatnonzero(moved)
        # The format forbids an empty index list: a target without offsets stores one zero.
        rows = rows if len(rows) else np.zeros(1, np.int64)
        index, component = _small_integers(rows, len(moved))
        row_bytes = 12 * len(parts)
        if index.nbytes + row_bytes * len(rows) >= row_bytes * len(moved):
            return {name: self.vertex_data(values, bounds=name == "POSITION") for name, values in parts.items()}
        sparse = {"count": len(rows), "indices": {"bufferView": self.view(index.tobytes()), "componentType": component}}
        accessors = {}
        for name, values in parts.items():
            values = np.ascontiguousarray(values[rows], dtype="<f4")
            if not moved.any():
                values = np.zeros_like(values)
            limits = {}
            if name == "POSITION":
                # The bounds are those of the whole target, and the omitted rows are zero.
                limits = _bounds(values if len(rows) == len(moved) else np.vstack([values, np.zeros((1, 3), "<f4")]))
            stored = {**sparse, "values": {"bufferView": self.view(values.tobytes())}}
            accessors[name] = self.accessor(
                componentType=_FLOAT, count=len(moved), type="VEC3", sparse=stored, **limits
            )
        return accessors

    def animation(self, animation: GltfAnimation) -> dict:
        """Add an animation with one sampler per animated property, all at the same times."""
        times = np.ascontiguousarray(animation.times_s, dtype="<f4")[:, None]
        view = self.view(times.tobytes())
        keys = self.accessor(bufferView=view, componentType=_FLOAT, count=len(times), type="SCALAR", **_bounds(times))
        entry: dict[str, Any] = {"name": animation.name, "channels": [], "samplers": []}
        for path, values, kind in (
            ("weights", np.reshape(animation.weights, -1), "SCALAR"),
            ("rotation", animation.rotation, "VEC4"),
            ("translation", animation.translation, "VEC3"),
        ):
            if not values.size:
                continue  # a head without morph targets
            view = self.view(np.ascontiguousarray(values, dtype="<f4").tobytes())
            output = self.accessor(bufferView=view, componentType=_FLOAT, count=len(values), type=kind)
            entry["channels"].append({"sampler": len(entry["samplers"]), "target": {"node": 0, "path": path}})
            entry["samplers"].append({"input": keys, "output": output, "interpolation": "LINEAR"})
        return entry

    def material(self, material: GltfMaterial) -> dict:
        entry = {
            "name": material.name,
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": self.image("color", material.base_color)},
                "metallicRoughnessTexture": {"index": self.image("roughness", material.roughness)},
                "metallicFactor": 0.0,
                "roughnessFactor": 1.0,
            },
        }
        if material.normal is not None:
            entry["normalTexture"] = {"index": self.image("normal", material.normal)}
        return entry

    def image(self, name: str, encoded: bytes) -> int:
        mime = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
        self.images.append({"name": name, "mimeType": mime, "bufferView": self.view(encoded)})
        return len(self.images) - 1


def _bounds(values: np.ndarray) -> dict[str, list[float]]:
    return {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}


def _small_integers(values: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Indices below `count` in the narrowest type; 65535 itself is reserved in 16 bits."""
    if count <= 65535:
        return values.astype("<u2"), _UINT16
    return values.astype("<u4"), _UINT32
