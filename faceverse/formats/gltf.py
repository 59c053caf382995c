"""Write a binary glTF 2.0 file (GLB) with parts, morph targets and their animation from plain arrays.

Reference: Khronos Group, "glTF 2.0 Specification" (ISO/IEC 12113:2022), sections 3.6, 3.7.2, 3.10, 3.11 and 4.4.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graphics.mesh import tangents
from .gltf_scene import GltfAnimation, GltfCamera, GltfMaterial, GltfMesh, GltfPart, MorphTarget
from .gltf_skin import GltfSkin, JointMotion, strongest_influences

_BYTE, _UINT16, _UINT32, _FLOAT = 5121, 5123, 5125, 5126
_VERTEX_DATA, _INDEX_DATA = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_STILL_NORMAL = 0.01  # offsets of unit normals below it are 0: half a degree
_NEAR_M = 0.01
_ARMATURE = "Armature"  # as Blender calls the node that holds a skeleton and its meshes


def write_glb(
    mesh: GltfMesh,
    material: GltfMaterial,
    generator: str,
    *,
    parts: Sequence[GltfPart] = (),
    tolerance: float = 2e-5,
    animation: GltfAnimation | None = None,
    camera: GltfCamera | None = None,
    skin: GltfSkin | None = None,
) -> bytes:
    """Serialise a mesh with its material and its parts to the bytes of a .glb.

    Args:
        generator: program named in the file's `asset` entry.
        parts: further meshes, each in a child node.
        animation: its first keyframe is also the node's transform.
        camera: a second node of the scene.
        skin: a skeleton that moves all meshes. They and its root are then children of one node, "Armature".
        tolerance: metres; rows of a morph target whose components are all below it count as zero: by default what
            nobody sees. A target is stored sparse (only its other rows) wherever that is smaller.
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
    nodes = _nodes([mesh, *(part.mesh for part in parts)], parts, camera, skin)
    skins, animations, cameras = {}, {}, {}
    if skin is not None:
        skins["skins"] = [builder.skin(skin, nodes)]
    if camera is not None:
        perspective = {"yfov": float(camera.yfov), "aspectRatio": float(camera.aspect), "znear": _NEAR_M}
        cameras["cameras"] = [{"type": "perspective", "perspective": perspective}]
    if animation is not None:
        morphing = [place for place, node in enumerate(nodes) if "mesh" in node and "weights" in meshes[node["mesh"]]]
        animations["animations"] = [builder.animation(animation, morphing, nodes)]
    document = {
        "asset": {"version": "2.0", "generator": generator},
        "scene": 0,
        "scenes": [{"name": "Scene", "nodes": [0] if camera is None else [0, 1]}],
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
        **skins,
        **animations,
        **cameras,
        "accessors": builder.accessors,
        "bufferViews": builder.views,
        "buffers": [{"byteLength": len(builder.buffer)}],
    }
    return _container(document, builder.buffer)


