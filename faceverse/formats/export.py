"""Export a head to mesh files (.glb .obj .ply .stl .3mf), to a .json that restores it, or to the original code's .npy.

`EXPORT_FORMATS` is the one list of formats; `export`, the command line and the web page read it.

Meshes are in head space (see camera.py): metres, +y up, the face looks along +z, without the pose of the photograph.
Only .stl and .3mf are in millimetres, because they are for printing; a .3mf has +z up and stands on the plate.
Every file is written atomically. No file contains the photograph or the folder it came from.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..io.files import read_bytes, write_all
from ..io.pickles import read_npy
from ..model.face_model import FaceModel
from ..official import camera_of, coefficients_from_params, npy_bytes, params_from_coefficients, stored_coefficients
from ..parts.hair_styles import BALD, with_hair_style
from ..result import FitResult, head_from_params
from ..weights import load_model
from .glb import glb_bytes
from .meshes import OBJ_COMPANIONS, companion_stem, obj_files, ply_files
from .morphs import morphs_of
from .printing import stl_files, threemf_files
from .store import from_json, to_json

LEVELS_OF_DETAIL = ("coarse", "standard", "dense")
"""Meshes of a head: the model's coarse mesh, its own mesh, and one displaced by the skin's detail."""


@dataclass(frozen=True)
class ExportFormat:
    """A file format of `EXPORT_FORMATS` (heads) or `TRACK_FORMATS` (tracks). Its key there is the suffix without a dot.

    Attributes:
        label: for menus and buttons.
        description: what the file holds, in one line.
        content: (head or track, path, level of detail, **options) -> contents of the files by their paths, the main
            file last. The head is on the coarse mesh already where the level of detail is "coarse".
        levels_of_detail: of `LEVELS_OF_DETAIL`, those the format can hold; empty for a file without a mesh.
        companions: what is added to the name of the file, without its suffix, for each further file that may lie
            beside it.
        in_menus: False for a format of one particular program, which a general menu leaves out.
        options: names of further arguments of `export` that it knows.
    """

    label: str
    description: str
    content: Callable
    levels_of_detail: tuple[str, ...] = LEVELS_OF_DETAIL
    companions: tuple[str, ...] = ()
    in_menus: bool = True
    options: tuple[str, ...] = ()


@singledispatch
def export(
    result: FitResult | Any,  # Any: types that other modules register
    path: str | os.PathLike,
    *,
    lod: str = "standard",
    hair: bool = True,
    rig: bool = False,
    morphs: str | None = None,
    sides: str | None = None,
    light: bool | None = None,
    dense: bool | None = None,
) -> Path:
    """Write a head, or a `Track`, in the format that the file's suffix names.

    Args:
        result: the head. For a track see `faceverse.tracking.motion.export_track`: an animated .glb, or its own files.
        path: in a folder that exists; an older file of that name is replaced. Formats (`EXPORT_FORMATS`):
            .glb: neutral head with all expressions as morph targets, set to the result's weights; textures inside; a
            node for each part, such as "eye_left", in the centre of the eyeball.
            .obj: head with its expression, and beside it NAME.mtl, NAME_texture.png and pictures of the parts.
            .ply: head with its expression, binary, colours of the textures at the vertices; the hair is one closed
            solid; no lashes, brows, corneas.
            .stl: for printing: closed bodies in millimetres, with a base below the collar; binary.
            .3mf: the same with textures, upright on the plate.
            .json: everything that `load_result` needs, texture included; no mesh.
            .npy: the coefficients as the original FaceVerse code stores them (see `faceverse.official`), of a head that
            its default camera looks at; no texture.
        lod: level of detail of the mesh. "coarse": the model's coarse mesh. "standard": the model's own mesh. "dense":
            wrinkles and pores as geometry, up to about 600,000 triangles (.obj, .ply, .stl, .3mf; a .glb shows them by
            its normal map). "coarse" makes no difference in a .json or .npy.
        hair: False writes the head without its hair.
        rig: for a .glb: a skeleton with the joints Neck, Head, Jaw, LeftEye and RightEye moves all meshes, see
            `faceverse.formats.rig`. Nodes of parts have no pivots then.
        morphs: for a .glb: sets of morph targets, one or several joined by "+": "arkit", the model's expressions
            (default); "oculus", 15 visemes; "vrm", the 18 presets of VRM; "talkinghead", five more. If it or `sides` is
            given, NAME_morphs.json beside the file lists the targets and what they are combined from.
        sides: for a .glb: names of targets of one side end in "Left/Right" (default) or "_L/_R".
        light: deprecated, use lod="coarse".
        dense: deprecated, use lod="dense".

    Returns:
        `path` as a Path.

    Raises:
        ParameterError: unknown suffix or level of detail, a folder that is missing or cannot be written, vertices that
            are not finite; "dense" for another suffix or for a head without displacement; a rig for another suffix or
            for a model without the expression `jawOpen`; unknown morphs or sides, or a model without their
            expressions.
    """
    path = Path(path)
    if light is not None or dense is not None:
        lod = _level_of_detail(path, lod, light, dense)
    options = {"rig": rig or None, "morphs": morphs, "sides": sides}
    write_all(head_files(result if hair else without_hair(result), path, lod, **options), ParameterError)
    return path


def without_hair(result: FitResult) -> FitResult:
    """The same head, bald."""
    return result.replace(params=result.params.replace(styles=with_hair_style(result.params.styles, BALD)))


def head_files(result: FitResult, path: Path, lod: str = "standard", **options: Any) -> dict[Path, bytes]:
    """Contents of the files that `export` writes, by their paths; see there.

    Args:
        options: other arguments of `export` that only some formats know; None for those not given.

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
    given = chosen_options(known, path, EXPORT_FORMATS, options)
    head = coarse_head(result) if lod == "coarse" and known.levels_of_detail else result
    return known.content(head, path, lod, **given)


