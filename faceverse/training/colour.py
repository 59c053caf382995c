"""Albedo of the base model: where what is painted, the mean and the modes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..mesh import subdivide_flat
from ..model import FaceModel, Landmarks
from ..model_file import ModelFile, pack_albedo
from ..weights import model_data
from .assembly import REGIONS, Assembly
from .basis import principal_scores
from .heads import Settings, smooth_modes
from .skin import PART_COLOURS, SkinMasks, SkinPopulation, eyeball_colours, sample_texture
from .sources import ShapeSource

ALBEDO_MODES = 30
BROWS = (
    ((70, 63, 105, 66, 107), (46, 53, 52, 65, 55)),
    ((300, 293, 334, 296, 336), (276, 283, 282, 295, 285)),
)  # MediaPipe: upper and lower edge, right then left


@dataclass(frozen=True)
class SkinTask:
    """Textures, where to paint, whose settings, how many people, seed."""

    textures: list
    masks: SkinMasks
    settings: Settings
    count: int
    seed: int


def skin_masks(assembly: Assembly, source: ShapeSource, brows: np.ndarray) -> SkinMasks:
    """Soft masks (V,) on the fine vertices."""

    def mask(name: str) -> np.ndarray:
        return np.clip(sample_texture(source.mask(name), assembly.source_uv)[:, 0], 0, 1)

    r = assembly.regions
    outer = ~(r["eyeballs"] | r["teeth"] | r["tongue"] | r["mouth_inside"])
    return SkinMasks(
        skin=outer.astype(np.float64),
        face=mask("face") * outer,
        scalp=r["scalp"] * (1 - mask("face")) * 0.7,
        lips=mask("lips") * outer,
        lids=mask("eyelids") * outer,
        brows=brows * outer,
    )


def brow_mask(model: FaceModel, landmarks: Landmarks) -> np.ndarray:
    """(V,) 0..1: hairs between the upper and the lower edge of the brows, thinner towards the temple."""
    points = (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    mask = np.zeros(len(model.mean_vertices))
    for upper, lower in BROWS:
        top, bottom = points[list(upper)], points[list(lower)]
        steps = np.linspace(0, 4, 60)
        line = np.stack([np.interp(steps, range(5), (0.55 * top + 0.45 * bottom)[:, c]) for c in range(3)], axis=1)
        half = np.interp(steps, range(5), 0.40 * np.linalg.norm(top - bottom, axis=1)) * np.linspace(0.55, 1.0, 60)
        distance = np.linalg.norm(model.mean_vertices[:, None] - line[None], axis=2)
        near = distance / np.maximum(half, 0.0018)[None]
        mask = np.maximum(mask, np.clip(1.6 - near.min(axis=1), 0, 1))
    return mask


def with_skin(file: ModelFile, assembly: Assembly, task: SkinTask) -> tuple[ModelFile, np.ndarray]:
    """The file with mean albedo, albedo modes and the region of the brows; and the people's scores (S, A)."""
    rng = np.random.default_rng((task.seed, 2))
    fixed = fixed_colours(assembly, model_data(file).mean_vertices)
    smooth = subdivide_flat(smooth_modes(assembly.head, 0.035, 1.0), assembly.topology)
    population = SkinPopulation(task.textures, assembly.source_uv, task.masks, smooth, fixed)
    albedos = np.stack([population.draw(task.settings, i, rng) for i in range(task.count)])
    mean = albedos.mean(0)
    albedos -= mean
    flat = albedos.reshape(task.count, -1)
    area = np.where(assembly.regions["face"] | assembly.regions["ears"], 1.0, 0.35).astype(np.float32)
    scores, kept = principal_scores(flat * np.repeat(area, 3), ALBEDO_MODES)
    modes, scale = pack_albedo(((scores.T @ flat) / task.count).reshape(-1, *mean.shape))
    bits = file.region_bits & ~np.uint16(1 << REGIONS.index("eyebrows"))
    bits[task.masks.brows > 0.5] |= np.uint16(1 << REGIONS.index("eyebrows"))
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


def fixed_colours(assembly: Assembly, vertices: np.ndarray) -> np.ndarray:
    """Linear colours (V, 3) of eyes, teeth, tongue and the mouth's inside; grey on skin, where it is not used."""
    colours = np.full((len(vertices), 3), 0.5)
    for name in ("teeth", "tongue", "mouth_inside"):
        colours[assembly.regions[name]] = PART_COLOURS[name]
    for side in ("left", "right"):
        ball = assembly.regions[f"eyeball_{side}"]
        centre = vertices[ball].mean(0)
        colours[ball] = eyeball_colours(vertices[ball], centre, np.array([0.0, 0.0, 1.0]))
    return colours
