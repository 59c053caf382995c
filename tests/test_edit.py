"""Edits: what they change, what they leave alone, that they add up, and what they refuse."""

import dataclasses

import numpy as np
import pytest
import torch
from test_skin_detail import module_of

import faceverse as fv
from faceverse.edit import edit
from faceverse.errors import ParameterError
from faceverse.graphics.camera import default_camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, linear_from_srgb, shading, srgb_from_linear
from faceverse.model.face_model import FaceModel
from faceverse.model.texture_maps import bake_vertices, uv_coverage
from faceverse.result import FitResult, with_params

SIZE = 64


@pytest.fixture
def head(toy_model):
    generator = np.random.default_rng(4)
    params = toy_model.random(1, scale=0.2)
    params = params.replace(expression=generator.uniform(0, 0.3, len(params.expression)).astype(np.float32))
    albedo = toy_model.albedo(torch.from_numpy(params.albedo)[None])[0].numpy()
    linear = bake_vertices(toy_model, albedo, SIZE) * generator.uniform(0.8, 1.2, (SIZE, SIZE, 1)).astype(np.float32)
    texture = (srgb_from_linear(torch.from_numpy(linear)) * 255).round().to(torch.uint8).numpy()
    confidence = np.full((SIZE, SIZE), 255, np.uint8)
    result = FitResult(
        toy_model, params, default_camera((120, 160)), None, None, None, texture, confidence, warnings=("dark photo",)
    )
    return with_params(result, params)


@pytest.fixture
def detailed(head):
    generator = np.random.default_rng(5)
    normals = np.concatenate([generator.normal(0, 0.2, (SIZE, SIZE, 2)), np.ones((SIZE, SIZE, 1))], axis=2)
    normals[:8] = (0, 0, 1)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    displacement = generator.normal(0, 0.3, (SIZE, SIZE)).astype(np.float32)
    return head.replace(normal_map=np.uint8(np.round((normals + 1) * 127.5)), displacement=displacement)


def estimate(result, name):
    return result.model.attributes(result.params)[name]


def arrays(result):
    """All arrays of a head by name."""
    found = {}
    for prefix, value in (("", result), ("params.", result.params)):
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if isinstance(content, np.ndarray):
                found[prefix + field.name] = content
    return found


# ---------------------------------------------------------------------------------------------------------- attributes


@pytest.mark.parametrize(("name", "amount"), [("age", 12.0), ("age", -8.0), ("gender", 0.2), ("gender", -0.2)])
def test_attributes_move_the_estimate_by_the_amount(head, name, amount):
    edited = edit(head, **{name: amount})
    assert estimate(edited, name) == pytest.approx(estimate(head, name) + amount, rel=1e-4)
    other = "gender" if name == "age" else "age"
    assert estimate(edited, other) == pytest.approx(estimate(head, other), rel=1e-4)
    assert edited.warnings == head.warnings
    assert np.abs(edited.vertices - head.vertices).max() > 1e-4


def test_vertices_and_albedo_follow_the_parameters(head):
    edited = edit(head, age=10, expression={"jawOpen": 0.7})
    again = with_params(edited, edited.params)
    for name in ("vertices", "neutral_vertices", "albedo"):
        assert np.array_equal(getattr(edited, name), getattr(again, name))
        assert not np.array_equal(getattr(edited, name), getattr(head, name))


def test_there_and_back(head):
    back = edit(edit(head, age=20, gender=0.1), age=-20, gender=-0.1)
    np.testing.assert_allclose(back.params.identity, head.params.identity, atol=1e-5)
    np.testing.assert_allclose(back.params.albedo, head.params.albedo, atol=1e-5)
    np.testing.assert_allclose(back.vertices, head.vertices, atol=1e-6)
    assert np.abs(back.texture.astype(int) - head.texture).max() <= 3


def test_edits_add_up_in_any_order(head):
    together = edit(head, age=10, gender=0.2, expression={"jawOpen": 0.5, "eyeBlinkLeft": 1})
    one_by_one = edit(edit(edit(head, expression={"eyeBlinkLeft": 1, "jawOpen": 0.5}), gender=0.2), age=10)
    reordered = edit(head, expression={"eyeBlinkLeft": 1, "jawOpen": 0.5}, gender=0.2, age=10)
    twice = edit(edit(head, age=5, gender=0.2), age=5, expression={"jawOpen": 0.5, "eyeBlinkLeft": 1})
    for name, array in arrays(together).items():
        assert np.array_equal(arrays(reordered)[name], array), name
        for other in (one_by_one, twice):
            tolerance = 3 if array.dtype == np.uint8 else 1e-5
            np.testing.assert_allclose(arrays(other)[name].astype(float), array.astype(float), atol=tolerance)


