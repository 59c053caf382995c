"""Hair of the editing state: what browsers may send, what is baked into files, and what downloads hold."""

import numpy as np
import pytest

import faceverse as fv

pytest.importorskip("gradio")
heads = pytest.importorskip("demo.heads")
part_files = pytest.importorskip("demo.part_files")
hair_state = pytest.importorskip("demo.hair_state")
layout = pytest.importorskip("demo.layout")
EditState = pytest.importorskip("demo.edit_state").EditState
HairState = hair_state.HairState


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def head(model):
    """A fitted head, whose hair has numbers that no slider shows exactly."""
    fitted = fv.head(model.random(3, age=40, hair=False), model, texture_size=16)
    warp = np.full_like(fitted.params.hair.warp, 0.004)
    hair = fv.Hair((1 / 3, 0.2, 0.1), None, 0.12345678, 0.87654321, 1.2, 0.9, 0.9, warp=warp)
    fitted = fv.edit(fitted, hair="short02")
    return heads.EditableHead.of(fitted.replace(params=fitted.params.replace(hair=hair)), 1)


def state_of(head, **changes):
    start = heads.initial_state(head)
    return EditState.from_json(start | {"hair": start["hair"] | changes}, head.fitted.model)


def test_a_state_that_was_not_moved_keeps_the_exact_hair(head):
    result = heads.with_state(head, state_of(head))
    assert result.params.hair == head.fitted.params.hair and result.params.styles == head.fitted.params.styles


def test_sliders_change_what_they_show(head):
    result = heads.with_state(head, state_of(head, length=0.5, volume=2.0, color="#8f7049", grey=0.25, wave=0.3))
    hair = result.params.hair
    assert (hair.length, hair.grey, hair.wave) == (0.5, 0.25, 0.3)
    assert np.allclose((hair.volume_top, hair.volume_sides), (2.4, 1.8))
    assert np.allclose(hair.color, np.array([0x8F, 0x70, 0x49]) / 255)
    assert np.array_equal(hair.warp, head.fitted.params.hair.warp), "the outline of the photograph stays"
    assert hair.fringe == head.fitted.params.hair.fringe


def test_files_contain_style_and_parting_only(head, tmp_path):
    moved = heads.edit(head, state_of(head, length=0.5, color="#ffffff"))
    assert moved.edited is head.edited, "the browser shows it without new files"
    other = heads.edit(head, state_of(head, style="bob01", mirrored=True, length=0.5))
    assert other.edited.hair_style == "bob01" and other.edited.params.hair.mirrored
    assert other.edited.params.hair.length == 1 and not other.edited.params.hair.warp.any(), "as made"
    assert heads.with_state(other, other.state).params.hair.length == 0.5
    shaved = heads.edit(head, state_of(head, style="bald"))
    assert "hair" not in part_files.of_head(shaved.edited, tmp_path, tmp_path)


def test_grey_of_the_slider_ages_with_the_head(head):
    state = state_of(head, grey=0.0)
    older = EditState.from_json(state.to_json() | {"attributes": {"age": 30}}, head.fitted.model)
    assert heads.with_state(heads.edit(head, older), older).params.hair.grey > 0.4
    assert heads.with_state(heads.edit(head, state), state).params.hair.grey == 0


def test_the_view_has_untinted_textures_and_the_numbers_of_the_files(head, tmp_path):
    view = heads.view(head, tmp_path, heads.model_file(tmp_path))
    assert view["hair"]["length"] == pytest.approx(0.87654321) and view["start"]["hair"]["style"] == "short02"
    before = view["parts"]
    dyed = fv.edit(head.fitted, hair_color="pink")
    after = part_files.of_head(dyed, tmp_path, tmp_path)
    assert before["hair"] == after["hair"] and before["scalp"] == after["scalp"], "colours need no other file"
    mirrored = part_files.of_head(fv.edit(head.fitted, hair_mirrored=True), tmp_path, tmp_path)
    assert mirrored["hair"]["mesh"] != after["hair"]["mesh"]


def test_a_random_person_gets_hair_unless_it_is_locked(head):
    present = state_of(head)
    drawn = heads.random_changes(head, present, None, (), 5)
    assert drawn.hair != present.hair
    assert heads.random_changes(head, present, None, ("hair",), 5).hair == present.hair
    assert heads.random_changes(head, present, "nose", (), 5).hair == present.hair


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"colour": "#000000"},
        {"style": "mohawk"},
        {"style": 3},
        {"color": "red"},
        {"color": "#12345g"},
        {"length": "long"},
        {"length": float("nan")},
        {"mirrored": 1},
    ],
)
def test_forged_hair_is_refused(model, entry):
    with pytest.raises(fv.ParameterError):
        EditState.from_json({"hair": entry}, model)


def test_numbers_are_clamped(model):
    hair = EditState.from_json({"hair": {"length": 99, "grey": -1}}, model).hair
    assert (hair.length, hair.grey) == (2.0, 0.0)
    assert EditState.from_json({}, model).hair is None


def test_a_model_without_hair_has_no_tab(toy_model):
    head = heads.EditableHead.of(fv.head(toy_model.neutral(), toy_model, texture_size=8), 1)
    assert hair_state.base_of(head.fitted) is None and hair_state.start_of(head.fitted) is None
    state = EditState.from_json({"hair": {"style": "bob01"}}, toy_model)
    assert heads.with_state(head, state).params.styles == head.fitted.params.styles


def test_pictures_of_the_styles_are_small():
    choices = layout.hair_choices()
    assert [name for name, _ in choices["styles"]] == list(fv.HAIR_STYLES)
    assert choices["numbers"].keys() == hair_state.NUMBERS.keys() and choices["colors"] == dict(fv.HAIR_COLORS)
    pictures = list((layout.ASSETS / "hair").glob("*.webp"))
    assert pictures and sum(path.stat().st_size for path in pictures) < 300_000
    assert {path.stem for path in pictures} <= set(fv.HAIR_STYLES)
