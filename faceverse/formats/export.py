"""Export a head to mesh files (.glb .obj .ply .stl), to a .json that restores it, or to the original code's .npy.

`EXPORT_FORMATS` is the one list of formats; `export`, the command line and the web page read it.

Meshes are in head space (see camera.py): metres, +y up, the face looks along +z, without the pose of the photograph.
Only .stl is in millimetres: its numbers carry no unit, and printing programs read them as millimetres.
Every file is written atomically. No file contains the photograph or the folder it came from.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..detail.dense import DenseMesh, dense_mesh
from ..detail.displacement import sample_bilinear
from ..errors import ParameterError
from ..graphics.mesh import vertex_normals
from ..io.files import read_bytes, write_all
from ..io.pickles import read_npy
from ..model.face_model import FaceModel, evaluate
from ..official import camera_of, coefficients_from_params, npy_bytes, params_from_coefficients, stored_coefficients
from ..result import FitResult, head_from_params
from ..weights import load_model
from .gltf import GltfAnimation, GltfCamera, GltfMaterial, GltfMesh, MorphTarget, write_glb
from .store import from_json, library_name, picture_bytes, to_json

LEVELS_OF_DETAIL = ("coarse", "standard", "dense")
"""Meshes of a head: the model's coarse mesh, its own mesh, and one displaced by the skin's detail."""

# Surface, the model's regions in it, its roughness; a triangle belongs to the last surface that has all its corners.
_SURFACES = (
    ("skin", (), 0.6),
    ("lips", ("lips",), 0.45),
    ("mouth", ("mouth_inside", "gums", "tongue", "teeth"), 0.35),
    ("eyes", ("eyeballs",), 0.15),
)
_ROUGHNESS_SIZE_PX = 512
_PNG_UP_TO_PX = 1024  # larger textures go into a GLB as JPEG
_ROWS_AT_ONCE = 100_000
_MORPH_NORMALS_UP_TO_BYTES = 24e6  # models with very many dense expressions are written without


@dataclass(frozen=True)
class ExportFormat:
    """A file format of `EXPORT_FORMATS` (heads) or `TRACK_FORMATS` (tracks). Its key there is the suffix without a dot.

    Attributes:
        label: for menus and buttons.
        description: what the file holds, in one line.
        content: (head or track, path, level of detail) -> contents of the files by their paths, the main file last. The
            head is on the coarse mesh already where the level of detail is "coarse".
        levels_of_detail: of `LEVELS_OF_DETAIL`, those the format can hold; empty for a file without a mesh.
        companions: what is added to the name of the file, without its suffix, for each further file beside it.
        in_menus: False for a format of one particular program, which a general menu leaves out.
    """

    label: str
    description: str
    content: Callable
    levels_of_detail: tuple[str, ...] = LEVELS_OF_DETAIL
    companions: tuple[str, ...] = ()
    in_menus: bool = True


@singledispatch
def export(
    result: FitResult | Any,  # Any: types that other modules register
    path: str | os.PathLike,
    *,
    lod: str = "standard",
    light: bool | None = None,
    dense: bool | None = None,
) -> Path:
    """Write a head, or a `Track`, in the format that the file's suffix names.

    Args:
        result: the head. For a track see `faceverse.tracking.motion.export_track`: an animated .glb, or its own files.
        path: in a folder that exists; an older file of that name is replaced. Formats (`EXPORT_FORMATS`):
            .glb: neutral head with all expressions as morph targets, set to the result's weights; texture inside.
            .obj: head with its expression, and beside it NAME.mtl and NAME_texture.png.
            .ply: head with its expression, binary, colours of the texture at the vertices.
            .stl: head with its expression, binary, millimetres.
            .json: everything that `load_result` needs, texture included; no mesh.
            .npy: the coefficients as the original FaceVerse code stores them (see `faceverse.official`), of a head that
            its default camera looks at; no texture.
        lod: level of detail of the mesh. "coarse": the model's coarse mesh. "standard": the model's own mesh. "dense":
            wrinkles and pores as geometry, up to about 600,000 triangles (.obj, .ply, .stl; a .glb shows them by its
            normal map). "coarse" makes no difference in a .json or .npy.
        light: deprecated, use lod="coarse".
        dense: deprecated, use lod="dense".

    Returns:
        `path` as a Path.

    Raises:
        ParameterError: unknown suffix or level of detail, a folder that is missing or cannot be written, vertices that
            are not finite; "dense" for another suffix or for a head without displacement.
    """
    path = Path(path)
    if light is not None or dense is not None:
        lod = _level_of_detail(path, lod, light, dense)
    write_all(head_files(result, path, lod), ParameterError)
    return path


def head_files(result: FitResult, path: Path, lod: str = "standard") -> dict[Path, bytes]:
    """Contents of the files that `export` writes, by their paths; see there.

    Raises:
        ParameterError: as in `export`.
    """
    known = EXPORT_FORMATS.get(path.suffix.lower().removeprefix("."))
    if known is None:
        suffixes = " ".join(f".{name}" for name in EXPORT_FORMATS)
        raise ParameterError("file.write_suffix", name=path.name, suffixes=suffixes)
    if not (np.isfinite(result.vertices).all() and np.isfinite(result.neutral_vertices).all()):
        raise ParameterError("export.not_finite", name=path.name)
    if not isinstance(lod, str) or lod not in LEVELS_OF_DETAIL:
        raise ParameterError("export.lod", known=", ".join(LEVELS_OF_DETAIL), lod=repr(lod))
    if lod == "dense":
        _check_dense(result, path, known)
    head = coarse_head(result) if lod == "coarse" and known.levels_of_detail else result
    return known.content(head, path, lod)


def companions_of(path: Path) -> list[Path]:
    """Paths of the further files that `export` writes beside a file, in the order of `ExportFormat.companions`."""
    known = EXPORT_FORMATS[path.suffix.lower().removeprefix(".")]
    return [path.with_name(companion_stem(path.stem) + ending) for ending in known.companions]


def companion_stem(stem: str) -> str:
    """A name as .obj and .mtl can repeat it.

    Blanks divide, # begins a comment, - an option, \\ a folder, and bytes that are no text are not found again.
    """
    return re.sub("\\s+|[#\\\\\ud800-\udfff]|^-", "_", stem)


def _level_of_detail(path: Path, lod: str, light: bool | None, dense: bool | None) -> str:
    """`lod`, or what the deprecated arguments of `export` say."""
    for name, level, value in (("light", "coarse", light), ("dense", "dense", dense)):
        if value is not None:
            text = f"export({name}={value}) is deprecated, use lod={level if value else 'standard'!r}"
            warnings.warn(text, DeprecationWarning, stacklevel=4)  # past `export` and the wrapper of singledispatch
    if light and dense:
        raise ParameterError("export.coarse_and_dense", name=path.name)
    return "coarse" if light else "dense" if dense else lod


def load_result(path: str | os.PathLike, model: FaceModel | None = None) -> FitResult:
    """Restore what `export` wrote to a .json: parameters and texture exactly, vertices and albedo by the model.

    Args:
        path: a .json, or a .npy with coefficients that the original FaceVerse code stored: pose, shape, expression and
            light of that head, seen by the original's default camera, with the model's albedo as its texture.
        model: the face model the parameters belong to; None loads the open one.

    Raises:
        ParameterError: the file is missing, damaged or of another kind, or has another model's number of coefficients.
        WeightsError: the parameters belong to another model, or the .npy holds what could run code.
    """
    path = Path(path)
    model = load_model("open") if model is None else model
    if path.suffix.lower() == ".npy":
        params = params_from_coefficients(model, stored_coefficients(read_npy(path), path.name))
        return head_from_params(model, params, camera_of(model), source=path.name)
    return from_json(read_bytes(path, ParameterError), model, path.name)


# -- writers: the content of each file by its path, the main file last -------------------------------------------------
def _glb(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    return {path: glb_bytes(result)}


def glb_bytes(result: FitResult, animation: GltfAnimation | None = None, camera: GltfCamera | None = None) -> bytes:
    """A .glb: the neutral head in head space with all expressions as morph targets.

    Args:
        animation: with weights of all expressions; its first key replaces the result's weights.
    """
    model = result.model
    pairs, corner = np.unique(
        np.stack([model.faces.reshape(-1), model.uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    vertex = pairs[:, 0]
    rest = result.neutral_vertices + (_correction(result) if animation is None else 0)
    normals = _normals(model, rest)
    with_normals = model.expression_modes.nbytes * 2 <= _MORPH_NORMALS_UP_TO_BYTES
    targets = tuple(
        MorphTarget(
            name,
            offset[vertex],
            (_normals(model, rest + offset) - normals)[vertex] if with_normals else None,
        )
        for name, offset in zip(model.expression_names, model.expression_modes_of(result.params.identity))
    )
    mesh = GltfMesh(
        name="head",
        positions=rest[vertex],
        normals=normals[vertex],
        uv=model.uv[pairs[:, 1]],
        faces=corner.reshape(-1, 3),
        targets=targets,
        weights=result.params.expression if animation is None else animation.weights[0],
    )
    material = GltfMaterial(
        name="head",
        base_color=picture_bytes(result.texture, jpeg=max(result.texture.shape) > _PNG_UP_TO_PX),
        roughness=picture_bytes(_roughness_map(model)),
        normal=None if result.normal_map is None else picture_bytes(result.normal_map),
    )
    return write_glb(mesh, material, library_name(), animation=animation, camera=camera)


def _check_dense(result: FitResult, path: Path, known: ExportFormat) -> None:
    if "dense" not in known.levels_of_detail:
        suffixes = " ".join(f".{name}" for name, entry in EXPORT_FORMATS.items() if "dense" in entry.levels_of_detail)
        raise ParameterError("export.dense_suffix", name=path.name, suffixes=suffixes)
    if result.displacement is None:
        raise ParameterError("export.dense_no_displacement", name=path.name)


def _mesh_of(result: FitResult, lod: str) -> DenseMesh:
    """The displaced mesh, or the head's own in the same form."""
    if lod == "dense" and result.displacement is not None:
        return dense_mesh(result, len(result.displacement))
    model = result.model
    normals, source = _normals(model, result.vertices), np.arange(len(model.faces))
    return DenseMesh(result.vertices, normals, model.faces, model.uv, model.uv_faces, source)


