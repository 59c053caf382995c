"""Messages: every code of the source is in every catalog, with the arguments that the source passes."""

import ast
import copy
import json
import pickle
import re
import string
from pathlib import Path

import numpy as np
import pytest

import faceverse as fv
from faceverse.messages import Message, catalogs, entries_of, joined, reason_of, with_codes

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"faceverse": ROOT / "faceverse" / "messages", "demo": ROOT / "demo" / "messages"}
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+|studio(\.\w+)+")  # the studio's keys are as in its JavaScript
CHINESE = re.compile("[\u4e00-\u9fff]")


# ---------------------------------------------------------------------------------------------------------- the source


def raising_names(trees):
    """Names of the exceptions of the package: `FaceVerseError` and all classes derived from it."""
    names = {"FaceVerseError"}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        derived = {node.name for node in classes if names & {ast.unparse(base).split(".")[-1] for base in node.bases}}
        if derived <= names:
            return names
        names |= derived


def call_sites(tree, makers):
    """(line, what is passed as code, names of the arguments or None) of each message that is made in a source text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in makers and node.args:
            names = None if any(keyword.arg is None for keyword in node.keywords) else {k.arg for k in node.keywords}
            yield node.lineno, node.args[0], names


def complaints(text, known, makers):
    """What is wrong with the messages of a source text.

    Args:
        known: names of the placeholders by code.
        makers: names of the classes whose first argument is a code.
    """
    wrong = []
    for line, code, names in call_sites(ast.parse(text), makers):
        if isinstance(code, ast.JoinedStr) and not str(getattr(code.values[0], "value", "")).endswith("."):
            wrong.append(f"{line}: a finished sentence instead of a code")
        elif isinstance(code, ast.Constant) and code.value not in known:
            wrong.append(f"{line}: {code.value} is in no catalog")
        elif isinstance(code, ast.Constant) and names is not None and names != known[code.value]:
            wrong.append(f"{line}: {code.value} takes {sorted(known[code.value])}, given {sorted(names)}")
    return wrong


def used_codes(trees, known):
    """Codes of the catalogs that are written in the source: whole, or by the words before their last dot."""
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = {value for value in constants if isinstance(value, str)}  # those of f-strings too
    families = {text for text in texts if re.fullmatch(r"([a-z][a-z0-9_]*\.)+", text)}
    return {code for code in known if code in texts or any(code.startswith(family) for family in families)}


def placeholders(sentence):
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def catalogs_of(folder):
    return {path.stem: catalogs.read_catalog(path).sentences for path in sorted(folder.glob("*.po"))}


def arguments_of(forms):
    """Names that the forms of one sentence use; plural forms are chosen by `count`."""
    names = set().union(*map(placeholders, forms))
    return names | {"count"} if len(forms) > 1 else names


PACKAGES = [name for name, folder in FOLDERS.items() if folder.is_dir()]
SOURCES = {name: sorted((ROOT / name).rglob("*.py")) for name in PACKAGES}
TREES = {name: [ast.parse(path.read_text(encoding="utf-8")) for path in paths] for name, paths in SOURCES.items()}
MAKERS = raising_names([tree for trees in TREES.values() for tree in trees]) | {"Message", "say", "sentence"}
CATALOGS = {name: catalogs_of(FOLDERS[name]) for name in PACKAGES}
KNOWN = {code: arguments_of(forms) for name in PACKAGES for code, forms in CATALOGS[name]["en"].items()}


FILES = [path for paths in SOURCES.values() for path in paths]
MECHANISM = ("faceverse/messages/__init__.py", "faceverse/messages/catalogs.py", "faceverse/errors.py", "demo/words.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_messages_of_the_source_are_in_the_catalogs(path):
    if path.relative_to(ROOT).as_posix() in MECHANISM:
        pytest.skip("makes messages of codes that others give")
    assert complaints(path.read_text(encoding="utf-8"), KNOWN, MAKERS) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_is_left_over(package):
    english = CATALOGS[package]["en"]
    assert set(english) - used_codes(TREES[package], english) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_language_has_every_message(package):
    english = CATALOGS[package]["en"]
    assert {"en", "zh"} <= set(CATALOGS[package])
    for language, sentences in CATALOGS[package].items():
        assert set(sentences) == set(english), language
        for code, forms in sentences.items():
            assert CODE.fullmatch(code)
            for form in forms:
                assert placeholders(form) <= arguments_of(english[code]), (language, code)
            if len(english[code]) == 1:
                assert placeholders(forms[0]) == placeholders(english[code][0]), (language, code)
            assert all(form.strip() and form != code for form in forms), (language, code)


@pytest.mark.parametrize("package", PACKAGES)
def test_chinese_is_chinese(package):
    english, chinese = (CATALOGS[package][language] for language in ("en", "zh"))
    words = {code for code, forms in english.items() if re.search("[a-z]{3}", re.sub(r"\{[^}]*\}", "", forms[0]))}
    assert [code for code in words if not CHINESE.search(chinese[code][0])] == []
    assert [code for code, forms in english.items() if CHINESE.search("".join(forms))] == []


def test_codes_of_two_packages_do_not_meet():
    codes = [code for name in PACKAGES for code in CATALOGS[name]["en"]]
    assert len(codes) == len(set(codes))


def test_every_attribute_of_the_open_model_has_a_name_and_a_unit(model):
    for attribute in model.data.attributes:
        name = Message(f"attribute.name.{attribute.name}")
        assert name == attribute.name and CHINESE.search(name.translated("zh"))
        unit = attribute.unit if attribute.unit.isidentifier() else attribute.name
        assert Message(f"unit.{unit}") == attribute.unit


# ---------------------------------------------------------------------------------------------- the checks can fail


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('raise ImageError("image.empty_file", name=name)', 0),
        ('raise fv.ImageError("image.empty_file", name=name)', 0),
        ('raise ImageError("image.empty_file", path=name)', 1),
        ('raise ImageError("image.empty_file")', 1),
        ('raise ImageError("image.empty_fil", name=name)', 1),
        ('raise ImageError(f"{name} is empty")', 1),
        ('raise ScanError("the scan is empty")', 1),
        ('x = Message("value.clamped", what="a", **limits)', 0),
        ('say("array.empty", language, key=key)', 0),
        ('say("array.empty", language)', 1),
        ('raise ValueError("any text")', 0),
    ],
)
def test_the_scan_of_the_source_finds(text, count):
    assert len(complaints(text, KNOWN, MAKERS)) == count


def test_the_scan_of_codes_finds():
    known = ["a.one", "a.two", "b.one", "b.name.x"]
    tree = ast.parse('f("a.one"); g(f"b.name.{x}")')
    assert used_codes([tree], known) == {"a.one", "b.name.x"}


# ------------------------------------------------------------------------------------------------------- one message


def test_a_message_is_its_english_sentence():
    message = Message("image.too_small", name="a.png", width=3, height=2, minimum=16)
    assert message == "a.png is 3 x 2 pixels, too small for a face; the shorter side must have at least 16"
    assert isinstance(message, str) and message.code == "image.too_small"
    assert message.arguments == {"name": "a.png", "width": 3, "height": 2, "minimum": 16}
    assert message.translated("zh") == "a.png 只有 3 x 2 像素，容不下一张脸；短边至少要有 16 像素"
    assert message.translated("en") == message


def test_numbers_keep_their_format():
    message = Message("quality.overexposed", share=0.256)
    assert message.startswith("26% of the face") and "26%" in message.translated("zh")


def test_messages_within_messages_are_translated():
    inner = Message("value.expression", name="jawOpen")
    message = Message("value.clamped", what=inner, value=3.0, low=0.0, high=1.0)
    assert message == "expression jawOpen: 3 is outside 0..1 and was clamped"
    assert message.translated("zh") == "表情 jawOpen：3 超出 0..1，已截断"
    several = joined([message, Message("array.empty", key="uv"), "as it came"])
    assert several == f"{message}; uv is empty; as it came"
    assert several.translated("zh") == f"{message.translated('zh')}；uv 为空；as it came"


def test_many_messages_are_joined():
    assert joined(Message("array.empty", key=str(k)) for k in range(5000)).translated("zh").endswith("4999 为空")


def test_plural_forms():
    one, three = (Message("face.fewer", count=n, index=5, last=n - 1) for n in (1, 3))
    assert one == "1 face was found, so face=5 does not exist; use face=0"
    assert three == "3 faces were found, so face=5 does not exist; use face=0 to face=2"
    assert "1 张" in one.translated("zh") and "3 张" in three.translated("zh")


def test_other_text_passes_through():
    for text in ("Written {somewhere} else.", "", "Oops"):
        message = Message(text)
        assert message == text and message.translated("zh") == text
        assert (message.code, message.arguments) == ("other", {})
        assert str(fv.ImageError(text)) == text and fv.ImageError(text).code == "other"
    assert str(fv.FaceVerseError()) == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\x1b[31m.png", "a b?[31m.png"),
        ("caf\udce9.png", "caf?.png"),
        ("眼镜 \u3000 👨\u200d👩.png", "眼镜   👨\u200d👩.png"),
        ("x" * 3000, "x" * 200 + " ... " + "x" * 200),
    ],
)
def test_sentences_are_one_readable_line(name, shown):
    message = Message("image.empty_file", name=name)
    assert message == f"{shown} is empty (0 bytes); copy or download it again"
    assert message.translated("zh").startswith(f"{shown} 是空文件")
    assert message.arguments == {"name": name}


def test_mistakes_in_the_source_are_seen():
    with pytest.raises(KeyError, match="no.such_code"):
        Message("no.such_code", name="x")
    with pytest.raises(KeyError):
        Message("image.empty_file", nam="x")


def test_arguments_are_plain_values():
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": Path("x/y"), "d": (3, 4), "e": np.dtype("u1")}
    message = Message("array.type", key=values["c"], dtype=values["e"], expected=values["d"], found=values["b"])
    assert message.arguments == {"key": str(Path("x/y")), "dtype": "uint8", "expected": "(3, 4)", "found": 3}
    assert {type(value) for value in message.arguments.values()} == {str, int}
    assert type(Message("quality.turned", degrees=values["a"]).arguments["degrees"]) is float


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_keep_code_and_arguments(copied):
    inner = Message("face.none")
    message = copied(Message("fit.about_photo", number=2, name="b.jpg", message=inner))
    assert type(message) is Message and message.code == "fit.about_photo"
    assert message.arguments["message"].code == "face.none" and "第 2 张" in message.translated("zh")
    error = copied(fv.NoFaceError(message))
    assert type(error) is fv.NoFaceError and str(error) == message
    assert error.code == "fit.about_photo" and error.message.translated("zh") == message.translated("zh")


def test_reasons_of_other_errors():
    inner = Message("array.empty", key="uv")
    assert reason_of(ValueError(inner)) is inner
    assert reason_of(fv.ImageError(inner)) is inner
    assert reason_of(KeyError("camera")) == "it has no 'camera'"
    assert reason_of(OSError(28, "No space left on device")).code == "reason.disk_full"
    assert reason_of(OSError(28, inner)) is inner
    assert reason_of(OSError(12345, "a fault of some system", "x")) == "a fault of some system"
    assert reason_of(ValueError("first line\nsecond line")) == "first line"
    assert reason_of(MemoryError()) == "MemoryError"
    assert reason_of(TypeError("not a <class 'str'> but <ast.Name object at 0x7fc6e311c7f0>")) == "not a str but Name"
    assert reason_of(ValueError("no number: \x1b" + "x" * 900)) == "no number: ?" + "x" * 188 + " ... " + "x" * 200


# ------------------------------------------------------------------------------------------------- files and languages


def test_json_and_back():
    messages = (
        Message("fit.about_photo", number=2, name="b.jpg", message=Message("quality.turned", degrees=50.5)),
        Message("fit.about_photo", number=1, name="a.jpg", message=Message("a text of somebody's own")),
        Message("Another text"),
    )
    entries = json.loads(json.dumps(entries_of(messages), allow_nan=False))
    restored = with_codes([str(message) for message in messages], entries)
    assert restored == messages
    assert [one.translated("zh") for one in restored] == [one.translated("zh") for one in messages]


@pytest.mark.parametrize(
    "entries",
    [
        None, "x", 7, [], [None], [7], ["{"], [{}], [{"code": "image.empty_file"}], [{"code": 3, "arguments": {}}],
        [{"code": "image.empty_file", "arguments": {"nam": "x"}}], [{"code": "of.another_version", "arguments": {}}],
        [{"code": "quality.overexposed", "arguments": {"share": "much"}}],
        [{"code": "image.empty_file", "arguments": {"name": ["x"]}}], [{"code": "image.empty_file", "arguments": 1}],
        [{"code": "face.fewer", "arguments": {"count": None, "index": 1, "last": 0}}],
    ],
)  # fmt: skip
def test_texts_survive_entries_of_another_kind(entries):
    (message,) = with_codes(["The text."], entries)
    assert message == "The text." and message.code == "other" and message.translated("zh") == "The text."


def test_a_language_is_a_file(tmp_path):
    (tmp_path / "eo.po").write_text(
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
        '"Plural-Forms: nplurals=2; plural=n>1;\\n"\n'
        '\nmsgid "image.empty_file"\nmsgstr "{name} estas malplena"\n'
        '\nmsgid "array.empty"\nmsgstr "{nomo} estas malplena"\n'
        '\nmsgid "face.fewer"\nmsgid_plural "face.fewer"\nmsgstr[0] "unu"\nmsgstr[1] "{count} vizaĝoj"\n'
        '\n#, fuzzy\nmsgid "face.none"\nmsgstr "eble"\n'
        '\nmsgid "own.greeting"\nmsgstr "saluton, {name}"\n',
        encoding="utf-8",
    )
    (tmp_path / "en.po").write_text('msgid "own.greeting"\nmsgstr "hello, {name}"\n', encoding="utf-8")
    try:
        Message.add_catalogs(tmp_path)
        assert Message.languages() == ("en", "eo", "zh")
        message = Message("image.empty_file", name="a.png")
        assert message.translated("eo") == "a.png estas malplena"
        counted = [Message("face.fewer", count=n, index=9, last=n - 1).translated("eo") for n in (1, 2)]
        assert counted == ["unu", "2 vizaĝoj"]
        assert Message("array.empty", key="uv").translated("eo") == "uv is empty", "a name that does not exist"
        assert Message("face.none").translated("eo") == Message("face.none"), "unfinished entries stay English"
        assert Message("own.greeting", name="Ada") == "hello, Ada"
        assert Message("own.greeting", name="Ada").translated("eo") == "saluton, Ada"
        assert Message("own.greeting", name="Ada").translated("zh") == "hello, Ada"
    finally:
        catalogs.remove_folder(tmp_path)
    assert "eo" not in Message.languages() and message.translated("eo") == message


def test_a_restored_head_keeps_the_codes_of_its_warnings(model, tmp_path):
    head = fv.head(model.random(1), model, texture_size=16)
    edited = fv.edit(head, age=500, expression={"jawOpen": 3})
    restored = fv.load_result(fv.export(edited, tmp_path / "head.json"), model)
    assert restored.warnings == edited.warnings and len(restored.warnings) == 2
    assert [one.code for one in restored.warnings] == ["value.clamped", "attribute.limited_change"]
    assert all(CHINESE.search(one.translated("zh")) for one in restored.warnings)
    document = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))
    assert document["warnings"] == list(edited.warnings), "other programs read the texts"
    del document["warning_codes"]
    (tmp_path / "old.json").write_text(json.dumps(document), encoding="utf-8")
    assert fv.load_result(tmp_path / "old.json", model).warnings == edited.warnings
