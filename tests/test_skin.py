"""Skins of the base model: the colour of skin from its pigments, where what is painted, and the people drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from faceverse.graphics.lighting import linear_from_srgb, srgb_from_linear
from faceverse.graphics.mesh import unique_edges, vertex_normals
from faceverse.model.file import pack_albedo, read_model_file
from faceverse.training import skin_reflectance
from faceverse.training.albedo_model import SkinTask, brow_lines, fine_fields, paint_surface, skin_masks, with_skin
from faceverse.training.appearance_traits import draw_traits, tone_ita_deg
from faceverse.training.part_colours import PART_COLOURS, eyeball_colours, fixed_colours, height_share
from faceverse.training.shape_population import draw_settings
from faceverse.training.skin_fields import skin_fields
from faceverse.training.skin_population import PaintSurface, SkinPopulation, density, sample_texture
from faceverse.training.skin_reflectance import (
    ita_deg,
    lab,
    linear_rgb,
    melanin_index,
    melanin_of_ita,
    pigment_table,
    unmix,
)
from faceverse.training.sources import ANCESTRIES, SkinTexture
from faceverse.weights import find_weights

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def srgb(linear):
    return 255 * srgb_from_linear(torch.from_numpy(np.asarray(linear, dtype=np.float64))).numpy()


# --------------------------------------------------------------------------------------------------------- the pigments


def skin_colour(melanin, blood, pheomelanin=0.1):
    return linear_rgb(skin_reflectance.reflectance(melanin, blood, pheomelanin))


def test_a_white_surface_is_white_and_lab_is_that_of_cie():
    np.testing.assert_allclose(linear_rgb(np.ones(31)), 1, atol=1e-9)
    np.testing.assert_allclose(lab(np.ones(3)), [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(lab(np.array([1.0, 0, 0])), [53.24, 80.09, 67.20], atol=0.05)
    np.testing.assert_allclose(lab(np.full(3, 0.001)), [0.9033, 0, 0], atol=1e-3)


@pytest.mark.parametrize("blood", [0.02, 0.035, 0.07])
def test_more_melanin_is_darker_in_every_channel_and_lowers_the_angle(blood):
    colours = skin_colour(np.geomspace(*skin_reflectance.MELANIN_RANGE, 40), np.full(40, blood))
    assert (np.diff(colours, axis=0) < 0).all()
    pale_to_dark = skin_colour(np.geomspace(0.002, 0.25, 40), np.full(40, blood))
    assert (np.diff(ita_deg(pale_to_dark)) < 0).all()
    assert (pale_to_dark[:, 0] > pale_to_dark[:, 1]).all() and (pale_to_dark[:, 1] > pale_to_dark[:, 2]).all()


def test_more_blood_is_redder_on_light_skin_and_hidden_on_dark_skin():
    blood = np.linspace(0.02, 0.07, 20)
    redness = [lab(skin_colour(np.full(20, m), blood))[:, 1] for m in (0.005, 0.03, 0.25)]
    assert (np.diff(redness[0]) > 0).all() and (np.diff(redness[1]) > 0).all()
    assert np.ptp(redness[0]) > 4 > 4 * np.ptp(redness[2])


def test_all_human_skin_tones_are_reached():
    angles = ita_deg(skin_colour(np.array([0.002, 0.25]), np.full(2, 0.035)))
    assert angles[0] > 60 and angles[1] < -50
    wanted = np.linspace(-50, 60, 23)
    reached = ita_deg(skin_colour(melanin_of_ita(wanted), np.full(23, 0.035)))
    np.testing.assert_allclose(reached, wanted, atol=0.5)
    assert tone_ita_deg(0) > 55 and tone_ita_deg(1) < -55


@pytest.mark.parametrize("patch", [(194, 150, 130), (115, 82, 68)], ids=["light skin", "dark skin"])
def test_the_colour_charts_patches_are_some_mixture(patch):
    linear = linear_from_srgb(torch.tensor(patch, dtype=torch.float64) / 255).numpy()
    melanin, blood = np.meshgrid(np.geomspace(0.002, 0.43, 120), np.linspace(0.02, 0.07, 30))
    distance = np.linalg.norm(lab(skin_colour(melanin, blood)) - lab(linear), axis=-1)
    assert distance.min() < 2.0


def test_table_is_the_formula():
    rng = np.random.default_rng(0)
    melanin = np.exp(rng.uniform(*np.log(skin_reflectance.MELANIN_RANGE), 300))
    blood = np.exp(rng.uniform(*np.log(skin_reflectance.BLOOD_RANGE), 300))
    for share in skin_reflectance.PHEOMELANIN_RANGE:
        found = pigment_table(share)(melanin_index(melanin), np.log(blood))
        np.testing.assert_allclose(found, -np.log(skin_colour(melanin, blood, share)), atol=0.004)
    outside = pigment_table()(np.array([-99.0, 99.0]), np.array([-99.0, 99.0]))
    ends = [np.log(skin_reflectance.BLOOD_RANGE)[k] for k in (0, 1)]
    np.testing.assert_allclose(outside, pigment_table()(np.array(skin_reflectance.INDEX_RANGE), np.array(ends)))


def test_unmixing_finds_pigments_whatever_the_cameras_colours():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((200, 3)) * (0.10, 0.25, 0.05)
    base = melanin_index(0.02), np.log(0.035)
    table = pigment_table()
    camera = np.array([0.03, -0.02, 0.05])
    plain = table(*np.array(base)[:, None])[0] + camera
    seen = table(base[0] + truth[:, 0], base[1] + truth[:, 1]) + truth[:, 2:] + camera
    found = unmix(seen, plain)
    for k, least in enumerate((0.97, 0.97, 0.95)):
        assert np.corrcoef(found[:, k], truth[:, k])[0, 1] > least
    np.testing.assert_allclose(found.std(0), truth.std(0), rtol=0.25)
    np.testing.assert_allclose(unmix(plain[None], plain), 0, atol=1e-9)


# -------------------------------------------------------------------------------------------------------------- colours


def test_density_adds_what_light_multiplies():
    grey = np.array([0.2, 0.5, 1.0])
    linear = np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(density(grey), -np.log(linear), atol=1e-6)
    assert np.isfinite(density(np.zeros(3))).all()


def test_linear_albedo_comes_back_as_the_same_srgb_bytes():
    levels = np.arange(256)
    linear = linear_from_srgb(torch.from_numpy(levels / 255)).numpy()
    np.testing.assert_array_equal(np.round(srgb(linear.astype(np.float32))), levels)
    # As stored, a mean in half precision: still less than half a level, in the dark too.
    assert np.abs(srgb(linear.astype(np.float16)) - levels).max() < 0.5


def test_modes_as_bytes_stay_within_a_level_on_dark_skin():
    rng = np.random.default_rng(2)
    spectrum = np.geomspace(0.12, 0.002, 50)  # of modes in linear light, the first is the tone
    modes = rng.standard_normal((50, 400, 3)) * 0.3 * spectrum[:, None, None] + spectrum[:, None, None] * (1, 0.8, 0.7)
    packed, scale = pack_albedo(modes)
    error = np.einsum("sa,avc->svc", rng.standard_normal((30, 50)), packed * scale[:, None, None] - modes)
    dark = skin_colour(np.array([0.2]), np.array([0.035]))
    assert np.sqrt(np.mean((srgb(dark + error) - srgb(dark)) ** 2)) < 1.0


def test_textures_are_sampled_with_v_upwards():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, :, 0], pixels[:, 7, 1] = 100, 200  # red in the top row, green in the last column
    bottom_left, top_left, bottom_right = sample_texture(pixels, np.array([[0.01, 0.01], [0.01, 0.99], [0.99, 0.01]]))
    assert bottom_left.tolist() == [0, 0, 0]
    np.testing.assert_allclose(top_left, [100, 0, 0], atol=0.5)
    np.testing.assert_allclose(bottom_right, [0, 200, 0], atol=0.5)
    centre = np.array([[(7 + 0.5) / 8, 1 - (0 + 0.5) / 4], [7 / 8, 1 - 0.5 / 4]])
    np.testing.assert_allclose(sample_texture(pixels, centre), [[100, 200, 0], [100, 100, 0]], atol=0.5)


# ------------------------------------------------------------------------------------------------ eyes, teeth and mouth


def test_eyeballs_have_pupil_iris_ring_and_white_along_the_gaze():
    axis = np.array([0.0, 0.0, 1.0])
    degrees = np.radians([0, 16, 23.5, 30, 100, 180])
    ball = np.stack([0.012 * np.sin(degrees), 0 * degrees, 0.012 * np.cos(degrees)], axis=1) + [0.03, 0, 0.05]
    pupil, iris, ring, white, side, back = eyeball_colours(ball, np.array([0.03, 0, 0.05]), axis)
    np.testing.assert_allclose(pupil, PART_COLOURS["pupil"], atol=1e-6)
    np.testing.assert_allclose(iris, PART_COLOURS["iris"], atol=1e-3)
    np.testing.assert_allclose(white, PART_COLOURS["sclera"], atol=0.01)
    assert ring.mean() < 0.8 * iris.mean() < white.mean()
    assert white.max() < 0.7, "the white of an eye is not white"
    assert side[0] / side[2] > white[0] / white[2] * 1.1, "redder to the sides"
    np.testing.assert_allclose(back, side, atol=0.02)


def test_teeth_have_gums_at_their_roots():
    x, level = np.meshgrid(np.linspace(-0.03, 0.03, 31), np.linspace(0, 0.018, 7))
    row = np.stack([x.ravel(), level.ravel() + 4 * x.ravel() ** 2, 0.07 - 10 * x.ravel() ** 2], axis=1)
    np.testing.assert_allclose(height_share(row), level.ravel() / 0.018, atol=0.25)
    vertices = np.concatenate([row + (0, 0.002, 0), row - (0, 0.020, 0)])
    upper = np.arange(len(vertices)) < len(row)
    nothing = np.zeros(len(vertices), bool)
    names = ("eye_sockets", "tongue", "mouth_inside", "eyeball_left", "eyeball_right")
    ball = {name: nothing for name in names}
    for k, side in enumerate(("left", "right")):
        ball[f"eyeball_{side}"] = np.zeros(len(vertices) + 8, bool)
        ball[f"eyeball_{side}"][len(vertices) + 4 * k : len(vertices) + 4 * k + 4] = True
    regions = {k: np.resize(v, len(vertices) + 8) if len(v) == len(vertices) else v for k, v in ball.items()}
    corners = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]) * 0.012
    vertices = np.concatenate([vertices, corners + (0.03, 0.07, 0.06), corners + (-0.03, 0.07, 0.06)])
    upper = np.pad(upper, (0, 8))
    lower = ~upper & (np.arange(len(vertices)) < 2 * len(row))
    colours = fixed_colours(regions, vertices, upper, lower)
    redness = colours[:, 0] / colours[:, 1]
    at_root = np.concatenate([level.ravel() > 0.015, level.ravel() < 0.003, np.zeros(8, bool)])
    at_edge = np.concatenate([level.ravel() < 0.005, level.ravel() > 0.013, np.zeros(8, bool)])
    assert redness[at_root].min() > 1.8 and redness[at_edge].max() < 1.2
    assert colours[at_edge].mean(1).max() > 2 * colours[at_root].mean(1).max()


# ------------------------------------------------------------------------------------------------ where what is painted


@pytest.fixture(scope="module")
def fields(model):
    regions = {name: np.isin(np.arange(len(model.mean_vertices)), rows) for name, rows in model.regions.items()}
    v = model.mean_vertices.astype(np.float64)
    # The model file keeps no soft masks: lips as their region, lid margins as what is close to the eyeballs.
    near_ball = cKDTree(v[regions["eyeballs"]]).query(v)[0]
    margin = np.clip(1.5 - near_ball / 0.0015, 0, 1) * regions["eyelids"]
    brows = brow_lines(model, model.landmarks_478)
    return skin_fields(v, regions, 1.0 * regions["lips"], margin, 1.0 * regions["ears"], brows)


def landmark(model, number):
    places = model.landmarks_478
    corners = model.mean_vertices[model.faces[places.triangle[number]]]
    return (corners * places.barycentric[number][:, None]).sum(0)


def at(model, values, point):
    return values[np.linalg.norm(model.mean_vertices - point, axis=1).argmin()]


def test_brows_are_two_strips_above_the_eyes(model, fields):
    mask = fields.brows.mask
    assert mask.shape == (len(model.mean_vertices),) and mask.min() == 0 and mask.max() <= 1
    where = model.mean_vertices[mask > 0.5]
    left, right = where[where[:, 0] > 0], where[where[:, 0] < 0]
    assert len(left) > 10 and 0.6 < len(left) / len(right) < 1.6
    for side, strip in (("left", left), ("right", right)):
        eye = model.mean_vertices[model.regions[f"eyeball_{side}"]].mean(0)
        assert 0.008 < (strip[:, 1] - eye[1]).mean() < 0.03
        assert strip[:, 1].min() > eye[1] + 0.004
        assert np.ptp(strip[:, 0]) > 2.5 * np.ptp(strip[:, 1])
        assert np.abs(strip[:, 0]).min() > 0.004, "brows must not meet"
    along = fields.brows.along[mask > 0.5]
    assert np.corrcoef(along, np.abs(where[:, 0]))[0, 1] > 0.95, "from the nose to the temple"


def test_hair_grows_on_the_scalp_and_beards_around_the_mouth(model, fields):
    chin, cheek, forehead, nose = (landmark(model, k) for k in (152, 50, 10, 1))
    assert at(model, fields.hairline, (0, model.mean_vertices[:, 1].max(), 0)) > 0.03
    for point in (chin, cheek, nose, landmark(model, 9)):
        assert at(model, fields.hairline, point) < -0.02
    assert at(model, fields.hairline, forehead) < 0
    assert at(model, fields.beard, chin) > 0.003
    assert at(model, fields.beard, 0.5 * (landmark(model, 2) + landmark(model, 0))) > 0.001, "the moustache"
    for point in (cheek, forehead, nose):
        assert at(model, fields.beard, point) < -0.004
    behind = model.mean_vertices[:, 2] < -0.03
    assert fields.beard[behind].max() < 0
    assert at(model, fields.cheeks, cheek) > 0.5 and at(model, fields.nose, nose) > 0.8
    eyes = model.mean_vertices[model.regions["eyeballs"]].mean(0)
    under = model.mean_vertices[fields.under_eye > 0.5]
    assert len(under) > 20 and (under[:, 1] < eyes[1] - 0.008).all() and (under[:, 1] > eyes[1] - 0.03).all()


# ----------------------------------------------------------------------------------------------------------- the people


def textures(change=None):
    """A skin of each kind, plain but for noise; `change` (H, W) multiplies its light."""
    rng = np.random.default_rng(0)
    skins = []
    for ancestry in ANCESTRIES:
        for male in (0, 1):
            for years in (25.0, 72.0):
                colour = (96, 60, 46) if ancestry == "african" else (205, 156, 130)
                linear = linear_from_srgb(torch.tensor(colour, dtype=torch.float64) / 255).numpy()
                light = np.exp(0.04 * rng.standard_normal((64, 64)))[..., None] * (1 if change is None else change)
                pixels = np.round(srgb(linear * light)).clip(0, 255).astype(np.uint8)
                skins.append(SkinTexture(f"{ancestry}{male}{years:.0f}", years, ancestry, bool(male), pixels))
    return skins


@pytest.fixture(scope="module")
def surface(model, fields):
    v = model.mean_vertices.astype(np.float64)
    centres = v[np.linspace(0, len(v) - 1, 120).astype(int)]
    kernel = np.exp(-((v[:, None] - centres) ** 2).sum(-1) / (2 * 0.035**2))
    values, vectors = np.linalg.eigh(np.exp(-((centres[:, None] - centres) ** 2).sum(-1) / (2 * 0.035**2)))
    keep = values > 1e-5
    smooth = (kernel @ (vectors[:, keep] / np.sqrt(values[keep])))[:, ::-1]
    _, mirror = cKDTree(v).query(v * (-1, 1, 1))
    uv = model.uv[: len(v)] * (1, -1) + (0, 1)
    fine = fine_fields(model.faces, len(v))
    normals = vertex_normals(torch.from_numpy(v), model.tensor("faces")).numpy()
    return PaintSurface(uv, mirror, fields, normals, smooth, fine, np.full((len(v), 3), 0.25))


@pytest.fixture(scope="module")
def people_of(surface):
    return SkinPopulation(textures(), surface)


def settings_of(count=24, **changes):
    settings = draw_settings(count, np.random.default_rng(1))
    return replace(settings, **{k: np.broadcast_to(np.asarray(v, float), getattr(settings, k).shape).copy()
                                for k, v in changes.items()})  # fmt: skip


def paint(population, settings):
    rng = np.random.default_rng(7)
    return np.stack([population.draw(settings, k, rng) for k in range(len(settings.years))])


def traits_of(count=200, **changes):
    settings, rng = settings_of(count, **changes), np.random.default_rng(3)
    return [draw_traits(settings, k, rng) for k in range(count)]


def plain(fields):
    return (fields.skin > 0) & (fields.cheeks > 0.5) & (fields.beard < -0.01)


def test_skins_are_colours_and_repeat_with_their_seed(people_of, fields):
    albedo = paint(people_of, settings_of(6))
    assert albedo.shape == (6, len(fields.skin), 3) and albedo.dtype == np.float32
    assert albedo.min() > 0 and albedo.max() < 1
    np.testing.assert_array_equal(albedo, paint(people_of, settings_of(6)))
    assert albedo[:, plain(fields)].mean(1).std(0).min() > 0.02


def test_people_span_all_skin_tones(people_of, fields):
    tones = np.linspace(0, 1, 9)
    settings = settings_of(9)
    angles = ita_deg(paint(people_of, replace(settings, tone=tones))[:, plain(fields)].mean(1))
    assert angles[0] > 55 and angles[-1] < -40
    assert np.corrcoef(tones, angles)[0, 1] < -0.97


def test_what_is_not_skin_does_not_change_with_tone(people_of, fields):
    light, dark = (paint(people_of, settings_of(4, tone=tone, ancestry=[1, 0, 0])) for tone in (0.1, 0.9))
    other = fields.skin == 0
    assert other.sum() > 1000
    np.testing.assert_array_equal(light[:, other], dark[:, other])
    lips = fields.lips > 0.9
    ratio = [a[:, lips].mean() / a[:, plain(fields)].mean() for a in (light, dark)]
    assert light[:, lips].mean() > 1.5 * dark[:, lips].mean(), "lips darken with the skin"
    assert ratio[0] < 0.95 and ratio[1] < 1.1, "lips are not lighter than skin"


def test_women_have_no_beard_shadow_and_men_have_all_kinds():
    women, men = traits_of(male=0.05), traits_of(male=0.95)
    assert max(t.beard for t in women) == max(t.moustache for t in women) == 0
    shares = np.array([t.beard for t in men])
    assert (shares < 0.08).mean() > 0.2 and (shares > 0.3).mean() > 0.1


def test_beard_darkens_chin_and_jaw_only(people_of, fields):
    traits = replace(traits_of(1, male=0.95, years=30, ancestry=[0, 1, 0], tone=0.3)[0], beard=0.5, moustache=0.5)
    nothing = np.zeros((len(fields.skin), 3))
    bare, bearded = (
        people_of.paint(t, nothing, np.random.default_rng(0))
        for t in (replace(traits, beard=0.0, moustache=0.0), traits)
    )
    change = (bare - bearded).mean(1)
    assert change[fields.beard > 0.012].mean() > 0.05
    assert np.abs(change[fields.beard < -0.02]).max() < 1e-6
    assert np.abs(change[fields.lips > 0.99]).max() < 1e-3


def test_age_greys_hair_and_leaves_the_brows():
    black_haired = dict(ancestry=[1.0, 0, 0], tone=0.6, male=0.05)
    young, old = (traits_of(years=years, **black_haired) for years in (22, 80))
    assert np.mean([t.hair.mean() for t in old]) > 8 * np.mean([t.hair.mean() for t in young])
    brows = [np.array([t.brow for t in group]) for group in (young, old)]
    assert abs(brows[0].mean() - brows[1].mean()) < 0.05 and brows[0].std() > 0.08
    lightest_young, darkest_old = max(t.brow_hair.mean() for t in young), min(t.brow_hair.mean() for t in old)
    assert darkest_old < 0.12, "some old people have rather dark brows"
    assert lightest_young < 0.1


def test_baldness_is_for_men_and_comes_with_age():
    groups = [traits_of(male=m, years=y) for m, y in ((0.05, 75), (0.95, 25), (0.95, 75))]
    top = [np.mean([t.recession[2] for t in group]) for group in groups]
    assert top[0] == 0 and top[1] < 0.05 and 0.1 < top[2] < 0.6


def test_no_mask_ends_in_an_edge(people_of, model, fields):
    """Colours change by a bounded number of sRGB levels per millimetre where hair begins, dark hair on light skin."""
    traits = replace(traits_of(1, male=0.95, years=30, ancestry=[0, 1, 0], tone=0.1)[0],
                     scalp=0.9, beard=0.5, moustache=0.5, hair=np.full(3, 0.01), beard_hair=np.full(3, 0.01),
                     freckles=0.0, spots=0.0)  # fmt: skip
    albedo = srgb(people_of.paint(traits, np.zeros((len(fields.skin), 3)), np.random.default_rng(0)).clip(0, 1))
    edges = unique_edges(model.faces)
    plain = (fields.skin > 0) & (fields.lips == 0) & (fields.lid_margin == 0) & (np.abs(fields.brows.across) > 3)
    plain &= (fields.ears == 0) & (fields.nostrils < 0.02)
    edges = edges[plain[edges].all(1)]
    length_mm = 1e3 * np.linalg.norm(np.diff(model.mean_vertices[edges], axis=1)[:, 0], axis=1)
    slope = np.abs(np.diff(albedo[edges], axis=1)[:, 0]).max(1) / np.maximum(length_mm, 1.0)
    hairline = (np.abs(fields.hairline[edges]) < 0.01).any(1)
    assert slope[hairline].max() > 3, "there is a hairline"
    assert slope.max() < 25


def test_patterns_keep_no_light(surface, model, fields):
    normals = surface.normals
    # A texture lit from above and from one side, as seen in the layout of the map.
    size = 64
    image, count = np.zeros((size, size)), np.zeros((size, size))
    cells = np.clip((np.stack([1 - surface.uv[:, 1], surface.uv[:, 0]]) * size).astype(int), 0, size - 1)
    np.add.at(image, tuple(cells), 0.35 * normals[:, 1] + 0.2 * normals[:, 0])
    np.add.at(count, tuple(cells), 1)
    lit = np.exp(image / np.maximum(count, 1))[..., None]
    rows = (fields.skin > 0) & (fields.hairline < -0.03) & (fields.lips < 0.01) & (fields.lid_margin < 0.01)
    design = np.concatenate([normals[rows], np.ones((rows.sum(), 1))], axis=1)
    raw = -np.log(lit[cells[0][rows], cells[1][rows], 0])
    kept = SkinPopulation(textures(lit), surface).patterns[:, rows].mean(0)
    slope = {name: np.linalg.lstsq(design, v, rcond=None)[0] for name, v in (("raw", raw), ("shade", kept[:, 2]))}
    assert abs(slope["raw"][1]) > 0.25
    assert abs(slope["shade"][1]) < 0.15 * abs(slope["raw"][1])
    assert abs(slope["shade"][0]) < 0.25 * abs(slope["raw"][0])


def test_neither_side_is_always_the_same(surface, fields, model):
    darker_left = np.exp(np.where(np.arange(64) > 32, -0.15, 0.15))[None, :, None] * np.ones((64, 1, 1))
    population = SkinPopulation(textures(darker_left), surface)
    rows = plain(fields)
    left = model.mean_vertices[rows, 0] > 0
    people = np.log(paint(population, settings_of(40))[:, rows] @ LUMINANCE)
    sides = people[:, left].mean(1) - people[:, ~left].mean(1)
    assert abs(sides.mean()) < 3 * sides.std() / np.sqrt(len(sides)), "on average the two sides are alike"


def test_albedo_modes_hold_the_people_they_are_made_of(source, open_assembly):
    file, assembly = read_model_file(find_weights("open")), open_assembly
    masks = skin_masks(assembly, source)
    if len(masks.skin) != len(file.mean_albedo):
        pytest.skip("the model file was made from other head data")
    task = SkinTask(textures(), masks, settings_of(16), 16, 0)
    made, scores = with_skin(file, assembly, task)
    assert scores.shape == (16, 15) and made.albedo_modes.shape == (15, *made.mean_albedo.shape)
    np.testing.assert_allclose(scores.std(0), 1, atol=1e-3)
    assert made.info["albedo_variance_kept"] > 0.9999
    again, same = with_skin(file, assembly, task)
    np.testing.assert_array_equal(made.albedo_modes, again.albedo_modes)
    np.testing.assert_array_equal(scores, same)
    modes = made.albedo_modes * made.albedo_scale[:, None, None]
    rebuilt = made.mean_albedo + np.einsum("sa,avc->svc", scores, modes)
    rng = np.random.default_rng((0, 2))
    population = SkinPopulation(task.textures, paint_surface(assembly, masks))
    drawn = np.stack([population.draw(task.settings, k, rng) for k in range(16)])
    face = assembly.regions["face"]
    assert np.abs(srgb(rebuilt[:, face].clip(0, 1)) - srgb(drawn[:, face])).mean() < 0.5
