"""Beards from photographs: places, length and colour, on pictures that the tests draw; the skin below them."""


import numpy as np
import pytest
from drawn_photographs import bare_head, photograph

import faceverse as fv
from faceverse.fitting.beard import fitted_beard
from faceverse.fitting.hair import HairView
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.model.beard_skin import skin_below_beard
from faceverse.model.texture_maps import bake_vertices
from faceverse.parts.beard import CONTROL_POINTS, Beard
from faceverse.parts.beard_styles import with_beard_style

ON_CHIN = np.flatnonzero((CONTROL_POINTS[:, 1] < -0.08) & (CONTROL_POINTS[:, 2] > 0.075))
ON_CHEEK = np.flatnonzero(np.abs(CONTROL_POINTS[:, 0]) > 0.06)


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def bare(model):
    return bare_head(model)


def wearing(head, style, **beard):
    styles = with_beard_style(head.params.styles, style)
    return head.replace(params=head.params.replace(styles=styles, beard=Beard(**beard)))


def view_of(head, bare):
    """A photograph of a head, with its true labels."""
    return HairView(bare, *photograph(head, bare, "beard"), bare.camera)


def facing(head, yaw_deg):
    return head.replace(params=head.params.replace(rotation=rotation_from_euler_deg(yaw_deg).numpy()))


@pytest.mark.parametrize("length", [0.5, 1.0, 1.8])
def test_a_full_beard_is_found_with_its_length_and_colour(bare, length):
    colour = (0.3, 0.2, 0.12)
    found = fitted_beard([view_of(wearing(bare, "full", length=length, color=colour), bare)], bare.params)
    assert found.styles["beard"] in ("full_short", "full", "full_long") and found.beard.in_skin
    want = fv.head(wearing(bare, "full", length=length).params, bare.model, texture_size=16).part_vertices["beard"]
    got = fv.head(found, bare.model, texture_size=16).part_vertices["beard"]
    assert abs(got[:, 1].min() - want[:, 1].min()) < 0.006 + 0.004 * length
    assert found.beard.coverage[ON_CHIN].min() > 0.7
    assert np.abs(np.array(found.beard.color) - colour).max() < 0.08


def test_a_beard_grows_only_where_the_photograph_shows_it(bare):
    found = fitted_beard([view_of(wearing(bare, "goatee", color=(0.2, 0.15, 0.1)), bare)], bare.params)
    assert found.styles["beard"] in ("goatee", "van_dyke")
    grown = wearing(bare, "full", color=(0.2, 0.15, 0.1), coverage=np.float32(np.abs(CONTROL_POINTS[:, 0]) < 0.06))
    found = fitted_beard([view_of(grown, bare)], bare.params)
    assert found.beard.coverage[ON_CHEEK].mean() < 0.4 < 0.7 < found.beard.coverage[ON_CHIN].min()


def test_a_head_without_a_beard_keeps_its_parameters(bare):
    assert fitted_beard([view_of(bare, bare)], bare.params) is bare.params


def test_most_photographs_decide_whether_there_is_a_beard(bare):
    bearded = wearing(bare, "full", color=(0.2, 0.15, 0.1))
    views = [view_of(facing(bearded, yaw), facing(bare, yaw)) for yaw in (0, 40)]
    shaved = view_of(bare, bare)
    assert fitted_beard([shaved, shaved, views[0]], bare.params) is bare.params
    assert "beard" in fitted_beard([*views, shaved], bare.params).styles


def test_a_beard_that_a_photograph_showed_leaves_clean_skin(bare, model):
    worn = wearing(bare, "full", color=(0.1, 0.08, 0.06), in_skin=True)
    size = 256
    below = bake_vertices(model, skin_below_beard(model, worn.params)[:, None], size)[..., 0]
    clean = fv.head(bare.params, model, texture_size=size).texture
    dark = np.where(below[..., None] > 0.3, 30, clean).astype(np.uint8)
    worn = worn.replace(texture=dark)
    for shaved in (fv.edit(worn, beard=None), fv.edit(worn, beard="shaved"), fv.edit(worn, beard="goatee")):
        assert not shaved.params.beard.in_skin
        off = np.abs(shaved.texture.astype(int) - clean)
        assert off[below > 0.95].mean() < 8 and off[below == 0].max() == 0
    assert fv.edit(worn, beard_length=0.5).texture is worn.texture
    made = wearing(bare, "full").replace(texture=dark)  # whose texture never showed it
    assert fv.edit(made, beard=None).texture is made.texture and "beard" not in fv.edit(made, beard=None).parts
    assert "beard" in fv.edit(worn, beard_color="red").parts
    assert not np.array_equal(fv.edit(worn, beard_color="red").texture, dark)


def test_a_flag_that_is_none_is_refused():
    with pytest.raises(fv.ParameterError, match="in_skin"):
        Beard(in_skin=1)
