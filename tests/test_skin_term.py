"""The photometric term of tracking: its Jacobian and gradient against finite differences, its light, its inliers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from faceverse.fitting.losses import geman_mcclure
from faceverse.fitting.state import FaceState
from faceverse.fitting.surface import SIGMA_LIMITS
from faceverse.graphics.camera import Camera, rotation_from_euler_deg
from faceverse.graphics.lighting import srgb_from_linear
from faceverse.tracking.skin_term import SkinTerm

SIZE, POINTS, EFFECTIVE_POINTS = 160, 300, 100.0
CAMERA = Camera(400.0, (80.0, 80.0), (SIZE, SIZE))
# Rotation (rad), translation (m) and weights: half a pixel or a few levels of colour, which float32 resolves.
STEPS = {"rotation": 3e-3, "translation": 1e-3, "expression": 0.03}


def smooth_values():
    """Crop (S, S, 10) of slow waves whose derivatives are almost exact between pixels too."""
    y, x = np.indices((SIZE, SIZE)) / SIZE * 2 * np.pi
    waves = [np.sin(x + 0.5 * y), np.cos(1.2 * y - 0.3), np.sin(0.8 * x - y + 1)]
    crop = 0.5 + 0.15 * np.stack(waves, -1)
    down, across = np.gradient(crop, axis=(0, 1))
    return np.concatenate([crop, across, down, np.ones((SIZE, SIZE, 1))], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def scene(toy_model):
    """The term of a random person, a state, and a crop of smooth waves."""
    rng = np.random.default_rng(2)
    neutral = toy_model.neutral()
    identity, albedo = (0.5 * rng.standard_normal(len(x)) for x in (neutral.identity, neutral.albedo))
    person = neutral.replace(identity=identity.astype(np.float32), albedo=albedo.astype(np.float32))
    skin = SkinTerm(toy_model, person, POINTS)
    state = FaceState(
        rotation=rotation_from_euler_deg(8, 3, 2).double().numpy(),
        translation=np.array([0, 0, -0.6]),
        expression=rng.uniform(0, 0.05, len(neutral.expression)),
    )
    picture = skin.picture(np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE), bool), CAMERA, state)
    return skin, state, replace(picture, values=smooth_values())


def difference(skin, state, picture):
    """(K, 3) sRGB of the shading minus the observed sRGB."""
    residuals = skin.evaluate(state, picture)
    shaded = srgb_from_linear(torch.from_numpy(skin.shading(state, residuals))).numpy()
    return shaded - residuals.observed[:, :3]


def around(state, column, step):
    """The states after a step ahead and one behind in one of the unknowns."""
    delta = np.zeros(6 + len(state.expression))
    delta[column] = step
    return [state.updated(sign * delta[:6], expression=sign * delta[6:]) for sign in (1, -1)]


def columns_of(state, block):
    count = 6 + len(state.expression)
    return {"rotation": range(3), "translation": range(3, 6), "expression": range(6, count)}[block]


@pytest.mark.parametrize("block", STEPS)
def test_jacobian_is_the_derivative_of_each_residual(scene, block):
    skin, state, picture = scene
    residuals = skin.evaluate(state, picture)
    facing = -(residuals.normals * residuals.points).sum(1) / np.linalg.norm(residuals.points, axis=1)
    rows = np.flatnonzero((residuals.weight > 0) & (facing > 0.4))
    factor = np.linspace(0.5, 2, len(facing)).astype(np.float32)
    jacobian = skin.jacobian(state, residuals, skin.shading(state, residuals), factor, rows)
    assert jacobian.shape == (3 * len(rows), 6 + len(state.expression)) and len(rows) > 35
    checked = 0
    for column in columns_of(state, block):
        ahead, behind = (difference(skin, moved, picture) for moved in around(state, column, STEPS[block]))
        numeric = ((ahead - behind) * factor[:, None] / (2 * STEPS[block]))[rows].reshape(-1)
        if np.abs(numeric).max() < 1e-3:  # an expression that moves none of these points
            assert np.abs(jacobian[:, column]).max() < 2e-3
            continue
        checked += 1
        assert np.linalg.norm(jacobian[:, column] - numeric) < 0.03 * np.linalg.norm(numeric), f"column {column}"
    assert checked >= min(len(columns_of(state, block)), 20)


def robust_loss(skin, state, picture, weight):
    """Half the Geman-McClure loss at the noise level of the term, with fixed weights (K,) of the points."""
    square = (difference(skin, state, picture) ** 2).mean(1) / skin.sigma**2
    count = EFFECTIVE_POINTS * SIGMA_LIMITS[0] / skin.sigma
    return 0.5 * count * float((weight * geman_mcclure(square)).sum() / weight.sum())


@pytest.mark.parametrize("block", STEPS)
def test_gradient_is_that_of_the_robust_loss(scene, block):
    skin, state, picture = scene
    residuals = skin.evaluate(state, picture)
    # Well inside the silhouette: at its edge the normals are those of slivers.
    facing = -(residuals.normals * residuals.points).sum(1) / np.linalg.norm(residuals.points, axis=1)
    residuals = replace(residuals, weight=residuals.weight * (facing > 0.4))
    assert (residuals.weight > 0).sum() > 35
    hessian, gradient, _ = skin.normal_equations(state, residuals, EFFECTIVE_POINTS)
    count = len(state.expression)
    assert hessian.shape == (6 + count, 6 + count) and np.linalg.eigvalsh(hessian).min() > -1e-6 * hessian.max()
    columns, numeric = columns_of(state, block), []
    for column in columns:
        ahead, behind = (
            robust_loss(skin, moved, picture, residuals.weight) for moved in around(state, column, STEPS[block])
        )
        numeric.append((ahead - behind) / (2 * STEPS[block]))
    assert np.linalg.norm(gradient[columns] - numeric) < 0.05 * np.linalg.norm(numeric)


def test_light_is_estimated_from_the_points(scene):
    """Points that show the person under some light give that light back: shading is linear in it."""
    skin, state, picture = scene
    residuals = skin.evaluate(state, picture)
    light = state.light * np.float64([0.9, 1.0, 1.1])
    linear = skin.albedo * (residuals.basis @ light.astype(np.float32))
    seen = np.concatenate([srgb_from_linear(torch.from_numpy(linear)).numpy(), residuals.observed[:, 3:]], axis=1)
    estimate = skin.estimate_light(replace(residuals, observed=seen), state.light)
    shading, truth = (residuals.basis[residuals.weight > 0] @ values for values in (estimate, light))
    assert np.abs(shading - truth).max() < 0.2 * np.abs(residuals.basis @ (light - state.light)).max()


def test_inliers_are_the_points_that_look_like_the_person(scene):
    skin, state, picture = scene
    residuals = skin.evaluate(state, picture)
    linear = skin.shading(state, residuals)
    seen = np.concatenate([srgb_from_linear(torch.from_numpy(linear)).numpy(), residuals.observed[:, 3:]], axis=1)
    covered = seen.copy()
    covered[::2, :3] = 1 - covered[::2, :3]
    shares = [
        skin.normal_equations(state, replace(residuals, observed=values.astype(np.float32)), EFFECTIVE_POINTS)[2]
        for values in (seen, covered)
    ]
    assert shares[0] == pytest.approx(1) and 0.2 < shares[1] < 0.8