@pytest.mark.parametrize(("amount", "limit"), [(500, 80), (-500, 18)])
def test_attributes_stop_at_the_range_and_say_so(head, amount, limit):
    edited = edit(head, age=amount)
    assert estimate(edited, "age") == pytest.approx(limit, abs=0.01)
    assert edited.warnings[0] == "dark photo" and len(edited.warnings) == 2
    assert "age: changed by" in edited.warnings[1] and "18 to 80 (years)" in edited.warnings[1]
    further = edit(edited, age=amount)
    assert estimate(further, "age") == pytest.approx(limit, abs=0.01)


def test_a_head_beyond_the_range_is_never_moved_backwards(head):
    age = head.model.data.attributes[0]
    ancient = dataclasses.replace(age, minimum=0.0, maximum=estimate(head, "age") - 10)
    data = dataclasses.replace(head.model.data, attributes=(ancient, *head.model.data.attributes[1:]))
    head = head.replace(model=FaceModel(data))
    assert np.array_equal(edit(head, age=5).vertices, head.vertices)
    assert estimate(edit(head, age=-15), "age") == pytest.approx(estimate(head, "age") - 15, rel=1e-4)


def test_estimators_that_see_only_a_part_of_a_step_are_allowed_for(head):
    """The estimate, not the amount, stops at the limit."""
    age = head.model.data.attributes[0]
    shy = dataclasses.replace(age, estimator=np.append(age.estimator[:-1] * 0.5, age.estimator[-1]))
    head = head.replace(model=FaceModel(dataclasses.replace(head.model.data, attributes=(shy,))))
    assert estimate(edit(head, age=500), "age") == pytest.approx(80, abs=0.01)


def test_values_are_reached_whatever_the_order(head):
    together = edit(head, age_years=61, targets={"gender": 0.3})
    assert estimate(together, "age") == pytest.approx(61, abs=1e-3)
    assert estimate(together, "gender") == pytest.approx(0.3, abs=1e-4)
    for other in (
        edit(head, targets={"gender": 0.3, "age": 61}),
        edit(edit(head, age=7), age_years=61, gender=0.3 - estimate(head, "gender")),
    ):
        np.testing.assert_allclose(other.params.identity, together.params.identity, atol=1e-5)
        np.testing.assert_allclose(other.params.albedo, together.params.albedo, atol=1e-5)
    assert together.warnings == head.warnings
    assert np.array_equal(edit(head, targets={}).vertices, edit(head).vertices)


def test_values_are_reached_beside_attributes_that_move_them(head):
    """As shares of ancestry do: a change of one moves the estimate of another."""
    age, gender = head.model.data.attributes
    crossed = dataclasses.replace(gender, step=gender.step + 0.5 * age.step)
    head = head.replace(model=FaceModel(dataclasses.replace(head.model.data, attributes=(age, crossed))))
    for changes in ({"age_years": 60, "gender": 0.1}, {"targets": {"age": 60, "gender": 0.4}}):
        edited = edit(head, **changes)
        assert estimate(edited, "age") == pytest.approx(60, abs=1e-3)
    assert estimate(edited, "gender") == pytest.approx(0.4, abs=1e-4)


@pytest.mark.parametrize(("target", "limit"), [(95, 80), (3, 18)])
def test_values_beyond_the_range_are_reduced(head, target, limit):
    edited = edit(head, age_years=target)
    assert estimate(edited, "age") == pytest.approx(limit, abs=0.01)
    assert f"age: set to {limit} instead of {target}, because the model's range is 18 to 80" in edited.warnings[-1]


def test_the_open_model_reaches_ages(model):
    person = fv.head(model.random(3), model, texture_size=8)
    older = edit(person, age_years=70, targets={"nose_width": 3})
    values = model.attributes(older.params)
    assert values["age"] == pytest.approx(70, abs=1) and values["nose_width"] == pytest.approx(3, abs=0.1)
    shares = {"african": 0.2, "asian": 0.5, "caucasian": 0.3}
    values = model.attributes(edit(person, targets=shares).params)
    assert {name: values[name] for name in shares} == pytest.approx(shares, abs=0.01)


