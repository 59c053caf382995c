"""Growth: sizes of children's heads, modes that adults do not use, skin of children."""

from dataclasses import replace

import numpy as np
import pytest

from faceverse.model.face_model import AGE_MODES
from faceverse.training.anthropometry import measure
from faceverse.training.appearance_traits import draw_traits, maturity
from faceverse.training.basis import shape_basis
from faceverse.training.child_sizes import AGES, MEASURES, adult_share
from faceverse.training.growth import CHILDREN, AdultBasis, adult_heads, growth_modes
from faceverse.training.growth_path import kept_by_growth
from faceverse.training.shape_population import ShapePopulation, draw_settings


@pytest.fixture(scope="module")
def adults(source):
    rng = np.random.default_rng(8)
    settings = draw_settings(40, rng)
    shapes = ShapePopulation(source, calibrated=False).draw(settings, rng)
    mean, modes, scores, _ = shape_basis(shapes, np.ones(shapes.shape[1]), 24)
    return settings, AdultBasis(mean.astype(np.float64), modes.astype(np.float64), scores)


@pytest.fixture(scope="module")
def growth(source, adults):
    return growth_modes(source, np.zeros(3), adults[1], adults[0], np.ones(len(adults[1].mean)))


def test_heads_grow_with_age_and_girls_are_ahead():
    boys, girls = (np.array([adult_share(years, male) for years in (*AGES, 40)]) for male in (1.0, 0.0))
    for shares in (boys, girls):
        grows = np.array([name != "eye_fissure_height" for name in MEASURES])
        assert (np.diff(shares[:, grows], axis=0) >= 0).all() and shares[0].min() > 0.7
        assert (shares[-2:] == 1).all()
    assert (girls >= boys - 0.031).all() and girls.mean() > boys.mean() + 0.01
    np.testing.assert_allclose(adult_share(9, 0.5), (adult_share(9, 0.0) + adult_share(9, 1.0)) / 2)


def test_children_have_the_published_sizes(source, adults, growth):
    grown = adult_heads(adults[1], adults[0])
    for sex, male in ((-1, 0), (1, 1)):
        sizes = measure(grown[[male]], source.head)
        for knot, years in enumerate(AGES[:-1]):
            path = growth.by_age[knot] + sex * growth.by_sex[knot]
            child = measure((grown[male] + np.tensordot(path, growth.modes, 1))[None], source.head)
            wanted = dict(zip(MEASURES, adult_share(years, male), strict=True))
            for name in ("head_length", "head_breadth", "bizygomatic_breadth", "face_height", "interpupillary_distance",
                         "nose_length", "mouth_breadth"):  # fmt: skip
                assert child[name] / sizes[name] == pytest.approx(wanted[name], abs=0.03), (name, years, male)


def test_adults_do_not_use_the_modes_of_growth(growth):
    assert not growth.by_age[-1].any() and not growth.by_sex[-1].any()
    assert not growth.by_age[:, AGE_MODES:].any() and not growth.by_sex[:, :AGE_MODES].any()
    assert (np.diff(growth.by_age[:, 0]) < 0).all(), "the first one shrinks steadily"
    years = np.linspace(AGES[0], AGES[-1], 500)
    spread = [np.interp(years, AGES, column) for column in growth.by_age[:, :AGE_MODES].T]
    np.testing.assert_allclose(CHILDREN * np.square(spread).mean(1), 1, rtol=0.02)


def test_the_eyes_stay_in_their_place(source, growth):
    eyes = [source.head.part == f"eyeball_{side}" for side in ("left", "right")]
    child = np.tensordot(growth.by_age[0], growth.modes, 1)
    assert np.abs(np.mean([child[eye].mean(0) for eye in eyes], axis=0)).max() < 1e-3
    crown = child[(source.head.part == "skin") & (source.head.vertices[:, 1] > source.head.vertices[:, 1].max() - 0.01)]
    assert crown[:, 1].mean() < -0.003


# -- what is individual -----------------------------------------------------------------------------------------------
def test_what_growth_scales_changes_no_estimate():
    rng = np.random.default_rng(0)
    adults, growing, colours, count = 12, 2, 6, 20
    steps, features = rng.standard_normal((3, count)), rng.standard_normal((2, colours))
    steps[:, adults : adults + growing] = 0
    estimators = np.linalg.pinv(steps).T
    measures, kept = kept_by_growth(estimators, steps, features, adults)
    scaled = np.eye(count) - measures.T @ kept
    np.testing.assert_allclose(scaled @ scaled, scaled, atol=1e-9)
    assert np.linalg.matrix_rank(scaled) == adults - 3 + 2
    np.testing.assert_allclose(scaled @ estimators.T, 0, atol=1e-9)
    np.testing.assert_allclose(steps @ scaled, 0, atol=1e-9)
    np.testing.assert_allclose(scaled[adults : adults + growing], 0, atol=1e-9)


# -- skin -------------------------------------------------------------------------------------------------------------
def test_children_have_no_beard_and_finer_brows_and_adults_are_as_before():
    settings = draw_settings(60, np.random.default_rng(3))
    settings = replace(settings, male=np.ones(60), years=np.full(60, 45.0))
    assert maturity(8) == 0 and 0 < maturity(14) < 1 and all(maturity(years) == 1 for years in (19, 20, 80))

    def traits(years):
        aged = replace(settings, years=np.full(60, years))
        return [draw_traits(aged, i, np.random.default_rng(i)) for i in range(60)]

    boys, men = traits(8.0), traits(25.0)
    assert max(boy.beard + boy.moustache for boy in boys) == 0 and np.mean([man.beard for man in men]) > 0.1
    assert all(boy.brow < man.brow and boy.brow_width < man.brow_width for boy, man in zip(boys, men) if man.brow < 0.8)
    assert all(boy.lip_blood <= man.lip_blood for boy, man in zip(boys, men))
    assert max(boy.thin_crown for boy in boys) == 0 and max(boy.spots for boy in boys) == 0
    np.testing.assert_allclose([boy.melanin for boy in boys], [man.melanin for man in men])
