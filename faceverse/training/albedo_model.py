"""Build the albedo model: paint the skins of a population, compute their mean and principal components.

Albedo is linear RGB throughout, because shading multiplies it linearly. Random variation is drawn on perceptually even
scales (melanin index, logarithms) and then converted to linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_matrix, diags
from scipy.spatial import cKDTree

from ..graphics.mesh import subdivide_flat, subdivide_smooth, triangles_from_quads, unique_edges, vertex_normals
from ..model.face_model import FaceModel, Landmarks
from ..model.file import ModelFile, pack_albedo
from .assembly import REGIONS, Assembly
from .basis import principal_scores
from .deformation import smooth_modes
from .part_colours import fixed_colours
from .shape_population import PopulationSettings
from .skin_fields import Brows, SkinFields, skin_fields
from .skin_population import PaintSurface, SkinPopulation, sample_texture
from .sources import ShapeSource

ALBEDO_MODES = 50
SMOOTH_LENGTH, FINE_FIELDS, FINE_ROUNDS = 0.035, 6, 3
# Weight of a region in the modes, by area: small salient parts weigh more, mostly occluded ones less.
IMPORTANCE = {
    "lips": 3.0,
    "eyelids": 2.0,
    "eyebrows": 3.0,
    "ears": 0.4,
    "scalp": 0.5,
    "neck": 0.16,
    "eyeballs": 0.0,
    "eye_sockets": 0.0,
    "teeth": 0.0,
    "tongue": 0.0,
    "mouth_inside": 0.0,
}
BROWS = (
    ((70, 63, 105, 66, 107), (46, 53, 52, 65, 55)),
    ((300, 293, 334, 296, 336), (276, 283, 282, 295, 285)),
)  # MediaPipe: upper and lower edge from the temple to the nose, right then left


@dataclass(frozen=True)
class SkinTask:
    """Inputs of `with_skin`: textures, painting masks, population parameters, number of people, seed."""

    textures: list
    masks: SkinFields
    settings: PopulationSettings
    count: int
    seed: int


def skin_masks(assembly: Assembly, source: ShapeSource, brows: Brows | None = None) -> SkinFields:
    """Masks for painting skins, on the fine vertices of the source's own head."""

    def mask(name: str) -> np.ndarray:
        return np.clip(sample_texture(source.mask(name), assembly.source_uv)[:, 0], 0, 1)

    vertices = subdivide_smooth(assembly.head.vertices, assembly.topology)
    return skin_fields(vertices, assembly.regions, mask("lips"), mask("eyelids"), mask("ears"), brows)


