"""Train the network that estimates skin displacement from shading (`faceverse.detail.displacement_regressor`).

Detail samples are placed on random heads under random illumination, and their colours are degraded like those of
photographs and fits: blur, noise, blotches, occlusion in the creases, stray hairs, unobserved parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..detail.displacement import TangentFrame, detailed_normals
from ..detail.displacement_regressor import GRID, DisplacementRegressor, summary_features
from ..detail.latents import read_picture
from ..detail.module import DisplacementCode
from ..errors import ParameterError
from ..fitting.skin_observation import clear_skin, gaussian_blur, high_pass, log_shade, shade_sensitivity
from ..graphics.camera import rotation_from_euler_deg
from ..graphics.lighting import default_light
from ..model.face_model import FaceModel
from .detail_data import DetailData

SCENES = 48  # posed and illuminated heads that the samples are rendered on
BATCH = 2
RATE = 2e-3
VECTOR_SAMPLES = 1200  # for the regression of the latent z
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)  # candidates, validated on a fifth of them; relative to the features' mean square
SLOPE_WEIGHT = 0.5


@dataclass(frozen=True)
class _Scene:
    """A posed head under illumination: the detail-independent inputs.

    Attributes:
        frame: tangent frame of its surface in camera space.
        seen: (S, S) visibility weight.
        light: (9, 3) the true illumination.
        plain: (3, S, S) log shading of the plain surface.
        sensitivity: (2, S, S) to slopes, for an illumination estimate with errors.
    """

    frame: TangentFrame
    seen: Tensor
    light: Tensor
    plain: Tensor
    sensitivity: Tensor


def train_displacement_regressor(
    model: FaceModel,
    code: DisplacementCode,
    data: DetailData,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> tuple[DisplacementRegressor, dict]:
    """Train the network; returns it with its metrics on held-out samples.

    Args:
        data: of the detail generator; the maps have its full size.
        minutes, steps: duration, one of them; the learning rate decays to zero over it. With `steps`, the same seed
            gives the same network.
    Raises:
        ParameterError: neither minutes nor steps.
    """
    if not minutes and not steps:
        raise ParameterError("training.encoder_budget")
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    scenes = [_random_scene(model, data.shape.size, random) for _ in range(SCENES)]
    regressor = DisplacementRegressor(data.shape.style_dim).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(regressor.parameters(), lr=RATE, weight_decay=1e-3)
    started, step, mean = time.monotonic(), 0, None
    budget_s = 60 * (minutes or 0)
    while (share := step / steps if steps else (time.monotonic() - started) / budget_s) < 1:
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * share))
        numbers = random.choice(len(data.training), BATCH, replace=False)
        with torch.autocast("cpu", torch.bfloat16):
            loss = _loss(regressor, _simulate(code, scenes, data, numbers, random))[0]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(regressor.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            progress(f"displacement regressor: step {step}, {100 * share:.0f} %, loss {mean:.4f}")
    progress(f"displacement regressor: {step} steps, now the random vectors")
    _fit_latent_regression(regressor, code, scenes, data, np.random.default_rng([seed, 1]))
    figures = _evaluate(regressor, code, scenes, data, np.random.default_rng(1))
    return regressor.eval(), {"steps": step, "seed": seed, **figures}


@dataclass(frozen=True)
class _SimulatedPhotos:
    """A batch of simulated photographs: residual (N, 3, S, S), weight (N, 1, S, S) and sensitivity (N, 2, S, S) as
    network inputs; true bands (N, 3, S, S); z (N, D) and known (N,)."""

    residual: Tensor
    weight: Tensor
    sensitivity: Tensor
    bands: Tensor
    z: Tensor
    known: Tensor


def _simulate(code, scenes, data, numbers, random) -> _SimulatedPhotos:
    batch = data.batch(numbers)
    with torch.autocast("cpu", enabled=False):
        views = [_simulate_photo(code, scenes[random.integers(len(scenes))], image, random) for image in batch.window]
    residual, weight, sensitivity = (torch.stack(parts) for parts in zip(*views))
    return _SimulatedPhotos(residual, weight, sensitivity, batch.window[:, 3:], batch.z, batch.known)


def _loss(regressor: DisplacementRegressor, seen: _SimulatedPhotos) -> tuple[Tensor, Tensor]:
    """Loss, and the estimated bands."""
    found = regressor(seen.residual, seen.weight, seen.sensitivity)[0].float()
    missed = _charbonnier(found - seen.bands) + SLOPE_WEIGHT * sum(
        F.pad(_charbonnier((found - seen.bands).diff(dim=axis)), pad)
        for axis, pad in ((-1, (0, 1)), (-2, (0, 0, 0, 1)))
    )
    return (missed * seen.weight).sum() / seen.weight.sum().clamp_min(1) / 3, found


def _charbonnier(values: Tensor) -> Tensor:
    return (values.square() + 1e-4).sqrt() - 1e-2


@torch.no_grad()
def _fit_latent_regression(
    regressor: DisplacementRegressor, code, scenes, data: DetailData, random: np.random.Generator
) -> None:
    """Fit the ridge regression of the latent z on features of the trained network (`detail.displacement_regressor`)."""
    features, pooled, latents = [], [], []
    for _ in range(min(VECTOR_SAMPLES, 4 * len(data.training))):
        seen = _simulate(code, scenes, data, random.choice(len(data.training), 1), random)
        if not bool(seen.known):
            continue
        with torch.autocast("cpu", torch.bfloat16):
            bands = regressor(seen.residual, seen.weight, seen.sensitivity)[0].float()
        features.append(summary_features(bands, seen.residual, seen.weight)[0])
        pooled.append(F.adaptive_avg_pool2d(seen.weight[0], GRID))
        latents.append(seen.z[0])
    if len(latents) < 2:
        return
    found, weights, known = (torch.stack(parts) for parts in (features, pooled, latents))
    regressor.typical.copy_(found.sum(0) / weights.sum(0).clamp_min(1e-3))
    away = (found - regressor.typical * weights).flatten(1)
    share = len(away) - len(away) // 5

    def missed(ridge: float) -> float:
        guess = away[share:] @ _ridge(away[:share], known[:share], ridge)
        return float((guess - known[share:]).square().mean())

    ridge = min(_RIDGES, key=missed)
    regressor.of_marks.copy_(_ridge(away, known, ridge).T.reshape(regressor.of_marks.shape))


def _ridge(given: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Ridge solution (F, D) from inputs (N, F) and targets (N, D), in the dual form with N x N products."""
    products = given @ given.T
    products.diagonal().add_(ridge * float(products.diagonal().mean()) + 1e-9)
    return given.T @ torch.linalg.solve(products, wanted)


