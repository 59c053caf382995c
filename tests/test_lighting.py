"""Shading against a numeric integral of the light, and the sRGB curve against its published values."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from faceverse.graphics.lighting import (
    ambient_light,
    default_light,
    linear_from_srgb,
    sh_basis,
    sh_basis_gradient,
    shading,
    srgb_from_linear,
    srgb_slope,
)

ORDER = [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]


def real_harmonics(directions):
    """Orthonormal real spherical harmonics up to order 2 (..., 9), from SciPy's complex ones."""
    x, y, z = np.moveaxis(directions, -1, 0)
    polar, azimuth = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    columns = []
    for degree, order in ORDER:
        value = sph_harm_y(degree, abs(order), polar, azimuth) * (-1.0) ** order * (2**0.5 if order else 1)
        columns.append(value.imag if order < 0 else value.real)
    return np.stack(columns, axis=-1)


def hemisphere(normal, count=24):
    """Directions (D, 3) and weights (D,) that integrate polynomials over the hemisphere around a normal."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    cosine, azimuth = (nodes + 1) / 2, np.arange(count) * 2 * np.pi / count
    sine = np.sqrt(1 - cosine**2)
    local = np.stack(
        [
            sine[:, None] * np.cos(azimuth),
            sine[:, None] * np.sin(azimuth),
            np.broadcast_to(cosine[:, None], (count, count)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    frame = np.linalg.qr(np.column_stack([normal, np.eye(3)[np.argsort(np.abs(normal))[:2]].T]))[0]
    axes = np.column_stack([frame[:, 1], frame[:, 2], normal])
    return local @ axes.T, np.repeat(weights / 2, count) * 2 * np.pi / count


def test_shading_is_the_light_that_a_white_diffuser_returns():
    generator = np.random.default_rng(3)
    light = generator.normal(size=(9, 3))
    normals = generator.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    expected = []
    for normal in normals:
        directions, weights = hemisphere(normal)
        lobe = weights * (directions @ normal) / np.pi
        expected.append(lobe @ (real_harmonics(directions) @ light))
    got = shading(torch.from_numpy(normals), torch.from_numpy(light))
    np.testing.assert_allclose(got.numpy(), expected, atol=5e-6 * np.abs(light).sum())


def test_basis_order_is_the_documented_one():
    x, y, z = np.eye(3)
    basis = sh_basis(torch.tensor(np.stack([x, y, z, (x + y) / 2**0.5]))).numpy()
    np.testing.assert_array_equal(basis[:3, 1:4] > 0, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert basis[3, 4] > 0.1 and abs(basis[3, 5]) < 1e-12 and abs(basis[3, 8]) < 1e-12
    assert basis[2, 6] > 0 > basis[0, 6]


def test_ambient_light_is_the_same_from_everywhere():
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(shading(normals, ambient_light(0.6)), torch.full((50, 3), 0.6))


def test_default_light_is_brighter_from_the_front_above_and_the_left_of_the_picture():
    x, y, z = torch.eye(3)
    light = default_light()
    shade = shading(torch.stack([z, -z, y, -y, -x, x]), light)[:, 0]
    assert shade[0] > shade[1] and shade[2] > shade[3] and shade[4] > shade[5]
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert 0 < shading(directions, light).min() and shading(directions, light).max() < 1.5


def test_shading_takes_batches_and_gradients():
    normals = torch.nn.functional.normalize(torch.randn(2, 5, 3, dtype=torch.float64), dim=-1).requires_grad_()
    light = torch.randn(2, 9, 3, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(shading(normals, light)[1], shading(normals[1], light[1]))
    assert torch.autograd.gradcheck(shading, (normals, light))


@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
def test_gradient_of_the_basis_is_what_autograd_finds(shape):
    """Off the unit sphere too: the polynomial is differentiated, not its restriction to unit normals."""
    points = torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient = sh_basis_gradient(points)
    assert gradient.shape == (*shape, 9, 3)
    for got, point in zip(gradient.reshape(-1, 9, 3), points.reshape(-1, 3)):
        torch.testing.assert_close(got, torch.autograd.functional.jacobian(sh_basis, point))


@pytest.mark.parametrize(
    "srgb, linear", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.21404114), (0.04045, 0.0031308), (118 / 255, 0.18116424)]
)
def test_known_values_of_the_srgb_curve(srgb, linear):
    assert linear_from_srgb(torch.tensor(srgb, dtype=torch.float64)).item() == pytest.approx(linear, abs=1e-6)
    assert srgb_from_linear(torch.tensor(linear, dtype=torch.float64)).item() == pytest.approx(srgb, abs=1e-6)


def test_every_8_bit_value_survives_the_round_trip():
    values = torch.arange(256) / 255
    again = srgb_from_linear(linear_from_srgb(values))
    torch.testing.assert_close(torch.round(again * 255), torch.arange(256.0))
    assert (linear_from_srgb(values).diff() > 0).all()


def test_encoding_clips_and_has_a_finite_gradient_everywhere():
    linear = torch.tensor([-0.5, 0.0, 1e-9, 0.0031308, 0.4, 1.0, 3.0], requires_grad=True)
    encoded = srgb_from_linear(linear)
    assert encoded[0].item() == 0 and encoded[-1].item() == pytest.approx(1)
    encoded.sum().backward()
    assert torch.isfinite(linear.grad).all() and linear.grad[4] > 0


def test_slope_of_the_srgb_curve_is_what_autograd_finds():
    linear = torch.tensor([-0.5, 1e-6, 0.001, 0.0031, 0.0032, 0.02, 0.4, 0.999, 3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(srgb_from_linear(linear.requires_grad_()).sum(), linear)
    torch.testing.assert_close(srgb_slope(linear.detach()), expected)
    assert srgb_slope(linear.detach())[[0, -1]].eq(0).all()
