"""Write a binary glTF 2.0 file (GLB) with parts, morph targets and their animation from plain arrays.

Reference: Khronos Group, "glTF 2.0 Specification" (ISO/IEC 12113:2022), sections 3.6, 3.7.2, 3.10, 3.11 and 4.4.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graphics.alpha_texture import DEFAULT_CUTOFF, AlphaMode
from ..graphics.mesh import tangents

_BYTE, _UINT16, _UINT32, _FLOAT = 5121, 5123, 5125, 5126
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
        light: (V,) 0..1, factor of the base colour where less light arrives; None for 1 everywhere.
    """

    name: str
    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    targets: tuple[MorphTarget, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    light: np.ndarray | None = None


@dataclass(frozen=True)
class GltfMaterial:
    """A surface. Pictures are encoded as PNG or JPEG; equal ones are stored once in a file.

    Args:
        base_color: picture, sRGB, with alpha where `alpha_mode` uses it; or linear RGB and alpha, 0..1 each.
        roughness: 0..1, or a picture: green 0..255 is roughness 0..1, blue is 0.
        normal: picture in tangent space, or None.
        alpha_mode: "OPAQUE", "MASK" or "BLEND".
        alpha_cutoff: least alpha that "MASK" shows.
        two_sided: whether the backs of the triangles are visible too.
        metallic: 0..1.
    """

    name: str
    base_color: bytes | tuple[float, float, float, float]
    roughness: bytes | float
    normal: bytes | None = None
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = DEFAULT_CUTOFF
    two_sided: bool = False
    metallic: float = 0.0


@dataclass(frozen=True)
class GltfPart:
    """A mesh in a node of its own, a child of the main mesh's node or of another part's.

    Args:
        mesh: positions relative to the pivot. Its targets are those of the main mesh, in the same order, or none, since
            an animation of weights applies to all of them.
        material: of the mesh.
        pivot: (3,) metres, origin of the node in its parent; a program turns the part about it.
        parent: name of the mesh of an earlier part that takes this one along; empty for the main mesh.
        overlay: of the same triangles drawn once more, None for those drawn once. Strands that are tested by alpha hide
            each other whatever their order; blended over themselves, they get soft edges.
    """

    mesh: GltfMesh
    material: GltfMaterial
    pivot: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))
    parent: str = ""
    overlay: GltfMaterial | None = None


