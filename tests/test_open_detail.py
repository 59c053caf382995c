"""The detail weights that ship in weights/: what they make of heads, of a photograph, and of files."""

import json
import re
import struct

import numpy as np
import pytest

import faceverse as fv
from faceverse.detail.displacement import NO_DISPLACEMENT_REGIONS, displacement_weight, split_bands
from faceverse.detail.file import OPEN_FILES, has_open_detail
from faceverse.detail.latents import layout_digest, maps_of, neutral_maps, random_detail, wrinkles
from faceverse.fitting.detail_stage import fit_detail_maps
from faceverse.model.texture_maps import bake_vertices
from faceverse.weights import find_companion_file

pytestmark = pytest.mark.skipif(not has_open_detail(), reason=f"weights/{OPEN_FILES[0]} is not there")

SMILE = {f"mouthSmile{side}": 1.0 for side in ("Left", "Right")}
RAISED_BROWS = {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}


@pytest.fixture(scope="module")
def module():
    return fv.load_detail()


@pytest.fixture(scope="module")
def person(model):
    """A neutral head of age 45 with random skin detail."""
    return fv.edit(of_age(model, 8, 45), detail_seed=5)


@pytest.fixture(scope="module")
def fitted(astronaut_fit):
    return astronaut_fit[0]


def of_age(model, seed, years):
    bare = fv.head(model.random(seed), model, texture_size=256)
    return fv.edit(bare, age=years - model.attributes(bare.params)["age"])


def texels(model, size, *regions):
    """(size, size) bool, those with all corners of their triangle in one of the regions."""
    inside = np.zeros((len(model.mean_vertices), 1), np.float32)
    for region in regions:
        inside[model.regions[region]] = 1
    return bake_vertices(model, inside, size)[..., 0] > 0.999


def face(model, size):
    """(size, size) bool, skin of the face that shows its whole displacement."""
    return texels(model, size, "face") & (displacement_weight(model, size) == 1)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


# -- files ------------------------------------------------------------------------------------------------------------
def test_files_are_small():
    sizes = {path.name: path.stat().st_size for path in find_companion_file(OPEN_FILES[0]).parent.glob("open_*")}
    assert set(OPEN_FILES) <= set(sizes) and max(sizes.values()) < 10e6, sizes


def test_the_module_is_whole_and_made_for_the_open_model(model, module):
    assert module.detail is not None and module.expression is not None and module.regressor is not None
    assert module.code.layout == layout_digest(model)
    assert {"age", "masculinity"} <= set(module.code.factors) and len(module.code.factors) <= module.detail.style_dim
    assert module.regressor.style_dim == module.expression.style_dim == module.detail.style_dim
    for network in (module.detail, module.expression, module.regressor):
        assert all(values.isfinite().all() and not values.requires_grad for values in network.parameters())


# -- heads without a photograph ---------------------------------------------------------------------------------------
def test_detail_is_fine_displacement_of_skin(model, module, person):
    size = module.detail.size
    shown = person.displacement
    assert shown.shape == (size, size) and np.abs(shown).max() < 3
    assert not shown[texels(model, size, *(name for name in NO_DISPLACEMENT_REGIONS if name in model.regions))].any()
    assert 0.005 < rms(shown[face(model, size)]) < 0.3
    assert all(rms(band[face(model, size)]) > 0.001 for band in split_bands(shown))


def test_seeds_are_different_people_on_the_same_bones(model, person):
    other = fv.edit(person, detail_seed=6)
    skin = face(model, len(person.displacement))
    apart = (other.displacement - person.displacement)[skin]
    assert rms(apart) > 0.3 * min(rms(other.displacement[skin]), rms(person.displacement[skin]))
    np.testing.assert_array_equal(other.vertices, person.vertices)
    assert not np.array_equal(other.texture, person.texture)


def test_strength_is_linear_and_none_is_smooth(model, person):
    half, none = fv.edit(person, detail=0.5), fv.edit(person, detail=0)
    np.testing.assert_allclose(half.displacement, person.displacement / 2, atol=1e-6)
    assert not none.displacement.any()
    bare = fv.head(person.params.replace(detail={}), model, texture_size=256)
    plain, smooth, rough = (fv.render(one, 160, "clay").rgb.astype(int) for one in (bare, none, person))
    assert np.abs(smooth - plain).max() <= 2 < np.abs(rough - plain).max()
    assert np.abs(none.texture.astype(int) - bare.texture).mean() < 2  # rounded twice on the way