# ------------------------------------------------------------------------------------------------------------- texture


def test_texture_follows_the_albedo_and_keeps_its_grain(head):
    """Texel by texel, the light of the texture changes like that of the model's albedo there."""
    edited = edit(head, age=25)
    before, after = (bake_vertices(head.model, h.albedo, SIZE) for h in (head, edited))
    skin = uv_coverage(head.model, SIZE) & (before.min(2) > 0.15)
    assert skin.sum() > 500
    expected = (after / before)[skin]
    assert np.abs(expected - 1).max() > 0.02
    old, new = (linear_from_srgb(torch.from_numpy(h.texture / 255)).numpy()[skin] for h in (head, edited))
    assert np.corrcoef((new / old).reshape(-1), expected.reshape(-1))[0, 1] > 0.6
    assert (new / old).mean() == pytest.approx(expected.mean(), abs=0.01)


def test_texture_stays_where_the_skin_does_not_change(head):
    age = head.model.data.attributes[0]
    shape_only = dataclasses.replace(age, step=age.step * (np.arange(len(age.step)) < len(head.params.identity)))
    head = head.replace(model=FaceModel(dataclasses.replace(head.model.data, attributes=(shape_only,))))
    edited = edit(head, age=5, expression={"jawOpen": 1}, rotation=(10, 0, 0))
    assert not np.array_equal(edited.vertices, head.vertices)
    assert np.array_equal(edited.texture, head.texture)


def test_texture_of_parts_without_skin_stays(head):
    edited = edit(head, age=20)
    eyes = np.zeros((len(head.vertices), 1))
    eyes[head.model.regions["eyeballs"]] = 1
    only_eyes = (bake_vertices(head.model, eyes, SIZE)[..., 0] == 1) & uv_coverage(head.model, SIZE)
    assert only_eyes.sum() > 10
    assert np.array_equal(edited.texture[only_eyes], head.texture[only_eyes])


def test_texture_need_not_be_square(head):
    wide = head.replace(texture=head.texture[:32])
    assert edit(wide, age=20).texture.shape == (32, SIZE, 3)


# -------------------------------------------------------------------------------------- expression, identity, the rest


def test_named_expressions_are_set_and_others_stay(head):
    names = head.model.expression_names
    edited = edit(head, expression={"mouthSmileLeft": 0.8})
    index = names.index("mouthSmileLeft")
    assert edited.params.expression[index] == np.float32(0.8)
    others = np.arange(len(names)) != index
    assert np.array_equal(edited.params.expression[others], head.params.expression[others])
    assert np.array_equal(edited.neutral_vertices, head.neutral_vertices)


def test_all_expressions_at_once(head):
    weights = np.linspace(0, 1, len(head.model.expression_names))
    np.testing.assert_allclose(edit(head, expression=weights).params.expression, weights, rtol=1e-6)
    still = edit(head, expression=weights * 0)
    assert np.array_equal(still.vertices, still.neutral_vertices)


def weights_of(result):
    return dict(zip(result.model.expression_names, result.params.expression.tolist()))


def test_presets_replace_the_expression_and_weights_win_over_them(head):
    smile = weights_of(edit(head, expression="smile"))
    expected = dict.fromkeys(smile, 0.0) | dict(fv.EXPRESSION_PRESETS["smile"])
    assert smile == pytest.approx(expected)
    assert weights_of(edit(head, expression={"smile": 1})) == smile
    mixed = weights_of(edit(head, expression={"mouthSmileLeft": 0.1, "smile": 0.5, "jawOpen": 0.2}))
    half = {name: weight / 2 for name, weight in expected.items()}
    assert mixed == pytest.approx(half | {"mouthSmileLeft": 0.1, "jawOpen": 0.2})
    assert not edit(head, expression="neutral").params.expression.any()


def test_presets_add_up_without_a_warning_for_the_sum(head):
    edited = edit(head, expression={"surprise": 1, "laugh": 1})
    weights, parts = weights_of(edited), [fv.EXPRESSION_PRESETS[name] for name in ("surprise", "laugh")]
    for name in set(parts[0]) | set(parts[1]):
        assert weights[name] == pytest.approx(min(sum(part.get(name, 0) for part in parts), 1))
    assert edited.warnings == head.warnings
    strong = edit(head, expression={"smile": 1.5})
    assert weights_of(strong) == weights_of(edit(head, expression="smile"))
    assert strong.warnings[-1] == "expression smile: 1.5 is outside 0..1 and was clamped"


