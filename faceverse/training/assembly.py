"""Build the topology, UV layout, named regions and origin of the base model from the mean head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..graphics.mesh import Subdivision, subdivide_flat, subdivide_smooth, subdivision, unique_edges
from .skin_population import sample_texture
from .sources import HeadMesh, ShapeSource
from .unwrap import unwrap

EYE_SURROUND_M = 0.030
REGIONS = (
    "face", "lips", "eyelids", "eyeballs", "scalp", "ears", "neck", "teeth", "tongue", "mouth_inside",
    "eyebrows", "eye_sockets", "eyeball_left", "eyeball_right",
)  # fmt: skip
# Weight of a region in the shape basis: what photographs show weighs most.
REGION_WEIGHT = {
    "scalp": 0.05,
    "neck": 0.03,
    "ears": 0.2,
    "mouth_inside": 0.05,
    "eye_sockets": 0.05,
    "teeth": 0.1,
    "tongue": 0.02,
}


@dataclass(frozen=True)
class Assembly:
    """The fixed parts of the base model: topology, UV layout, regions and origin."""

    head: HeadMesh
    topology: Subdivision
    uv: np.ndarray
    uv_quads: np.ndarray
    source_uv: np.ndarray  # (V, 2) of the fine vertices in the sources' texture space
    regions: dict[str, np.ndarray]  # name: (V,) bool
    origin: np.ndarray  # (3,) metres, subtracted from all positions


def assemble(source: ShapeSource, mean: np.ndarray) -> Assembly:
    """Compute topology, UV layout, regions and origin for the mean head (Vc, 3) in source coordinates."""
    head = source.head
    topology = subdivision(head.quads, len(head.vertices))
    layout = unwrap(head.vertices, head.quads, head.part)
    uv_topology = subdivision(head.source_uv_quads, len(head.source_uv))
    fine_uv = subdivide_flat(head.source_uv, uv_topology)
    source_uv = np.zeros((topology.quads.max() + 1, 2))
    source_uv[topology.quads.reshape(-1)] = fine_uv[uv_topology.quads.reshape(-1)]
    centres = [mean[head.part == f"eyeball_{side}"].mean(0) for side in ("left", "right")]
    origin = np.mean(centres, axis=0) - (0.0, 0.0, 0.06)
    origin[0] = 0.0
    cavity = np.ones(len(head.vertices), bool)
    cavity[np.delete(head.quads, layout.islands["mouth"], axis=0)] = False  # the rim belongs to the lips
    regions = _regions(source, topology, source_uv, mean, cavity)
    return Assembly(head, topology, layout.uv, layout.uv_quads, source_uv, regions, origin)


def _regions(source: ShapeSource, topology: Subdivision, source_uv: np.ndarray, mean: np.ndarray, cavity: np.ndarray):
    """Fine vertices (V,) bool by region name; each skin vertex lies in at least one region."""
    head = source.head
    fine = subdivide_smooth(mean.astype(np.float64), topology)

    def spread(flags: np.ndarray) -> np.ndarray:
        return subdivide_flat(flags[:, None].astype(np.float64), topology)[:, 0] > 0.99

    def mask(name: str) -> np.ndarray:
        return sample_texture(source.mask(name), source_uv)[:, 0]

    part = {name: spread(head.part == name) for name in np.unique(head.part)}
    skin = part["skin"]
    regions = {"eyeball_left": part["eyeball_left"], "eyeball_right": part["eyeball_right"], "tongue": part["tongue"]}
    regions["eyeballs"] = part["eyeball_left"] | part["eyeball_right"]
    regions["teeth"] = part["teeth_upper"] | part["teeth_lower"]
    regions["mouth_inside"] = spread(cavity)
    sockets = np.zeros(len(fine), bool)
    for side in ("left", "right"):
        ball = fine[part[f"eyeball_{side}"]]
        centre, radius = ball.mean(0), np.linalg.norm(ball - ball.mean(0), axis=1).max()
        near = np.linalg.norm(fine - centre, axis=1) < 1.15 * radius
        sockets |= skin & near & (fine[:, 2] < centre[2] + 0.3 * radius)
    regions["eye_sockets"] = sockets
    outer = skin & ~regions["mouth_inside"] & ~sockets
    regions["lips"] = outer & (mask("lips") > 0.5)
    regions["eyelids"] = outer & (mask("eyelids") > 0.4)
    regions["ears"] = outer & (mask("ears") > 0.5)
    regions["face"] = outer & ~regions["ears"] & (mask("face") > 0.5)
    chin = fine[regions["face"], 1].min()
    rest = outer & ~regions["face"] & ~regions["ears"]
    regions["neck"] = rest & (fine[:, 1] < chin + 0.45 * (fine[regions["ears"], 1].min() - chin))
    regions["scalp"] = rest & ~regions["neck"]
    _clear_scalp(regions, topology, fine)
    regions["eyebrows"] = np.zeros(len(fine), bool)
    return regions


def _clear_scalp(regions: dict[str, np.ndarray], topology: Subdivision, fine: np.ndarray) -> None:
    """Assign the unmasked skin around eyes and lips to the face; keep as scalp only the component of the crown."""
    scalp = regions["scalp"]
    edges = unique_edges(topology.quads)
    edges = edges[scalp[edges].all(axis=1)]
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(fine), len(fine)))
    label = connected_components(links, directed=False)[1]
    crown = np.flatnonzero(scalp)[fine[scalp, 1].argmax()]
    stray = scalp & (label != label[crown])
    scalp &= ~stray
    regions["face"] |= stray
    eyes = [fine[regions[f"eyeball_{side}"]].mean(0) for side in ("left", "right")]
    near_eye = np.min([np.linalg.norm(fine - eye, axis=1) for eye in eyes], axis=0) < EYE_SURROUND_M
    regions["eyelids"] |= stray & near_eye
    regions["lips"] |= stray & ~near_eye & (fine[:, 1] < fine[regions["lips"], 1].max())


def vertex_weights(assembly: Assembly) -> np.ndarray:
    """(Vc,) weights of the coarse vertices in the shape basis: the root of the area times the region weight.

    The mesh is finer at the facial features; weighting by area alone would spend modes on cheeks and forehead.
    """
    vertices, quads = assembly.head.vertices, assembly.head.quads
    a, b = vertices[quads[:, 2]] - vertices[quads[:, 0]], vertices[quads[:, 3]] - vertices[quads[:, 1]]
    area = 0.5 * np.linalg.norm(np.cross(a, b), axis=1)
    weight = np.sqrt(np.bincount(quads.reshape(-1), np.repeat(area / 4, 4), len(vertices)))
    for name, importance in REGION_WEIGHT.items():
        weight[assembly.regions[name][: len(vertices)]] *= importance
    return weight / weight.sum()
