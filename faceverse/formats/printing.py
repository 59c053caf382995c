"""Write a head for 3D printing: closed bodies in millimetres, as STL without and as 3MF with colours.

The skin gets a flat base below collar, hair and beard, and caps behind the eyes; teeth, tongue, eyes and the solids of
hair and beard are closed bodies of their own, which overlap the skin. Printing programs unite them. Lashes, brows and
corneas are left out: pictures of hairs on strips, and a clear layer, cannot be printed.

Reference: 3MF Consortium, "3D Manufacturing Format, Core Specification 1.3" and "Materials and Properties Extension
1.2".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..detail.dense import DenseMesh
from ..result import FitResult
from .solid_hair import beard_texture, solid_beard, solid_colour, solid_hair
from .store import library_name, picture_bytes
from .surfaces import padded_texture, part_mesh, skin_mesh

_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MATERIALS = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_MODEL = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
_TEXTURE = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dtexture"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the same head gives the same bytes

_POINT_M = 2e-5  # a hole of this size is a point
_FRAGMENT = 0.05  # greatest share of the triangles in pieces that are dropped
_LOW = 0.35  # of the height of the skin, below which a hole is the collar
_BASE_M = 0.003  # height of the base below the lowest point of everything else
_SUNK = 0.35  # depth of caps, in mean radii of their holes: behind the front of an eyeball


@dataclass(frozen=True)
class Body:
    """A closed part of a print.

    Attributes:
        name: of the part.
        vertices: (V, 3) float64 metres.
        faces: (F, 3) counter-clockwise from outside.
        uv: (U, 2) origin top left.
        uv_faces: (F, 3) indices into `uv`.
        texture: (H, W, 3) uint8 sRGB.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    texture: np.ndarray


def printed_bodies(result: FitResult, lod: str) -> list[Body]:
    """The closed bodies of a head with its expression."""
    bodies = []
    for slot, part in result.parts.items():
        if part.material.alpha_mode == "OPAQUE":
            texture = padded_texture(part.material)[..., :3]
            bodies.append(_closed(slot, part_mesh(result, slot), texture))
    for name, make, colour in (("hair", solid_hair, solid_colour), ("beard", solid_beard, beard_texture)):
        if (solid := make(result)) is not None:
            bodies.append(_closed(name, solid, colour(result)))
    floor = min((float(body.vertices[:, 1].min()) for body in bodies), default=np.inf)
    return [_closed("head", skin_mesh(result, lod), result.texture, floor), *bodies]


# -- closing ----------------------------------------------------------------------------------------------------------
def _closed(name: str, mesh: DenseMesh, texture: np.ndarray, floor: float | None = None) -> Body:
    """A mesh without holes.

    Args:
        floor: of the skin: lowest point of the other bodies. The hole at the collar is closed by a flat base below it
            and below the collar, and the others, in which the eyes are, by caps that stay behind the eyes. Holes of
            parts get flat caps.
    """
    vertices = mesh.vertices.astype(np.float64)
    kept = _without_fragments(mesh.faces)
    faces, uv_faces = mesh.faces[kept], mesh.uv_faces[kept]
    low = vertices[faces, 1].min() + _LOW * np.ptp(vertices[faces, 1])
    holes = list(_holes(faces, uv_faces))
    for loop, _ in holes:
        if np.ptp(vertices[loop], axis=0).max() < _POINT_M:  # such as the back of an eyeball
            faces = np.where(np.isin(faces, loop), loop[0], faces)
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    faces, uv_faces = faces[whole], uv_faces[whole]
    for loop, loop_uv in holes:
        if np.ptp(vertices[loop], axis=0).max() < _POINT_M:
            continue
        if floor is not None and vertices[loop, 1].max() < low:
            ring = vertices[loop] * (1, 0, 1) + (0, min(vertices[loop, 1].min(), floor) - _BASE_M, 0)
            centre = ring.mean(axis=0)
            around = len(vertices) + np.arange(len(loop))
            sides, sides_uv = _strip(loop, loop_uv, around)
            faces, uv_faces = np.concatenate([faces, sides]), np.concatenate([uv_faces, sides_uv])
            vertices = np.concatenate([vertices, ring])
            loop = around
        else:
            points = vertices[loop]
            centre = points.mean(axis=0)
            inward = np.cross(points - centre, np.roll(points, -1, axis=0) - centre).sum(axis=0)
            inward /= max(float(np.linalg.norm(inward)), 1e-12)
            depth = _SUNK * float(np.linalg.norm(points - centre, axis=1).mean())
            centre = centre + (floor is not None) * depth * inward
        fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(vertices))], axis=1)
        vertices = np.concatenate([vertices, centre[None]])
        faces = np.concatenate([faces, fan])
        # One colour, because the inside has no texture.
        uv_faces = np.concatenate([uv_faces, np.full((len(loop), 3), loop_uv[0, 0])])
    used, faces = np.unique(faces, return_inverse=True)
    return Body(name, vertices[used], faces.reshape(-1, 3), mesh.uv, uv_faces, texture)


