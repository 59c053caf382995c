"""`python -m faceverse train all`: stages run in order, are skipped where nothing changed, and leave files behind."""

import re
from pathlib import Path

import pytest

import faceverse.training.pipeline as pipeline
from faceverse.__main__ import main
from faceverse.errors import FaceVerseError, WeightsError
from faceverse.training.pipeline import ASSETS, STAGES, Stage, StageOutcome, Workplace, find_assets, train_all
from faceverse.weights import OPEN_FILE


@pytest.fixture
def place(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / ASSETS).write_bytes(b"assets")
    said = []
    built = Workplace(tmp_path / "sources" / ASSETS, tmp_path / "out", tmp_path / "out" / "work", said.append)
    return built, said


class Kitchen:
    """Stages that write their inputs, and note that they ran."""

    def __init__(self):
        self.ran, self.broken = [], None
        self.stages = [
            self.stage("base", "base.bin", (), takes_assets=True),
            self.stage("parts", "parts.bin", ("base.bin",), takes_assets=True),
            self.stage("net", "net.bin", ("base.bin",), settings={"steps": 3}),
        ]

    def stage(self, name, file, needs, **more):
        def make(place, path, settings):
            if self.broken == name:
                raise WeightsError("training.no_anny")
            self.ran.append((name, settings))
            content = [(place.output / need).read_bytes() for need in needs]
            path.write_bytes(b"|".join([name.encode(), place.assets.read_bytes(), *content]))

        return Stage(name, file, 60.0, make, needs=needs, **more)

    def names(self):
        ran, self.ran = [name for name, _ in self.ran], []
        return ran


def run(kitchen, place, **more):
    return [outcome.state for outcome in train_all(place[0], stages=kitchen.stages, **more)]


def test_stages_run_in_order_and_only_once(place):
    kitchen = Kitchen()
    assert run(kitchen, place) == ["built"] * 3
    assert kitchen.ran[2] == ("net", {"steps": 3})
    assert kitchen.names() == ["base", "parts", "net"]
    assert "3.0 hours" in place[1][0]
    assert run(kitchen, place) == ["unchanged"] * 3 and kitchen.names() == []
    assert "0.0 hours" in place[1][-1]


def test_a_changed_input_builds_what_depends_on_it(place):
    kitchen = Kitchen()
    run(kitchen, place)
    kitchen.names()
    kitchen.stages[2].settings["steps"] = 4
    assert run(kitchen, place) == ["unchanged", "unchanged", "built"]
    place[0].assets.write_bytes(b"other assets")
    assert run(kitchen, place) == ["built"] * 3, "the base changes with its sources, and the rest with the base"
    (place[0].output / "parts.bin").write_bytes(b"edited by hand")
    assert run(kitchen, place) == ["unchanged", "built", "unchanged"]
    (place[0].output / "net.bin").unlink()
    assert run(kitchen, place) == ["unchanged", "unchanged", "built"]
    assert run(kitchen, place, again=["base"]) == ["built", "unchanged", "unchanged"], "the same base again"


def test_a_failing_stage_leaves_the_files_before_it(place):
    kitchen, shown = Kitchen(), []
    kitchen.broken = "parts"
    with pytest.raises(WeightsError, match="anny"):
        run(kitchen, place, on_outcomes=shown.append)
    assert [outcome.state for outcome in shown[0]] == ["built", "failed", "not reached"]
    assert (place[0].output / "base.bin").is_file() and not (place[0].output / "parts.bin").exists()
    kitchen.names()
    kitchen.broken = None
    assert run(kitchen, place) == ["unchanged", "built", "built"]
    assert kitchen.names() == ["parts", "net"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"base": 1}', b"\xff"])
def test_a_damaged_record_builds_again(place, content):
    kitchen = Kitchen()
    run(kitchen, place)
    (place[0].work / pipeline.RECORD).write_bytes(content)
    assert run(kitchen, place) == ["built"] * 3


def test_caches_belong_to_the_base_model(place):
    place[0].output.mkdir()
    folders = []
    for content in (b"one", b"two", b"one"):
        (place[0].output / OPEN_FILE).write_bytes(content)
        folders.append(place[0].folder("portraits"))
    assert folders[0] == folders[2] != folders[1] and folders[0].parent == place[0].work


def test_assets_are_found_packed_and_unpacked(tmp_path):
    with pytest.raises(WeightsError, match=re.escape(ASSETS)):
        find_assets(tmp_path)
    skin = tmp_path / "package" / "skins" / "young_asian_male" / "textures" / "young_asian_male_diffuse.png"
    skin.parent.mkdir(parents=True)
    skin.touch()
    assert find_assets(tmp_path) == tmp_path
    (tmp_path / ASSETS).touch()
    assert find_assets(tmp_path) == find_assets(tmp_path / ASSETS) == tmp_path / ASSETS


def test_every_shipped_file_is_built_after_what_it_needs():
    weights = Path(__file__).parents[1] / "weights"
    assert {stage.file for stage in STAGES} == {path.name for path in weights.glob("*.safetensors")}
    built = set()
    for stage in STAGES:
        assert set(stage.needs) <= built
        built.add(stage.file)
    assert STAGES[0].takes_assets and not STAGES[0].needs


def test_the_command_prints_a_table(tmp_path, monkeypatch, capsys):
    asked = {}

    def fake(place, *, again, on_outcomes):
        asked.update(place=place, again=again)
        on_outcomes([StageOutcome(STAGES[0], "built", 2.5, 9_400_000), StageOutcome(STAGES[1], "unchanged", 0, 100)])

    monkeypatch.setattr(pipeline, "train_all", fake)
    (tmp_path / ASSETS).touch()
    arguments = ["train", "all", "--sources", str(tmp_path), "-o", str(tmp_path / "w"), "--again", "detail"]
    assert main(arguments) == 0
    assert asked["again"] == ["detail"] and asked["place"].work == tmp_path / "w" / "train.work"
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["base", "open_base.safetensors", "built", "2.5", "9.40"]
    assert rows[2].split() == ["parts", "open_parts.safetensors", "unchanged", "0.00"]


def test_the_command_names_missing_sources(tmp_path, capsys):
    assert main(["train", "all", "--sources", str(tmp_path), "-o", str(tmp_path / "w")]) != 0
    error = capsys.readouterr().err
    assert ASSETS in error and error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_the_command_knows_all_stages():
    from faceverse.commands.train import _STAGES

    assert tuple(stage.name for stage in STAGES) == _STAGES
    assert issubclass(WeightsError, FaceVerseError)