def brow_lines(model: FaceModel, landmarks: Landmarks) -> Brows:
    """Coordinates along and across the eyebrows, whose upper and lower edges come from the landmarks."""
    points = (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    v = model.mean_vertices
    along, across = np.zeros(len(v)), np.full(len(v), np.inf)
    for upper, lower in BROWS:
        top, bottom = points[list(upper)], points[list(lower)]
        steps = np.linspace(0, 4, 60)
        line = np.stack([np.interp(steps, range(5), (0.55 * top + 0.45 * bottom)[:, c]) for c in range(3)], axis=1)
        half = np.interp(steps, range(5), 0.40 * np.linalg.norm(top - bottom, axis=1)).mean()
        distance = np.linalg.norm(v[:, None] - line[None], axis=2) / max(half, 0.0018)
        nearest = distance.argmin(1)
        sign = np.where(v[:, 1] > line[nearest, 1], 1.0, -1.0)
        closer = distance.min(1) < np.abs(across)
        along[closer] = 1 - steps[nearest[closer]] / 4
        across[closer] = (sign * distance.min(1))[closer]
    return Brows(along, across)


def with_skin(file: ModelFile, assembly: Assembly, task: SkinTask) -> tuple[ModelFile, np.ndarray]:
    """Return the file with mean albedo, albedo modes and eyebrow region; and the people's scores (S, A)."""
    rng = np.random.default_rng((task.seed, 2))
    population = skin_population(assembly, task)
    albedos = np.stack([population.draw(task.settings, i, rng) for i in range(task.count)])
    mean = albedos.mean(0)
    albedos -= mean
    flat = albedos.reshape(task.count, -1)
    bits = file.region_bits & ~np.uint16(1 << REGIONS.index("eyebrows"))
    bits[task.masks.brows.mask > 0.5] |= np.uint16(1 << REGIONS.index("eyebrows"))
    weight = np.sqrt(albedo_weights(assembly, task.masks)).astype(np.float32)
    # The coarse vertices are a representative subset of the fine ones, at a quarter of the cost.
    scores, kept = principal_scores(flat[:, : 3 * len(weight)] * np.repeat(weight, 3), ALBEDO_MODES)
    modes, scale = pack_albedo(((scores.T @ flat) / task.count).reshape(-1, *mean.shape))
    file = replace(
        file,
        mean_albedo=mean.astype(np.float16),
        albedo_modes=modes,
        albedo_scale=scale,
        info={"albedo_variance_kept": round(kept, 5)},
        region_bits=bits,
        attribute_step=np.zeros((0, len(file.identity_modes) + len(modes)), np.float32),
        attribute_estimator=np.zeros((0, len(file.identity_modes) + len(modes) + 1), np.float32),
    )
    return file, scores


def skin_population(assembly: Assembly, task: SkinTask) -> SkinPopulation:
    """The population from which skins are drawn."""
    return SkinPopulation(task.textures, paint_surface(assembly, task.masks))


def albedo_weights(assembly: Assembly, fields: SkinFields) -> np.ndarray:
    """(Vc,) weights of the coarse vertices in the albedo PCA: area times region weight."""
    vertices, quads = assembly.head.vertices, assembly.head.quads
    diagonals = vertices[quads[:, 2:]] - vertices[quads[:, :2]]
    area = 0.5 * np.linalg.norm(np.cross(diagonals[:, 0], diagonals[:, 1]), axis=1)
    weight = np.bincount(quads.reshape(-1), np.repeat(area / 4, 4), len(vertices))
    parts = {**assembly.regions, "eyebrows": fields.brows.mask > 0.5}
    for name, importance in IMPORTANCE.items():
        weight[parts[name][: len(weight)]] *= importance
    return weight / weight.sum()


def paint_surface(assembly: Assembly, fields: SkinFields) -> PaintSurface:
    """The surface that skins are painted on: the source's own head, which is symmetric."""
    head, topology = assembly.head, assembly.topology
    vertices = subdivide_smooth(head.vertices, topology)
    triangles = torch.from_numpy(triangles_from_quads(topology.quads).astype(np.int64))
    _, mirror = cKDTree(vertices).query(vertices * (-1, 1, 1))
    upper, lower = (
        subdivide_flat((head.part == f"teeth_{row}")[:, None].astype(np.float64), topology)[:, 0] > 0.99
        for row in ("upper", "lower")
    )
    return PaintSurface(
        uv=assembly.source_uv,
        mirror=mirror,
        fields=fields,
        normals=vertex_normals(torch.from_numpy(vertices), triangles).numpy(),
        smooth=subdivide_flat(smooth_modes(head, SMOOTH_LENGTH, 1.0, rank=160), topology),
        fine=fine_fields(topology.quads, len(vertices)),
        fixed=fixed_colours(assembly.regions, vertices, upper, lower),
    )


def fine_fields(quads: np.ndarray, vertex_count: int) -> np.ndarray:
    """(V, FINE_FIELDS) unit-variance noise, correlated over a few edges; fixed seed, so that modes can hold it."""
    edges = unique_edges(quads)
    ends = np.concatenate([edges, edges[:, ::-1]])
    links = coo_matrix((np.ones(len(ends)), ends.T), shape=(vertex_count, vertex_count)).tocsr()
    average = diags(1 / np.maximum(np.asarray(links.sum(1))[:, 0], 1)) @ links
    noise = np.random.default_rng(11).standard_normal((vertex_count, FINE_FIELDS))
    for _ in range(FINE_ROUNDS):
        noise = 0.5 * noise + 0.5 * (average @ noise)
    return (noise - noise.mean(0)) / noise.std(0)