def _strip(upper: np.ndarray, sides_uv: np.ndarray, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (2 L, 3) between the edge of a hole (L,) and a ring below it, and their texture coordinates."""
    (upper_uv, after_uv), after, below = sides_uv.T, np.roll(upper, -1), np.roll(lower, -1)
    faces = np.concatenate([np.stack([after, upper, lower], axis=1), np.stack([after, lower, below], axis=1)])
    first, second = [after_uv, upper_uv, upper_uv], [after_uv, upper_uv, after_uv]
    rows = np.concatenate([np.stack(first, axis=1), np.stack(second, axis=1)])
    return faces, rows


def _without_fragments(faces: np.ndarray) -> np.ndarray:
    """(F,) bool: all triangles but those of small open pieces beside one large piece, such as skin behind the lids."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    order = np.lexsort(edges.T)
    same = (edges[order][1:] == edges[order][:-1]).all(axis=1)
    first, second = order[:-1][same] // 3, order[1:][same] // 3
    links = coo_matrix((np.ones(len(first)), (first, second)), (len(faces), len(faces)))
    piece = connected_components(links, directed=False)[1]
    is_open = np.zeros(piece.max() + 1, bool)
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    is_open[np.repeat(piece, 3)[_unpaired(directed, int(faces.max()) + 1)]] = True
    share = np.bincount(piece) / len(faces)
    return ~(is_open & (share < _FRAGMENT) & (share.max() > 1 - _FRAGMENT))[piece]


def _unpaired(directed: np.ndarray, count: int) -> np.ndarray:
    """(E,) bool: directed edges (E, 2) without an opposite one."""
    keys = directed[:, 0].astype(np.int64) * count + directed[:, 1]
    return ~np.isin(keys, directed[:, 1].astype(np.int64) * count + directed[:, 0])


def _holes(faces: np.ndarray, uv_faces: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Vertices (L,) along the edge of each hole, in the direction of its triangles, and the texture coordinates (L, 2)
    of both ends of each side."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edge = _unpaired(directed, int(faces.max()) + 1)
    following: dict[int, list[tuple[int, list[int]]]] = {}
    coordinates = np.stack([uv_faces, np.roll(uv_faces, -1, axis=1)], axis=-1).reshape(-1, 2)[edge]
    for (start, end), row in zip(directed[edge].tolist(), coordinates.tolist(), strict=True):
        following.setdefault(start, []).append((end, row))
    while following:
        first = next(iter(following))
        loop, rows, here = [], [], first
        while True:
            after, row = following[here].pop()
            if not following[here]:
                del following[here]
            loop.append(here)
            rows.append(row)
            here = after
            if here == first:
                break
        yield np.array(loop), np.array(rows)


# -- files ------------------------------------------------------------------------------------------------------------
def stl_files(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    """Contents of a binary .stl in millimetres, +y up."""
    bodies = printed_bodies(result, lod)
    corners = np.concatenate([body.vertices[body.faces] for body in bodies]).astype(np.float32) * 1000
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles["normal"] = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12)
    triangles["corners"] = corners
    header = f"{library_name()}: millimetres, +y up".encode().ljust(80)[:80]
    return {path: header + np.uint32(len(triangles)).astype("<u4").tobytes() + triangles.tobytes()}


def threemf_files(result: FitResult, path: Path, lod: str) -> dict[Path, bytes]:
    """Contents of a .3mf with textures, in millimetres: the head stands on the plate, +z up, and looks along -y."""
    bodies = printed_bodies(result, lod)
    everything = np.concatenate([body.vertices for body in bodies])
    low, high = everything.min(axis=0), everything.max(axis=0)
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    pictures: dict[bytes, str] = {}
    resources, components = [], []
    for number, body in enumerate(bodies):
        encoded = picture_bytes(body.texture)
        name = pictures.setdefault(encoded, f"{body.name}.png")
        placed = (body.vertices - origin)[:, [0, 2, 1]] * (1000, -1000, 1000)
        resources.append(_body_text(body, placed, 3 * number + 1, f"/3D/Textures/{name}"))
        components.append(f'<component objectid="{3 * number + 3}"/>')
    whole = 3 * len(bodies) + 1
    title = path.stem.encode("utf-8", "replace").decode()
    text = (
        f'{_XML}<model unit="millimeter" xml:lang="en-US" xmlns="{_CORE}" '
        f'xmlns:m="{_MATERIALS}">\n<metadata name="Application">{library_name()}</metadata>\n<resources>\n'
        f"{''.join(resources)}<object id='{whole}' type='model' name={quoteattr(title)}><components>"
        f"{''.join(components)}</components></object>\n</resources>\n"
        f"<build><item objectid='{whole}'/></build>\n</model>"
    )
    textures = [f"/3D/Textures/{name}" for name in pictures.values()]
    types = "".join(
        f'<Default Extension="{ending}" ContentType="{kind}"/>'
        for ending, kind in (
            ("rels", "application/vnd.openxmlformats-package.relationships+xml"),
            ("model", "application/vnd.ms-package.3dmanufacturing-3dmodel+xml"),
            ("png", "image/png"),
        )
    )
    files = {
        "[Content_Types].xml": f'{_XML}<Types xmlns="{_TYPES}">{types}</Types>'.encode(),
        "_rels/.rels": _relations([("/3D/3dmodel.model", _MODEL)]),
        "3D/3dmodel.model": text.encode(),
        "3D/_rels/3dmodel.model.rels": _relations([(target, _TEXTURE) for target in textures]),
        **{f"3D/Textures/{name}": content for content, name in pictures.items()},
    }
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _NO_DATE), content, zipfile.ZIP_DEFLATED)
    return {path: package.getvalue()}