def test_a_model_with_other_expressions_refuses_presets(head):
    names = tuple(f"shape{index}" for index in range(len(head.model.expression_names)))
    other = head.replace(model=FaceModel(dataclasses.replace(head.model.data, expression_names=names)))
    with pytest.raises(ParameterError, match="the preset 'smile' is made of ARKit's blendshapes, and the model 'toy'"):
        edit(other, expression="smile")
    assert not edit(other, expression="neutral").params.expression.any()


def test_expression_weights_are_clamped_with_a_warning(head):
    names = head.model.expression_names
    edited = edit(head, expression={"jawOpen": 1.5, "jawLeft": -0.2, "jawRight": 1})
    assert [edited.params.expression[names.index(n)] for n in ("jawOpen", "jawLeft", "jawRight")] == [1, 0, 1]
    assert len(edited.warnings) == 3
    assert any("jawOpen: 1.5 is outside 0..1" in w for w in edited.warnings)
    assert len(edit(head, expression=np.full(len(names), 2.0)).warnings) == 1 + len(names)


def test_identity_is_replaced_before_attributes_move_it(head):
    identity = np.linspace(-1, 1, len(head.params.identity))
    np.testing.assert_allclose(edit(head, identity=identity).params.identity, identity, rtol=1e-6)
    moved = edit(head, identity=identity, age=5)
    assert estimate(moved, "age") == pytest.approx(estimate(edit(head, identity=identity), "age") + 5, rel=1e-4)


def test_pose_and_light_are_replaced(head):
    light = np.random.default_rng(0).normal(size=(9, 3))
    matrix = rotation_from_euler_deg(20, -10, 5).numpy()
    edited = edit(head, rotation=(20, -10, 5), light=light)
    np.testing.assert_allclose(edited.params.rotation, matrix, atol=1e-6)
    np.testing.assert_allclose(edited.params.light, light, rtol=1e-6)
    assert np.array_equal(edit(head, rotation=matrix).params.rotation, edited.params.rotation)
    assert np.array_equal(edited.vertices, head.vertices)


@pytest.mark.parametrize(
    ("light", "bright", "dark"),
    [
        ({}, (0, 0, 1), (0, 0, -1)),
        ({"yaw": 90}, (1, 0, 0), (-1, 0, 0)),
        ({"yaw": -45}, (-1, 0, 1), (1, 0, -1)),
        ({"pitch": 90, "yaw": 30}, (0, 1, 0), (0, -1, 0)),
        ({"yaw": 180}, (0, 0, -1), (0, 0, 1)),
    ],
)
def test_light_comes_from_a_direction(head, light, bright, dark):
    coefficients = torch.from_numpy(edit(head, light=light).params.light)
    normals = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    ends = torch.nn.functional.normalize(torch.tensor([bright, dark], dtype=torch.float32), dim=1)
    lit, ends = shading(normals, coefficients), shading(ends, coefficients)
    assert (lit <= ends[0] + 1e-5).all() and (ends[1] < 0.5 * ends[0]).all() and (lit > 0.1).all()
    grid = torch.nn.functional.normalize(torch.randn(5000, 3), dim=1)
    assert float(ends[0, 1]) == pytest.approx(float(shading(grid, default_light()).max()), rel=0.02)


def test_light_has_intensity_and_warmth(head):
    white, twice, warm, cold = (
        edit(head, light=light).params.light for light in ({}, {"intensity": 2}, {"warmth": 1}, {"warmth": -1})
    )
    np.testing.assert_allclose(twice, 2 * white, rtol=1e-6)
    for light in (white, warm, cold):
        assert light[0] @ [0.2126, 0.7152, 0.0722] == pytest.approx(white[0, 0], rel=1e-5)
    assert (np.diff(white[0]) == 0).all() and (np.diff(warm[0]) < -0.1).all() and (np.diff(cold[0]) > 0.1).all()
    far = edit(head, light={"pitch": 120, "warmth": -3})
    np.testing.assert_array_equal(far.params.light, edit(head, light={"pitch": 90, "warmth": -1}).params.light)
    assert far.warnings[-2:] == (
        "light pitch: 120 is outside -90..90 and was clamped", "light warmth: -3 is outside -1..1 and was clamped"
    )  # fmt: skip


