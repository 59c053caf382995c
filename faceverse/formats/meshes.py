"""Write a head with its expression to OBJ and PLY: the skin and its parts.

An OBJ has all parts, each as an object with a material. A PLY holds surfaces without transparency: hair and beard are
closed solids; lashes and brows, which are pictures of hairs on transparent strips, are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..detail.dense import DenseMesh
from ..detail.displacement import sample_bilinear
from ..parts.part import SLOTS
from ..result import FitResult
from .solid_hair import beard_texture, solid_beard, solid_colour, solid_hair
from .store import library_name, picture_bytes
from .surfaces import SURFACES, padded_texture, part_mesh, skin_mesh, surface_of_faces

OBJ_COMPANIONS = (
    ".mtl", "_texture.png", *(f"_{slot}.png" for slot in SLOTS), *(f"_{slot}_alpha.png" for slot in SLOTS)
)  # fmt: skip
"""What is added to the name of an .obj for the files that may lie beside it."""

_ROWS_AT_ONCE = 100_000


def companion_stem(stem: str) -> str:
    """A name as .obj and .mtl can repeat it.

    Blanks divide, # begins a comment, - an option, \\ a folder, and bytes that are no text are not found again.
    """
    return re.sub("\\s+|[#\\\\\ud800-\udfff]|^-", "_", stem)


def obj_files(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    """Contents of an .obj, its .mtl and its textures; parts with the same texture share the file of the first one."""

    def beside(ending: str) -> Path:
        return path.with_name(companion_stem(path.stem) + ending)

    material_path, texture_path = beside(".mtl"), beside("_texture.png")
    mesh = skin_mesh(result, lod)
    surface = surface_of_faces(result.model)[mesh.source_face]
    pictures = {texture_path: picture_bytes(result.texture)}
    lines = [f"# {library_name()}: metres, +y up\nmtllib {material_path.name}\no head\n", _corners_text(mesh)]
    materials = [f"# {library_name()}\n"]
    for index, (name, _, roughness) in enumerate(SURFACES):
        if (surface == index).any():
            lines.append(f"g {name}\nusemtl {name}\n")
            lines.append(_faces_text(mesh, surface == index))
        if (surface == index).any() or not result.parts:
            materials.append(_material_text(name, roughness, texture_path.name))
    first, first_uv = len(mesh.vertices), len(mesh.uv)
    found: dict[bytes, Path] = {}
    for slot, part in result.parts.items():
        material, mesh = part.material, part_mesh(result, slot)
        pixels = padded_texture(material, slot)
        picture = found.setdefault(material.alpha_mode.encode() + pixels.tobytes(), beside(f"_{slot}.png"))
        pictures[picture] = picture_bytes(pixels[..., :3])
        alpha = None
        if material.alpha_mode != "OPAQUE":
            # Readers take a map's grey or its alpha: both are the same here.
            alpha = f"{picture.stem}_alpha.png"
            pictures[picture.with_name(alpha)] = picture_bytes(np.repeat(pixels[..., 3:], 4, axis=2))
        lines += [f"o {slot}\n", _corners_text(mesh), f"g {slot}\nusemtl {slot}\n"]
        lines.append(_faces_text(mesh, np.ones(len(mesh.faces), bool), first, first_uv))
        materials.append(_material_text(slot, material.roughness, picture.name, alpha))
        first, first_uv = first + len(mesh.vertices), first_uv + len(mesh.uv)
    return {
        **pictures,
        material_path: "\n".join(materials).encode("utf-8", "surrogateescape"),
        path: "".join(lines).encode("utf-8", "surrogateescape"),
    }


def _corners_text(mesh: DenseMesh) -> str:
    """Positions, texture coordinates with the origin at the bottom left, and normals."""
    flipped = mesh.uv * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    return (
        _rows("v %.7f %.7f %.7f\n", mesh.vertices)
        + _rows("vt %.6f %.6f\n", flipped)
        + _rows("vn %.5f %.5f %.5f\n", mesh.normals)
    )


def _faces_text(mesh: DenseMesh, chosen: np.ndarray, first: int = 0, first_uv: int = 0) -> str:
    """The triangles `chosen` (F,) of a mesh that has so many vertices and texture coordinates before it in the file."""
    corners = np.stack([mesh.faces + first, mesh.uv_faces + first_uv, mesh.faces + first], axis=-1) + 1
    return _rows("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners[chosen].reshape(-1, 9))


def _material_text(name: str, roughness: float, picture: str, alpha: str | None = None) -> str:
    """An entry of an .mtl with the names of its pictures."""
    # Blinn and Phong's exponent of the same width as this roughness, within the range the format allows.
    shininess = min(1000.0, 2 / max(roughness, 1e-3) ** 4 - 2)
    text = f"newmtl {name}\nKa 1 1 1\nKd 1 1 1\nKs 0.04 0.04 0.04\nNs {shininess:.1f}\nillum 2\nmap_Kd {picture}\n"
    return text if alpha is None else f"{text}map_d {alpha}\n"


def _rows(template: str, values: np.ndarray) -> str:
    """The template filled with each row of values."""
    parts = (values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE))
    return "".join(template * len(part) % tuple(part.reshape(-1).tolist()) for part in parts)


def ply_files(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    """Contents of a binary .ply with the colours of the textures at the vertices."""
    meshes, textures = _opaque_meshes(result, lod)
    count = sum(len(mesh.vertices) for mesh in meshes)
    vertices = np.empty(count, [("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
    faces = np.empty(sum(len(mesh.faces) for mesh in meshes), [("corners", "u1"), ("vertices", "<i4", 3)])
    faces["corners"] = 3
    first = first_face = 0
    for mesh, texture in zip(meshes, textures, strict=True):
        rows = vertices[first : first + len(mesh.vertices)]
        rows["position"], rows["normal"] = mesh.vertices, mesh.normals
        rows["color"] = np.round(sample_bilinear(texture.astype(np.float32), mesh.vertex_uv)).astype(np.uint8)
        faces["vertices"][first_face : first_face + len(mesh.faces)] = mesh.faces + first
        first, first_face = first + len(mesh.vertices), first_face + len(mesh.faces)
    properties = [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    properties += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {library_name()}: metres, +y up, sRGB",
        f"element vertex {count}",
        *properties,
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return {path: "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()}


def _opaque_meshes(result: FitResult, lod: str) -> tuple[list[DenseMesh], list[np.ndarray]]:
    """The skin, the opaque parts and the solids of hair and beard, and the texture (H, W, 3) of each."""
    opaque = [slot for slot, part in result.parts.items() if part.material.alpha_mode == "OPAQUE"]
    textures = [padded_texture(result.parts[slot].material)[..., :3] for slot in opaque]
    meshes = [skin_mesh(result, lod), *(part_mesh(result, slot) for slot in opaque)]
    textures = [result.texture, *textures]
    for make, colour in ((solid_hair, solid_colour), (solid_beard, beard_texture)):
        if (solid := make(result)) is not None:
            meshes.append(solid)
            textures.append(colour(result))
    return meshes, textures
