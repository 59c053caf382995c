"""Extract skin detail from real scans: the residual between a scan and its registered head, as UV maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..detail.displacement import condition_maps
from ..detail.latents import DetailMaps, age_and_masculinity, picture_of_maps
from ..graphics.mesh import vertex_normals
from ..model.face_model import FaceModel, FaceParams
from ..model.texture_maps import bake_planes
from ..weights import find_weights
from .collection import ALL, register_all
from .creases import AGE_MEAN, AGE_SPREAD, Z_DIM
from .detail_data import DetailSample
from .registration import HEAD_RADIUS_M, Registration, fill_albedo
from .scan_files import NEUTRAL, Scan, ScanError, ScanFile, find_scans, load_frames, transformed
from .surface_fit import closest_points
from .synthetic_skin import (
    ALBEDO_LOG_RANGE,
    CODE,
    CONDITION_SIZE,
    DISPLACEMENT_RANGE_MM,
    DetailSurface,
    without_coarse,
)

REACH_M = 0.005  # search range along the normal
MISS_M = 0.0004  # largest distance of the result from the scan; more means that the ray missed its border
ROUNDS = 3
COLOUR_COARSEST_MM = 25.0  # wider colour variation is attributed to illumination
DARKEST = 0.01


@dataclass(frozen=True)
class ScanDetail:
    """Detail of a registered scan; `params` holds identity, expression and albedo of the closest model head."""

    name: str
    params: FaceParams
    maps: DetailMaps


def scans_from_registered(
    folder: str | Path,
    work: str | Path,
    model: FaceModel,
    surface: DetailSurface,
    *,
    weights: str = "open",
    neutral: str = NEUTRAL,
    jobs: int = 1,
    report: Callable[[str], None] = print,
) -> Iterator[ScanDetail]:
    """Extract the detail of all neutral scans of a folder; scans without a cached registration are registered.

    Args:
        folder: see `find_scans`.
        work: cache folder of the registered heads, as written by `train base --scans` beside its output.
        surface: of the same model.
        weights: the model's file or name, see `faceverse.load_model`.
        neutral: the neutral expression, for scans named identity_expression; "all": every scan is neutral.
        report: receives a line for each rejected scan.
    Raises:
        ScanError: no neutral scans in the folder.
    """
    chosen = [scan for scan in find_scans(folder) if neutral == ALL or scan.expression in (None, neutral)]
    if not chosen:
        raise ScanError("scan.none_neutral", folder=folder, neutral=repr(neutral))
    for outcome in register_all(chosen, Path(work), find_weights(weights), jobs):
        if outcome.registration is None:
            report(f"{outcome.scan.name} is set aside: {outcome.reason}")
            continue
        try:
            yield _of_file(model, surface, outcome.scan, outcome.registration)
        except ScanError as error:
            report(f"{outcome.scan.name} is set aside: {error}")


def _of_file(model: FaceModel, surface: DetailSurface, file: ScanFile, found: Registration) -> ScanDetail:
    frames = load_frames(file.path)
    if len(frames) > 1:
        raise ScanError("scan.frames_too_coarse")
    maps, params = detail_of_scan(model, surface, frames[0], found)
    return ScanDetail(file.name, params, maps)


def detail_of_scan(
    model: FaceModel, surface: DetailSurface, scan: Scan, found: Registration
) -> tuple[DetailMaps, FaceParams]:
    """Extract the detail of one scan, and the parameters of the closest model head.

    Displacement is measured from the registered head along its normals, albedo relative to the closest model albedo;
    coarser variation is removed from both. `maps.seen` marks where the scan has data; elsewhere both are 0.

    Args:
        scan: a mesh, as it was registered.
        found: its registration.
    Raises:
        ScanError: the scan is a point cloud.
    """
    if scan.faces is None:
        raise ScanError("scan.cloud_no_surface")
    head = transformed(scan, found.matrix, found.translation)
    assert head.faces is not None
    faces = head.faces[(np.linalg.norm(head.vertices, axis=1) < HEAD_RADIUS_M)[head.faces].all(1)]
    size = surface.size
    vertices = torch.from_numpy(np.asarray(found.vertices, np.float32))
    normals = vertex_normals(vertices, torch.from_numpy(model.faces)).numpy()
    baked = bake_planes(model, np.concatenate([vertices.numpy(), normals], 1), size).reshape(6, -1).T.astype(np.float64)
    at = np.flatnonzero(surface.skin.inside.reshape(-1) > 0)
    start, normal = baked[at, :3], baked[at, 3:]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    height, contact, good = _along_normals(start, normal, head.vertices, faces)
    displacement, seen = np.zeros(size * size, np.float32), np.zeros(size * size, bool)
    displacement[at[good]], seen[at[good]] = 1000 * height[good], True
    albedo = np.zeros(model.albedo_modes.shape[0], np.float32)
    albedo_log = np.zeros((size * size, 3), np.float32)
    if head.has_color and found.albedo is not None:
        base, albedo = fill_albedo(model, found.albedo)
        own = model.albedo(torch.from_numpy(albedo)[None])[0].numpy()
        texels = bake_planes(model, own.clip(0, 1), size).reshape(3, -1).T
        colour = head.color_at(faces[contact.triangle[good]], contact.barycentric[good])
        albedo_log[at[good]] = np.log(np.maximum(colour, DARKEST) / np.maximum(texels[at[good]], DARKEST))
    weight = seen.reshape(size, size) * surface.skin.inside
    maps = _cleaned(displacement.reshape(size, size), albedo_log.reshape(size, size, 3), seen, weight)
    return maps, model.neutral().replace(
        identity=found.params.identity, expression=found.params.expression, albedo=albedo
    )


def _along_normals(start: np.ndarray, normal: np.ndarray, vertices: np.ndarray, faces: np.ndarray):
    """Intersect rays along normals (P, 3) with a mesh: signed distance in metres, contact, and validity (P,)."""
    height = np.zeros(len(start))
    for _ in range(ROUNDS):
        place = start + height[:, None] * normal
        contact = closest_points(place, vertices, faces)
        closest = (vertices[faces[contact.triangle]] * contact.barycentric[..., None]).sum(1)
        height += ((closest - place) * normal).sum(1)
        height = height.clip(-2 * REACH_M, 2 * REACH_M)
    place = start + height[:, None] * normal
    good = (np.linalg.norm(closest - place, axis=1) < MISS_M) & (np.abs(height) < REACH_M)
    return height, contact, good & ((contact.normals * normal).sum(1) > 0.5)


def _cleaned(displacement: np.ndarray, albedo_log: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> DetailMaps:
    seen = seen.reshape(displacement.shape)
    fine = without_coarse(displacement, weight) * weight
    colours = np.stack([without_coarse(a, weight, COLOUR_COARSEST_MM) * weight for a in np.moveaxis(albedo_log, 2, 0)])
    return DetailMaps(
        fine.clip(*DISPLACEMENT_RANGE_MM).astype(np.float32),
        np.ascontiguousarray(np.moveaxis(colours.clip(*ALBEDO_LOG_RANGE), 0, 2)).astype(np.float32),
        seen,
    )


def scan_sample(model: FaceModel, found: ScanDetail) -> DetailSample:
    """Training sample from a scan; only age and masculinity of its latent are known."""
    years, male = age_and_masculinity(model, found.params)
    z = np.zeros(Z_DIM, np.float32)
    z[0], z[1] = (years - AGE_MEAN) / AGE_SPREAD, male
    condition = condition_maps(model, found.params, CONDITION_SIZE)
    return DetailSample(condition, picture_of_maps(CODE, found.maps), z, found.maps.seen, known=False)