def test_smooth_skin_needs_no_generator(toy_model, monkeypatch):
    bare = fv.head(toy_model.random(3), toy_model, texture_size=64).replace(detail_module=module_of(toy_model))
    skinned = edit(bare, detail_seed=1)
    monkeypatch.setattr(type(bare.detail_module.detail), "synthesis", None)
    smooth = edit(skinned, detail=0)
    assert not smooth.displacement.any() and (smooth.normal_map == (128, 128, 255)).all()
    assert np.abs(smooth.texture.astype(int) - bare.texture).max() <= 1
    assert not edit(smooth, age=5, expression="smile").displacement.any()


def test_skin_ages_with_the_age_to_reach(toy_model):
    bare = fv.head(toy_model.random(3, scale=0.2), toy_model, texture_size=64)
    skinned = edit(bare.replace(detail_module=module_of(toy_model)), detail_seed=1)
    years = 70 - estimate(skinned, "age")
    reached, changed = edit(skinned, age_years=70), edit(skinned, age=years)
    np.testing.assert_allclose(reached.params.detail["w"], changed.params.detail["w"], atol=1e-4)
    assert np.abs(reached.params.detail["w"] - skinned.params.detail["w"]).max() > 1e-3


def test_detail_scales_displacement_and_slopes(detailed):
    half = edit(detailed, detail=0.5)
    np.testing.assert_allclose(half.displacement, detailed.displacement * 0.5, rtol=1e-6)
    before, after = (h.normal_map[8:].astype(float) / 127.5 - 1 for h in (detailed, half))
    slopes = [normals[..., :2] / normals[..., 2:] for normals in (before, after)]
    np.testing.assert_allclose(slopes[1], slopes[0] * 0.5, atol=0.02)
    same, smooth = edit(detailed, detail=1), edit(detailed, detail=0)
    assert np.abs(same.normal_map.astype(int) - detailed.normal_map).max() <= 1
    assert (smooth.displacement == 0).all() and (smooth.normal_map == (128, 128, 255)).all()
    steep = edit(edit(detailed, detail=3), detail=3)
    assert (steep.normal_map[:8] == (128, 128, 255)).all()


def test_no_change_is_no_change(head):
    for name, array in arrays(edit(head)).items():
        np.testing.assert_allclose(array.astype(float), arrays(head)[name].astype(float), atol=1e-6)
    assert np.array_equal(edit(head, age=0).texture, head.texture)
    assert edit(head, age=None, gender=None).warnings == head.warnings


