"""The page in other languages: every label, step, error and warning that a visitor can meet has a translation."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import faceverse as fv
from faceverse.fitting import quality_checks
from faceverse.fitting.face_selection import select_face

fit_jobs = pytest.importorskip("demo.fit_jobs")
from demo.words import LABELS, STUDIO_TEXTS, language_of, say, sentence, term  # noqa: E402

CHINESE = re.compile("[\u4e00-\u9fff]")
DEMO = Path(__file__).resolve().parent.parent / "demo"


def in_chinese(message):
    """The sentence as the page shows it, and a complaint if it stayed English."""
    text = sentence(message, "zh")
    assert CHINESE.search(text), f"there is no translation of: {message}"
    return text


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


def test_all_languages_have_the_same_labels():
    assert set(LABELS) == set(fv.Message.languages()) >= {"en", "zh"}
    assert LABELS["en"].keys() == LABELS["zh"].keys()
    for name, text in LABELS["zh"].items():
        assert CHINESE.search(text), name
        assert not CHINESE.search(LABELS["en"][name]), name


def test_every_label_is_on_the_page(root):
    text = (root / "demo" / "layout.py").read_text(encoding="utf-8")
    used = set(re.findall(r'WORDS\(\s*"(\w+)"', text))
    families = re.findall(r'WORDS\(f"(\w+_)\{', text)
    others = {name for name in LABELS["en"] if name.startswith(tuple(families))}
    assert others and set(LABELS["en"]) == used | others


@pytest.mark.parametrize(
    ("message", "english", "chinese"),
    [
        ("array.whole", "Uv must be whole numbers.", "Uv 必须是整数。"),
        ("page.cancelled", "Cancelled.", "已取消。"),
        ("A text of its own.", "A text of its own.", "A text of its own."),
        ("", "", ""),
    ],
)
def test_sentences_begin_and_end(message, english, chinese):
    if message == "array.whole":
        message = fv.Message(message, key="uv")
    assert (sentence(message, "en"), sentence(message, "zh")) == (english, chinese)


def test_names_of_files_stay_as_they_are():
    assert sentence(fv.Message("image.empty_file", name="my.jpg"), "en").startswith("my.jpg is empty")


def test_codes_take_arguments():
    assert say("page.waiting_behind", "en", ahead=3) == "Waiting for a free place: 3 before you"
    assert say("page.waiting_behind", "zh", ahead=3) == "正在排队：前面还有 3 人"
    assert say("What nobody has written", "zh") == "What nobody has written"


def test_names_that_are_unknown_stay():
    assert term("stage.detail", "detail", "zh") == "皮肤细节"
    assert term("stage.photometric coarse", "photometric coarse", "zh") == "光度拟合（粗）"
    assert term("stage.of another version", "of another version", "zh") == "of another version"


def test_steps_of_a_fit():
    captions = [f"stage.{stage.key}" for stage in fv.FIT_STAGES.values()]
    for code in (*fit_jobs.STEPS.values(), *captions, "step.reading", "page.waiting"):
        assert CHINESE.search(say(code, "zh")) and not CHINESE.search(say(code, "en")), code
        assert say(code, "en") != code


@pytest.mark.parametrize("error", [fit_jobs.Stopped(), RuntimeError("secret")])
def test_other_ends_of_a_fit(error):
    assert CHINESE.search(fit_jobs.explain(error, "zh"))
    assert fit_jobs.explain(error) in ("Cancelled.", sentence("page.fault", "en"))
    assert "secret" not in fit_jobs.explain(error) + fit_jobs.explain(error, "zh")


def test_visitors_do_not_read_about_arguments_of_functions():
    several = fv.Message("quality.several_faces", count=3)
    other = fv.Message("store.other_model", name="me.json", wanted="a", wanted_digest="1", model="b", digest="2")
    for language in ("en", "zh"):
        for message in (several, other):
            assert "=" not in sentence(message, language) and "sha256" not in sentence(message, language)
    assert sentence(several, "en").startswith("3 faces were found") and "'a'" in sentence(other, "en")


def test_captions_of_pictures():
    markup = pytest.importorskip("demo.markup")
    for code in (*markup.STAGES.values(), *markup.MAPS.values()):
        assert CHINESE.search(say(code, "zh")) and say(code, "en") != code, code


def test_no_face_and_too_few():
    face = SimpleNamespace()
    for found, wanted in (([], 0), ([face], 1), ([face, face], 3)):
        with pytest.raises(fv.NoFaceError) as caught:
            select_face(found, wanted)
        text = in_chinese(caught.value.message)
        assert not wanted or str(wanted) in text
        inner = in_chinese(fv.Message("fit.about_photo", number=2, name="b.jpg", message=caught.value.message))
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
        assert name in fit_jobs.explain(caught.value, "zh") and CHINESE.search(fit_jobs.explain(caught.value, "zh"))
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (3, 2)).save(tiny)
    with pytest.raises(fv.ImageError) as caught:
        fv.read_image(tiny)
    assert "3 x 2" in in_chinese(caught.value.message)


def evidence(points, photo, rendered, **changes):
    face = SimpleNamespace(landmarks_px=points, box_px=np.array([0.0, 0.0, *photo.shape[1::-1]]))
    photo = SimpleNamespace(rgb=photo)
    known = {"yaw_deg": 0.0, "matched_px": points[:5], "projected_px": points[:5] + changes.pop("misfit", 0.0)}
    return quality_checks.QualityInput(photo=photo, face=face, rendered=rendered, **known | changes)


def test_every_warning_of_a_fit(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.uniform(20, 180, (478, 2))
    points[list(quality_checks.OUTER_EYE_CORNERS)] = [[80, 80], [120, 80]]
    monkeypatch.setattr(quality_checks, "face_masks", lambda points, size: (np.ones((size, size), bool),) * 2)
    monkeypatch.setattr(quality_checks, "eye_distance", lambda points: 30.0)
    grey = np.full((200, 200, 3), 128, np.uint8)
    rendered = np.full((176, 176, 3), 128, np.uint8)
    warnings = [
        *quality_checks.quality_warnings(evidence(points, grey, rendered, face_count=3, yaw_deg=55.0)),
        *quality_checks.quality_warnings(evidence(points + 120, grey, rendered, misfit=30.0)),
        *quality_checks.quality_warnings(evidence(points, np.full_like(grey, 5), rendered)),
        *quality_checks.quality_warnings(evidence(points, np.full_like(grey, 255), rendered)),
    ]
    monkeypatch.setattr(quality_checks, "eye_distance", lambda points: 80.0)
    monkeypatch.setattr(quality_checks, "blur_px", lambda crop, face: 1000.0)
    warnings += quality_checks.quality_warnings(evidence(points, grey, rendered))
    warnings += [fv.Message("quality.sideways"), fv.Message("quality.upside_down")]  # fit_input adds these
    assert {one.code for one in warnings} == {code for code in fv.Message.codes() if code.startswith("quality.")}
    for warning in warnings:
        assert set(re.findall(r"\d+", in_chinese(warning))) <= set(re.findall(r"\d+", warning)), "numbers are kept"


def test_clamped_edits_name_the_attribute(model):
    head = fv.head(model.random(1), model, texture_size=16)
    (warning,) = fv.edit(head, age=500).warnings
    text = in_chinese(warning)
    assert text.startswith("年龄") and "+500" in text and "岁" in text
    (warning,) = fv.edit(head, expression={"jawOpen": 3}).warnings
    assert "jawOpen" in in_chinese(warning)


def test_result_files_of_another_kind(model, tmp_path):
    path = tmp_path / "head.json"
    path.write_text("[]")
    with pytest.raises(fv.ParameterError) as caught:
        fv.load_result(path, model)
    assert "head.json" in in_chinese(caught.value.message)


def test_every_text_of_the_studio_is_in_its_source(model):
    source = "\n".join(path.read_text(encoding="utf-8") for path in (DEMO / "assets").glob("*.js"))
    written = set(re.findall(r'"([\w.]+)"', source)) - {"expression", "attribute"}
    families = tuple(re.findall(r"word\(`(\w+\.)\$\{", source))
    assert len(families) > 8
    texts = STUDIO_TEXTS["en"]
    called = set(re.findall(r'word\("([\w.]+)"', source))
    assert called - set(texts) == set(), "no text"
    assert {key for key in texts if key not in written and not key.startswith((*families, "side."))} == set(), "unused"
    for attribute in model.data.attributes:
        assert f"attribute.{attribute.name}" in texts
    for name in fv.EXPRESSION_PRESETS:
        assert f"preset.{name}" in texts
    for name in model.expression_names:
        assert {f"expression.{name}", f"expression.{re.sub('(Left|Right)$', '', name)}"} & set(texts), name


def test_texts_of_the_studio_in_chinese():
    same = {key for key, text in STUDIO_TEXTS["zh"].items() if not CHINESE.search(text)}
    assert same <= {"unit.share"} and STUDIO_TEXTS["zh"].keys() == STUDIO_TEXTS["en"].keys()
    blanks = [{key for key, text in texts.items() if "{}" in text} for texts in STUDIO_TEXTS.values()]
    assert blanks[0] == blanks[1] and "randomise" in blanks[0]
