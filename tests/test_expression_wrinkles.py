"""Expression wrinkles: none without strain, perpendicular to the compression, deeper with age, smooth in z."""

import numpy as np
import pytest

from faceverse.detail.displacement import expression_strain, split_bands, wrinkle_gate
from faceverse.training.expression_wrinkles import (
    WRINKLE_SIZE,
    WrinkleSurface,
    random_expression,
    training_sample,
    wrinkle_displacement,
)
from faceverse.training.synthetic_skin import CODE, random_z


@pytest.fixture(scope="module")
def surface(model):
    return WrinkleSurface.of(model)


@pytest.fixture(scope="module")
def strains(model):
    """Function of shapes' beginnings -> strain of the mean head with those shapes at full weight."""

    def strain(*shapes):
        weights = np.float32([name.startswith(shapes) for name in model.expression_names]) if shapes else 0
        params = model.neutral()
        return expression_strain(model, params.replace(expression=params.expression + weights), WRINKLE_SIZE)

    return strain


def person(age=45.0, seed=4):
    return random_z(np.random.default_rng(seed), age, 0.0)


def test_a_face_at_rest_has_no_wrinkles(surface, strains):
    rest = split_bands(np.random.default_rng(0).standard_normal((WRINKLE_SIZE, WRINKLE_SIZE)))[1]
    strain = strains()
    assert (strain == 0).all()
    assert (wrinkle_displacement(surface, strain, person(80), 1, rest) == 0).all()


def test_wrinkles_are_where_the_skin_is_strained_and_nowhere_else(surface, strains):
    wrinkles = wrinkle_displacement(surface, strains("brow"), person(), 1)
    assert wrinkles.shape == (WRINKLE_SIZE, WRINKLE_SIZE) and wrinkles.dtype == np.float32
    assert -1.1 <= wrinkles.min() < -0.2 and wrinkles.max() <= 0.7
    assert np.abs(wrinkles[130:]).max() < 0.01  # below the nose nothing moves
    assert (wrinkles[surface.detail.skin.inside == 0] == 0).all()


def test_raised_brows_wrinkle_the_forehead_from_side_to_side(surface, strains):
    wrinkles = wrinkle_displacement(surface, strains("browInner", "browOuter"), person(60), 1)
    inside = surface.detail.skin.forehead > 0.9
    down, right = (np.abs(np.gradient(wrinkles, axis=axis))[inside].mean() for axis in (0, 1))
    assert wrinkles[inside].min() < -0.2 and down > 2.5 * right


def test_a_frown_is_upright(surface, strains):
    wrinkles = wrinkle_displacement(surface, strains("browDown"), person(60), 1)
    glabella = wrinkles[66:84, 118:138]
    down, right = (np.abs(np.gradient(glabella, axis=axis)).mean() for axis in (0, 1))
    assert glabella.min() < -0.15 and right > 1.5 * down


def test_a_smile_wrinkles_beside_the_mouth_and_a_pucker_around_it(surface, strains):
    places = surface.detail.skin.places
    corner = (places[61] * WRINKLE_SIZE / 512).astype(int)
    smile = wrinkle_displacement(surface, strains("mouthSmile"), person(50), 1)
    beside = smile[corner[1] - 14 : corner[1] + 8, 128 - corner[0] - 18 : 128 - corner[0] - 2]
    assert beside.min() < -0.2
    pucker = wrinkle_displacement(surface, strains("mouthPucker"), person(65), 1)
    chin = surface.detail.skin.chin > 0.5
    assert pucker[chin].std() > 0.03 > 10 * np.abs(smile[40:70, 110:146]).max()


def test_age_deepens_wrinkles(surface, strains):
    strain = strains("brow", "eyeSquint", "mouthSmile")
    depths = []
    for age in (25, 45, 65, 80):
        depths.append(wrinkle_displacement(surface, strain, person(age), 1).std())
    assert depths == sorted(depths) and depths[2] > 1.5 * depths[0]


def test_stronger_expressions_wrinkle_deeper(surface, strains):
    strain = strains("brow")
    depths = [wrinkle_displacement(surface, share * strain, person(), 1).std() for share in (0.1, 0.3, 0.6, 1.0)]
    assert depths == sorted(depths) and depths[0] < 0.1 * depths[3]


