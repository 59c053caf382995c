"""The benchmark of real people: its figures are right on heads whose gaps, contours and outlines are known."""

from dataclasses import replace

import bm_real
import numpy as np
import pytest
import real_figures
import torch
import wrinkle_figures
from PIL import Image

import faceverse as fv
from faceverse.graphics.camera import project, transform
from faceverse.result import with_params


def landmarks_px(result):
    marks = result.model.landmarks_478
    points = (result.vertices[result.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    pose = (torch.from_numpy(values) for values in (result.params.rotation, result.params.translation))
    return project(transform(torch.from_numpy(points), *pose), result.camera)[:, :2].numpy()


@pytest.fixture(scope="module")
def heads(model):
    """Renderings' landmarks of one head with four openings of the mouth."""
    made = []
    for opening in (0.0, 0.2, 0.5, 0.9):
        head = fv.head(model.random(3, hair=False), model, texture_size=64)
        made.append(fv.edit(head, expression={"jawOpen": opening}))
    return made


def test_gaps_of_known_heads(heads):
    points = [landmarks_px(head) for head in heads]
    opened = np.array([real_figures.gaps(p)[0] for p in points])
    assert (np.diff(opened) > 2).all()  # percent of the eye distance
    for head, found in zip(heads, opened, strict=True):
        p = landmarks_px(head).astype(np.float64)
        assert found == pytest.approx(100 * np.linalg.norm(p[13] - p[14]) / np.linalg.norm(p[33] - p[263]))
    lids = [real_figures.gaps(p)[2] for p in points]
    assert np.ptp(lids) < 0.5  # a jaw moves no lid


def test_slope_and_bias_of_heads_that_open_the_mouth_too_little(heads):
    detected = [landmarks_px(head) for head in heads]
    fitted = [p.copy() for p in detected]
    for points, (upper, lower) in zip(fitted, ((p[13], p[14]) for p in detected), strict=True):
        middle = (upper + lower) / 2
        points[13], points[14] = middle + 0.8 * (upper - middle), middle + 0.8 * (lower - middle)
    figures = real_figures.gap_figures(list(zip(detected, fitted, strict=True)))["opening of the mouth"]
    opened = np.array([real_figures.gaps(p)[0] for p in detected])
    assert figures.slope == pytest.approx(0.8, abs=1e-3) and figures.correlation == pytest.approx(1)
    assert figures.bias == pytest.approx(-0.2 * opened.mean(), abs=1e-3)
    assert figures.error == pytest.approx(-figures.bias)
    exact = real_figures.gap_figures([(p, p) for p in detected])
    assert all(f.slope == pytest.approx(1) and f.bias == f.error == 0 for f in exact.values())


def test_contour_errors_count_the_contour_alone(heads):
    detected = landmarks_px(heads[0])
    unit = np.linalg.norm(detected[33] - detected[263])
    fitted = detected.copy()
    fitted[list(real_figures.LIPS)] += 0.03 * unit * np.array([0.6, 0.8], np.float32)
    assert real_figures.contour_error(detected, fitted, real_figures.LIPS) == pytest.approx(3, rel=1e-3)
    assert real_figures.contour_error(detected, fitted, real_figures.LIDS) == 0


def test_shape_and_skin_of_one_person(model, heads):
    one = heads[1]
    other = with_params(one, one.params.replace(identity=one.params.identity + np.float32(0.5)))
    assert real_figures.shape_spread_mm(one, heads[3]) < 1e-3 < 0.1 < real_figures.shape_spread_mm(one, other)
    grey = np.full((64, 64, 3), 119, np.uint8)
    seen = np.full((64, 64), 255, np.uint8)
    first, second = (one.replace(texture=t, texture_confidence=seen) for t in (grey, grey + np.uint8(26)))
    assert real_figures.skin_difference(first, first) == 0
    assert real_figures.skin_difference(first, second) == pytest.approx(10, abs=0.5)  # levels 119 and 145: L* 50 and 60
    hidden = second.replace(texture_confidence=np.zeros_like(seen))
    assert np.isnan(real_figures.skin_difference(first, hidden))


def test_outline_is_the_share_that_is_filled():
    person, above = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    person[2:6, 2:6] = True
    drawn = np.tile(np.uint8(real_figures.BACKGROUND), (8, 8, 1))
    drawn[2:6, 2:4] = 128
    view = real_figures.OutlineView(None, drawn, person, person, above)
    assert view.outline(drawn) == pytest.approx(0.5)
    assert replace(view, above=np.arange(8)[None] < 4 | np.zeros((8, 8), bool)).outline(drawn) == 1
    assert np.isnan(real_figures.overlap(~above, ~above))


def test_likeness_compares_one_person_with_their_other_photographs(heads):
    descriptors = {"a": np.zeros(128), "b": np.full(128, 0.1), "c": np.ones(128)}
    measured = [
        bm_real.Measured(name, landmarks_px(heads[0]), landmarks_px(heads[0]), heads[0], 0.9, np.nan, 1.0,
                         descriptors[name], dict.fromkeys(bm_real.VIEWS, descriptors[name]))
        for name in descriptors
    ]  # fmt: skip
    people = {"a": "anna", "b": "anna", "c": "carl"}
    row = next(r for r in bm_real.people_table(measured, people).splitlines() if "front" in r).split()
    assert float(row[-2]) == pytest.approx(0.1 * 128**0.5, abs=1e-3)
    assert float(row[-1]) == pytest.approx((1 + 0.9) / 2 * 128**0.5, abs=1e-3)
    assert "0.90" in bm_real.photo_table(measured) and " - " in bm_real.photo_table(measured)


def test_a_sheet_shows_seven_pictures(heads, tmp_path):
    head = heads[1].replace(landmarks_px=landmarks_px(heads[1]))
    drawn = fv.render(head, camera=head.camera).rgb
    bm_real.save_sheet(fv.read_image(drawn), head, tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        pixels = np.asarray(sheet).astype(int)
    side = bm_real.SHEET_PX
    assert pixels.shape[1] == 7 * side
    photograph, overlay = pixels[:side, :side], pixels[:side, side : 2 * side]
    middle = (slice(side // 3, side // 2), slice(2 * side // 5, 3 * side // 5))
    assert np.abs(photograph - overlay)[middle].mean() < 12  # a head lies on its own rendering


@pytest.mark.parametrize("text", ["name,who\na.jpg,anna\n", None])
def test_a_table_without_its_columns_is_refused(tmp_path, text):
    path = tmp_path / "people.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(fv.ParameterError, match="columns file and person"):
        bm_real.people_of(path)


def test_a_folder_without_photographs_ends_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bm_real.main(["--photos", str(tmp_path)])
    assert "there are no photographs" in capsys.readouterr().err


def test_wrinkles_that_shade_the_photograph_are_explained_and_mirrored_ones_are_not():
    rng = np.random.default_rng(0)
    size = wrinkle_figures.CROP_PX
    change = rng.normal(size=(size, size, 3)).astype(np.float32)
    y, x = np.mgrid[:size, :size] / size
    zone = (np.abs(x - 0.5) < 0.3) & (y < 0.4)
    bands = np.stack([wrinkle_figures.band_passed(part) for part in np.moveaxis(change, 2, 0)], axis=2)
    light = np.stack([0.5 + x, 1 - y, np.full_like(x, 0.3)], axis=2)  # varies over the face
    shading = (bands * light).sum(2)
    assert wrinkle_figures.r_squared(change, shading, zone) == pytest.approx(1)
    assert wrinkle_figures.r_squared(change[:, ::-1], shading, zone) < 0.02
    other = wrinkle_figures.band_passed(rng.normal(size=(size, size)))
    half = shading + other * shading[zone].std() / other[zone].std()  # as much again that the head does not have
    assert wrinkle_figures.r_squared(change, half, zone) == pytest.approx(0.5, abs=0.03)