def test_the_input_is_unchanged(detailed):
    before = {name: array.copy() for name, array in arrays(detailed).items()}
    weights, identity = np.full(len(detailed.params.expression), 2.0, np.float32), detailed.params.identity * 2
    given = weights.copy(), identity.copy()
    edited = edit(detailed, age=20, gender=-0.3, expression=weights, detail=0.3, identity=identity, rotation=(9, 9, 9))
    edit(detailed, expression={"jawOpen": 3, "smile": 1}, light=np.ones((9, 3)))
    wishes = {"gender": 0.2}, {"yaw": 400.0}
    edit(detailed, targets=wishes[0], light=wishes[1], age_years=30)
    assert wishes == ({"gender": 0.2}, {"yaw": 400.0})
    assert edited is not detailed and detailed.warnings == ("dark photo",)
    for name, array in arrays(detailed).items():
        assert np.array_equal(array, before[name]) and array.dtype == before[name].dtype, name
    assert np.array_equal(weights, given[0]) and np.array_equal(identity, given[1])
    for name in ("vertices", "texture", "normal_map", "displacement"):
        assert not np.shares_memory(getattr(edited, name), getattr(detailed, name))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expression": {"mouthSmile": 1}}, "no expression 'mouthSmile'; did you mean 'mouthSmile(Left|Right)'"),
        ({"expression": {3: 1}}, "no expression 3; this model has: browDownLeft"),
        ({"ages": 3}, "no attribute 'ages'; did you mean 'age'"),
        ({"expresion": {}}, "did you mean 'expression'"),
        ({"wings": 2}, "no attribute 'wings'; this model has: age, gender"),
        ({"age": np.nan}, "age must be a finite number, got nan"),
        ({"age": np.inf}, "age must be a finite number"),
        ({"age": "20"}, "age must be a finite number, got '20'"),
        ({"gender": True}, "gender must be a finite number"),
        ({"expression": {"jawOpen": np.nan}}, "jawOpen must be a finite number"),
        ({"expression": {"jawOpen": "wide"}}, "jawOpen must be a finite number"),
        ({"expression": [0.1, 0.2]}, r"expression must have shape \(52,\), got \(2,\)"),
        ({"expression": ["smile"]}, "expression must be an array of numbers"),
        ({"expression": "smil"}, "no expression preset 'smil'; did you mean 'smile'"),
        ({"identity": np.zeros(3)}, r"identity must have shape \(8,\), got \(3,\)"),
        ({"identity": np.full(8, np.nan)}, "identity holds values that are not finite"),
        ({"identity": ["a"] * 8}, "identity must be an array of numbers"),
        ({"rotation": (1, 2)}, "rotation must be"),
        ({"rotation": np.ones((3, 3))}, "rotation must be"),
        ({"light": np.zeros((3, 9))}, r"light must have shape \(9, 3\)"),
        ({"expression": {"smil": 1}}, "did you mean 'smile'"),
        ({"expression": {"smile": "much"}}, "smile must be a finite number"),
        ({"nose": 3}, "no attribute 'nose'; the region of that name has: none"),
        ({"age": 3, "age_years": 40}, "age is given as a change and as a target"),
        ({"targets": {"gender": 0}, "gender": 0.1}, "gender is given as a change and as a target"),
        ({"targets": {"age": 40}, "age_years": 40}, "give age_years or the age in targets"),
        ({"targets": {"agee": 40}}, "no attribute 'agee'; did you mean 'age'"),
        ({"targets": {"age": np.inf}}, "age must be a finite number"),
        ({"targets": 40}, "targets must map attributes to values"),
        ({"light": {"yav": 3}}, "no light parameter 'yav'; did you mean 'yaw'"),
        ({"light": {"yaw": None}}, "light yaw must be a finite number"),
        ({"detail": 0.5}, "carries no detail layer"),
        ({"detail": np.nan}, "detail must be a finite number"),
        ({"age": 10**400}, "age must be a finite number, got 1000"),
        ({"identity": [1e39] * 8}, "identity holds values that are not finite"),
        ({"light": [[10**400] * 3] * 9}, "light must be an array of numbers"),
        ({"rotation": [10**400, 0, 0]}, "rotation must be"),
        ({"rotation": [[1e308] * 3] * 3}, "rotation must be"),
        ({"detail_layers": ["all"]}, "detail_layers must be"),
    ],
)
def test_refused(head, changes, message):
    with pytest.raises(ParameterError, match=message):
        edit(head, **changes)


def test_weights_beyond_single_precision_are_clamped(head):
    edited = edit(head, expression={"jawOpen": 1e300, "mouthFunnel": -1e300})
    names = head.model.expression_names
    assert [edited.params.expression[names.index(name)] for name in ("jawOpen", "mouthFunnel")] == [1, 0]


@pytest.mark.parametrize("detail", [-0.1, 3.5])
def test_refused_detail(detailed, detail):
    with pytest.raises(ParameterError, match=r"detail must be in 0\.\.3"):
        edit(detailed, detail=detail)


def test_a_model_without_attributes_says_so(head):
    bare = head.replace(model=FaceModel(dataclasses.replace(head.model.data, attributes=())))
    with pytest.raises(ParameterError, match="the model 'toy' has no attributes, so age cannot be changed"):
        edit(bare, age=3)
    with pytest.raises(ParameterError, match="no attribute 'expresion'; did you mean 'expression'"):
        edit(bare, expresion={})
    assert edit(bare, age=None, gender=None).warnings == bare.warnings
    assert edit(bare, expression={"jawOpen": 1}).params.expression.max() == 1


def test_head_of_parameters_is_rendered_edited_and_stored(toy_model, tmp_path):
    params = toy_model.random(3)
    person = fv.head(params, toy_model, texture_size=64)
    expected = toy_model.vertices(torch.from_numpy(params.identity)[None])[0].numpy()
    np.testing.assert_allclose(person.neutral_vertices, expected, atol=1e-7)
    assert person.texture.shape == (64, 64, 3) and person.landmarks_px is None
    assert fv.render(person, 64).mask.any()
    assert not np.array_equal(fv.edit(person, age=10).neutral_vertices, person.neutral_vertices)
    again = fv.load_result(fv.export(person, tmp_path / "person.json"), toy_model)
    np.testing.assert_array_equal(again.params.identity, params.identity)


def test_head_refuses_parameters_of_another_model(toy_model):
    with pytest.raises(fv.ParameterError, match="identity must have shape"):
        fv.head(toy_model.neutral().replace(identity=np.zeros(3, np.float32)), toy_model)