@dataclass(frozen=True)
class GltfAnimation:
    """One animation of the main mesh's node and of all weights, linear between K keyframes.

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
    parts: Sequence[GltfPart] = (),
    tolerance: float = 1e-6,
    animation: GltfAnimation | None = None,
    camera: GltfCamera | None = None,
) -> bytes:
    """Serialise a mesh with its material and its parts to the bytes of a .glb.

    Args:
        generator: program named in the file's `asset` entry.
        parts: further meshes, each in a child node.
        animation: its first keyframe is also the node's transform.
        camera: a second node of the scene.
        tolerance: rows of a morph target whose components are all below it count as zero. A target is stored sparse
            (only its other rows) wherever that is smaller.
    """
    builder = _Builder()
    meshes = [builder.mesh(mesh, material, 0, tolerance)]
    materials = [builder.material(material, "color")]
    for number, part in enumerate(parts, start=1):
        meshes.append(builder.mesh(part.mesh, part.material, number, tolerance))
        materials.append(builder.material(part.material, part.material.name))
    for entry, part in zip(meshes[1:], parts):
        if part.overlay is not None:
            entry["primitives"].append(entry["primitives"][0] | {"material": len(materials)})
            materials.append(builder.material(part.overlay, part.material.name))
    root: dict[str, Any] = {"name": mesh.name, "mesh": 0}
    nodes, animations, cameras = [root], {}, {}
    if camera is not None:
        nodes.append({"name": "camera", "camera": 0, "translation": [float(v) for v in camera.position]})
        perspective = {"yfov": float(camera.yfov), "aspectRatio": float(camera.aspect), "znear": _NEAR_M}
        cameras["cameras"] = [{"type": "perspective", "perspective": perspective}]
    scene = list(range(len(nodes)))
    named = {"": root}
    for number, part in enumerate(parts, start=1):
        node: dict[str, Any] = {"name": part.mesh.name, "mesh": number}
        if np.any(part.pivot):
            node["translation"] = [float(v) for v in part.pivot]
        named[part.parent].setdefault("children", []).append(len(nodes))
        named[part.mesh.name] = node
        nodes.append(node)
    if animation is not None:
        morphing = [place for place, node in enumerate(nodes) if "mesh" in node and "weights" in meshes[node["mesh"]]]
        animations["animations"] = [builder.animation(animation, morphing)]
        root |= {"rotation": animation.rotation[0].tolist(), "translation": animation.translation[0].tolist()}
    document = {
        "asset": {"version": "2.0", "generator": generator},
        "scene": 0,
        "scenes": [{"name": "Scene", "nodes": scene}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": materials,
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
        **animations,
        **cameras,
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
        self._places: dict[bytes, int] = {}
        self._still: dict[int, int] = {}

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

    def grey_data(self, values: np.ndarray) -> int:
        """Add an accessor of opaque greys (V,) 0..1, as bytes: the format wants four of them, linear."""
        grey = np.round(values * 255).astype(np.uint8)
        pixels = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=1)
        view = self.view(pixels.tobytes(), _VERTEX_DATA)
        return self.accessor(bufferView=view, componentType=_BYTE, normalized=True, count=len(grey), type="VEC4")

    def mesh(self, mesh: GltfMesh, material: GltfMaterial, number: int, tolerance: float) -> dict:
        """Add a mesh with one primitive, whose material has this number."""
        attributes = {
            "POSITION": self.vertex_data(mesh.positions, bounds=True),
            "NORMAL": self.vertex_data(mesh.normals),
        }
        if isinstance(material.base_color, bytes):  # the pictures of a material have the same coordinates
            attributes["TEXCOORD_0"] = self.vertex_data(mesh.uv)
        if mesh.light is not None:
            attributes["COLOR_0"] = self.grey_data(mesh.light)
        if material.normal is not None:
            attributes["TANGENT"] = self.vertex_data(tangents(mesh.positions, mesh.normals, mesh.uv, mesh.faces))
        indices = self.indices(mesh.faces)
        primitive: dict[str, Any] = {"attributes": attributes, "indices": indices, "material": number, "mode": 4}
        entry: dict[str, Any] = {"name": mesh.name, "primitives": [primitive]}
        if mesh.targets:
            share = number > 0  # many expressions do not move a part; each target of a few bytes has 300 of JSON
            primitive["targets"] = [self.target(target, tolerance, share) for target in mesh.targets]
            entry["weights"] = [float(w) for w in mesh.weights]
            entry["extras"] = {"targetNames": [target.name for target in mesh.targets]}
        return entry

    def indices(self, faces: np.ndarray) -> int:
        flat, component = _small_integers(faces.reshape(-1), int(faces.max()) + 1)
        view = self.view(flat.tobytes(), _INDEX_DATA)
        return self.accessor(bufferView=view, componentType=component, count=len(flat), type="SCALAR")

    def target(self, target: MorphTarget, tolerance: float, share: bool = False) -> dict[str, int]:
        """Add the accessors of a morph target; positions and normals share the sparse index list.

        Args:
            share: whether all targets of this length that are zero may have the same accessor.
        """
        parts = {"POSITION": target.positions}
        moved = np.abs(target.positions).max(axis=1) >= tolerance
        if target.normals is not None:
            parts["NORMAL"] = target.normals
            moved |= np.abs(target.normals).max(axis=1) >= 1e-3
        if share and not moved.any():
            return dict.fromkeys(parts, self._still_target(len(moved)))
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

    def _still_target(self, count: int) -> int:
        """The accessor of zeros (count, 3). Sparse, because readers skip an accessor without any data."""
        if count not in self._still:
            zero = np.zeros((1, 3), "<f4")
            indices = {"bufferView": self.view(b"\0\0"), "componentType": _UINT16}
            stored = {"count": 1, "indices": indices, "values": {"bufferView": self.view(zero.tobytes())}}
            self._still[count] = self.accessor(
                componentType=_FLOAT, count=count, type="VEC3", sparse=stored, **_bounds(zero)
            )
        return self._still[count]

    def animation(self, animation: GltfAnimation, morphing: Sequence[int]) -> dict:
        """Add an animation with one sampler per animated property, all at the same times.

        Args:
            morphing: nodes whose weights it moves; rotation and translation are the first node's.
        """
        times = np.ascontiguousarray(animation.times_s, dtype="<f4")[:, None]
        view = self.view(times.tobytes())
        keys = self.accessor(bufferView=view, componentType=_FLOAT, count=len(times), type="SCALAR", **_bounds(times))
        entry: dict[str, Any] = {"name": animation.name, "channels": [], "samplers": []}
        for path, values, kind, nodes in (
            ("weights", np.reshape(animation.weights, -1), "SCALAR", morphing),
            ("rotation", animation.rotation, "VEC4", (0,)),
            ("translation", animation.translation, "VEC3", (0,)),
        ):
            if not values.size:
                continue  # a head without morph targets
            view = self.view(np.ascontiguousarray(values, dtype="<f4").tobytes())
            output = self.accessor(bufferView=view, componentType=_FLOAT, count=len(values), type=kind)
            sampler = len(entry["samplers"])
            entry["channels"] += [{"sampler": sampler, "target": {"node": node, "path": path}} for node in nodes]
            entry["samplers"].append({"input": keys, "output": output, "interpolation": "LINEAR"})
        return entry

    def material(self, material: GltfMaterial, picture: str) -> dict:
        """Add a material whose base colour has this name."""
        surface: dict[str, Any] = {}
        if isinstance(material.base_color, bytes):
            surface["baseColorTexture"] = {"index": self.image(picture, material.base_color)}
        else:
            surface["baseColorFactor"] = list(material.base_color)
        if isinstance(material.roughness, bytes):
            surface["metallicRoughnessTexture"] = {"index": self.image("roughness", material.roughness)}
        surface["metallicFactor"] = float(material.metallic)
        surface["roughnessFactor"] = 1.0 if isinstance(material.roughness, bytes) else float(material.roughness)
        entry: dict[str, Any] = {"name": material.name, "pbrMetallicRoughness": surface}
        if material.normal is not None:
            entry["normalTexture"] = {"index": self.image("normal", material.normal)}
        if material.alpha_mode != "OPAQUE":
            entry["alphaMode"] = material.alpha_mode
        if material.alpha_mode == "MASK":
            entry["alphaCutoff"] = float(material.alpha_cutoff)
        if material.two_sided:
            entry["doubleSided"] = True
        return entry

    def image(self, name: str, encoded: bytes) -> int:
        """Add a picture, and return its number; one that is in the file already is not added again."""
        if encoded not in self._places:
            mime = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
            self.images.append({"name": name, "mimeType": mime, "bufferView": self.view(encoded)})
            self._places[encoded] = len(self.images) - 1
        return self._places[encoded]


def _bounds(values: np.ndarray) -> dict[str, list[float]]:
    return {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}


def _small_integers(values: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Indices below `count` in the narrowest type; 65535 itself is reserved in 16 bits."""
    if count <= 65535:
        return values.astype("<u2"), _UINT16
    return values.astype("<u4"), _UINT32
