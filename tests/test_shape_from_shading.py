"""Displacement from shading: exact on planes, lines rather than spots, smooth skin, expressions that fade."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_skin_detail import module_of

import faceverse as fv
from faceverse.detail.displacement import normal_map
from faceverse.detail.latents import maps_of, wrinkle_compression
from faceverse.edit import head
from faceverse.fitting.detail_stage import fit_detail_maps
from faceverse.fitting.shape_from_shading import displacement_from_shading, line_signal, solve_displacement
from faceverse.fitting.skin_observation import observe_skin

SIDE, TEXEL_MM = 128, 0.58
RAISED = {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}


def furrows(across: float = 0.0):
    """(SIDE, SIDE) mm, furrows about 4 mm apart, in the middle; direction in radians."""
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * TEXEL_MM
    place = y * np.cos(across) + x * np.sin(across)
    window = np.exp(-((np.hypot(x, y) / 18) ** 4))
    return torch.from_numpy((0.1 * np.cos(place * 2 * np.pi / 4) * window).astype(np.float32))


def shade_of(displacement, gradient):
    rows, columns = ((torch.roll(displacement, -1, axis) - torch.roll(displacement, 1, axis)) / 2 for axis in (1, 0))
    return gradient[0] * rows + gradient[1] * columns


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


@pytest.mark.parametrize("light", [(0.0, 2.0), (1.5, 1.5), (2.0, 0.3)])
def test_displacement_of_a_plane_is_recovered(light):
    true = furrows(np.arctan2(*light))
    gradient = tuple(torch.full((SIDE, SIDE), value) for value in light)
    weight = torch.zeros(SIDE, SIDE)
    weight[8:-8, 8:-8] = 1
    found, history = solve_displacement(shade_of(true, gradient), weight, gradient, TEXEL_MM, iterations=30)
    assert correlation(found, true) > 0.95
    assert 0.6 < float(found.std() / true.std()) < 1.05, "the prior shrinks, it does not invent"
    assert history[-1] < 0.05 * history[0]


def test_lines_are_displacement_and_spots_are_albedo():
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * TEXEL_MM
    lines = (0.3 * np.sin(y * 2 * np.pi / 4)).astype(np.float32) * (x < 0)
    square = (np.mod(y + 5, 10) - 5) ** 2 + (np.mod(x + 5, 10) - 5) ** 2
    spots = -0.3 * np.exp(-square / 2) * (x > 0)
    change, ones = torch.from_numpy(lines + spots).float(), torch.ones(SIDE, SIDE)
    signal, evidence = line_signal(change, ones, ones, 512)
    inner = np.zeros((SIDE, SIDE), bool)
    inner[12:-12, 12:-12] = np.abs(x[12:-12, 12:-12]) > 5
    left, right = inner & (x < 0), inner & (x > 0)
    kept = [float(signal[side].square().mean() / change[side].square().mean()) for side in (left, right)]
    assert evidence == 1 and kept[0] > 0.8 and kept[1] < 0.6 * kept[0]


def test_faint_marks_are_no_wrinkles_and_brows_of_smooth_faces_stay_flat():
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 1.5)
    change, ones = torch.from_numpy((0.03 * noise / noise.std()).astype(np.float32)), torch.ones(SIDE, SIDE)
    signal, evidence = line_signal(change, ones, ones, 512)
    assert evidence < 0.1 and float(signal.std()) < 0.05 * float(change.std())
    brow = ones.clone()
    brow[40:60] = 0
    change[45:55] -= 0.4
    signal, evidence = line_signal(change, ones, brow, 512)
    assert float(signal[40:60].abs().max()) < 0.05 * float(change[40:60].abs().max())


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def raised(model):
    """A head with raised brows and furrows on the forehead, and its photograph in light from above."""
    person = fv.edit(head(model.random(8, hair=False), model, texture_size=512), expression=RAISED)
    light = person.params.light.copy()
    light[1:4] += light[0].mean() * np.float32([[0.5], [0.0], [0.0]])
    posed = person.replace(params=person.params.replace(light=light))
    compressed = wrinkle_compression(model, posed.params, 512)
    rows = np.arange(512)[:, None] * np.ones((1, 512)) * 0.58
    displacement = (0.25 * np.cos(rows * 2 * np.pi / 5) * np.clip(compressed / 0.1, 0, 1)).astype(np.float32)
    shown = posed.replace(displacement=displacement, normal_map=normal_map(model, posed.vertices, displacement))
    camera = replace(posed.camera.cropped((0, 0, *posed.camera.image_size[::-1]), (900, 900)), image_size=(900, 900))
    return posed, displacement, camera, fv.render(shown, camera=camera, supersample=2).rgb


def test_known_furrows_are_found_in_the_photograph(model, raised):
    posed, true, camera, photo = raised
    view = observe_skin(photo, model, posed.params, camera, 512)
    estimate = displacement_from_shading(view)
    forehead = (view.shading_weight.numpy() > 0.9) & (np.abs(true) > 0.05)
    assert forehead.sum() > 1000 and estimate.evidence > 0.3
    assert correlation(estimate.displacement[forehead], true[forehead]) > 0.8


def test_lines_of_raised_brows_fade_with_the_expression(model, raised):
    posed, true, camera, photo = raised
    module = module_of(model)
    skin = fit_detail_maps(photo, model, posed.params, camera, module)
    params = posed.params.replace(detail=skin.latents)
    made = maps_of(module, model, params).displacement
    np.testing.assert_allclose(made, skin.displacement, atol=1e-5)
    size = len(made)
    forehead = np.abs(true[:: 512 // size, :: 512 // size]) > 0.1
    neutral = maps_of(module, model, params.replace(expression=np.zeros_like(params.expression))).displacement
    half = maps_of(module, model, params.replace(expression=0.5 * params.expression)).displacement
    depth = [float(np.std(maps[forehead])) for maps in (neutral, half, made)]
    assert depth[0] < 0.7 * depth[2] and depth[0] < depth[1] < depth[2], depth