def test_wrinkles_are_smooth_in_the_persons_numbers_and_differ_between_people(surface, strains):
    strain = strains("brow", "mouthSmile")
    z, other = person(50, 1), person(50, 2)
    first = wrinkle_displacement(surface, strain, z, 1)
    near = wrinkle_displacement(surface, strain, z + 0.02 * (other - z), 1)
    far = wrinkle_displacement(surface, strain, other, 1)
    assert np.abs(near - first).mean() < 0.08 * np.abs(far - first).mean()
    assert np.abs(far - first).mean() > 0.25 * np.abs(first).mean()


def test_the_seed_moves_little(surface, strains):
    strain = strains("brow", "mouthSmile")
    first, again, other = (wrinkle_displacement(surface, strain, person(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert 0 < np.abs(other - first).mean() < 0.5 * np.abs(first).mean()


def test_stretched_skin_loses_its_creases(surface):
    """Lines from side to side vanish when the skin is stretched upwards, and stay when it is stretched sideways."""
    rows = np.arange(WRINKLE_SIZE)[:, None]
    lines = np.broadcast_to(0.2 * np.sin(2 * np.pi * rows / 6), (WRINKLE_SIZE, WRINKLE_SIZE)).astype(np.float32)
    middle = surface.detail.skin.inside == 1
    up, sideways = np.zeros((2, 3, WRINKLE_SIZE, WRINKLE_SIZE), np.float32)
    up[2], sideways[0] = 0.4, 0.4
    left = {}
    for name, strain in (("up", up), ("sideways", sideways)):
        left[name] = (lines + wrinkle_displacement(surface, strain, person(), 1, lines))[middle].std() / lines.std()
    assert left["up"] < 0.6
    assert left["sideways"] == pytest.approx(1, abs=0.02)


def test_training_samples(model, surface):
    samples = [training_sample(model, surface, index, 7) for index in range(3)]
    for sample in samples:
        assert sample.condition.shape == (6, WRINKLE_SIZE, WRINKLE_SIZE)
        assert sample.image.shape == (3, WRINKLE_SIZE, WRINKLE_SIZE)
        assert sample.z.shape == (64,)
        assert sample.condition.dtype == sample.image.dtype == sample.z.dtype == np.float32
        assert np.isfinite(sample.image).all() and np.isfinite(sample.condition).all()
        gate = wrinkle_gate(sample.condition[3:] * CODE.strain_scale)
        assert not sample.image[:, gate < 0.1].any() and not sample.mask[gate < 0.1].any()
        height_mm = (sample.image * np.float32(CODE.band_scales_mm)[:, None, None]).sum(0) * gate
        assert np.abs(height_mm).max(initial=0) < 2
        assert np.abs(sample.condition[3:]).max() <= 0.6 / CODE.strain_scale
    again = training_sample(model, surface, 1, 7)
    np.testing.assert_array_equal(again.image, samples[1].image)
    np.testing.assert_array_equal(again.condition, samples[1].condition)
    assert np.abs(samples[0].condition - samples[1].condition).max() > 0


def test_random_expressions_are_few_shapes_and_now_and_then_none(model):
    rng = np.random.default_rng(0)
    drawn = np.stack([random_expression(model, rng) for _ in range(300)])
    limits = model.expression_limits
    assert (drawn >= limits[:, 0]).all() and (drawn <= limits[:, 1]).all()
    at_rest = (drawn == 0).all(axis=1).mean()
    assert 0.06 < at_rest < 0.2
    assert (drawn > 0).sum(axis=1).max() <= 8  # four pairs
    names = np.array(model.expression_names)
    seen = names[(drawn > 0).any(axis=0)]
    assert {"browInnerUp", "mouthSmileLeft", "jawOpen"} <= set(seen) and "eyeLookUpLeft" not in seen
    left, right = (drawn[:, list(names).index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    both = (left > 0) | (right > 0)
    assert np.median(np.abs(left - right)[both]) < 0.25
