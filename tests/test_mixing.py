"""Random faces, blends, presets and regions: people stay people, what is kept is kept, and ends are exact."""

import colorsys
import dataclasses
import math

import numpy as np
import pytest
import torch
from test_skin_detail import module_of

import faceverse as fv
from faceverse.detail.blending import blended
from faceverse.detail.latents import bare_texture, noise_maps
from faceverse.edit import edit, head
from faceverse.errors import ParameterError
from faceverse.graphics.lighting import linear_from_srgb
from faceverse.model.face_model import ARKIT_NAMES, FaceModel

MAPS = ("vertices", "neutral_vertices", "albedo", "texture", "texture_confidence", "normal_map", "displacement")


@pytest.fixture(scope="module")
def module(toy_model):
    return module_of(toy_model)


@pytest.fixture(scope="module")
def pair(toy_model, module):
    """Two heads with detail, displacement and an expression; their textures differ in size."""
    heads = []
    for seed, size in ((1, 64), (2, 128)):
        bare = head(toy_model.random(seed, scale=0.3), toy_model, texture_size=size).replace(detail_module=module)
        made = edit(bare, detail_seed=seed, expression={"jawOpen": 0.2 * seed})
        displacement = np.random.default_rng(seed).normal(0, 0.02, 128 * 128).astype(np.float32)
        depths = {"depth": np.float32(0.5 * seed), "wrinkle_depth": np.float32(1)}
        fitted = {"residual_displacement": displacement} | depths
        latents = made.params.detail | fitted
        heads.append(edit(made.replace(params=made.params.replace(detail=latents)), detail=0.5 + 0.5 * seed))
    return heads


@pytest.fixture(scope="module")
def bare(toy_model):
    return head(toy_model.random(3, scale=0.3), toy_model, texture_size=64)


def estimates(result):
    return result.model.attributes(result.params)


def same(one, two, names=MAPS):
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


# ------------------------------------------------------------------------------------------------- presets and regions


def test_presets_are_weights_of_blendshapes():
    for name, weights in fv.EXPRESSION_PRESETS.items():
        assert set(weights) <= set(ARKIT_NAMES), name
        assert all(0 < weight <= 1 for weight in weights.values()), name
        assert bool(weights) == (name != "neutral")
    expected = "neutral smile laugh surprise anger sadness disgust fear contempt wink wink_right kiss puff sleep"
    assert set(expected.split()) <= set(fv.EXPRESSION_PRESETS)
    assert fv.EXPRESSION_PRESETS["wink"]["eyeBlinkLeft"] == fv.EXPRESSION_PRESETS["wink_right"]["eyeBlinkRight"] == 1
    for mapping in (fv.EXPRESSION_PRESETS, fv.EXPRESSION_PRESETS["smile"], fv.ATTRIBUTE_REGIONS):
        with pytest.raises(TypeError):
            mapping["new"] = {}


def test_regions_hold_each_attribute_of_the_open_model_once(model):
    listed = [name for names in fv.ATTRIBUTE_REGIONS.values() for name in names]
    assert sorted(listed) == sorted(model.attribute_names)


# --------------------------------------------------------------------------------------------------------- random faces


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_random_faces_stay_people(model, strength):
    start = head(model.random(3), model, texture_size=8)
    limits = fv.attribute_limits(start)
    spread = []
    for seed in range(12):
        amounts = fv.random_attributes(start, seed, strength=strength)
        assert set(amounts) == set(model.attribute_names)
        assert all(low <= amounts[name] <= high for name, (low, high) in limits.items())
        changed = fv.randomize(start, seed, strength=strength)
        assert changed.warnings == start.warnings
        values = estimates(changed)
        shares = [values[name] for name in ("african", "asian", "caucasian")]
        assert sum(shares) == pytest.approx(1, abs=0.02) and min(shares) > -0.05 and max(shares) < 1.05
        spread.append([values[a.name] / (a.maximum - a.minimum) for a in model.data.attributes])
    deviation = np.std(spread, axis=0).mean()
    assert 0.1 * min(strength, 1) < deviation < 0.35 * max(strength, 1)


