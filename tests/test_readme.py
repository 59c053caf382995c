"""The README is right: snippets run, commands exist, links lead somewhere, the front matter is that of a Space."""

import re
import shlex
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import faceverse as fv
from faceverse.__main__ import build_parser, main

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands():
    """Arguments of each `python -m faceverse` in the blocks, without its comment."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m faceverse ")]


@pytest.fixture
def folder(tmp_path, monkeypatch, astronaut):
    """A working folder that holds selfie.jpg, and clip.mp4, in which the same picture comes nearer."""
    Image.fromarray(astronaut).save(tmp_path / "selfie.jpg", quality=95)
    writer = imageio_ffmpeg.write_frames(str(tmp_path / "clip.mp4"), (256, 256), fps=30, macro_block_size=1)
    writer.send(None)
    for border in range(0, 60, 5):
        box = (100 + border, border, 420 - border // 2, 320 - border // 2)
        writer.send(np.asarray(Image.fromarray(astronaut).resize((256, 256), box=box)))
    writer.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shelf():
    """What one test found out and another can use."""
    return {}


def test_python_snippets_run_in_order(folder, shelf, capsys, no_network):
    snippets = [snippet for snippet in blocks("python") if "gradio_client" not in snippet]  # test_api.py runs that one
    assert len(snippets) >= 4
    names = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"README.md, snippet {number + 1}", "exec"), names)
    written = {"me.glb", "me.json", "older.png", "clip.csv", "clip.glb", "overlay.mp4", "older_moves.glb"}
    assert written <= {path.name for path in folder.iterdir()}
    assert isinstance(names["result"], fv.FitResult) and names["older"] is not names["result"]
    assert "no face" in capsys.readouterr().out.lower()
    shelf["result"] = names["result"]


def test_commands_run_in_order(folder, shelf, no_network, monkeypatch):
    if "result" in shelf:  # the same photograph need not be fitted twice
        monkeypatch.setattr("faceverse.commands.batch.fit", lambda photo, model, **options: shelf["result"])
    assert [argv[0] for argv in commands()] == [
        "fit", "edit", "render", "edit", "edit", "randomize", "blend", "export", "export",
    ]  # fmt: skip
    assert [main(argv) for argv in commands()] == [0] * len(commands())
    written = {"older.json", "older.png", "older.glb", "other.json", "older.ply"}
    written |= {"party.json", "nose.json", "mixed.json"}
    assert written <= {path.name for path in folder.iterdir()}
    assert {path.name for path in (folder / "out").iterdir()} == {"selfie.glb", "selfie.json", "selfie.png"}


def test_commands_in_the_text_exist():
    inline = re.findall(r"`python -m faceverse ([^`]+)`", TEXT)
    assert len(inline) >= 4
    for argv in map(shlex.split, inline):
        if argv[:2] == ["train", "base"]:
            argv += ["--skins", "skins.tgz"]
        assert callable(build_parser().parse_args(argv).run)


def test_links_lead_to_files(root):
    targets = re.findall(r"\]\(([^)#\s]+)\)", TEXT)
    missing = [target for target in targets if "://" not in target and not (root / target).is_file()]
    assert targets and missing == []


def test_make_targets_exist(root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_front_matter_is_that_of_a_space(root):
    import yaml
    from packaging.specifiers import SpecifierSet

    _, front, _ = TEXT.split("---\n", 2)
    values = yaml.safe_load(front)
    wanted = "title emoji colorFrom colorTo sdk sdk_version python_version app_file license short_description tags "
    wanted += "suggested_hardware"
    assert set(values) == set(wanted.split())
    assert values["sdk"] == "gradio" and len(values["short_description"]) <= 60
    requirements = (root / "requirements.txt").read_text(encoding="utf-8")
    assert values["sdk_version"] in SpecifierSet(re.search(r"^gradio(.+)$", requirements, re.MULTILINE)[1])
    supported = re.search(r'^requires-python = "(.+)"$', (root / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert isinstance(values["python_version"], str) and values["python_version"] in SpecifierSet(supported[1])
    assert (root / values["app_file"]).is_file()
