"""Detail from latents: maps, edits, files. Small generators with random weights stand for trained ones."""

import json

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.detail.ageing import aged
from faceverse.detail.blending import mixed
from faceverse.detail.displacement_regressor import DisplacementRegressor
from faceverse.detail.file import load_detail, save_detail
from faceverse.detail.latents import (
    DetailMaps,
    check_open,
    layout_digest,
    maps_of,
    multiplied,
    picture_of_maps,
    quantised_noise,
    quantised_residual,
    random_detail,
    read_picture,
)
from faceverse.detail.module import DetailModule, DisplacementCode
from faceverse.detail.stylegan import ConditionalGenerator
from faceverse.edit import head
from faceverse.errors import ParameterError, WeightsError

SIZE = 128
FACTORS = ("age", "masculinity", "freckles")


def generator(image_channels, seed, size=SIZE):
    """One whose noise matters and whose pictures are of a trained one's size."""
    torch.manual_seed(seed)
    widths = {4 << step: 8 for step in range(size.bit_length() - 2)}
    made = ConditionalGenerator(
        size, style_dim=16, mapping_layers=2, image_channels=image_channels, condition_channels=6, channels=widths
    )
    with torch.no_grad():
        for name, values in made.named_parameters():
            if name.startswith("to_rgb") and name.endswith("conv.weight"):
                values.mul_(0.2)
            if name.endswith("noise.weight"):
                values.fill_(0.3)
    return made.requires_grad_(False).eval()


def module_of(model, **changes):
    parts = {
        "detail": generator(6, 1),
        "expression": generator(3, 2),
        "regressor": DisplacementRegressor(16).requires_grad_(False).eval(),
        "code": DisplacementCode(factors=FACTORS, layout=layout_digest(model)),
        "name": "small",
    }
    return DetailModule(**{**parts, **changes})


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def module(model):
    return module_of(model)


@pytest.fixture
def skinned(model, module):
    """A head with detail, made without files."""
    bare = head(model.random(3), model, texture_size=256).replace(detail_module=module)
    return fv.edit(bare, detail_seed=5)


def test_photographs_set_the_depth_of_skin_and_wrinkles(model, module, skinned):
    moving = skinned.params.replace(expression=np.full_like(skinned.params.expression, 0.5))
    whole, latents = maps_of(module, model, moving), skinned.params.detail
    rest = maps_of(module, model, skinned.params)
    shallow = skinned.params.replace(detail=latents | {"depth": np.float32(0.5)})
    np.testing.assert_allclose(maps_of(module, model, shallow).displacement, 0.5 * rest.displacement, atol=1e-6)
    np.testing.assert_array_equal(maps_of(module, model, shallow).albedo_log, rest.albedo_log)
    unfolded = maps_of(module, model, moving.replace(detail=latents | {"wrinkle_depth": np.float32(0)}))
    np.testing.assert_array_equal(unfolded.displacement, rest.displacement)
    assert np.abs(whole.displacement - rest.displacement).max() > 1e-4
    depths = [float(aged(module, shallow.detail, 40, 40 + years)["depth"]) for years in (-20, 20, 40)]
    assert depths == pytest.approx([0.5, 0.75, 1.0])
    creases, pores = (mixed(shallow.detail, latents, layers)["depth"] for layers in (slice(0, -3), slice(-3, None)))
    assert (creases, pores) == (1, 0.5)


def test_children_have_smooth_skin_and_get_it_back(module, skinned):
    adult = skinned.params.detail | {"depth": np.float32(0.8)}
    child = aged(module, adult, 40, 8)
    assert float(child["depth"]) < 0.5 * 0.8 and float(aged(module, adult, 40, 20)["depth"]) == pytest.approx(0.8)
    # The generators know no children: their skin is that of the youngest adults, with less depth.
    np.testing.assert_allclose(child["w"], aged(module, adult, 40, 18)["w"], atol=1e-6)
    plain = skinned.params.detail
    again = aged(module, aged(module, plain, 15, 8), 8, 15)
    assert float(again["depth"]) == pytest.approx(float(plain.get("depth", 1.0)), abs=1e-6)
    np.testing.assert_allclose(again["w"], plain["w"], atol=1e-6)


