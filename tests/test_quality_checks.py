"""Warnings of a fit: each on a rendering or an array that shows what it is about, and none on good pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

import faceverse as fv
from faceverse.fitting import quality_checks as checks
from faceverse.fitting.photometric import crop_box, crop_photo
from faceverse.io.images import read_image
from faceverse.landmarks import DetectedFace

BLUE = (30, 80, 160)


@pytest.fixture(scope="module")
def picture(model):
    """A rendering of a random head, (512, 512, 3) uint8."""
    return fv.render(fv.head(model.random(3)), 512).rgb


@pytest.fixture(scope="module")
def seen(picture):
    """That rendering with its landmarks, explained without any error."""
    face = fv.detect(picture)[0]
    drawn, _ = crop_photo(picture, crop_box(face.landmarks_px), checks.CROP_PX)
    points = face.landmarks_px
    return checks.QualityInput(read_image(picture), face, 0.0, points, points, drawn)


def with_pixels(seen, rgb):
    """The same face in other pixels, which the fitted head explains just as well."""
    drawn, _ = crop_photo(rgb, crop_box(seen.face.landmarks_px), checks.CROP_PX)
    return replace(seen, photo=replace(seen.photo, rgb=rgb), rendered=drawn)


def with_points(seen, points):
    """The same pixels around other landmarks."""
    box = np.concatenate([points.min(0), points.max(0)])
    face = DetectedFace(box, points, seen.face.landmarks_depth, seen.face.blendshapes, seen.face.rotation)
    return replace(seen, face=face, matched_px=points, projected_px=points)


def only(warnings):
    """The only warning."""
    (text,) = warnings
    return text


# -- what is found ----------------------------------------------------------------------------------------------------
def test_a_good_rendering_needs_no_remark(seen):
    assert checks.quality_warnings(seen) == ()


def test_other_faces_are_counted(seen):
    warning = only(checks.quality_warnings(replace(seen, face_count=3)))
    assert warning.startswith("3 faces were found and the largest was taken")


def test_a_small_face_is_measured_and_not_called_blurred(seen):
    scale = 30 / checks.eye_distance(seen.face.landmarks_px)
    size = round(512 * scale)
    rgb = np.asarray(Image.fromarray(seen.photo.rgb).resize((size, size), Image.Resampling.BOX))
    small = with_points(seen, seen.face.landmarks_px * size / 512)
    text = only(checks.quality_warnings(with_pixels(small, gaussian_filter(rgb, (2, 2, 0)))))
    assert text.startswith("the face is small: 30 px")


@pytest.mark.parametrize("yaw_deg", [52, -52])
def test_a_turned_face_has_a_far_side_unless_another_photograph_shows_it(seen, yaw_deg):
    turned = replace(seen, yaw_deg=yaw_deg)
    assert only(checks.quality_warnings(turned)) == "the face is turned 52 degrees; its far side is guessed"
    assert checks.quality_warnings(turned, far_side=False) == ()
    assert checks.quality_warnings(replace(seen, yaw_deg=35)) == ()


@pytest.mark.parametrize("side", [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_a_face_that_leaves_the_picture_is_noticed_on_every_side(seen, side):
    low, high = seen.face.landmarks_px.min(0), seen.face.landmarks_px.max(0)
    edge = np.where(np.array(side) > 0, 512 - high, -low) * np.abs(side)
    for further, count in ((0.25, 1), (-0.02, 0)):
        moved = seen.face.landmarks_px + edge + further * (high - low) * side
        warnings = checks.quality_warnings(with_points(seen, moved.astype(np.float32)))
        assert len([text for text in warnings if "outside the picture; it is guessed" in text]) == count


def test_darkness_and_its_limit(seen):
    text = only(checks.quality_warnings(with_pixels(seen, seen.photo.rgb // 6)))
    assert text.startswith("the face is very dark; colours are uncertain")
    assert checks.quality_warnings(with_pixels(seen, seen.photo.rgb // 3 * 2)) == ()


def test_clipped_skin_is_overexposed(seen):
    rgb = np.clip(seen.photo.rgb * 3.5, 0, 255).astype(np.uint8)
    text = only(checks.quality_warnings(with_pixels(seen, rgb)))
    assert text.endswith("less light helps") and 5 < int(text.split("%")[0]) <= 100


def test_white_around_the_skin_is_not_overexposed(seen):
    rgb = seen.photo.rgb.copy()
    rgb[: int(seen.face.landmarks_px[[105, 334], 1].min()) - 8] = 255
    for eye in ((33, 133), (263, 362)):
        x, y = seen.face.landmarks_px[list(eye)].mean(0).astype(int)
        rgb[y - 2 : y + 3, x - 6 : x + 7] = 255
    assert checks.quality_warnings(with_pixels(seen, rgb)) == ()


def test_misfit_is_in_percent_of_the_eye_distance(seen):
    off = 0.06 * checks.eye_distance(seen.face.landmarks_px)
    moved = replace(seen, projected_px=seen.projected_px + np.float32([off, 0]))
    assert "fits the face poorly: 6.0 % of the eye distance" in only(checks.quality_warnings(moved))
    assert checks.quality_warnings(replace(seen, projected_px=seen.projected_px + np.float32([off / 2, 0]))) == ()
    # The points of a turned face are the detector's guess, so that their distance says nothing.
    assert only(checks.quality_warnings(replace(moved, yaw_deg=50))).startswith("the face is turned")


def test_a_foreshortened_face_is_measured_by_its_size_from_the_front(seen):
    off = np.float32([0.05 * checks.eye_distance(seen.face.landmarks_px), 0])
    turned = replace(seen, yaw_deg=37, projected_px=seen.projected_px + off)
    assert checks.misfit_percent(turned) == pytest.approx(5 * np.cos(np.radians(37)), rel=1e-4)
    assert checks.quality_warnings(turned) == ()


def test_blur_is_measured(seen):
    eyes = checks.eye_distance(seen.face.landmarks_px)
    blurred = with_pixels(seen, gaussian_filter(seen.photo.rgb, (0.06 * eyes, 0.06 * eyes, 0)))
    assert only(checks.quality_warnings(blurred)).startswith("the face is very blurred")
    sharp = with_pixels(seen, gaussian_filter(seen.photo.rgb, (0.02 * eyes, 0.02 * eyes, 0)))
    assert checks.quality_warnings(sharp) == ()


# -- measures on arrays -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("contrast", [20, 200])
def test_blur_of_an_edge_is_its_width_whatever_its_contrast(sigma, contrast):
    edge = np.zeros((100, 100, 3), np.float64)
    edge[:, 50:] = contrast
    soft = gaussian_filter(edge, (sigma, sigma, 0)) + 30
    assert checks.blur_px(soft, np.ones((100, 100), bool)) == pytest.approx(sigma, rel=0.1)


def test_an_even_picture_has_no_measurable_blur():
    assert checks.blur_px(np.full((50, 50, 3), 80, np.uint8), np.ones((50, 50), bool)) == 0


def test_shares_count_the_mask_alone():
    crop = np.zeros((10, 10, 3), np.uint8)
    crop[:5] = 255
    crop[0, :, 2] = 200  # bright, not white
    skin = np.zeros((10, 10), bool)
    skin[:, :4] = True
    assert checks.white_share(crop, skin) == pytest.approx(0.4)
    assert checks.unexplained_share(crop, np.full_like(crop, 20), skin) == pytest.approx(0.5)
    assert checks.unexplained_share(crop, crop, skin) == 0
    assert checks.white_share(crop, ~skin & skin) == checks.unexplained_share(crop, crop, ~skin & skin) == 0


def test_masks_hold_skin_and_leave_out_eyes_mouth_and_forehead(seen):
    points = seen.face.landmarks_px
    face, skin = checks.face_masks(points, 512)

    def at(mask, *rows):
        x, y = points[list(rows)].mean(0).astype(int)
        return mask[y, x]

    assert all(at(skin, row) for row in (50, 280, 4, 199, 168))
    assert at(face, 33, 133) and not at(skin, 33, 133) and not at(skin, 263, 362)
    assert not at(face, 10) and (skin <= face).all()


# -- whole fits -------------------------------------------------------------------------------------------------------
def test_a_cover_over_a_third_of_the_face_is_noticed(model, picture, seen):
    assert fv.fit(picture, model, detail=False).warnings == ()
    x0, _, x1, _ = seen.face.box_px
    covered = picture.copy()
    covered[:, : int(x0 + 0.33 * (x1 - x0))] = BLUE
    text = only(fv.fit(covered, model, detail=False).warnings)
    assert "looks unlike skin" in text and 20 < int(text.split("%")[0]) < 50


def test_a_good_photograph_has_no_warnings(astronaut_fit):
    assert astronaut_fit[0].warnings == ()


def test_warnings_do_not_depend_on_a_photograph_being_reduced(model, astronaut):
    large = np.asarray(Image.fromarray(astronaut).resize((4608, 4608)))  # above the size that the fit works on
    assert fv.fit(large, model, detail=False).warnings == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("obama", ()),
        ("obama2", ()),
        ("biden", ()),
        ("obama_partial_face", ("outside the picture",)),
        ("two_people", ("2 faces were found",)),
    ],
)
def test_real_photographs_get_the_remarks_they_deserve(name, words, shared, model):
    warnings = fv.fit(shared / "faces" / f"{name}.jpg", model, detail=False).warnings
    assert len(warnings) == len(words) and all(w in text for w, text in zip(words, warnings, strict=True))