def _obj(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    mesh = _mesh_of(result, lod)
    material_path, texture_path = companions_of(path)
    flipped = mesh.uv * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    lines = [
        f"# {library_name()}: metres, +y up\nmtllib {material_path.name}\no head\n",
        _rows("v %.7f %.7f %.7f\n", mesh.vertices),
        _rows("vt %.6f %.6f\n", flipped),
        _rows("vn %.5f %.5f %.5f\n", mesh.normals),
    ]
    materials = [f"# {library_name()}\n"]
    corners = np.stack([mesh.faces, mesh.uv_faces, mesh.faces], axis=-1) + 1
    surface = _surface_of_faces(result.model)[mesh.source_face]
    for index, (name, _, roughness) in enumerate(_SURFACES):
        if (surface == index).any():
            lines.append(f"g {name}\nusemtl {name}\n")
            lines.append(_rows("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners[surface == index].reshape(-1, 9)))
        # Blinn and Phong's exponent of the same width as this roughness, within the range the format allows.
        shininess = min(1000.0, 2 / roughness**4 - 2)
        materials.append(
            f"newmtl {name}\nKa 1 1 1\nKd 1 1 1\nKs 0.04 0.04 0.04\nNs {shininess:.1f}\nillum 2\n"
            f"map_Kd {texture_path.name}\n"
        )
    return {
        texture_path: picture_bytes(result.texture),
        material_path: "\n".join(materials).encode("utf-8", "surrogateescape"),
        path: "".join(lines).encode("utf-8", "surrogateescape"),
    }


def _rows(template: str, values: np.ndarray) -> str:
    """The template filled with each row of values."""
    parts = (values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE))
    return "".join(template * len(part) % tuple(part.reshape(-1).tolist()) for part in parts)


def _ply(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    mesh = _mesh_of(result, lod)
    count = len(mesh.vertices)
    vertices = np.empty(count, [("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
    vertices["position"] = mesh.vertices
    vertices["normal"] = mesh.normals
    vertices["color"] = np.round(sample_bilinear(result.texture.astype(np.float32), mesh.vertex_uv)).astype(np.uint8)
    faces = np.empty(len(mesh.faces), [("corners", "u1"), ("vertices", "<i4", 3)])
    faces["corners"], faces["vertices"] = 3, mesh.faces
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


def _stl(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    mesh = _mesh_of(result, lod)
    corners = mesh.vertices[mesh.faces].astype(np.float32) * 1000
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles["normal"] = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12)
    triangles["corners"] = corners
    header = f"{library_name()}: millimetres, +y up".encode().ljust(80)[:80]
    return {path: header + np.uint32(len(triangles)).astype("<u4").tobytes() + triangles.tobytes()}


def coarse_head(result: FitResult) -> FitResult:
    """The same head on the model's coarse mesh."""
    coarse = result.model.coarse
    keep = slice(None) if coarse is result.model else result.model.data.coarse_vertices
    return result.replace(
        model=coarse,
        vertices=result.vertices[keep],
        neutral_vertices=result.neutral_vertices[keep],
        albedo=result.albedo[keep],
    )


def _correction(result: FitResult) -> np.ndarray:
    """What corrective shapes add to the head (V, 3): morph targets cannot hold it, so that a file contains it for the
    result's own weights."""
    model, params = result.model, result.params
    identity, expression = (
        torch.from_numpy(np.float32(row)[None]).to(model.device) for row in (params.identity, params.expression)
    )
    nothing = torch.zeros_like(model.tensor("mean_vertices"))
    return evaluate(nothing, *model.expression_terms(identity, expression)[1:])[0].numpy(force=True)


def _normals(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) of the mesh without its texture seams; vertices of no triangle point forward."""
    faces = torch.from_numpy(np.ascontiguousarray(model.faces))
    normals = vertex_normals(torch.from_numpy(np.ascontiguousarray(vertices)), faces).numpy()
    normals[~normals.any(axis=1)] = (0, 0, 1)
    return normals


def _surface_of_faces(model: FaceModel) -> np.ndarray:
    """Row of `_SURFACES` for each triangle (F,)."""
    surface = np.zeros(len(model.faces), dtype=np.int64)
    for index, (_, regions, _) in enumerate(_SURFACES):
        inside = np.zeros(len(model.mean_vertices), dtype=bool)
        for region in regions:
            inside[model.regions.get(region, [])] = True
        surface[inside[model.faces].all(axis=1)] = index
    return surface


def _roughness_map(model: FaceModel) -> np.ndarray:
    """(H, W, 3) uint8 for glTF: roughness in green, no metal in blue. One material with a map instead of several
    materials keeps the head one mesh, with one set of morph weights, in every viewer."""
    surface = _surface_of_faces(model)
    levels = [round(roughness * 255) for _, _, roughness in _SURFACES]
    green = Image.new("L", (_ROUGHNESS_SIZE_PX, _ROUGHNESS_SIZE_PX), levels[0])
    draw = ImageDraw.Draw(green)
    special = surface > 0
    corners_px = model.uv[model.uv_faces[special]] * _ROUGHNESS_SIZE_PX - 0.5
    for triangle, index in zip(corners_px.reshape(-1, 6).tolist(), surface[special].tolist()):
        draw.polygon(triangle, fill=levels[index])
    roughness = np.asarray(green)
    return np.stack([np.full_like(roughness, 255), roughness, np.zeros_like(roughness)], axis=-1)


def _npy(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    return {path: npy_bytes(coefficients_from_params(result.model, result.params))}


def _json(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    return {path: to_json(result).encode("utf-8", "replace")}


EXPORT_FORMATS: dict[str, ExportFormat] = {
    "glb": ExportFormat(
        "GLB", "all expressions as morph targets, texture inside", _glb, levels_of_detail=("coarse", "standard")
    ),
    "obj": ExportFormat("OBJ", "mesh with material and texture beside it", _obj, companions=(".mtl", "_texture.png")),
    "ply": ExportFormat("PLY", "binary mesh with colours at the vertices", _ply),
    "stl": ExportFormat("STL", "binary mesh in millimetres, for 3D printing", _stl),
    "json": ExportFormat("JSON", "the parameters and the texture, to go on with", _json, levels_of_detail=()),
    "npy": ExportFormat(
        "NPY", "coefficients for the original FaceVerse code", _npy, levels_of_detail=(), in_menus=False
    ),
}
"""Formats of heads by suffix: what `export` writes, and what the command line and the web page offer."""