def _relations(targets: list[tuple[str, str]]) -> bytes:
    entries = "".join(
        f'<Relationship Target="{target}" Id="rel{number}" Type="{kind}"/>'
        for number, (target, kind) in enumerate(targets)
    )
    return f'{_XML}<Relationships xmlns="{_RELATIONS}">{entries}</Relationships>'.encode()


def _body_text(body: Body, placed: np.ndarray, first: int, picture: str) -> str:
    """The resources of a body, numbered from `first` on: a texture, its coordinates and a mesh with vertices (V, 3)."""
    flipped = body.uv[np.unique(body.uv_faces)] * (1, -1) + (0, 1)
    rows = np.unique(body.uv_faces, return_inverse=True)[1].reshape(-1, 3)
    triangles = np.column_stack([body.faces, rows])
    return (
        f'<m:texture2d id="{first}" path="{picture}" contenttype="image/png" tilestyleu="clamp" tilestylev="clamp"/>\n'
        f'<m:texture2dgroup id="{first + 1}" texid="{first}">\n'
        + _lines('<m:tex2coord u="%.5f" v="%.5f"/>\n', flipped)
        + f'</m:texture2dgroup>\n<object id="{first + 2}" type="model" name="{body.name}" pid="{first + 1}" '
        + 'pindex="0"><mesh><vertices>\n'
        + _lines('<vertex x="%.4f" y="%.4f" z="%.4f"/>\n', placed)
        + "</vertices><triangles>\n"
        + _lines('<triangle v1="%d" v2="%d" v3="%d" p1="%d" p2="%d" p3="%d"/>\n', triangles)
        + "</triangles></mesh></object>\n"
    )


def _lines(template: str, values: np.ndarray) -> str:
    """The template filled with each row of values."""
    return template * len(values) % tuple(values.reshape(-1).tolist())