@torch.no_grad()
def _evaluate(regressor, code, scenes, data, random) -> dict:
    """Metrics of the network on held-out samples."""
    sums, vectors = np.zeros(3), []
    scales = torch.tensor(code.band_scales_mm)[:, None, None]
    for number in data.held_out[:32]:
        seen = _simulate(code, scenes, data, np.array([number]), random)
        found, z = regressor(seen.residual, seen.weight, seen.sensitivity)
        a, b = ((bands[0] * scales).sum(0)[seen.weight[0, 0] > 0.5] for bands in (found, seen.bands))
        sums += [float((a * b).sum()), float((a * a).sum()), float((b * b).sum())]
        vectors.append(torch.stack([z[0], seen.z[0]]))
    ours, true = torch.stack(vectors, 1)
    factors = slice(0, max(1, len(code.factors)))
    explained = 1 - (ours - true).square().mean(0) / true.square().mean(0).clamp_min(1e-9)
    return {
        "displacement_correlation": round(float(sums[0] / max(np.sqrt(sums[1] * sums[2]), 1e-9)), 3),
        "vector_explained": round(float(explained[factors].mean()), 3),
    }


# -- photographs ------------------------------------------------------------------------------------------------------
def _random_scene(model: FaceModel, size: int, random: np.random.Generator) -> _Scene:
    params = model.random(int(random.integers(2**31)), similar_tone=False, hair=False)
    identity = torch.from_numpy(params.identity)[None]
    turn = rotation_from_euler_deg(*(random.normal(0, 1, 3) * (22, 9, 6)).tolist())
    with torch.no_grad():
        vertices = (model.vertices(identity)[0] @ turn.T).numpy()
    frame = TangentFrame.of(model, vertices, size)
    facing = ((frame.normal[2] - 0.22) / 0.38).clamp(0, 1)
    light = _random_light(random)
    found = light * float(random.uniform(0.85, 1.15))
    found[1:] += 0.06 * light[0].mean() * torch.from_numpy(random.normal(0, 1, (8, 1)).astype(np.float32))
    seen = facing * torch.from_numpy(clear_skin(model, size))
    return _Scene(frame, seen, light, log_shade(frame.normal, light), shade_sensitivity(frame, found))


