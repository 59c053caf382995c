"""Write a head to a binary glTF file: a node with the skin, a child node for each part, expressions as morph targets.

Strands of hair are drawn twice, alpha-tested and blended: viewers sort whole meshes, not the strands of one.

Every mesh that moves has all expressions in the same order, zero or not: viewers and animations apply one list of
weights to a node and its children.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..model.face_model import evaluate
from ..parts.part import HAIR_SLOTS, Material
from ..result import FitResult, with_params
from .gltf import write_glb
from .gltf_scene import GltfAnimation, GltfCamera, GltfMaterial, GltfMesh, GltfPart, MorphTarget
from .morphs import Morphs, morphs_of
from .rig import EYE_JOINTS, eyeball_centre, head_rig
from .store import library_name, picture_bytes
from .surfaces import padded_texture, roughness_map, split_corners, unit_normals

_PNG_UP_TO_PX = 1024  # larger textures go into a GLB as JPEG
_MORPH_NORMALS_UP_TO_BYTES = 24e6  # models with very many dense expressions are written without
_PIVOTED = ("eye_left", "eye_right")  # parts that a program may turn
_CARRIERS = {"cornea_left": "eye_left", "cornea_right": "eye_right"}  # corneas, and what takes them along
_HAIRS = ("lashes", "brows", "beard", *HAIR_SLOTS)  # parts of flat strips, seen from both sides
_SOLID_HAIR = 0.6  # alpha of a strand that hides what is behind it
_CORNEA_REFLECTANCE = 0.04
_OPEN_JAW = 0.6  # weight at which light in the mouth is computed
_STILL_M = 5e-5  # what moves a part by less, moves it by nothing that can be seen
_STILL_HAIR_M = 5e-4  # likewise for the many vertices of a beard, which also keeps its normals


def glb_bytes(
    result: FitResult,
    animation: GltfAnimation | None = None,
    camera: GltfCamera | None = None,
    *,
    rig: bool = False,
    morphs: Morphs | None = None,
) -> bytes:
    """A .glb: the neutral head in head space with its parts, and all expressions as morph targets.

    Parts that turn with an expression, as jaw and eyes do, move along straight lines: exact at weights 0 and 1.

    Args:
        animation: with weights of all expressions; its first key replaces the result's weights.
        rig: whether a skeleton moves all meshes, see `faceverse.formats.rig`. In an animation its eyes turn by their
            joints instead of morph targets.
        morphs: of the head; None for its expressions, which an animation needs.

    Raises:
        ParameterError: as `head_rig`.
    """
    if animation is None:
        result = result.replace(neutral_vertices=result.neutral_vertices + _correction(result))
    if morphs is None:
        morphs = morphs_of(result, result.params.expression if animation is None else animation.weights[0])
    skin = GltfMaterial(
        name="head",
        base_color=picture_bytes(result.texture, jpeg=max(result.texture.shape) > _PNG_UP_TO_PX),
        roughness=picture_bytes(roughness_map(result.model)),
        normal=None if result.normal_map is None else picture_bytes(result.normal_map),
    )
    pictures: dict[bytes, bytes] = {}
    light = baked_light(result) if result.parts else {}
    skeleton = head_rig(result) if rig else None
    parts, centres = [], {"": np.zeros(3, np.float32)}
    for slot, part in result.parts.items():
        holder = _CARRIERS.get(slot, "")
        holder = holder if holder in result.parts and not rig else ""
        pivoted = slot in _PIVOTED and not rig
        centres[slot] = eyeball_centre(result, slot) if pivoted else centres[holder]
        mesh = _part_mesh(result, slot, morphs, centres[slot], light.get(slot))
        if skeleton is not None:
            mesh = replace(mesh, joints=skeleton.part_weights(slot, part)[_corner_vertices(part.faces, part.uv_faces)])
            if animation is not None and slot in EYE_JOINTS:
                mesh = replace(mesh, targets=(), weights=np.zeros(0, np.float32))
        material = _part_material(slot, part.material, pictures)
        overlay = None
        if slot in ("hair", "beard"):
            overlay = replace(material, name=f"{slot}_edges", alpha_mode="BLEND")
            material = replace(material, alpha_mode="MASK", alpha_cutoff=_SOLID_HAIR)
        parts.append(GltfPart(mesh, material, centres[slot] - centres[holder], holder, overlay))
    head = _skin_mesh(result, morphs, light.get("skin"))
    bones = None
    if skeleton is not None:
        shown = result.is_skin
        vertex = _corner_vertices(result.model.faces[shown], result.model.uv_faces[shown])
        head = replace(head, joints=skeleton.weights[vertex])
        bones = skeleton.skin
        if animation is not None:
            animation = replace(animation, joints=skeleton.motions(animation))
    return write_glb(head, skin, library_name(), parts=parts, animation=animation, camera=camera, skin=bones)


def _corner_vertices(faces: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """Vertex of a mesh for each vertex of its file."""
    return split_corners(faces, uv_faces)[0][:, 0]


def baked_light(result: FitResult) -> dict[str, np.ndarray]:
    """Share (V,) of the light that arrives at the vertices of "skin" and of the parts by slot, where it is not 1.

    A file holds one value for all expressions: that of the open mouth, because in the closed one nobody sees it, and
    of eyes that are neither closed nor wide.
    """
    names = result.model.expression_names
    expression = np.array([_OPEN_JAW * (name == "jawOpen") for name in names], np.float32)
    opened = with_params(result, result.params.replace(expression=expression))
    found = {"skin": opened.skin_occlusion, **opened.part_occlusion}
    return {name: light for name, light in found.items() if light.min() < 1}


def _skin_mesh(result: FitResult, morphs: Morphs, light: np.ndarray | None) -> GltfMesh:
    """The head without what parts replace.

    Args:
        light: (V,) of `baked_light`, or None.
    """
    model, neutral = result.model, result.neutral_vertices
    pairs, faces = split_corners(model.faces[result.is_skin], model.uv_faces[result.is_skin])
    vertex = pairs[:, 0]
    normals = unit_normals(neutral, model.faces)
    targets = tuple(
        MorphTarget(
            name,
            offset[vertex],
            (unit_normals(neutral + offset, model.faces) - normals)[vertex] if _has_morph_normals(result) else None,
        )
        for name, offset in zip(morphs.names, morphs.offsets)
    )
    return GltfMesh(
        "head", neutral[vertex], normals[vertex], model.uv[pairs[:, 1]], faces, targets, morphs.weights,
        None if light is None else light[vertex],
    )  # fmt: skip


def _correction(result: FitResult) -> np.ndarray:
    """What corrective shapes add to the head (V, 3): morph targets cannot hold it, so that a file contains it for the
    result's own weights."""
    model, params = result.model, result.params
    identity, expression = (
        torch.from_numpy(np.float32(row)[None]).to(model.device) for row in (params.identity, params.expression)
    )
    nothing = torch.zeros_like(model.tensor("mean_vertices"))
    return evaluate(nothing, *model.expression_terms(identity, expression)[1:])[0].numpy(force=True)


