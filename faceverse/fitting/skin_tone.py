"""Tone of the skin and light of a fitted head: which part of the observed colour is skin, which is light.

A photograph shows the product of both, so their common factor is a matter of priors: what skins exist (the model's
albedo modes), and how bright and how coloured the light in photographs is. The photometric stages need that factor only
roughly; here it is estimated for the median colour of the face, in logarithms, where both priors are normal
distributions. The light is then solved again for that tone, with one hue unless the photograph shows several clearly.

Reference: Feng, Bolkart, Tesch, Black and Abrevaya 2022, "Towards Racially Unbiased Skin Tone Estimation via Scene
Disambiguation" (the ambiguity).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..graphics.lighting import LUMINANCE, linear_from_srgb, sh_basis
from .losses import cauchy_weight, weighted_median
from .photometric import PhotometricTarget, solve_albedo
from .state import FaceState
from .surface import PhotometricTerm, SurfaceSamples

# Prior on the log of the light (linear RGB) that falls on the front of a face. Cameras expose for the scene, balance
# white roughly, and show skin warmer than it is.
LIGHT_MEAN, LIGHT_SIGMA, LIGHT_CHROMA_SIGMA = (-0.15, -0.24, -0.25), 0.38, 0.30
EXPOSED = (0.02, 0.95)  # sRGB; what is darker or brighter tells no colour
MIN_SAMPLES = 100
RIDGE = 0.004  # of the light, relative to the rows of its equations: harmonics beside the constant one
CHROMA_RIDGE = 0.05  # the same for differences in hue between directions
_NOISE = 0.06  # linear; residuals beyond are outliers
_ROUNDS = 3


@dataclass(frozen=True)
class _Skin:
    """What one photograph shows at K samples of plain skin: linear colour (K, 3), basis of the light (K, 9), the fitted
    shade's luminance relative to that of the front (K,), and the rows of the samples in the surface."""

    colour: np.ndarray
    basis: np.ndarray
    shape: np.ndarray
    rows: np.ndarray


def calibrate_tone(
    surface: SurfaceSamples, states: list[FaceState], targets: list[PhotometricTarget]
) -> list[FaceState]:
    """Estimate the tone of one person's skin again, and the light of each photograph for it.

    Args:
        surface: of the model; its albedo modes are the prior of the tone.
        states, targets: one for each photograph; identity and albedo are shared.
    Returns:
        States with another light and albedo; unchanged where no photograph shows enough skin.
    """
    seen = [_observed_skin(surface, *pair) for pair in zip(states, targets, strict=True)]
    shown = [skin for skin in seen if skin is not None]
    if not shown:
        return states
    tone = _posterior_tone(surface, [np.median(np.log(skin.colour / skin.shape[:, None]), axis=0) for skin in shown])
    # The mean skin's pattern: that of the photometric stages may have taken hair or shadows for skin.
    pattern = surface.albedo_mean / surface.albedo_mean[surface.weights > 0.5].mean(0)
    lights = [None if skin is None else _light(skin, pattern[skin.rows] * np.exp(tone)) for skin in seen]
    coefficients = _albedo_for(surface, seen, lights)
    return [
        state if light is None else replace(state, light=light.harmonics, albedo=coefficients)
        for state, light in zip(states, lights, strict=True)
    ]


def _observed_skin(surface: SurfaceSamples, state: FaceState, target: PhotometricTarget) -> _Skin | None:
    residuals = PhotometricTerm(surface, target.crop, target.inside, target.camera, 1.0).evaluate(state)
    srgb = residuals.observed[:, :3]
    exposed = (srgb.max(1) > EXPOSED[0]) & (srgb.max(1) < EXPOSED[1])
    front = float(sh_basis(torch.tensor([0.0, 0.0, 1.0])).numpy() @ state.light @ LUMINANCE)
    shape = residuals.shade @ np.array(LUMINANCE) / max(front, 0.05)
    rows = np.flatnonzero((surface.weights > 0.5) & (residuals.weight > 0) & exposed & (shape > 0.1))
    if len(rows) < MIN_SAMPLES:
        return None
    colour = linear_from_srgb(torch.from_numpy(srgb[rows])).numpy().astype(np.float64)
    return _Skin(np.maximum(colour, 1e-3), residuals.basis[rows].astype(np.float64), shape[rows], rows)