def test_pictures_and_maps_are_the_same_thing():
    random = np.random.default_rng(0)
    maps = DetailMaps(
        random.normal(0, 0.1, (64, 64)).astype(np.float32), random.normal(0, 0.2, (64, 64, 3)).astype(np.float32)
    )
    code = DisplacementCode()
    albedo_log, displacement = read_picture(code, torch.from_numpy(picture_of_maps(code, maps))[None])
    np.testing.assert_allclose(displacement[0], maps.displacement, atol=1e-6)
    np.testing.assert_allclose(albedo_log[0].movedim(0, 2), maps.albedo_log, atol=1e-6)


def test_seeds_are_people_and_strength_is_linear(model, module, skinned):
    again = fv.edit(skinned, detail_seed=5)
    np.testing.assert_array_equal(again.displacement, skinned.displacement)
    other = fv.edit(skinned, detail_seed=6)
    assert np.abs(other.displacement - skinned.displacement).max() > 1e-3
    half, double = fv.edit(skinned, detail=0.5), fv.edit(skinned, detail=2)
    np.testing.assert_allclose(double.displacement, 4 * half.displacement, atol=1e-5)
    flat = fv.edit(double, detail=0)
    assert not flat.displacement.any() and (flat.normal_map[..., 2] == 255).all()
    back = fv.edit(flat, detail=1)
    np.testing.assert_allclose(back.displacement, skinned.displacement, atol=1e-6)
    assert np.abs(back.texture.astype(int) - skinned.texture).mean() < 2  # rounded twice on the way


def test_detail_stays_off_the_eyes_and_edits_leave_their_input_alone(model, module, skinned):
    from faceverse.detail.displacement import displacement_weight

    before = skinned.displacement.copy()
    assert not skinned.displacement[displacement_weight(model, SIZE) == 0].any()
    fv.edit(skinned, age=20, detail=0.3, expression={"jawOpen": 0.5})
    np.testing.assert_array_equal(skinned.displacement, before)