def test_random_faces_are_no_rarities(model):
    """Each drawn attribute lies within two standard deviations of the population, or on the way there from the face."""
    attributes = [a.name for a in model.data.attributes]
    population = model.data.population
    weights = np.stack([a.estimator for a in model.data.attributes])
    values = population @ weights[:, :-1].T + weights[:, -1]
    start = head(model.random(3), model, texture_size=8)
    present = model.attributes(start.params)
    for strength in (0.5, 1.0):
        for seed in range(6):
            drawn = fv.edit(start, **fv.random_attributes(start, seed, strength=strength))
            found = model.attributes(drawn.params)
            for k, name in enumerate(attributes):
                mean, most = values[:, k].mean(), 2 * values[:, k].std()
                own = abs(present[name] - mean)
                assert abs(found[name] - mean) <= max(most, (1 - strength) * own + strength * most) + 0.05 * most, name


def test_hair_of_random_people_has_natural_colours_that_no_age_and_no_sex_changes(model):
    for seed in range(40):
        person = model.random(seed)
        hue, saturation, value = colorsys.rgb_to_hsv(*person.hair.color)
        assert 10 < 360 * hue < 50 and saturation * value < 0.6, f"{person.hair.color} is neither brown, blond nor red"
    start = head(person, model, texture_size=8)
    for edits in ({"age": 20}, {"age": -15}, {"gender": 1}, {"gender": -1}):
        changed = fv.edit(start, **edits).params.hair
        assert changed.color == start.params.hair.color and 0 <= changed.grey <= 1, edits


def test_same_seed_same_face(model):
    start = head(model.random(3), model, texture_size=8)
    first, again, other = (fv.random_attributes(start, seed) for seed in (4, 4, 5))
    assert first == again and first != other
    assert fv.random_attributes(start, 4, strength=0) == {}


@pytest.mark.parametrize(("region", "names"), [("nose", ["nose"]), (("jaw", "ears"), ["jaw", "ears"])])
def test_a_region_changes_its_attributes_only(model, region, names):
    start = head(model.random(3), model, texture_size=8)
    inside = {name for part in names for name in fv.ATTRIBUTE_REGIONS[part]}
    assert set(fv.random_attributes(start, 1, region=region)) == inside
    before, after = estimates(start), estimates(fv.randomize(start, 1, region=region))
    for attribute in model.data.attributes:
        moved = abs(after[attribute.name] - before[attribute.name]) / (attribute.maximum - attribute.minimum)
        assert moved < 0.01 or attribute.name in inside, attribute.name
    assert max(abs(after[name] - before[name]) for name in inside) > 0.5


def test_kept_attributes_keep_their_estimates(model):
    start = head(model.random(5), model, texture_size=8)
    kept = ("age", "gender", "asian", *fv.ATTRIBUTE_REGIONS["eyes"])
    for seed in range(4):
        changed = fv.randomize(start, seed, keep=("age", "gender", "asian", "eyes"))
        before, after = estimates(start), estimates(changed)
        for name in kept:
            assert after[name] == pytest.approx(before[name], abs=0.02), name
        assert sum(after[name] for name in ("african", "asian", "caucasian")) == pytest.approx(1, abs=0.02)
        assert abs(after["jaw_width"] - before["jaw_width"]) > 0.01
    assert fv.random_attributes(start, 1, keep=fv.ATTRIBUTE_REGIONS) == {}


def test_what_stays_has_a_say(model):
    """Temples and forehead are wide together: beside kept temples the forehead varies less, and follows them."""
    start, name = head(model.random(3), model, texture_size=8), "forehead_width"
    keep = [other for other in model.attribute_names if other != name]
    means = []
    for mm in (-12, 12):
        person = edit(start, targets={"temple_width": mm})
        drawn = [fv.random_attributes(person, seed, keep=keep)[name] for seed in range(15)]
        means.append(estimates(person)[name] + np.mean(drawn))
    assert means[1] - means[0] > 6


