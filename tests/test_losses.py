"""Terms of the fitting loss against values worked out by hand."""

import pytest
import torch

from faceverse.fitting import losses


def picture(value, size=4):
    return torch.full((1, size, size, 3), float(value))


def test_equal_pictures_cost_nothing():
    weight = torch.ones(1, 4, 4)
    assert losses.robust_photometric(picture(0.3), picture(0.3), weight, 0.05) == 0


def test_small_differences_count_as_squares_of_deviations():
    value = losses.robust_photometric(picture(0.301), picture(0.3), torch.ones(1, 4, 4), 0.05)
    assert float(value) == pytest.approx((0.001 / 0.05) ** 2, rel=1e-3)


def test_large_differences_saturate():
    value = losses.robust_photometric(picture(1), picture(0), torch.ones(1, 4, 4), 0.01)
    assert float(value) == pytest.approx(losses.ROBUST_SCALE**2, rel=0.01)
    assert float(value) < losses.ROBUST_SCALE**2


def test_pixels_without_a_vote_do_not_count():
    rendered, weight = picture(0.3), torch.ones(1, 4, 4)
    rendered[:, :2] = 1.0
    weight[:, :2] = 0
    assert losses.robust_photometric(rendered, picture(0.3), weight, 0.05) == 0


def test_light_prior_prefers_white_and_even_light():
    even = torch.zeros(9, 3)
    even[0] = 3.0
    tinted, directed = even.clone(), even.clone()
    tinted[0, 0] += 0.5
    directed[3] += 0.5
    assert losses.light_prior(even) == 0
    assert losses.light_prior(tinted) > 0 and losses.light_prior(directed) > 0