def _random_light(random: np.random.Generator) -> Tensor:
    """Random illumination (9, 3) typical of photographs: bright, from above or the side."""
    light = default_light() * random.uniform(0.6, 1.2)
    drawn = random.normal([[0.24], [0.0], [0.0]], [[0.24], [0.24], [0.22]])  # up, forward, to the right
    direction = torch.from_numpy(drawn.astype(np.float32))
    light[1:4] += light[0].mean() * direction
    light[4:] += light[0].mean() * torch.from_numpy(random.normal(0, 0.06, (5, 1)).astype(np.float32))
    return light * torch.from_numpy(random.normal(1, 0.06, (1, 3)).astype(np.float32))


@torch.no_grad()
def _simulate_photo(
    code: DisplacementCode, scene: _Scene, picture: Tensor, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual (3, S, S), weight (1, S, S) and sensitivity (2, S, S) of a detail image (6, S, S) in a scene."""
    size = picture.shape[-1]
    albedo_log, displacement = (values[0] for values in read_picture(code, picture[None]))
    normals = detailed_normals(scene.frame, displacement)[0]
    change = albedo_log * float(random.uniform(0.5, 1.5)) + log_shade(normals, scene.light) - scene.plain
    hollow = (displacement - gaussian_blur(displacement[None], 4.0 * size / 512)[0]).clamp(max=0)
    # Creases are darkened by occlusion; blotches and stray hairs are colour without displacement.
    change = change + hollow * float(random.uniform(0, 1.5)) + _blotches(size, random) * float(random.uniform(0, 0.05))
    if random.random() < 0.3:
        change = change + _stray_hairs(size, random)
    change = gaussian_blur(change, float(np.exp(random.uniform(np.log(0.3), np.log(2.2)))) * size / 512)
    grain = torch.randn(3, size, size, generator=torch.Generator().manual_seed(int(random.integers(2**62))))
    change = change + gaussian_blur(grain, float(random.uniform(0, 1))) * float(random.uniform(0, 0.06))
    weight = scene.seen * _visibility(size, random)
    return high_pass(change, weight), weight[None], scene.sensitivity


def _blotches(size: int, random: np.random.Generator) -> Tensor:
    """(3, S, S) of about unit variance: colour variation without displacement, 2 to 10 texels of 512 wide."""
    total = torch.zeros(3, size, size)
    for share in (128, 64):
        coarse = torch.from_numpy(random.normal(0, 1, (1, 3, share, share)).astype(np.float32))
        total = total + F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0]
    return total


def _visibility(size: int, random: np.random.Generator) -> Tensor:
    """(S, S) 0..1 visibility mask with random occlusions; 1 everywhere in half of the cases."""
    if random.random() < 0.5:
        return torch.ones(size, size)
    coarse = torch.from_numpy(random.normal(0.8, 1, (1, 1, 5, 5)).astype(np.float32))
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0, 0].mul(2).clamp(0, 1)


def _stray_hairs(size: int, random: np.random.Generator) -> Tensor:
    """(1, S, S) thin dark lines: stray hairs, which are no creases."""
    drawn = np.zeros((size, size), np.float32)
    for _ in range(int(random.integers(2, 12))):
        start, angle, length = random.uniform(0.2, 0.8, 2) * size, random.uniform(0, np.pi), random.uniform(0.05, 0.3)
        along = np.linspace(0, length * size, int(2 * length * size))
        bend = random.normal(0, 0.15) * along**2 / size
        rows = start[0] + along * np.sin(angle) + bend * np.cos(angle)
        columns = start[1] + along * np.cos(angle) - bend * np.sin(angle)
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        drawn[rows[inside].astype(int), columns[inside].astype(int)] = -random.uniform(0.1, 0.6)
    return torch.from_numpy(drawn)[None]
