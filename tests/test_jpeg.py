"""Damaged, incomplete and good JPEG files, and PNG files that are cut short."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import faceverse as fv
from faceverse.errors import ImageError
from faceverse.io.images import read_image
from faceverse.io.jpeg import _has_step, check_jpeg

OPTIONS = {
    "4:4:4": {"subsampling": 0, "quality": 90},
    "4:2:2": {"subsampling": 1, "optimize": True},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1", "quality": 20},
    "progressive": {"progressive": True, "quality": 90},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restart rows": {"restart_marker_rows": 1},
    "restart blocks": {"restart_marker_blocks": 5, "quality": 95},
    "progressive restart": {"progressive": True, "restart_marker_blocks": 7},
}


@pytest.fixture(scope="module")
def scene():
    return scene_of(240, 320)


def scene_of(height, width):
    """(H, W, 3) uint8: soft colours, edges, texture."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = 120 + 60 * np.sin(x / 40), 110 + 50 * np.cos(y / 35 + x / 90), 130 + 40 * np.sin((x + y) / 60)
    soft = np.stack([red, green, blue], axis=-1)
    soft[(x - width // 2) ** 2 + (y - height // 2) ** 2 < 70**2] += (40, -10, -40)
    texture = np.random.default_rng(1).normal(0, 6, (height, width, 1))
    return (soft + texture).clip(0, 255).astype(np.uint8)


def jpeg(pixels, mode="RGB", **options):
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def is_clean(report):
    return report.complete and not report.damaged and report.present == 1 and not report.lacks_detail


@pytest.mark.parametrize("name", OPTIONS)
def test_good_files_have_no_fault(scene, name):
    for pixels in (scene, scene[:37, :53], scene[:200, :17], np.full((64, 64, 3), 255, np.uint8)):
        for mode in ("RGB", "L", "CMYK"):
            options = OPTIONS[name] if mode == "RGB" else {k: v for k, v in OPTIONS[name].items() if k != "subsampling"}
            content = jpeg(pixels, mode, **options)
            # Further pictures, videos and padding follow the end marker in the files of phones.
            for tail in (b"", bytes(1000), content, b"ftypmp42" * 50):
                report = check_jpeg(content + tail)
                assert is_clean(report), (name, mode, pixels.shape)
                assert report.content == content


def test_straight_edges_are_no_damage(scene):
    bars = scene.copy()
    bars[:40], bars[200:] = 0, 255  # the bars of a film, aligned and not aligned with blocks
    panels = np.full((240, 320, 3), 30, np.uint8)
    panels[48:, 100:] = 220
    panels[:, :3] = 255
    slanted = scene // 4
    y, x = np.mgrid[0:240, 0:320]
    slanted[y > 100 + x * 0.05] += 150
    for pixels in (bars, panels, slanted, np.roll(bars, 5, axis=0)):
        for options in OPTIONS.values():
            assert is_clean(check_jpeg(jpeg(pixels, **options)))


@pytest.mark.parametrize("name", ["4:4:4", "4:2:0", "4:2:2", "progressive"])
def test_most_damage_that_shows_is_found(name):
    content = jpeg(scene_of(480, 640), **OPTIONS[name])
    good, start = pixels_of(content), content.index(b"\xff\xda") + 20
    rng = np.random.default_rng(0)
    shown = found = 0
    for kind in range(50):
        at = int(rng.integers(start, len(content) - 300))
        damaged = bytearray(content)
        if kind % 3 == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        else:
            damaged[at : at + 16] = bytes(16) if kind % 3 == 1 else rng.integers(0, 256, 16, dtype=np.uint8).tobytes()
        try:
            changed = np.abs(pixels_of(damaged) - good).max(axis=2) > 12
        except (OSError, SyntaxError):
            continue  # the decoder refuses the file
        if changed.mean() > 0.02:
            shown += 1
            report = check_jpeg(bytes(damaged))
            found += report.damaged or report.present < 1
    assert shown >= 18
    assert found >= 0.85 * shown


def test_constant_change_of_colour_from_the_middle_of_a_row_on():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:60]
    levels = 100 + 20 * np.sin(x / 9) + 15 * np.cos(y / 7) + rng.normal(0, 0.3, (40, 60))
    assert not _has_step(levels, 4.0)
    for row, column, step in ((20, 30, 10), (5, 8, -6), (33, 50, 25)):
        damaged = levels.ravel() + step * (np.arange(2400) >= row * 60 + column)
        assert _has_step(damaged.reshape(40, 60), 4.0)
        assert not _has_step(damaged.reshape(40, 60), 30.0)
    # A horizon: level, or slanted over two rows, partly covering each of them.
    assert not _has_step(levels + 30 * (y >= 20), 4.0)
    assert not _has_step(levels + 30 * np.clip(y - 19 + x / 60, 0, 1), 4.0)


def test_damaged_file_is_read_with_a_warning(tmp_path, scene):
    content = bytearray(jpeg(scene, quality=90))
    content[5000:5016] = bytes(16)
    (tmp_path / "me.jpg").write_bytes(content)
    photo = read_image(tmp_path / "me.jpg")
    assert [warning.code for warning in photo.warnings] == ["image.jpeg_damaged"]
    assert "me.jpg has damaged data" in photo.warnings[0]
    np.testing.assert_array_equal(photo.rgb, pixels_of(bytes(content)))
    (tmp_path / "good.jpg").write_bytes(jpeg(scene))
    assert read_image(tmp_path / "good.jpg").warnings == ()


def read_bytes(folder, content, suffix=".jpg"):
    path = folder / f"cut{suffix}"
    path.write_bytes(content)
    return read_image(path)


@pytest.mark.parametrize("name", OPTIONS)
def test_only_the_end_marker_is_missing(tmp_path, scene, name):
    content = jpeg(scene, **OPTIONS[name])
    photo = read_bytes(tmp_path, content[:-2])
    assert [warning.code for warning in photo.warnings] == ["image.end_missing"]
    np.testing.assert_array_equal(photo.rgb, pixels_of(content))


@pytest.mark.parametrize("name", ["4:4:4", "4:2:0", "restart rows", "restart blocks"])
@pytest.mark.parametrize("filled", [False, True])
def test_last_rows_are_missing(tmp_path, scene, name, filled):
    content = jpeg(scene, **OPTIONS[name])
    good = pixels_of(content)
    cut = content[: int(len(content) * 0.85)] + bytes(5000) * filled  # a download that reserved its place
    photo = read_bytes(tmp_path, cut)
    (warning,) = photo.warnings
    assert warning.code == "image.rows_missing"
    first = 240 - round(warning.arguments["percent"] / 100 * 240)
    assert first % 8 == 0 and 180 <= first < 230
    # Chroma next to what is missing is interpolated from it.
    np.testing.assert_array_equal(photo.rgb[: first - 1], good[: first - 1])
    assert (photo.rgb[first:] == 128).all()
    assert np.abs(pixels_of(check_jpeg(cut).content)[first + 24 :] - good[first + 24 :]).mean() > 10


def test_missing_rows_turn_with_the_picture(tmp_path, scene):
    exif = Image.Exif()
    exif[0x0112] = 3
    content = jpeg(scene, exif=exif)
    photo = read_bytes(tmp_path, content[: int(len(content) * 0.85)])
    assert (photo.rgb[:10] == 128).all() and not (photo.rgb[-10:] == 128).all()


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "restart rows"])
def test_picture_that_is_mostly_missing_is_refused(tmp_path, scene, name):
    content = jpeg(scene, **OPTIONS[name])
    scan = content.index(b"\xff\xda")
    with pytest.raises(ImageError, match=r"cut.jpg is cut short: \d+ % of the picture is missing") as caught:
        read_bytes(tmp_path, content[: scan + (len(content) - scan) // (200 if name == "progressive" else 2)])
    assert 25 < caught.value.arguments["percent"] <= 100


def test_progressive_file_without_its_last_scans_lacks_detail(tmp_path, scene):
    content = jpeg(scene, **OPTIONS["progressive"])
    photo = read_bytes(tmp_path, content[: int(len(content) * 0.8)])
    assert [warning.code for warning in photo.warnings] == ["image.detail_missing"]
    assert np.abs(photo.rgb - pixels_of(content)).mean() < 6


def test_false_marker_ends_the_picture(tmp_path, scene):
    content = bytearray(jpeg(scene))
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xc9"
    with pytest.raises(ImageError, match="% of the picture is missing"):
        read_bytes(tmp_path, content)


def test_what_the_check_cannot_follow_is_left_to_the_decoder(scene):
    content = jpeg(scene)
    for damaged in (b"\xff\xd8", content[:30], content.replace(b"\xff\xc0", b"\xff\xc9"), content[:200] + bytes(500)):
        assert not check_jpeg(damaged).damaged


def test_short_png(tmp_path, scene):
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        content = io.BytesIO()
        Image.fromarray(scene).convert(mode).save(content, "PNG")
        content = content.getvalue()
        good = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        photo = read_bytes(tmp_path, content[:-12], ".png")
        assert [warning.code for warning in photo.warnings] == ["image.end_missing"], mode
        np.testing.assert_array_equal(photo.rgb, good)
        photo = read_bytes(tmp_path, content[: int(len(content) * 0.9)], ".png")
        (warning,) = photo.warnings
        first = 240 - round(warning.arguments["percent"] / 100 * 240)
        assert warning.code == "image.rows_missing" and 180 <= first < 235
        np.testing.assert_array_equal(photo.rgb[:first], good[:first])
        assert (photo.rgb[first:] == 128).all()
        with pytest.raises(ImageError, match="% of the picture is missing"):
            read_bytes(tmp_path, content[: len(content) // 2], ".png")


def test_texts_of_any_size_do_not_keep_a_png_from_being_read(tmp_path, scene):
    content = io.BytesIO()
    Image.fromarray(scene).save(content, "PNG")
    content, text = content.getvalue(), b"zTXtComment\0\0" + zlib.compress(bytes(3_000_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    photo = read_bytes(tmp_path, content[:33] + chunk + content[33:], ".png")
    np.testing.assert_array_equal(photo.rgb, scene)


def test_fit_passes_the_warning_on(tmp_path, model, astronaut):
    (tmp_path / "astronaut.jpg").write_bytes(jpeg(astronaut, quality=95)[:-2])
    warnings = fv.fit(tmp_path / "astronaut.jpg", model, detail=False).warnings
    assert [warning.code for warning in warnings].count("image.end_missing") == 1


def test_file_that_recoloured_half_of_a_face(shared):
    assert check_jpeg((shared / "real" / "failing" / "garbled.jpg").read_bytes()).damaged
    good = [*(shared / "real" / "photos").glob("*.jpg"), *(shared / "faces").glob("*.jpg")]
    assert good and not [path.name for path in good if not is_clean(check_jpeg(path.read_bytes()))]