def _posterior_tone(surface: SurfaceSamples, observed: list[np.ndarray]) -> np.ndarray:
    """Most probable log tone (3,) of a skin that photographs show as log colours (3,) under unknown light."""
    skin = surface.weights > 0.5
    mean, modes = surface.albedo_mean[skin].mean(0), surface.albedo[skin].mean(0)
    log_modes = modes / mean[:, None]
    population = log_modes @ log_modes.T + 1e-4 * np.eye(3)
    even = np.full((3, 3), 1 / 3)
    light = 3 * LIGHT_SIGMA**2 * even + LIGHT_CHROMA_SIGMA**2 * (np.eye(3) - even)
    light = light / len(observed)  # the mean of several independent photographs
    surplus = np.mean(observed, axis=0) - LIGHT_MEAN - np.log(mean)
    return np.log(mean) + population @ np.linalg.solve(population + light, surplus)


@dataclass(frozen=True)
class _Light:
    """Light (9, 3) of a photograph, and the weights (K,) of its samples: low for outliers."""

    harmonics: np.ndarray
    weight: np.ndarray


def _light(skin: _Skin, albedo: np.ndarray) -> _Light:
    """Light of a photograph for a skin of an albedo (K, 3)."""
    hue = np.exp(np.median(np.log(skin.colour / skin.shape[:, None] / albedo), axis=0))
    weight = np.ones(len(albedo))
    for _ in range(_ROUNDS):
        rows, values = skin.basis[None] * (albedo * hue).T[..., None], skin.colour.T
        even = _ridge(rows.reshape(-1, 9), values.reshape(-1), np.tile(weight, 3), RIDGE)
        light = even[:, None] * hue
        left = values - albedo.T * (skin.basis @ light).T
        light += np.stack(
            [_ridge(skin.basis * albedo[:, c, None], left[c], weight, CHROMA_RIDGE) for c in range(3)], axis=-1
        )
        error = np.abs(albedo * (skin.basis @ light) - skin.colour).max(1)
        weight = cauchy_weight(error, _NOISE)
    # The bright parts of the face decide least squares; the tone is that of the median.
    missing = np.log(skin.colour / albedo / np.maximum(skin.basis @ light, 0.05))
    return _Light(light * np.exp([weighted_median(missing[:, c], weight) for c in range(3)]), weight)


def _ridge(rows: np.ndarray, values: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression (9,) of rows (K, 9) @ light = values (K,); the constant harmonic is hardly regularised."""
    damping = ridge * len(rows) * np.array([1e-3, 1, 1, 1, 4, 4, 4, 4, 4]) * (rows[:, 0] ** 2).mean()
    weighted = (rows * weight[:, None]).T
    return np.linalg.solve(weighted @ rows + np.diag(damping), weighted @ values)


def _albedo_for(surface: SurfaceSamples, seen: list[_Skin | None], lights: list[_Light | None]) -> np.ndarray:
    """Coefficients (A,) of the albedo that the photographs show in their lights."""
    modes, targets, weights = [], [], []
    for skin, light in zip(seen, lights, strict=True):
        if skin is None or light is None:
            continue
        shade = np.maximum(skin.basis @ light.harmonics, 0.05)
        modes.append(surface.albedo[skin.rows])
        targets.append(skin.colour / shade - surface.albedo_mean[skin.rows])
        weights.append(shade * np.sqrt(light.weight)[:, None])
    return solve_albedo(np.concatenate(modes), np.concatenate(targets), np.concatenate(weights))
