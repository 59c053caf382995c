"""Tone of the skin and light: priors share out what a photograph cannot tell, and the picture stays the same."""

from dataclasses import replace

import numpy as np
import pytest

import faceverse as fv
from faceverse.fitting.photometric import PhotometricTarget
from faceverse.fitting.skin_tone import calibrate_tone
from faceverse.fitting.state import FaceState
from faceverse.fitting.surface import PhotometricTerm, surface_samples
from faceverse.graphics.camera import Camera
from faceverse.graphics.lighting import default_light
from faceverse.result import head_from_params

SIDE = 192
CAMERA = Camera(620.0, (SIDE / 2, SIDE / 2), (SIDE, SIDE))
TINT = np.array([1.25, 1.0, 0.8])


@pytest.fixture(scope="module")
def head(model):
    params = model.random(8, hair=False).replace(
        rotation=np.eye(3, dtype=np.float32), translation=np.array([0, 0, -0.75], np.float32)
    )
    return head_from_params(model, params, CAMERA)


def photographed(head, light):
    """State and target of a fit that knows all but the light and the albedo."""
    lit = head.replace(params=head.params.replace(light=np.asarray(light, np.float32)))
    picture = fv.render(lit, camera=CAMERA).rgb.astype(np.float32) / 255
    target = PhotometricTarget(picture, np.ones((SIDE, SIDE), bool), CAMERA, None, None)
    state = FaceState.from_params(head.params)
    return replace(state, albedo=0 * state.albedo, light=default_light().double().numpy()), target


def tone(surface, state):
    return np.log(surface.colours(state.albedo)[surface.weights > 0.5]).mean(0)


def test_bright_and_dark_photographs_of_a_person_show_one_skin(head):
    surface, light = surface_samples(head.model.coarse), default_light().numpy()
    pairs = [photographed(head, light * factor) for factor in (0.55 * TINT, 1.0 / TINT)]
    tones = []
    for state, target in pairs:
        (calibrated,) = calibrate_tone(surface, [state], [target])
        tones.append(tone(surface, calibrated))
        before, after = (PhotometricTerm(surface, target.crop, target.inside, CAMERA, 1.0).evaluate(s)
                         for s in (state, calibrated))  # fmt: skip
        seen = (after.weight > 0) & (surface.weights > 0.5)
        assert np.abs(after.difference[seen]).mean() < 0.03, "light times albedo is the photograph"
        assert np.abs(after.difference[seen]).mean() < 0.5 * np.abs(before.difference[seen]).mean()
    observed = np.log(TINT**2 * 0.55)
    assert np.abs(tones[0] - tones[1]).max() < 0.7 * np.abs(observed).max()
    hue = [t - t.mean() for t in tones]
    assert np.abs(hue[0] - hue[1]).max() < 0.35 * np.abs(observed - observed.mean()).max(), "tint is light, not skin"


def test_photographs_of_one_person_share_the_albedo(head):
    surface, light = surface_samples(head.model.coarse), default_light().numpy()
    pairs = [photographed(head, light * factor) for factor in (0.6, 1.0)]
    states = calibrate_tone(surface, *(list(part) for part in zip(*pairs)))
    np.testing.assert_array_equal(states[0].albedo, states[1].albedo)
    ratio = states[1].light[0] / states[0].light[0]
    np.testing.assert_allclose(ratio, 1 / 0.6, rtol=0.05)


def test_without_visible_skin_nothing_changes(head):
    surface = surface_samples(head.model.coarse)
    state, target = photographed(head, default_light().numpy())
    covered = replace(target, inside=np.zeros((SIDE, SIDE), bool))
    assert calibrate_tone(surface, [state], [covered])[0] is state