def test_expressions_wrinkle_the_skin_and_rest_smooths_it_again(skinned):
    smile = fv.edit(skinned, expression={"mouthSmileLeft": 1, "mouthSmileRight": 1})
    added = np.abs(smile.displacement - skinned.displacement)
    assert added.max() > 1e-3
    assert added[: SIZE // 8].max() < 0.1 * added.max()  # the scalp has nothing to do with a smile
    rest = fv.edit(smile, expression={"mouthSmileLeft": 0, "mouthSmileRight": 0})
    np.testing.assert_allclose(rest.displacement, skinned.displacement, atol=1e-6)


def test_ageing_moves_the_latents_with_the_head(model, module, skinned):
    older = fv.edit(skinned, age=15)
    before, after = (model.attributes(head.params)["age"] for head in (skinned, older))
    expected = aged(module, skinned.params.detail, before, after)
    np.testing.assert_allclose(older.params.detail["w"], expected["w"], atol=1e-6)
    assert np.abs(older.params.detail["w"] - skinned.params.detail["w"]).max() > 1e-4
    younger = fv.edit(older, age=before - after)
    np.testing.assert_allclose(younger.params.detail["w"], skinned.params.detail["w"], atol=2e-3)


def test_somebody_elses_detail(model, module, skinned):
    other = fv.edit(head(model.random(4), model, texture_size=256).replace(detail_module=module), detail_seed=9)
    whole = fv.edit(skinned, detail_from=other)
    np.testing.assert_array_equal(whole.params.detail["w"], other.params.detail["w"])
    np.testing.assert_array_equal(whole.params.identity, skinned.params.identity)
    coarse = fv.edit(skinned, detail_from=other, detail_layers="coarse")
    fine = fv.edit(skinned, detail_from=other, detail_layers="fine")
    np.testing.assert_array_equal(coarse.params.detail["w"][:4], other.params.detail["w"][:4])
    np.testing.assert_array_equal(coarse.params.detail["w"][-1], skinned.params.detail["w"][-1])
    np.testing.assert_array_equal(fine.params.detail["w"][-1], other.params.detail["w"][-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detail_seed": -1}, "detail seed must be a whole number in 0"),
        ({"detail_seed": 2.5}, "detail seed must be a whole number in 0"),
        ({"detail": 4}, "detail must be in 0..3"),
        ({"detail_layers": "middle"}, "detail_layers must be one of all, coarse, fine"),
    ],
)
def test_impossible_wishes_are_refused(skinned, changes, message):
    with pytest.raises(ParameterError, match=message):
        fv.edit(skinned, **changes)


def test_detail_of_a_head_without_any_is_refused(model, skinned):
    bare = head(model.random(4), model, texture_size=64)
    with pytest.raises(ParameterError, match="detail_from carries no detail"):
        fv.edit(skinned, detail_from=bare)
    with pytest.raises(ParameterError, match="give detail_seed or detail_from, not both"):
        fv.edit(skinned, detail_from=skinned, detail_seed=1)


def test_modules_of_other_kinds_and_layouts_are_refused(model, module):
    with pytest.raises(ParameterError, match="cannot be used on heads: pass one from load_detail"):
        check_open(module_of(model, code=None, expression=None), model)
    foreign = module_of(model, code=DisplacementCode(layout="elsewhere"))
    with pytest.raises(ParameterError, match="was trained for another texture layout"):
        random_detail(foreign, model, model.random(1), 0)


def test_a_compact_file_gives_nearly_the_same_maps(model, module, skinned, tmp_path):
    path = save_detail(module, tmp_path / "small.safetensors", compact=True)
    again = load_detail(path)
    assert again.code == module.code and again.name == "small"
    maps = maps_of(again, model, skinned.params)
    assert np.abs(maps.displacement - skinned.displacement).max() < 0.02 * np.abs(skinned.displacement).max()
    given = torch.randn(1, 3, 128, 128), torch.ones(1, 1, 128, 128), torch.randn(1, 2, 128, 128)
    torch.testing.assert_close(again.regressor(*given)[0], module.regressor(*given)[0], atol=0.02, rtol=0.02)


def test_parts_that_were_not_made_for_each_other_are_refused(model, module, tmp_path):
    one = save_detail(module_of(model, expression=None), tmp_path / "a.safetensors")
    code = DisplacementCode(factors=("age",), layout=layout_digest(model))
    two = save_detail(module_of(model, detail=None, regressor=None, code=code), tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="were not made for each other"):
        load_detail(one, two)


def test_textures_follow_the_change():
    texture = np.full((8, 8, 3), 128, np.uint8)
    darker = multiplied(texture, np.full((4, 4, 3), -np.log(2), np.float32))
    assert (darker == 92).all()  # half the light of 128 in sRGB
    assert multiplied(texture, np.zeros((4, 4, 3), np.float32)) is texture


def test_a_stored_head_keeps_its_skin(model, skinned, tmp_path):
    path = fv.export(fv.edit(skinned, expression={"jawOpen": 0.4}, detail=1.5), tmp_path / "head.json")
    again = fv.load_result(path, model)
    assert np.abs(again.displacement).max() > 0.01
    for key, values in skinned.params.detail.items():
        if key != "strength":
            np.testing.assert_array_equal(again.params.detail[key], values)
    assert float(again.params.detail["strength"]) == 1.5
    assert again.detail_module is None  # "small" is not installed
    half = fv.edit(again, detail=0.75)
    np.testing.assert_allclose(half.displacement, again.displacement / 2, atol=1e-6)
    np.testing.assert_array_equal(fv.edit(again, expression={"jawOpen": 0}).displacement, again.displacement)


def test_long_latents_are_stored_short(model, module, skinned, tmp_path):
    """As exactly as `quantised_noise` and `quantised_residual` say, whatever is in them."""
    noise = 1.3 * torch.randn(sum(s * s for s in module.detail.noise_sizes))
    displacement = 0.1 * torch.randn(SIZE * SIZE)
    displacement[5] = 40.0  # mm, more than 16 bits of 1 micrometre
    kept = {"noise": quantised_noise(noise).numpy(), "residual_displacement": quantised_residual(displacement).numpy()}
    np.testing.assert_allclose(kept["noise"], noise, rtol=0, atol=1 / 32)
    np.testing.assert_allclose(kept["residual_displacement"], displacement, rtol=0, atol=1.01e-3)
    given = skinned.params.detail | {"noise": noise.numpy(), "residual_displacement": displacement.numpy()}
    path = fv.export(skinned.replace(params=skinned.params.replace(detail=given)), tmp_path / "head.json")
    again = fv.load_result(path, model)
    for name, values in kept.items():
        np.testing.assert_array_equal(again.params.detail[name], values)
        twice = quantised_noise if name == "noise" else quantised_residual
        np.testing.assert_array_equal(twice(torch.from_numpy(values)), values)
    text = path.read_text()
    damaged = tmp_path / "damaged.json"
    damaged.write_text(text.replace(f'"length": {len(noise)}', f'"length": {len(noise) + 1}'))
    with pytest.raises(ParameterError, match="cannot restore damaged.json: detail noise is damaged; export it again"):
        fv.load_result(damaged, model)


def test_files_keep_the_names_of_latents(model, skinned, tmp_path):
    """JSON files name two latents as the first version of the format did, in both directions."""
    names = {"residual_displacement": "relief", "wrinkle_depth": "fold_depth"}
    latents = {"residual_displacement": np.linspace(0, 1, SIZE * SIZE), "wrinkle_depth": np.float32(0.25)}
    head = skinned.replace(params=skinned.params.replace(detail=skinned.params.detail | latents))
    path = fv.export(head, tmp_path / "head.json")
    stored = json.loads(path.read_text())["params"]["detail"]
    assert set(names.values()) <= set(stored) and not set(names) & set(stored)
    restored = fv.load_result(path, model).params.detail
    assert set(restored) == set(head.params.detail)
    for name, values in latents.items():
        np.testing.assert_allclose(restored[name], values, atol=1e-3)


def test_values_that_are_not_finite_are_not_stored(skinned, tmp_path):
    displacement = skinned.displacement.copy()
    displacement[0, 0] = np.nan
    with pytest.raises(ParameterError, match="a parameter is not a finite number"):
        fv.export(skinned.replace(displacement=displacement), tmp_path / "head.json")


# -- heads and modules that do not belong together --------------------------------------------------------------------
def other_edition(model):
    """A module of the same name and sizes with other weights."""
    return module_of(model, detail=generator(6, 9))


def stored_with(monkeypatch, installed):
    """Makes a module, or None, the installed one."""
    monkeypatch.setattr("faceverse.formats.store.has_open_detail", lambda: installed is not None)
    monkeypatch.setattr("faceverse.formats.store.load_detail", lambda: installed)


def test_modules_are_told_apart_by_their_weights(model, module, tmp_path):
    again = load_detail(save_detail(module, tmp_path / "small.safetensors"))
    assert again is not module and again.is_same(module) and len(module.digest) == 16
    renamed = module_of(model, name="renamed", regressor=None)
    assert renamed.is_same(module)
    for changes in ({"detail": generator(6, 9)}, {"expression": None}, {"code": DisplacementCode(albedo_scale=0.5)}):
        assert not module.is_same(module_of(model, **changes))
    assert not module.is_same(None)


def test_a_stored_head_finds_its_module_again(model, module, skinned, tmp_path, monkeypatch):
    path = fv.export(skinned, tmp_path / "head.json")
    renamed = module_of(model, name="renamed")
    stored_with(monkeypatch, renamed)
    again = fv.load_result(path, model)
    assert again.detail_module is renamed and again.warnings == skinned.warnings
    np.testing.assert_allclose(fv.edit(again, detail=2).displacement, 2 * skinned.displacement, atol=1e-6)


@pytest.mark.parametrize("installed", [True, False])
def test_a_stored_head_keeps_its_looks_where_other_weights_are_installed(
    model, skinned, tmp_path, monkeypatch, installed
):
    path = fv.export(skinned, tmp_path / "head.json")
    stored_with(monkeypatch, other_edition(model) if installed else None)
    again = fv.load_result(path, model)
    assert again.detail_module is None
    np.testing.assert_allclose(again.displacement, skinned.displacement, rtol=0, atol=6e-5)
    assert np.abs(again.normal_map.astype(int) - skinned.normal_map).max() <= 1
    (warning,) = again.warnings
    assert f"made with the detail module 'small' ({skinned.detail_module.digest[:8]})" in warning
    assert "\n" not in warning
    twice = fv.load_result(fv.export(again, tmp_path / "again.json"), model)
    assert twice.warnings == again.warnings


def test_files_that_only_name_their_module_are_read(model, module, skinned, tmp_path, monkeypatch):
    path = fv.export(skinned, tmp_path / "head.json")
    document = json.loads(path.read_text())
    document["detail_module"] = "small"
    path.write_text(json.dumps(document))
    for installed, found in ((module, module), (module_of(model, name="other"), None), (None, None)):
        stored_with(monkeypatch, installed)
        again = fv.load_result(path, model)
        assert again.detail_module is found and bool(again.warnings) == (found is None)


def test_detail_without_its_module_cannot_be_exchanged(model, module, skinned):
    without = skinned.replace(detail_module=None)
    bare = head(model.random(4), model, texture_size=64)
    remedy = r"not installed: install its weights, or pass it with result\.replace\(detail_module=fv\.load_detail"
    for one, wish in (
        (without, {"detail_seed": 1}),
        (without, {"detail_from": skinned}),
        (skinned, {"detail_from": without}),
        (bare, {"detail_from": without}),
        (fv.edit(without, detail=0), {"detail_layers": "fine", "detail_from": skinned}),
    ):
        with pytest.raises(ParameterError, match=remedy):
            fv.edit(one, **wish)
    given = without.replace(detail_module=module)
    np.testing.assert_array_equal(
        fv.edit(given, detail_seed=1).displacement, fv.edit(skinned, detail_seed=1).displacement
    )


def test_detail_that_was_turned_off_needs_its_module_to_come_back(skinned):
    off = fv.edit(skinned, detail=0)
    gone = off.replace(detail_module=None)
    with pytest.raises(ParameterError, match="turned off, and the detail module that made it is not installed"):
        fv.edit(gone, detail=1)


def test_heads_of_two_modules_do_not_exchange_detail(model, skinned):
    bare = head(model.random(4), model, texture_size=256)
    donor = fv.edit(bare.replace(detail_module=other_edition(model)), detail_seed=2)
    for layers in ("all", "coarse"):
        with pytest.raises(ParameterError, match="fit both photographs with the same detail module"):
            fv.edit(skinned, detail_from=donor, detail_layers=layers)
    whole = fv.edit(bare, detail_from=donor)  # skin without detail takes anybody's
    np.testing.assert_array_equal(whole.displacement, donor.displacement)
    with pytest.raises(ParameterError, match="no detail whose single layers could be exchanged"):
        fv.edit(bare, detail_from=donor, detail_layers="fine")
    with pytest.raises(ParameterError, match="detail_from must be a head"):
        fv.edit(bare, detail_from="donor.json")


def test_heads_of_equal_modules_do(model, module, skinned):
    copy = module_of(model)
    donor = fv.edit(head(model.random(4), model, texture_size=256).replace(detail_module=copy), detail_seed=2)
    assert copy is not module
    taken = fv.edit(skinned, detail_from=donor)
    np.testing.assert_array_equal(taken.params.detail["w"], donor.params.detail["w"])


@pytest.mark.parametrize("changes", [{"w": np.zeros((3, 16), np.float32)}, {"w": ...}, {"noise_seed": ...}])
def test_latents_of_another_kind_are_one_line(skinned, changes):
    latents = {k: v for k, v in (skinned.params.detail | changes).items() if v is not ...}
    foreign = skinned.replace(params=skinned.params.replace(detail=latents))
    for wish in ({"detail_seed": 1}, {"expression": {"jawOpen": 0.5}}):
        with pytest.raises(ParameterError, match="was not made with the detail module 'small': pass the one that"):
            fv.edit(foreign, **wish)
    with pytest.raises(ParameterError, match="was not made with the detail module 'small'"):
        fv.edit(skinned, detail_from=foreign, detail_layers="coarse")


def test_somebody_elses_displacement_goes_with_the_layers():
    random = np.random.default_rng(0)
    key = "residual_displacement"
    mine, other = ({"w": random.normal(size=(10, 4)), key: random.normal(size=64 * 64)} for _ in range(2))
    coarse, fine = mixed(mine, other, slice(0, 6)), mixed(mine, other, slice(6, None))
    np.testing.assert_array_equal(coarse["w"][:6], other["w"][:6])
    np.testing.assert_array_equal(fine["w"][:6], mine["w"][:6])
    np.testing.assert_allclose(coarse[key] + fine[key], mine[key] + other[key], atol=1e-4)
    bare = {"w": mine["w"]}
    assert key not in mixed(bare, bare, slice(0, 6))
    parts = [mixed(bare, other, layers)[key] for layers in (slice(0, 6), slice(6, None))]
    np.testing.assert_allclose(sum(parts), other[key], atol=1e-4)
    smooth = dict(other, displacement=np.repeat(random.normal(size=2), 64 * 32))
    taken = mixed(bare, smooth, slice(0, 6))[key]
    assert np.abs(taken - smooth[key]).mean() < 0.1 * np.abs(smooth[key]).mean(), "what is wide is coarse"
