"""Light that stays in a texture, highlights and unlabelled fringes are told from the skin's own colour."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from faceverse.fitting.even_skin import even_skin, fringe_zone, plain_skin, without_highlights
from faceverse.model.texture_maps import bake_vertices, uv_coverage

SIZE = 256
SKIN, WHITE = np.array([0.5, 0.3, 0.22])[:, None, None], np.ones((3, 1, 1))


@pytest.fixture(scope="module")
def face(model):
    """(SIZE, SIZE) 0..1 confidence of a face that is seen from the front, and the side coordinate of its texels."""
    x, _, z = np.moveaxis(bake_vertices(model, model.mean_vertices, SIZE), 2, 0)
    return (uv_coverage(model, SIZE) & (z > 0.02)).astype(np.float32), x


def test_a_shadow_on_half_of_the_face_is_light_and_moles_are_skin(model, face):
    skin, x = face
    change = np.zeros((3, SIZE, SIZE), np.float32)
    change[:, x > 0] = -0.6
    moles = np.zeros((SIZE, SIZE), bool)
    moles[::16, ::16] = True
    change[:, moles] -= 0.5
    split = even_skin(model, change, skin)
    detail = change - split.tone - split.uneven
    kept = split.kept + detail
    plain = (skin > 0) & (plain_skin(model, SIZE) > 0.9) & (np.abs(x) > 0.012)
    left, right = (np.median(kept[:, plain & side], axis=1) for side in (x > 0, x < 0))
    assert np.abs(left - right).max() < 0.2, "of a difference of 0.6"
    spots = plain & moles & (x < 0)
    assert spots.sum() > 20 and np.median(detail[:, spots]) < -0.35


def test_the_tone_is_kept_but_for_a_cast(model, face):
    skin, _ = face
    change = np.broadcast_to(np.array([0.5, 0.3, 0.1], np.float32)[:, None, None], (3, SIZE, SIZE))
    split = even_skin(model, np.ascontiguousarray(change), skin)
    np.testing.assert_allclose(split.tone.ravel(), [0.5, 0.3, 0.1], atol=1e-5)
    kept = split.kept[:, skin > 0].mean(1)
    assert 0.2 < kept.mean() < 0.4 and kept[0] - kept[2] < 0.3


def test_nothing_is_changed_without_skin(model):
    change = np.random.default_rng(0).normal(size=(3, SIZE, SIZE)).astype(np.float32)
    split = even_skin(model, change, np.zeros((SIZE, SIZE), np.float32))
    assert not split.uneven.any() and not split.kept.any() and (split.reliability == 1).all()


def test_strands_on_the_forehead_are_no_skin_and_a_beard_is(model, face):
    skin, _ = face
    zone = fringe_zone(model, SIZE) > 0.5
    strands = (np.arange(SIZE) % 8 < 3)[None] & np.ones((SIZE, 1), bool)
    change = np.zeros((3, SIZE, SIZE), np.float32)
    change[:, zone & strands] = -1.2
    reliability = even_skin(model, change, skin).reliability
    assert reliability[zone & (skin > 0)].mean() < 0.2
    below = ~zone & (skin > 0) & (gaussian_filter(zone.astype(float), 6) < 0.01)
    assert reliability[below].mean() > 0.95
    height = bake_vertices(model, model.mean_vertices, SIZE)[..., 1]
    chin = (skin > 0) & (height < model.mean_vertices[model.regions["lips"], 1].min())
    change = np.zeros((3, SIZE, SIZE), np.float32)
    change[:, chin] = -1.2
    split = even_skin(model, change, skin, chin.astype(np.float32))
    assert split.reliability[chin].mean() > 0.9
    assert np.median((change - split.uneven)[0, chin]) < -0.9


def test_highlights_have_the_colour_of_the_light():
    colour = np.broadcast_to(SKIN, (3, 64, 64)).copy()
    colour[:, 20:40, 20:40] += 0.3
    colour[:, 50:60, :] *= 1.4  # brighter skin of the same hue
    clean = without_highlights(colour, np.broadcast_to(SKIN, colour.shape), np.ones_like(colour), np.ones((64, 64)))
    np.testing.assert_allclose(clean[:, 25:35, 25:35], np.broadcast_to(SKIN, (3, 10, 10)), rtol=0.05)
    np.testing.assert_allclose(clean[:, 52:58], colour[:, 52:58], rtol=1e-5)


def test_a_black_and_white_photograph_has_no_highlights_to_tell():
    colour = np.random.default_rng(0).uniform(0.2, 0.9, (1, 64, 64)).repeat(3, 0)
    same = without_highlights(colour, np.full_like(colour, 0.4), np.ones_like(colour), np.ones((64, 64)))
    np.testing.assert_array_equal(same, colour)