def test_creases_and_pores_of_another_head_add_up_to_its_skin(model, person):
    other = fv.edit(of_age(model, 9, 70), detail_seed=7)
    coarse = fv.edit(person, detail_from=other, detail_layers="coarse")
    both = fv.edit(coarse, detail_from=other, detail_layers="fine")
    whole = fv.edit(person, detail_from=other)
    np.testing.assert_array_equal(both.params.detail["w"], whole.params.detail["w"])
    skin = face(model, len(person.displacement))
    fine = fv.edit(person, detail_from=other, detail_layers="fine")
    creases = [rms(split_bands(one.displacement - person.displacement)[0][skin]) for one in (coarse, fine)]
    assert creases[0] > creases[1]


@pytest.mark.parametrize("seed", [1, 8])
def test_skin_deepens_with_age(model, seed):
    young = fv.edit(of_age(model, seed, 30), detail_seed=seed)
    old = fv.edit(young, age=30)
    skin = face(model, len(young.displacement))
    depth = [[rms(band[skin]) for band in split_bands(one.displacement)] for one in (young, old)]
    assert depth[1][0] > 1.2 * depth[0][0] and depth[1][1] > depth[0][1], depth


@pytest.mark.parametrize("expression", [SMILE, RAISED_BROWS])
def test_expressions_wrinkle_the_skin(model, module, person, expression):
    rest = neutral_maps(module, model, person.params).displacement
    assert not wrinkles(module, model, person.params, rest).any()
    np.testing.assert_array_equal(person.displacement, rest)
    moving = fv.edit(person, expression=expression)
    added = moving.displacement - rest
    size = len(rest)
    assert 0.05 < np.abs(added[face(model, size)]).max() < 3
    quiet = texels(model, size, "scalp" if expression is SMILE else "neck")
    assert rms(added[quiet]) < 0.1 * rms(added[face(model, size)])


def test_a_picture_of_smooth_skin_gives_shallow_detail(model, module):
    """Whatever the age that the head looks like."""
    bare = of_age(model, 9, 65)
    camera = fv.Camera(1.6 * 900, (450, 450), (900, 900))
    photo = fv.render(bare, camera=camera).rgb
    skin = fit_detail_maps(photo, model, bare.params, camera, module)
    anybody = maps_of(module, model, bare.params.replace(detail=random_detail(module, model, bare.params, 1)))
    region = face(model, len(skin.displacement))
    assert skin.from_photo and rms(skin.displacement[region]) < 0.5 * rms(anybody.displacement[region])


# -- a photograph -----------------------------------------------------------------------------------------------------
def test_the_photograph_says_what_its_skin_is_like(model, module, fitted):
    stages = {stage.name: stage for stage in fitted.stages}
    assert list(stages) == list(fv.FIT_STAGES)
    detail, expression = stages["detail"], stages["expression detail"]
    assert 0 < detail.after < detail.before
    assert expression.after == expression.before == detail.after
    assert detail.iterations == len(detail.history) - 1 and detail.history[-1] < 0.5 * detail.history[0]
    assert fitted.detail_module is module


def test_detail_of_a_photograph_is_bounded_and_off_the_eyes(model, fitted):
    shown = fitted.displacement
    assert np.isfinite(shown).all() and 0.01 < np.abs(shown).max() < 3
    assert not shown[texels(model, len(shown), "eyeballs", "teeth", "tongue", "mouth_inside")].any()
    assert fitted.normal_map.shape == (*shown.shape, 3)


# -- files of a head --------------------------------------------------------------------------------------------------
def test_a_stored_head_has_the_same_skin(model, module, fitted, tmp_path):
    path = fv.export(fitted, tmp_path / "me.json")
    again = fv.load_result(path, model)
    assert again.detail_module is module
    np.testing.assert_allclose(again.displacement, fitted.displacement, rtol=0, atol=6e-5)
    assert np.abs(again.normal_map.astype(int) - fitted.normal_map).max() <= 1
    np.testing.assert_allclose(maps_of(module, model, again.params).displacement, fitted.displacement, atol=1e-3)
    assert path.stat().st_size < 1.35e6


def test_a_glb_shows_the_detail_by_its_normal_map(fitted, tmp_path):
    content = fv.export(fitted, tmp_path / "me.glb").read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    document = json.loads(content[20 : 20 + length])
    texture = document["textures"][document["materials"][0]["normalTexture"]["index"]]
    assert document["images"][texture["source"]]["mimeType"] == "image/png"


def test_a_dense_mesh_carries_the_detail(fitted, tmp_path):
    content = fv.export(fitted, tmp_path / "me.ply", lod="dense").read_bytes()
    assert int(re.search(rb"element face (\d+)", content)[1]) > 300_000
