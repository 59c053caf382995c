"""The notebooks' mesh viewer: both of its versions show the head that was given."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

import faceverse as fv
from faceverse.viewer import PLOTLY, STEP_M, MeshViewer, show


@pytest.fixture(scope="module")
def person():
    model = fv.load_model()
    return fv.head(model.random(3), model)


def unpacked(array):
    return np.frombuffer(base64.b64decode(array["bdata"]), f"<{array['dtype']}").astype(np.int64)


def test_the_figure_is_the_coarse_mesh_of_the_head(person):
    (mesh,) = MeshViewer(person).figure()["data"]
    points = np.stack([unpacked(mesh[axis]) for axis in "xyz"], axis=1) * STEP_M
    wanted = person.vertices[person.model.data.coarse_vertices]
    assert np.abs(points - wanted).max() <= 0.51 * STEP_M
    faces = np.stack([unpacked(mesh[corner]) for corner in "ijk"], axis=1)
    assert np.array_equal(faces, person.model.coarse.faces)


@pytest.mark.parametrize("mode", ["color", "albedo"])
def test_colours_of_the_figure_are_those_of_the_head(person, mode):
    red = person.replace(
        texture=np.zeros_like(person.texture) + np.uint8([200, 10, 10]),
        albedo=np.zeros_like(person.albedo) + np.float32([1, 0, 0]),
    )
    colors = MeshViewer(red, mode).figure()["data"][0]["vertexcolor"]
    assert len(colors) == len(person.model.coarse.mean_vertices)
    assert set(colors) == {"#c80a0a" if mode == "color" else "#ff0000"}


def test_the_bundle_is_json_with_a_picture_and_small(person):
    bundle = MeshViewer(person, size=300)._repr_mimebundle_()
    assert len(json.dumps(bundle)) < 400_000
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))))
    assert np.array_equal(picture, fv.render(person, 300).rgb)
    assert set(MeshViewer(person)._repr_mimebundle_(include=["image/png"])) == {"image/png"}
    assert PLOTLY not in MeshViewer(person)._repr_mimebundle_(exclude=[PLOTLY])


def test_plotly_takes_the_figure(person):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figure = graph_objects.Figure(MeshViewer(person, "clay").figure())
    assert figure.data[0].type == "mesh3d" and figure.data[0].color


def test_an_unknown_mode_is_refused(person):
    with pytest.raises(fv.ParameterError, match="color, albedo, clay"):
        MeshViewer(person, "wireframe")


@pytest.mark.parametrize("channels", [(), (3,)])
def test_pictures_are_shown_side_by_side(monkeypatch, channels):
    display = pytest.importorskip("IPython.display")
    shown = []
    monkeypatch.setattr(display, "display", lambda picture, include: shown.append((picture, include)))
    show(np.zeros((4, 6, *channels), np.uint8), np.full((4, 5, *channels), 255, np.uint8))
    ((picture, kinds),) = shown
    assert picture.size == (11, 4) and kinds == ["image/jpeg"]
    assert np.array_equal(np.asarray(picture)[0].reshape(11, -1)[:, 0], [0] * 6 + [255] * 5)