def _has_morph_normals(result: FitResult) -> bool:
    return result.model.expression_modes.nbytes * 2 <= _MORPH_NORMALS_UP_TO_BYTES


def _part_mesh(
    result: FitResult,
    slot: str,
    morphs: Morphs,
    origin: np.ndarray,
    light: np.ndarray | None,
) -> GltfMesh:
    """The part in this slot, relative to an origin (3,); see `_skin_mesh`."""
    part, placed = result.parts[slot], result.neutral_part_vertices[slot]
    pairs, faces = split_corners(part.faces, part.uv_faces)
    vertex = pairs[:, 0]
    is_hair = slot in result.hair_frames
    normals = result.hair_frames[slot].normals if is_hair else unit_normals(placed, part.faces)
    still = _STILL_HAIR_M if slot == "beard" else _STILL_M
    has_normals = slot != "beard" and not is_hair and _has_morph_normals(result)  # hair hardly turns
    targets = []
    for name, offset in zip(morphs.names, morphs.offsets):
        moved, turned = np.zeros_like(placed), np.zeros_like(placed)
        if np.abs(offset[part.binding.reference]).max() >= _STILL_M / 10:
            expressive = result.part_vertices_on(slot, result.neutral_vertices + offset)
            moves = np.abs(expressive - placed).max(axis=1) >= still
            moved[moves] = (expressive - placed)[moves]
            if has_normals:
                turned[moves] = (unit_normals(expressive.astype(np.float32), part.faces) - normals)[moves]
        targets.append(MorphTarget(name, moved[vertex], turned[vertex] if has_normals else None))
    if not any(target.positions.any() for target in targets):
        targets = []
    return GltfMesh(
        slot, placed[vertex] - origin, normals[vertex], part.uv[pairs[:, 1]], faces, tuple(targets),
        morphs.weights if targets else np.zeros(0, np.float32), None if light is None else light[vertex],
    )  # fmt: skip


def _part_material(slot: str, material: Material, pictures: dict[bytes, bytes]) -> GltfMaterial:
    """The material of a part.

    Args:
        pictures: encoded textures by the bytes of their pixels, for parts with the same texture.
    """
    if slot in _CARRIERS:
        # Blending weakens reflections as much as colours: a mirror that covers as much as a cornea reflects looks
        # like one, and a clear dielectric like nothing.
        mirror = (1.0, 1.0, 1.0, _CORNEA_REFLECTANCE)
        return GltfMaterial(slot, mirror, material.roughness, alpha_mode="BLEND", metallic=1.0)
    key = material.alpha_mode.encode() + material.texture.tobytes()
    if key not in pictures:
        pixels = padded_texture(material, slot)
        opaque = material.alpha_mode == "OPAQUE"
        pictures[key] = picture_bytes(pixels[..., :3], jpeg=True) if opaque else picture_bytes(pixels)
    return GltfMaterial(
        name=slot,
        base_color=pictures[key],
        roughness=material.roughness,
        alpha_mode=material.alpha_mode,
        alpha_cutoff=material.alpha_cutoff,
        two_sided=slot in _HAIRS,
    )
