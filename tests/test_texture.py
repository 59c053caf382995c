"""Photograph to texture: what was seen comes back, what was not is completed, light and everything else stays out."""

import numpy as np
import pytest

import faceverse as fv
from faceverse.fitting import texture
from faceverse.graphics.camera import Camera, rotation_from_euler_deg
from faceverse.graphics.lighting import ambient_light
from faceverse.graphics.pull_push import pull_push
from faceverse.model.skin_texture import model_texture
from faceverse.model.texture_maps import bake_vertices, uv_coverage
from faceverse.result import FitResult

SIZE = 256
CAMERA = Camera(1150.0, (256.0, 256.0), (512, 512))
GREEN = (0, 255, 0)


def spotted_skin(model, params, seed=0):
    """A texture (SIZE, SIZE, 3) uint8 of a head's skin with spots a few millimetres wide."""
    spots = np.random.default_rng(seed).uniform(0.75, 1.2, (SIZE // 4, SIZE // 4, 1)).repeat(4, 0).repeat(4, 1)
    return np.clip(model_texture(model, params, SIZE).rgb * spots, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene(model):
    """A random head with a known texture under even light, and its picture before a green background."""
    params = model.random(4).replace(
        rotation=rotation_from_euler_deg(12, 4, 0).numpy(), light=ambient_light(0.9).numpy()
    )
    zeros = np.zeros_like(model.mean_vertices)
    result = FitResult(
        model=model, params=params, camera=CAMERA, vertices=zeros, neutral_vertices=zeros, albedo=zeros,
        texture=spotted_skin(model, params), texture_confidence=np.zeros((SIZE, SIZE), np.uint8),
    )  # fmt: skip
    result = fv.edit(result, identity=params.identity)
    picture = fv.render(result, camera=CAMERA, background=GREEN).rgb
    return result, texture.bake_photo(picture, model, params, CAMERA, SIZE)


def test_seen_texels_come_back(scene):
    result, baked = scene
    seen = baked.confidence > 230
    assert seen.mean() > 0.2
    ours, theirs = (rgb[seen].astype(float) for rgb in (baked.rgb, result.texture))
    assert np.abs(ours - theirs).mean() < 10 and np.abs((ours - theirs).mean(0)).max() < 3
    assert np.corrcoef(ours.mean(1), theirs.mean(1))[0, 1] > 0.85


def test_hidden_texels_are_completed_in_the_seen_tone(scene, model):
    result, baked = scene
    behind = bake_vertices(model, model.mean_vertices[:, 2:], SIZE)[..., 0] < -0.03  # metres, behind the ears
    back = uv_coverage(model, SIZE) & behind
    assert back.mean() > 0.05 and (baked.confidence[back] == 0).all()
    front = baked.rgb[baked.confidence > 230].mean(0)
    assert (baked.rgb[back].mean(0) > 0.25 * front).all()


def test_background_does_not_get_in(scene):
    _, baked = scene
    rgb = baked.rgb.astype(int)
    greenish = (rgb[..., 1] > rgb[..., 0] + 25) & (rgb[..., 1] > rgb[..., 2] + 25)
    assert greenish.mean() < 0.001


def test_brighter_light_gives_the_same_texture(scene, model):
    """Light is divided out: half of it in photograph and parameters leaves the texture as it was."""
    result, baked = scene
    dim = result.replace(params=result.params.replace(light=0.5 * result.params.light))
    picture = fv.render(dim, camera=CAMERA, background=GREEN).rgb
    again = texture.bake_photo(picture, model, dim.params, CAMERA, SIZE)
    seen = (baked.confidence > 230) & (again.confidence > 230)
    assert np.abs(again.rgb[seen].astype(float) - baked.rgb[seen]).mean() < 4


def test_irises_are_round_and_of_the_given_colour(model):
    blue = model.neutral().replace(iris=np.array([0.02, 0.06, 0.20], np.float32))
    painted = model_texture(model, blue, 1024).rgb.astype(int)
    index = model.regions["eyeball_left"]
    direction = model.mean_vertices[index] - model.mean_vertices[index].mean(0)
    degrees = np.degrees(np.arccos(direction[:, 2] / np.linalg.norm(direction, axis=1)))
    place = (model.uv[index] * 1024).astype(int)
    colour = painted[place[:, 1], place[:, 0]]
    pupil, iris, white = (
        colour[degrees < 5],
        colour[(degrees > 11) & (degrees < 21)],
        colour[(degrees > 35) & (degrees < 60)],
    )
    assert pupil.mean() < 30
    assert (iris[:, 2] > iris[:, 0] + 30).mean() > 0.9
    assert white.mean() > 150


def test_membrane_keeps_values_and_fills_between():
    values, weight = np.zeros((1, 64, 64)), np.zeros((64, 64))
    values[:, :, :8], weight[:, :8] = 1.0, 1
    weight[:, -8:] = 1
    filled = pull_push(values, weight)[0]
    np.testing.assert_allclose(filled[:, :8], 1.0, atol=1e-6)
    np.testing.assert_allclose(filled[:, -8:], 0.0, atol=1e-6)
    middle = filled.mean(0)
    assert 0.2 < middle[32] < 0.8 and middle[20] > middle[44]


def test_membrane_without_any_data_is_zero():
    assert np.abs(pull_push(np.ones((3, 32, 32)), np.zeros((32, 32)))).max() == 0


def test_fair_hair_keeps_its_hue_where_it_is_not_seen():
    """The model's hair is dark: seen hair that is six times as red, eight times as green is so all over the scalp."""
    size, wanted = 32, np.log([6.0, 8.0, 10.0])
    hair = np.zeros((size, size), np.float32)
    hair[:16] = 1
    confidence = np.zeros_like(hair)
    confidence[8:16] = 1  # the fringe
    confidence[16:] = 1
    change = np.where(hair[None] > 0, wanted[:, None, None], 0.1).astype(np.float32)
    completed = texture.complete_albedo(change, confidence, hair, np.zeros_like(hair))
    np.testing.assert_allclose(completed[:, 0, 16], wanted, atol=0.05)
    bright = np.broadcast_to(wanted[:, None, None], change.shape)
    skin_only = texture.complete_albedo(bright, confidence, 0 * hair, 0 * hair)
    assert (skin_only[:, 0, 16] == 0).all(), "unseen skin has no detail"
