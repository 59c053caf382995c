"""Measure the landmark detector's errors as a function of yaw: bias, correlated error modes and residual noise.

The errors are largest in profile views, where the far side is a guess, and largely systematic. The bias is subtracted
from detections; the strongest correlated error modes are marginalised in a fit.
"""

from __future__ import annotations

import numpy as np
import torch

from ..fitting.parameter_regressor import ParameterRegressor, aligned_inputs
from ..model.face_model import FaceModel
from .portraits import PortraitSamples

TURNS_DEG = (0.0, 5.0, 15.0, 26.0, 38.0, 50.0)  # lower bound of each yaw bin
ERROR_MODES = 48  # number of error modes kept
WORST = 0.05  # share of the detections in each bin that are excluded as outliers
LEAST_SIGMA_M = 1e-4
FEWEST = 40  # detections in a bin; with fewer, those of all bins are used


def detector_errors(model: FaceModel, samples: PortraitSamples, network: ParameterRegressor) -> dict[str, np.ndarray]:
    """Measure the fields `turned_deg`, `bias`, `error_modes` and `sigma` of a network on samples.

    Args:
        network: provides the landmark template and the mirror permutation.
    """
    yaw_deg, errors = np.zeros(len(samples)), errors_px(model, samples)
    for number in range(len(samples)):
        aligned = aligned_inputs(samples.face(number), tuple(samples.photo_size[number]), network.template)
        yaw_deg[number] = aligned.yaw_deg
        errors[number] *= float(network.unit_m[0]) / aligned.scale
    right = yaw_deg < 0  # mirrored, so that all faces are turned to the same side
    errors[right] = errors[right][:, network.mirrored_points] * np.array([-1, 1], np.float32)
    turn = np.abs(yaw_deg)
    bins = [(turn >= least) & (turn < most) for least, most in zip(TURNS_DEG, (*TURNS_DEG[1:], np.inf), strict=True)]
    parts = [_bin_statistics(errors[rows if rows.sum() >= FEWEST else slice(None)]) for rows in bins]
    means = [turn[rows].mean() if rows.any() else least for rows, least in zip(bins, TURNS_DEG, strict=True)]
    bias, error_modes, sigma = (np.stack(values).astype(np.float32) for values in zip(*parts, strict=True))
    return {"turned_deg": np.array(means, np.float32), "bias": bias, "error_modes": error_modes, "sigma": sigma}


def errors_px(model: FaceModel, samples: PortraitSamples) -> np.ndarray:
    """(N, 478, 2) float32 pixels, y up: detected minus true landmark positions in the photographs."""
    marks = model.landmarks_478
    assert marks is not None
    bases = model.landmark_bases(marks)
    with torch.no_grad():
        points = bases.points(torch.from_numpy(samples.identity), torch.from_numpy(samples.expression)).numpy()
    posed = np.einsum("nlk,njk->nlj", points, samples.rotation) + samples.translation[:, None]
    ahead = samples.focal_px[:, None] / -posed[..., 2]
    middle = samples.photo_size[:, None, ::-1] / 2
    true_px = middle + np.stack([ahead * posed[..., 0], -ahead * posed[..., 1]], axis=-1)
    return ((samples.landmarks_px - true_px) * (1, -1)).astype(np.float32)


def _bin_statistics(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias (478, 2), error modes (K, 478, 2) and residual standard deviation (478,) of errors (N, 478, 2)."""
    size = (errors**2).sum((1, 2))
    errors = errors[size <= np.quantile(size, 1 - WORST)]
    bias = errors.mean(0)
    rest = (errors - bias).reshape(len(errors), -1).astype(np.float64)
    _, values, modes = np.linalg.svd(rest, full_matrices=False)
    kept = np.zeros((ERROR_MODES, rest.shape[1]))
    found = min(ERROR_MODES, len(modes))
    kept[:found] = modes[:found] * (values[:found, None] / np.sqrt(len(rest)))
    kept *= np.sign(kept[np.arange(ERROR_MODES), np.abs(kept).argmax(1)])[:, None]
    left = np.maximum((rest**2).mean(0) - (kept**2).sum(0), 0).reshape(-1, 2).mean(1)
    return bias, kept.reshape(ERROR_MODES, -1, 2), np.sqrt(left).clip(LEAST_SIGMA_M)