def test_whole_faces_get_other_skin_unless_it_is_kept(pair):
    start = pair[0]
    whole = fv.randomize(start, 7)
    assert whole.params.detail["noise_seed"] == 7 and np.array_equal(whole.params.expression, start.params.expression)
    for other in (fv.randomize(start, 7, keep="skin"), fv.randomize(start, 7, region="person")):
        assert other.params.detail["noise_seed"] == start.params.detail["noise_seed"]
    assert fv.randomize(start, 7, strength=0).params.detail["noise_seed"] == start.params.detail["noise_seed"]


def test_models_without_population_or_attributes(bare):
    assert set(fv.random_attributes(bare, 1)) == {"age", "gender"}
    assert fv.random_attributes(bare, 1, region="nose") == {}
    none = bare.replace(model=FaceModel(dataclasses.replace(bare.model.data, attributes=())))
    assert fv.random_attributes(none, 1) == {} and fv.attribute_limits(none) == {}


def test_limits_are_where_edits_stop(bare):
    for name, (low, high) in fv.attribute_limits(bare).items():
        attribute = next(a for a in bare.model.data.attributes if a.name == name)
        assert low < 0 < high
        for amount, end in ((low, attribute.minimum), (high, attribute.maximum)):
            changed = edit(bare, **{name: amount})
            assert changed.warnings == bare.warnings
            assert estimates(changed)[name] == pytest.approx(end, abs=0.01)
            assert len(edit(bare, **{name: amount * 1.1}).warnings) == len(bare.warnings) + 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"region": "noze"}, "no region 'noze'; did you mean 'nose'"),
        ({"region": 3}, "region must be one name or several, got 3"),
        ({"keep": ("agee",)}, "no region 'agee'"),
        ({"strength": 2.5}, r"strength must be in 0\.\.2, got 2.5"),
        ({"strength": "much"}, "strength must be a finite number"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_refused_chance(bare, given, message):
    with pytest.raises(ParameterError, match=message):
        fv.randomize(bare, **{"seed": 1, **given})


# --------------------------------------------------------------------------------------------------------------- blends


def test_ends_of_a_blend_are_the_heads(pair):
    for share, wanted in zip((0, 1), pair):
        mixed = fv.blend(*pair, identity=share, expression=share, albedo=share, detail=share)
        same(mixed, wanted)
        for name in ("identity", "expression", "albedo", "iris"):
            np.testing.assert_array_equal(getattr(mixed.params, name), getattr(wanted.params, name))
        assert {k: v.tolist() for k, v in mixed.params.detail.items()} == {
            k: v.tolist() for k, v in wanted.params.detail.items()
        }
        assert mixed.camera == pair[0].camera and mixed.params.rotation is pair[0].params.rotation


def test_parts_of_a_blend_are_apart(pair):
    first, second = pair
    mixed = fv.blend(first, second, identity=0.25, expression=0, albedo=0, detail=0)
    quarter = 0.75 * first.neutral_vertices + 0.25 * second.neutral_vertices
    np.testing.assert_allclose(mixed.neutral_vertices, quarter, atol=1e-6)
    np.testing.assert_array_equal(mixed.params.expression, first.params.expression)
    mixed = fv.blend(first, second, identity=0, expression=1, albedo=0, detail=0)
    np.testing.assert_array_equal(mixed.neutral_vertices, first.neutral_vertices)
    np.testing.assert_array_equal(mixed.params.expression, second.params.expression)
    np.testing.assert_array_equal(mixed.texture, first.texture)
    mixed = fv.blend(first, second, identity=0, expression=0, albedo=0, detail=1)
    np.testing.assert_array_equal(mixed.params.detail["w"], second.params.detail["w"])
    assert mixed.texture.shape == first.texture.shape


def test_texels_are_mixed_in_linear_light(bare):
    black, white = (bare.replace(texture=np.full_like(bare.texture, value)) for value in (0, 255))
    mixed = fv.blend(black, white, albedo=0.3)
    linear = linear_from_srgb(torch.from_numpy(mixed.texture / 255))
    assert linear.mean() == pytest.approx(0.3, abs=0.005)
    large = bare.replace(texture=np.full((128, 128, 3), 9, np.uint8), texture_confidence=np.zeros((128, 128), np.uint8))
    mixed = fv.blend(black, large, albedo=0.3)
    assert mixed.texture.shape == (128, 128, 3) and mixed.texture_confidence.shape == (128, 128)


def test_colours_of_the_detail_are_mixed_with_the_detail(pair):
    """The bare textures do not depend on how the details are mixed."""
    few, many = (fv.blend(*pair, identity=0, albedo=0.5, detail=share) for share in (0.2, 0.8))
    np.testing.assert_allclose(bare_texture(few), bare_texture(many), atol=0.02)
    assert np.abs(few.texture.astype(int) - many.texture).max() > 10


def test_skin_between_two_skins_is_as_rough(pair, module):
    latents = [one.params.detail for one in pair]
    mixed = blended(module, *latents, 0.5)
    deviation = [torch.cat([v.flatten() for v in noise_maps(module.detail, some)]).std() for some in (*latents, mixed)]
    assert deviation[2] == pytest.approx(float(np.mean(deviation[:2])), rel=0.03)
    np.testing.assert_allclose(mixed["w"], (latents[0]["w"] + latents[1]["w"]) / 2, rtol=1e-5)
    assert float(mixed["depth"]) == pytest.approx(0.75) and float(mixed["strength"]) == pytest.approx(1.25)
    assert float(np.std(mixed["residual_displacement"])) > 0.75 * 0.02  # 0.71 by plain shares


def test_a_head_without_detail_counts_as_smooth(pair, bare):
    for shares, part in (((pair[0], bare), 0.75), ((bare, pair[0]), 0.25)):
        mixed = fv.blend(*shares, identity=0, expression=0, albedo=0, detail=0.25)
        expected = part * pair[0].params.detail["strength"]
        assert mixed.params.detail["strength"] == pytest.approx(float(expected))
        assert mixed.displacement.any()
    smooth = fv.blend(pair[0], bare, detail=1)
    assert smooth.params.detail == {} and smooth.normal_map is None
    assert fv.blend(bare, bare).displacement is None


def test_blends_leave_the_heads_alone(pair):
    before = [{name: getattr(one, name).copy() for name in MAPS} for one in pair]
    mixed = fv.blend(*pair)
    for one, kept in zip(pair, before):
        for name in MAPS:
            np.testing.assert_array_equal(getattr(one, name), kept[name])
            assert not np.shares_memory(getattr(mixed, name), getattr(one, name))


def test_refused_blends(pair, bare, toy_model, module):
    other = FaceModel(dataclasses.replace(toy_model.data, mean_vertices=toy_model.mean_vertices * 1.1, name="tall"))
    with pytest.raises(ParameterError, match="different models, 'toy' and 'tall'"):
        fv.blend(bare, bare.replace(model=other))
    twin = bare.replace(model=FaceModel(toy_model.data))
    assert fv.blend(bare, twin).model is toy_model
    with pytest.raises(ParameterError, match=r"identity must be in 0\.\.1, got 1.2"):
        fv.blend(bare, bare, identity=1.2)
    with pytest.raises(ParameterError, match=r"detail must be a finite number"):
        fv.blend(bare, bare, detail=math.nan)
    with pytest.raises(ParameterError, match="blend mixes heads"):
        fv.blend(bare, "me.json")
    shape = fv.blend(pair[0].replace(detail_module=None), pair[1], albedo=0, detail=0)
    same(shape, pair[0], ("texture", "displacement", "normal_map"))
    with pytest.raises(ParameterError, match="module that made it is not installed"):
        fv.blend(pair[0], pair[1].replace(detail_module=None))
    foreign = dataclasses.replace(module, code=dataclasses.replace(module.code, albedo_scale=0.1))
    with pytest.raises(ParameterError, match="from different modules"):
        fv.blend(pair[0], pair[1].replace(detail_module=foreign))
    lumpy = bare.replace(displacement=np.ones((64, 64), np.float32))
    with pytest.raises(ParameterError, match="cannot be mixed"):
        fv.blend(lumpy, bare)
    with pytest.raises(ParameterError, match="bare displacement"):
        fv.blend(pair[0], lumpy)
    assert fv.blend(bare, lumpy, detail=1).displacement is lumpy.displacement
