"""The page in Chinese: every label, step, error and warning that a visitor can meet has a translation."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import faceverse as fv

handlers = pytest.importorskip("demo.fit_jobs")
from demo.words import _SENTENCES, LABELS, language_of, say  # noqa: E402
from faceverse.fitting import quality_checks  # noqa: E402
from faceverse.fitting.face_selection import select_face  # noqa: E402

CHINESE = re.compile("[\u4e00-\u9fff]")
DEMO = Path(__file__).resolve().parent.parent / "demo"


def in_chinese(message):
    """The sentence as the page shows it, and a complaint if a part of it stayed English."""
    said = say(handlers.explain(fv.FaceVerseError(message)), "zh")
    assert CHINESE.search(said), f"there is no translation of: {message}"
    return said


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de-DE,de;q=0.9", "en"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-Hant-TW", "zh"),
        ("de,en;q=0.5,zh;q=0.7", "zh"),
        ("fr, zh;q=0", "en"),
        ("zh;q=1.0.0,en", "en"),
        (";;;,=", "en"),
    ],
)
def test_language_of_a_browser(header, language):
    assert language_of(header) == language


def test_both_languages_have_the_same_labels():
    assert LABELS["en"].keys() == LABELS["zh"].keys()
    for name, text in LABELS["zh"].items():
        assert CHINESE.search(text), name
        assert not CHINESE.search(LABELS["en"][name]), name


def test_labels_that_the_page_asks_for_are_there():
    source = "\n".join(path.read_text(encoding="utf-8") for path in DEMO.glob("*.py"))
    asked = re.findall(r"WORDS\(\s*\"(\w+)\"\s*\)", source)
    assert set(asked) <= LABELS["en"].keys()


def test_english_passes_through():
    for text in ("Looking for the face", "Anything at all.", ""):
        assert say(text, "en") == text


def test_the_unknown_stays_english():
    assert say("A sentence that nobody has written.", "zh") == "A sentence that nobody has written."


def test_capital_letters_and_stops_do_not_matter():
    one, other = say("cancelled", "zh"), say("Cancelled.", "zh")
    assert other == one + "。"


def test_blanks_match_on_both_sides():
    for english, chinese in _SENTENCES.items():
        blanks = [re.findall(r"\{\w*\}", text) for text in (english, chinese)]
        assert blanks[0][: len(blanks[1])] == blanks[1], english


def test_steps_of_a_fit():
    for text in (*handlers.STEPS.values(), "Reading the photograph", "Waiting for a free place"):
        assert CHINESE.search(say(text, "zh")), text


@pytest.mark.parametrize("error", [handlers.Stopped(), RuntimeError("secret")])
def test_other_ends_of_a_fit(error):
    assert CHINESE.search(say(handlers.explain(error), "zh"))


def test_captions_of_pictures():
    markup = pytest.importorskip("demo.markup")
    for text in (*markup.STAGES.values(), *markup.MAPS.values()):
        assert CHINESE.search(say(text, "zh")), text


def test_no_face_and_too_few():
    face = SimpleNamespace()
    for found, wanted in (([], 0), ([face], 1), ([face, face], 3)):
        with pytest.raises(fv.NoFaceError) as caught:
            select_face(found, wanted)
        said = in_chinese(str(caught.value))
        assert not wanted or str(wanted) in said
        inner = in_chinese(f"photograph 2 (b.jpg): {caught.value}")
        assert "b.jpg" in inner and not re.search("found|face was", inner)


def test_pictures_that_cannot_be_read(tmp_path, astronaut):
    whole = tmp_path / "whole.png"
    Image.fromarray(astronaut).save(whole)
    broken = {"empty.jpg": b"", "text.jpg": b"dear diary", "cut.png": whole.read_bytes()[:5000]}
    for name, content in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(fv.ImageError) as caught:
            fv.read_image(path)
        assert name in in_chinese(str(caught.value))
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (3, 2)).save(tiny)
    with pytest.raises(fv.ImageError) as caught:
        fv.read_image(tiny)
    assert "3 x 2" in in_chinese(str(caught.value))


def evidence(points, photo, drawn, **changes):
    face = SimpleNamespace(landmarks_px=points, box_px=np.array([0.0, 0.0, *photo.shape[1::-1]]))
    photo = SimpleNamespace(rgb=photo)
    known = {"yaw_deg": 0.0, "matched_px": points[:5], "projected_px": points[:5] + changes.pop("misfit", 0.0)}
    return quality_checks.QualityInput(photo=photo, face=face, rendered=drawn, **known | changes)


def test_every_warning_of_a_fit(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.uniform(20, 180, (478, 2))
    points[list(quality_checks.OUTER_EYE_CORNERS)] = [[80, 80], [120, 80]]
    monkeypatch.setattr(quality_checks, "face_masks", lambda points, size: (np.ones((size, size), bool),) * 2)
    monkeypatch.setattr(quality_checks, "eye_distance", lambda points: 30.0)
    grey = np.full((200, 200, 3), 128, np.uint8)
    drawn = np.full((176, 176, 3), 128, np.uint8)
    said = [
        *quality_checks.quality_warnings(evidence(points, grey, drawn, face_count=3, yaw_deg=55.0)),
        *quality_checks.quality_warnings(evidence(points + 120, grey, drawn, misfit=30.0)),
        *quality_checks.quality_warnings(evidence(points, np.full_like(grey, 5), drawn)),
        *quality_checks.quality_warnings(evidence(points, np.full_like(grey, 255), drawn)),
    ]
    monkeypatch.setattr(quality_checks, "eye_distance", lambda points: 80.0)
    monkeypatch.setattr(quality_checks, "blur_px", lambda crop, face: 1000.0)
    said += quality_checks.quality_warnings(evidence(points, grey, drawn))
    source = Path(quality_checks.__file__).read_text(encoding="utf-8")
    assert len({re.sub(r"[\d.]+", "", text) for text in said}) == source.count("said.append("), "one of each kind"
    for text in said:
        chinese = in_chinese(text)
        assert set(re.findall(r"\d+", chinese)) <= set(re.findall(r"\d+", text)), "numbers are kept"


def test_clamped_edits_name_the_attribute(model):
    head = fv.head(model.random(1), model, texture_size=16)
    (warning,) = fv.edit(head, age=500).warnings
    said = in_chinese(warning)
    assert said.startswith("年龄") and "+500" in said
    (warning,) = fv.edit(head, expression={"jawOpen": 3}).warnings
    assert "jawOpen" in in_chinese(warning)


def test_every_attribute_of_the_open_model_has_a_name(model):
    for attribute in model.data.attributes:
        assert CHINESE.search(say(attribute.name.replace("_", " ").capitalize(), "zh")), attribute.name


def test_result_files_of_another_kind(model, tmp_path):
    path = tmp_path / "head.json"
    path.write_text("[]")
    with pytest.raises(fv.ParameterError) as caught:
        fv.load_result(path, model)
    assert "head.json" in in_chinese(str(caught.value))


def test_every_label_is_on_the_page(root):
    text = (root / "demo" / "layout.py").read_text(encoding="utf-8")
    used = set(re.findall(r'WORDS\(\s*"(\w+)"', text)) | {"mesh_standard", "mesh_light", "mesh_dense"}
    assert set(LABELS["en"]) == used
