"""Detail from photographs: what is seen of the skin, and stages that keep only what helps."""

import numpy as np
import pytest
import torch
from test_skin_detail import SIZE, module_of

import faceverse as fv
from faceverse.detail.displacement import normal_map
from faceverse.detail.latents import maps_of
from faceverse.edit import head
from faceverse.errors import ParameterError
from faceverse.fitting.detail_stage import fit_detail_maps, select_detail_module
from faceverse.fitting.skin_observation import (
    clear_skin,
    gaussian_blur,
    high_pass,
    observe_skin,
    shade_sensitivity,
)
from faceverse.training.synthetic_skin import DetailSurface, random_z, synthetic_detail


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def wrinkled(model):
    """A head of 70 with synthetic displacement, and its photograph in side light."""
    person = head(model.random(8), model, texture_size=512)
    z = random_z(np.random.default_rng(0), 72, 0.5)
    displacement = synthetic_detail(DetailSurface.of(model, 256), z, 0).displacement
    light = person.params.light.copy()
    light[1:4] += light[0].mean() * np.float32([[0.35], [0.25], [0.1]])
    posed = person.replace(params=person.params.replace(light=light))
    shown = posed.replace(displacement=displacement, normal_map=normal_map(model, posed.vertices, displacement))
    return posed, displacement, fv.render(shown, mode="color", camera=posed.camera, supersample=3).rgb


def test_shading_of_displacement_is_predicted(model, wrinkled):
    posed, displacement, photo = wrinkled
    view = observe_skin(photo, model, posed.params, posed.camera, 256)
    assert 0.1 < float((view.weight > 0.5).float().mean()) < 0.6
    predicted = view.predicted(torch.zeros(3, 256, 256), torch.from_numpy(displacement))
    sure = view.weight > 0.9
    a, b = (luma[sure] for luma in (predicted.mean(0), view.residual.mean(0)))
    assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.6
    assert view.error(predicted) < view.error(0.0) < view.error(-predicted)


def test_sensitivity_is_the_derivative_of_the_light(model, wrinkled):
    posed, _, photo = wrinkled
    view = observe_skin(photo, model, posed.params, posed.camera, 64)
    sensitivity = shade_sensitivity(view.frame, view.light)
    assert sensitivity.shape == (2, 64, 64) and float(sensitivity[:, view.weight > 0.5].abs().mean()) > 0.05


def test_eyes_lips_and_hair_are_kept_clear(model):
    clear = clear_skin(model, 256)
    uv = model.uv[: len(model.mean_vertices)]
    for name in ("lips", "eyeballs", "eyelids"):
        rows, columns = np.clip((uv[model.regions[name]].T[::-1] * 256).astype(int), 0, 255)
        assert clear[rows, columns].max() == 0, name
    assert clear.max() == 1


def test_filters():
    flat = torch.full((3, 64, 64), 2.0)
    torch.testing.assert_close(gaussian_blur(flat, 1.5)[:, 16:48, 16:48], flat[:, 16:48, 16:48])
    assert float(high_pass(flat, torch.ones(64, 64)).abs().max()) < 1e-5


def test_detail_explains_the_photograph_and_follows_from_its_latents(model, wrinkled):
    posed, _, photo = wrinkled
    seen = []
    skin = fit_detail_maps(photo, model, posed.params, posed.camera, module_of(model), 3, seen.append)
    assert skin.from_photo and [stage.name for stage in skin.stages] == ["detail"]
    assert skin.stages[0].after <= skin.stages[0].before
    assert seen == sorted(seen) and 0 < seen[0] < seen[-1] <= 1
    assert skin.displacement.shape == (SIZE, SIZE) and np.isfinite(skin.displacement).all()
    again = fit_detail_maps(photo, model, posed.params, posed.camera, module_of(model), 3)
    np.testing.assert_array_equal(again.displacement, skin.displacement)
    made = maps_of(module_of(model), model, posed.params.replace(detail=skin.latents))
    np.testing.assert_allclose(made.displacement, skin.displacement, atol=1e-6)


def test_a_small_face_gets_the_skin_of_its_age(model):
    person = head(model.random(8), model, texture_size=64)
    camera = person.camera.cropped((0, 0, 512, 512), (40, 40))
    photo = fv.render(person, camera=camera).rgb
    skin = fit_detail_maps(photo, model, person.params, camera, module_of(model), 3)
    assert not skin.from_photo and skin.stages == () and skin.displacement.any() and "noise" not in skin.latents


def test_on_base_gets_the_base_head_before_the_detail_and_changes_nothing(astronaut, model):
    events, bases = [], []

    def on_base(result):
        bases.append(result)
        events.append("base")

    module = module_of(model, expression=None)
    full = fv.fit(astronaut, model, detail=module, on_base=on_base, on_progress=lambda stage, *_: events.append(stage))
    assert events.count("base") == 1 and events.index("base") < events.index("detail")
    (base,) = bases
    assert base.displacement is None and base.normal_map is None and not base.params.detail
    assert [stage.name for stage in base.stages] == [s.name for s in full.stages if "detail" not in s.name]
    np.testing.assert_array_equal(base.vertices, full.vertices)
    assert base.warnings == full.warnings and 0 < base.seconds < full.seconds
    plain = fv.fit(astronaut, model, detail=False, on_base=on_base)
    assert len(bases) == 1, "no detail, nothing to wait for"
    np.testing.assert_array_equal(base.texture, plain.texture)
    silent = fv.fit(astronaut, model, detail=module)
    np.testing.assert_array_equal(silent.texture, full.texture)
    np.testing.assert_array_equal(silent.displacement, full.displacement)


def test_on_base_gets_the_base_head_of_several_photographs(astronaut, model):
    bases = []
    pair = [astronaut, np.ascontiguousarray(astronaut[:400, 60:460])]
    result = fv.fit(pair, model, detail=module_of(model, expression=None), on_base=bases.append)
    (base,) = bases
    assert len(base.views) == 2 and base.displacement is None and result.displacement is not None
    np.testing.assert_array_equal(base.neutral_vertices, result.neutral_vertices)


def test_modules_are_chosen_in_words(model, monkeypatch):
    assert select_detail_module(False, model) is None
    module = module_of(model)
    assert select_detail_module(module, model) is module
    with pytest.raises(ParameterError, match="detail must be True, False or a module from load_detail, got 'yes'"):
        select_detail_module("yes", model)
    monkeypatch.setattr("faceverse.fitting.detail_stage.has_open_detail", lambda: False)
    assert select_detail_module(True, model) is None
