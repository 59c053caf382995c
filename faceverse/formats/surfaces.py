"""Surfaces of a head as mesh files hold them: normals, roughness of the skin, meshes and textures of the parts."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from ..detail.dense import DenseMesh, dense_mesh
from ..graphics.mesh import vertex_normals
from ..model.face_model import FaceModel
from ..parts.part import HAIR_SLOTS, Material
from ..result import FitResult

# Surface, the model's regions in it, its roughness; a triangle belongs to the last surface that has all its corners.
SURFACES = (
    ("skin", (), 0.6),
    ("lips", ("lips",), 0.45),
    ("mouth", ("mouth_inside", "gums", "tongue", "teeth"), 0.35),
    ("eyes", ("eyeballs",), 0.15),
)
_ROUGHNESS_SIZE_PX = 512
_SOLID_STRAND = 128  # the colours of strands' edges contain what was behind them when the texture was made
_EMPTY_ALPHA = {"OPAQUE": 128, "MASK": 1, "BLEND": 1}  # texels of less alpha show nothing of the part


def unit_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) of a mesh without its texture seams; vertices of no triangle point forward."""
    indices = torch.from_numpy(np.ascontiguousarray(faces))
    normals = vertex_normals(torch.from_numpy(np.ascontiguousarray(vertices)), indices).numpy()
    normals[~normals.any(axis=1)] = (0, 0, 1)
    return normals


def split_corners(faces: np.ndarray, uv_faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split vertices at texture seams, for formats with one index per corner.

    Returns:
        (N, 2) index of the vertex and of its texture coordinate, sorted, and (F, 3) faces of rows of it.
    """
    corners = np.stack([faces.reshape(-1), uv_faces.reshape(-1)], axis=1)
    pairs, corner = np.unique(corners, axis=0, return_inverse=True)
    return pairs, corner.reshape(-1, 3)


def surface_of_faces(model: FaceModel) -> np.ndarray:
    """Row of `SURFACES` for each triangle (F,)."""
    surface = np.zeros(len(model.faces), dtype=np.int64)
    for index, (_, regions, _) in enumerate(SURFACES):
        inside = np.zeros(len(model.mean_vertices), dtype=bool)
        for region in regions:
            inside[model.regions.get(region, [])] = True
        surface[inside[model.faces].all(axis=1)] = index
    return surface


def roughness_map(model: FaceModel) -> np.ndarray:
    """(H, W, 3) uint8 for glTF: roughness in green, no metal in blue. One material with a map instead of several
    materials keeps the skin one mesh in every viewer."""
    surface = surface_of_faces(model)
    levels = [round(roughness * 255) for _, _, roughness in SURFACES]
    green = Image.new("L", (_ROUGHNESS_SIZE_PX, _ROUGHNESS_SIZE_PX), levels[0])
    draw = ImageDraw.Draw(green)
    special = surface > 0
    corners_px = model.uv[model.uv_faces[special]] * _ROUGHNESS_SIZE_PX - 0.5
    for triangle, index in zip(corners_px.reshape(-1, 6).tolist(), surface[special].tolist()):
        draw.polygon(triangle, fill=levels[index])
    roughness = np.asarray(green)
    return np.stack([np.full_like(roughness, 255), roughness, np.zeros_like(roughness)], axis=-1)


# -- meshes ------------------------------------------------------------------------------------------------------------
def skin_mesh(result: FitResult, lod: str) -> DenseMesh:
    """The head's own mesh or, for "dense", the displaced one, with its expression; without the faces that parts
    replace, and without the vertices of these alone."""
    model = result.model
    if lod == "dense" and result.displacement is not None:
        mesh = dense_mesh(result, len(result.displacement))
    else:
        normals, source = unit_normals(result.vertices, model.faces), np.arange(len(model.faces))
        mesh = DenseMesh(result.vertices, normals, model.faces, model.uv, model.uv_faces, source)
    return mesh if result.is_skin.all() else _some_faces(mesh, result.is_skin[mesh.source_face])


def part_mesh(result: FitResult, slot: str) -> DenseMesh:
    """The part in this slot, with the expression of the head, without the vertices that it does not use."""
    part, vertices = result.parts[slot], result.part_vertices[slot]
    source = np.arange(len(part.faces))
    mesh = DenseMesh(vertices, unit_normals(vertices, part.faces), part.faces, part.uv, part.uv_faces, source)
    return _some_faces(mesh, np.ones(len(part.faces), bool))


def _some_faces(mesh: DenseMesh, chosen: np.ndarray) -> DenseMesh:
    """The triangles `chosen` (F,) with their vertices and texture coordinates, in the same order."""
    used, faces = np.unique(mesh.faces[chosen], return_inverse=True)
    used_uv, uv_faces = np.unique(mesh.uv_faces[chosen], return_inverse=True)
    return DenseMesh(
        mesh.vertices[used],
        mesh.normals[used],
        faces.reshape(-1, 3),
        mesh.uv[used_uv],
        uv_faces.reshape(-1, 3),
        mesh.source_face[chosen],
    )


# -- textures ----------------------------------------------------------------------------------------------------------
def padded_texture(material: Material, slot: str = "") -> np.ndarray:
    """The texture (H, W, 4) uint8 with the colour of the nearest visible texel wherever nothing of the part is.

    Viewers mix the colours of neighbouring texels whatever their alpha is: without it a black background shows at the
    seams of teeth, and light fringes at the edge of hairs.
    """
    texture = material.texture
    empty = texture[..., 3] < (_SOLID_STRAND if slot in HAIR_SLOTS else _EMPTY_ALPHA[material.alpha_mode])
    if not empty.any() or empty.all():
        return texture
    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
    padded = texture.copy()
    padded[..., :3] = texture[..., :3][tuple(nearest)]
    return padded