def chosen_options(
    known: ExportFormat, path: Path, formats: Mapping[str, ExportFormat], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that are given, none of them None.

    Args:
        known: the format of the file.
        formats: by suffix; an error names those that have the option.

    Raises:
        ParameterError: the format has no such option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known.options:
            suffixes = " ".join(f".{suffix}" for suffix, entry in formats.items() if name in entry.options)
            raise ParameterError("export.option_suffix", option=name, name=path.name, suffixes=suffixes)
    return given


def _check_dense(result: FitResult, path: Path, known: ExportFormat) -> None:
    if "dense" not in known.levels_of_detail:
        suffixes = " ".join(f".{name}" for name, entry in EXPORT_FORMATS.items() if "dense" in entry.levels_of_detail)
        raise ParameterError("export.dense_suffix", name=path.name, suffixes=suffixes)
    if result.displacement is None:
        raise ParameterError("export.dense_no_displacement", name=path.name)


def companions_of(path: Path) -> list[Path]:
    """Paths of the further files that `export` may write beside a file, in the order of `ExportFormat.companions`."""
    known = EXPORT_FORMATS[path.suffix.lower().removeprefix(".")]
    return [path.with_name(companion_stem(path.stem) + ending) for ending in known.companions]


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


# -- writers: the content of each file by its path, the main file last -------------------------------------------------
def _glb(
    result: FitResult, path: Path, lod: str, rig: bool = False, morphs: str | None = None, sides: str | None = None
) -> dict[Path, bytes]:
    named = {name: value for name, value in (("morphs", morphs), ("sides", sides)) if value is not None}
    targets = morphs_of(result, result.params.expression, **named)
    content = glb_bytes(result, rig=rig, morphs=targets)
    if not named:
        return {path: content}
    return {path.with_name(f"{path.stem}_morphs.json"): targets.names_file(), path: content}


def _npy(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    return {path: npy_bytes(coefficients_from_params(result.model, result.params))}


def _json(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    return {path: to_json(result).encode("utf-8", "replace")}


EXPORT_FORMATS: dict[str, ExportFormat] = {
    "glb": ExportFormat(
        "GLB", "all expressions as morph targets, textures inside", _glb, levels_of_detail=("coarse", "standard"),
        options=("rig", "morphs", "sides"),
    ),  # fmt: skip
    "obj": ExportFormat("OBJ", "mesh with materials and textures beside it", obj_files, companions=OBJ_COMPANIONS),
    "ply": ExportFormat("PLY", "binary mesh with colours at the vertices", ply_files),
    "stl": ExportFormat("STL", "closed bodies in millimetres, for 3D printing", stl_files),
    "3mf": ExportFormat("3MF", "closed bodies with colours in millimetres, for 3D printing", threemf_files),
    "json": ExportFormat("JSON", "the parameters and the texture, to go on with", _json, levels_of_detail=()),
    "npy": ExportFormat(
        "NPY", "coefficients for the original FaceVerse code", _npy, levels_of_detail=(), in_menus=False
    ),
}
"""Formats of heads by suffix: what `export` writes, and what the command line and the web page offer."""
