"""Robust losses, weights and scales against their definitions."""

import numpy as np
import pytest

from faceverse.fitting import losses


def test_small_residuals_count_as_squares():
    square = np.array([0.0, 1e-6, 1e-4])
    np.testing.assert_allclose(losses.geman_mcclure(square), square, rtol=1e-4)


def test_large_residuals_saturate():
    saturated = losses.geman_mcclure(np.array([1e2, 1e4, 1e8]))
    assert (np.diff(saturated) > 0).all() and (saturated < losses.ROBUST_SCALE**2).all()
    assert saturated[-1] == pytest.approx(losses.ROBUST_SCALE**2, rel=1e-6)


def test_residuals_at_the_scale_count_half():
    assert losses.geman_mcclure(np.float64(losses.ROBUST_SCALE**2)) == losses.ROBUST_SCALE**2 / 2


def test_row_scale_gives_the_gradient_of_the_loss():
    """Half the squared rows, with the scale held, have the derivative of half the weighted loss."""
    residual, weight, step = np.linspace(-8, 8, 41), np.linspace(0, 2, 41), 1e-6
    scale = losses.geman_mcclure_row_scale(residual**2, weight)
    numeric = [0.5 * weight * losses.geman_mcclure((residual + sign * step) ** 2) for sign in (1, -1)]
    np.testing.assert_allclose(scale**2 * residual, (numeric[0] - numeric[1]) / (2 * step), atol=1e-8)


def test_the_scale_can_be_changed_in_one_place(monkeypatch):
    monkeypatch.setattr(losses, "ROBUST_SCALE", 1e6)
    assert losses.geman_mcclure(np.float64(400.0)) == pytest.approx(400.0, rel=1e-6)
    assert losses.geman_mcclure_row_scale(np.float64(400.0), np.float64(4.0)) == pytest.approx(2.0, rel=1e-6)


def test_cauchy_weight_is_one_without_error_and_half_at_the_scale():
    np.testing.assert_allclose(losses.cauchy_weight(np.array([0.0, -0.3, 0.3]), 0.3), [1, 0.5, 0.5])


@pytest.mark.parametrize("seed", range(3))
def test_weighted_median_is_the_median_of_repeated_values(seed):
    rng = np.random.default_rng(seed)
    values, counts = rng.normal(size=12), rng.integers(0, 5, 12)
    counts[0] += 1 - counts.sum() % 2  # an odd number has one middle
    assert losses.weighted_median(values, counts.astype(float)) == np.median(np.repeat(values, counts))


def test_scale_of_a_normal_distribution_by_its_median_deviation():
    deviations = np.abs(np.random.default_rng(0).normal(0, 0.7, 200_001))
    sigma = losses.SIGMA_PER_MAD * losses.weighted_median(deviations, np.ones(len(deviations)))
    assert sigma == pytest.approx(0.7, rel=0.01)
