"""What a glTF file holds, as plain arrays: meshes with morph targets, materials, parts, animations, cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..graphics.alpha_texture import DEFAULT_CUTOFF, AlphaMode
from .gltf_skin import JointMotion


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
        joints: (V, J) shares of the skeleton's joints in the motion of the vertices, in a file that has one.
    """

    name: str
    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    targets: tuple[MorphTarget, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    light: np.ndarray | None = None
    joints: np.ndarray | None = None


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
    """One animation of the main mesh's node, or of the joints of a skeleton, and of all weights, linear between K
    keyframes.

    Args:
        name: shown by viewers.
        times_s: (K,) from 0 on, increasing also as float32.
        weights: (K, T) of the morph targets.
        rotation: (K, 4) unit quaternions x, y, z, w; the dot product of neighbours is positive, so that interpolation
            takes the shorter way.
        translation: (K, 3) metres.
        joints: motions by the names of joints; in a file with a skeleton they replace rotation and translation.
    """

    name: str
    times_s: np.ndarray
    weights: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    joints: Mapping[str, JointMotion] = field(default_factory=dict)


@dataclass(frozen=True)
class GltfCamera:
    """A camera that looks along -z: position (3,) metres, vertical field of view in radians, width over height."""

    position: np.ndarray
    yfov: float
    aspect: float
