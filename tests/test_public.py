"""The public surface: which names there are, what they take, and what importing them costs."""

import importlib
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import faceverse as fv
from faceverse.graphics.lighting import directed_light

SIGNATURES = {
    "load_model": "source strict",
    "load_detail": "sources",
    "detect": "source",
    "fit": "source model face detail seed focal_px on_progress",
    "edit": "result expression detail identity rotation light attributes",
    "render": "result size mode camera rotation background supersample",
    "export": "result path lod",
    "load_result": "path model",
    "track": "source model identity smooth on_progress",
    "overlay": "photo_rgb result mode alpha",
    "overview": "photo_rgb result size",
    "read_image": "source",
    "save_image": "path rgb",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_are_those_of_the_documentation(name):
    parameters = inspect.signature(getattr(fv, name)).parameters
    documented = SIGNATURES[name].split()
    assert [parameter for parameter in parameters if parameter in documented] == documented
    others = [parameter for key, parameter in parameters.items() if key not in documented]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in others)


def test_all_names_are_found_by_dir():
    assert set(fv.__all__) <= set(dir(fv)) and len(fv.__all__) == len(set(fv.__all__))


def test_the_function_wins_over_the_module_of_the_same_name():
    module = importlib.import_module("faceverse.edit")
    assert inspect.isfunction(fv.edit) and module.edit is fv.edit


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("EXPORT_FORMATS", "glb obj ply stl 3mf json npy"),
        ("TRACK_FORMATS", "csv json npz glb"),
        ("RENDER_MODES", "color albedo clay normal depth uv wireframe"),
        ("CLIP_MODES", "color albedo clay normal depth uv wireframe overlay side"),
        ("LIGHT_PARAMETERS", "yaw pitch intensity warmth"),
        ("LEVELS_OF_DETAIL", "coarse standard dense"),
    ],
)
def test_tables_keep_their_names(table, names):
    """Others may be added; scripts rely on these."""
    assert set(names.split()) <= set(getattr(fv, table))


def test_stages_of_a_fit_take_all_of_its_time():
    assert sum(stage.share for stage in fv.FIT_STAGES.values()) == pytest.approx(1)
    assert all(stage.key.isidentifier() for stage in fv.FIT_STAGES.values())


def test_ranges_of_light_are_those_of_the_table():
    defaults = {name: parameter.default for name, parameter in inspect.signature(directed_light).parameters.items()}
    assert defaults == {name: entry.default for name, entry in fv.LIGHT_PARAMETERS.items()}
    for name, entry in fv.LIGHT_PARAMETERS.items():
        assert entry.minimum <= entry.slider[0] <= entry.default <= entry.slider[1] <= entry.maximum, name


def test_errors_have_one_base():
    kinds = (fv.NoFaceError, fv.ImageError, fv.WeightsError, fv.ParameterError)
    assert all(issubclass(kind, fv.FaceVerseError) and kind is not fv.FaceVerseError for kind in kinds)
    assert not issubclass(fv.FaceVerseError, (ValueError, OSError))


def test_version_is_that_of_the_package(root):
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] == fv.__version__


def test_import_is_light(root):
    heavy = "mediapipe numba gradio cv2 matplotlib huggingface_hub plotly skimage torchvision safetensors".split()
    heavy += ["pytorch3d"]
    code = f"import sys, faceverse; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_detect_finds_the_face_where_it_is(astronaut):
    (face,) = fv.detect(astronaut)
    assert isinstance(face, fv.DetectedFace) and face.landmarks_px.shape == (478, 2)
    x0, y0, x1, y1 = face.box_px
    assert 150 < x0 < 190 and 60 < y0 < 100 and 260 < x1 < 300 and 165 < y1 < 205


def test_detect_answers_in_pixels_of_the_original(astronaut):
    (small,) = fv.detect(astronaut)
    large = np.asarray(Image.fromarray(astronaut).resize((5120, 5120), Image.Resampling.BICUBIC))
    photo = fv.read_image(large)
    assert photo.scale == pytest.approx(0.8)
    for source in (large, photo):
        (face,) = fv.detect(source)
        size = np.ptp(small.landmarks_px, axis=0).max()
        assert np.abs(face.landmarks_px / 10 - small.landmarks_px).mean() < 0.02 * size
        np.testing.assert_array_equal(face.box_px[:2], face.landmarks_px.min(axis=0))


def test_detect_finds_nothing_on_a_wall():
    assert fv.detect(np.full((240, 320, 3), 128, np.uint8)) == []


def test_detect_refuses_what_is_no_picture(tmp_path):
    with pytest.raises(fv.ImageError, match="no file"):
        fv.detect(tmp_path / "none.jpg")