def _nodes(
    meshes: Sequence[GltfMesh], parts: Sequence[GltfPart], camera: GltfCamera | None, skin: GltfSkin | None
) -> list[dict[str, Any]]:
    """Nodes of all meshes, joints and the camera: the first one holds all others but the camera, which comes second."""
    root: dict[str, Any] = {"name": meshes[0].name, "mesh": 0} if skin is None else {"name": _ARMATURE}
    nodes, named = [root], {"": root}
    if camera is not None:
        nodes.append({"name": "camera", "camera": 0, "translation": [float(v) for v in camera.position]})
    if skin is not None:
        for name, parent, place in zip(skin.names, skin.parents, skin.local(), strict=True):
            named[name] = {"name": name, "translation": [float(v) for v in place]}
            named[parent].setdefault("children", []).append(len(nodes))
            nodes.append(named[name])
        for number, mesh in enumerate(meshes):
            root["children"].append(len(nodes))
            nodes.append({"name": mesh.name, "mesh": number, "skin": 0})
        return nodes
    for number, part in enumerate(parts, start=1):
        node: dict[str, Any] = {"name": part.mesh.name, "mesh": number}
        if np.any(part.pivot):
            node["translation"] = [float(v) for v in part.pivot]
        named[part.parent].setdefault("children", []).append(len(nodes))
        named[part.mesh.name] = node
        nodes.append(node)
    return nodes


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
        return self.integers(pixels, _BYTE, normalized=True)

    def integers(self, values: np.ndarray, component: int, **entry: bool) -> int:
        """Add an accessor of unsigned integers (V, 4) of this component type, one row per vertex."""
        view = self.view(np.ascontiguousarray(values).tobytes(), _VERTEX_DATA)
        return self.accessor(bufferView=view, componentType=component, count=len(values), type="VEC4", **entry)

    def skin(self, skin: GltfSkin, nodes: Sequence[dict]) -> dict:
        """Add a skeleton whose joints are nodes of these names."""
        place = {node["name"]: number for number, node in enumerate(nodes) if "mesh" not in node}
        joints = [place[name] for name in skin.names]
        view = self.view(skin.inverse_bind().astype("<f4").tobytes())
        matrices = self.accessor(bufferView=view, componentType=_FLOAT, count=len(joints), type="MAT4")
        return {"name": _ARMATURE, "joints": joints, "skeleton": joints[0], "inverseBindMatrices": matrices}

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
        if mesh.joints is not None:
            joints, weights = strongest_influences(mesh.joints)
            attributes["JOINTS_0"] = self.integers(joints, _BYTE)
            attributes["WEIGHTS_0"] = self.integers(weights, _UINT16, normalized=True)
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
        """Add the accessors of a morph target, each with the rows that differ from zero.

        Args:
            share: whether all targets of this length that are zero may have the same accessor.
        """
        parts = {"POSITION": (target.positions, tolerance)}
        if target.normals is not None:
            parts["NORMAL"] = (target.normals, _STILL_NORMAL)
        moved = {name: np.abs(values).max(axis=1) >= least for name, (values, least) in parts.items()}
        if share and not any(rows.any() for rows in moved.values()):
            return dict.fromkeys(parts, self._still_target(len(target.positions)))
        lists: dict[bytes, int] = {}
        return {
            name: self._offsets(values, moved[name], lists, name == "POSITION") for name, (values, _) in parts.items()
        }

    def _offsets(self, values: np.ndarray, moved: np.ndarray, lists: dict[bytes, int], bounds: bool) -> int:
        """Add an accessor (V, 3) whose rows are zero except where `moved`, sparse if that is smaller.

        Args:
            lists: views of index lists by their bytes; a new list is added.
        """
        rows = np.flatnonzero(moved)
        # The format forbids an empty index list: offsets that are all zero store one of them.
        rows = rows if len(rows) else np.zeros(1, np.int64)
        index, component = _small_integers(rows, len(moved))
        if index.nbytes + 12 * len(rows) >= 12 * len(moved):
            return self.vertex_data(values, bounds=bounds)
        values = np.ascontiguousarray(values[rows] if moved.any() else np.zeros((1, 3)), dtype="<f4")
        # The bounds are those of the whole target, and the omitted rows are zero.
        whole = values if len(rows) == len(moved) else np.vstack([values, np.zeros((1, 3), "<f4")])
        if index.tobytes() not in lists:
            lists[index.tobytes()] = self.view(index.tobytes())
        indices = {"bufferView": lists[index.tobytes()], "componentType": component}
        stored = {"count": len(rows), "indices": indices, "values": {"bufferView": self.view(values.tobytes())}}
        limits = _bounds(whole) if bounds else {}
        return self.accessor(componentType=_FLOAT, count=len(moved), type="VEC3", sparse=stored, **limits)

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

    def animation(self, animation: GltfAnimation, morphing: Sequence[int], nodes: list[dict]) -> dict:
        """Add an animation with one sampler per animated property, all at the same times.

        Args:
            morphing: nodes whose weights it moves.
            nodes: those that it turns and moves get the transform of the first key.
        """
        times = np.ascontiguousarray(animation.times_s, dtype="<f4")[:, None]
        view = self.view(times.tobytes())
        keys = self.accessor(bufferView=view, componentType=_FLOAT, count=len(times), type="SCALAR", **_bounds(times))
        entry: dict[str, Any] = {"name": animation.name, "channels": [], "samplers": []}
        tracks = [("weights", np.reshape(animation.weights, -1), "SCALAR", morphing)]
        if animation.joints:
            named = {node["name"]: number for number, node in enumerate(nodes) if "mesh" not in node}
            moved = {named[name]: motion for name, motion in animation.joints.items()}
        else:
            moved = {0: JointMotion(animation.rotation, animation.translation)}
        for node, motion in moved.items():
            for path, values, kind in (
                ("rotation", motion.rotation, "VEC4"), ("translation", motion.translation, "VEC3")
            ):  # fmt: skip
                if values is not None:
                    nodes[node][path] = [float(value) for value in values[0]]
                    tracks.append((path, values, kind, (node,)))
        for path, values, kind, targets in tracks:
            if not values.size:
                continue  # a head without morph targets
            view = self.view(np.ascontiguousarray(values, dtype="<f4").tobytes())
            output = self.accessor(bufferView=view, componentType=_FLOAT, count=len(values), type=kind)
            sampler = len(entry["samplers"])
            entry["channels"] += [{"sampler": sampler, "target": {"node": node, "path": path}} for node in targets]
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
