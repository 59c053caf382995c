"""The styles of a head's parts survive everything that is done to the head, and its files."""

import json
from dataclasses import replace

import numpy as np
import pytest

import faceverse as fv
from faceverse.errors import ParameterError
from faceverse.graphics.camera import default_camera
from faceverse.mixing import blend, randomize
from faceverse.parts.part import DEFAULT_STYLES
from faceverse.tracking.files import load_track
from faceverse.tracking.journal import Journal, record_type
from faceverse.tracking.person import TrackedPerson
from faceverse.tracking.result import PER_FRAME, Track

STYLES = {"teeth_upper": "shape02", "teeth_lower": "shape02", "tongue": "base", "lashes": "03", "brows": "07"}


@pytest.fixture(scope="module")
def head(model):
    return fv.head(model.random(4).replace(styles=STYLES), model, texture_size=64)


def motion(model, styles, count=3):
    person = model.random(1).replace(styles=styles)
    shapes = {"times_s": (), "confidence": (), **{key: np.shape(getattr(person, key)) for key in PER_FRAME[2:]}}
    frames = {key: np.zeros((count, *shape), np.float32) for key, shape in shapes.items()}
    frames |= {"times_s": np.arange(count) / 25, "confidence": np.ones(count, np.float32)}
    frames["rotation"][:] = np.eye(3)
    return Track(model, person, default_camera((90, 120)), **frames, expression_names=model.expression_names)


def test_edits_keep_the_styles_and_mixtures_those_of_the_nearer_head(model, head):
    other = fv.head(model.random(5), model, texture_size=64)
    mixed = blend(head, other, identity=0.3, albedo=1.0), blend(other, head, identity=0.7)
    for made in (fv.edit(head, age=60, expression="smile"), randomize(head, 3, keep="hair"), *mixed):
        assert made.params.styles == STYLES and made.parts["brows"].style == "07"


def test_a_stored_head_keeps_its_styles(model, head, tmp_path):
    restored = fv.load_result(fv.export(head, tmp_path / "head.json"), model)
    assert restored.params.styles == STYLES
    for slot, vertices in head.part_vertices.items():
        assert np.abs(restored.part_vertices[slot] - vertices).max() < 1e-6


def test_files_from_before_parts_get_the_default_ones(model, head, tmp_path):
    path = tmp_path / "old.json"
    fv.export(head, path)
    document = json.loads(path.read_text())
    del document["params"]["styles"]
    path.write_text(json.dumps(document))
    assert fv.load_result(path, model).params.styles == DEFAULT_STYLES


@pytest.mark.parametrize(
    ("styles", "words"),
    [
        ({"lashes": "99"}, r"head\.json.*no style '99' of lashes; known are: 01, 02, 03"),
        ({"horns": "02"}, r"head\.json.*no part called 'horns'"),
        ({"lashes": 2}, r"head\.json.*styles of the parts"),
        (["lashes"], r"head\.json.*styles of the parts"),
    ],
)
def test_unknown_styles_in_a_file_are_named(model, head, tmp_path, styles, words):
    path = tmp_path / "head.json"
    fv.export(head, path)
    document = json.loads(path.read_text())
    document["params"]["styles"] = styles
    path.write_text(json.dumps(document))
    with pytest.raises(ParameterError, match=words):
        fv.load_result(path, model)


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_tracks_keep_the_styles_of_their_person(toy_model, tmp_path, suffix):
    track = motion(toy_model, STYLES)
    assert track.result(1).params.styles == STYLES
    path = tmp_path / f"run.{suffix}"
    track.save(path)
    assert load_track(path, toy_model).identity.styles == STYLES


def test_a_track_with_an_unknown_style_is_refused(toy_model, model, tmp_path):
    track = motion(model, {"lashes": "99"}, count=1)
    with pytest.raises(ParameterError, match="no style '99' of lashes"):
        load_track(track.save(tmp_path / "run.json"), model)


def test_journals_keep_the_styles_of_their_person(toy_model, tmp_path):
    params = toy_model.random(2).replace(styles=STYLES)
    writer = Journal(tmp_path / "run.fvtrack", {"name": "clip.mp4"})
    writer.open(replace(TrackedPerson(params, default_camera((90, 120))), warnings=()), None)
    frame = np.zeros(1, record_type(len(toy_model.expression_names)))
    frame["confidence"], frame["rotation"], frame["light"] = 1, np.eye(3), params.light
    writer.add(frame[0])
    writer.close()
    assert load_track(writer.path, toy_model).identity.styles == STYLES
    head, body = writer.path.read_bytes().split(b"\n", 1)
    document = json.loads(head)
    del document["styles"]
    writer.path.write_bytes(json.dumps(document).encode() + b"\n" + body)
    assert load_track(writer.path, toy_model).identity.styles == DEFAULT_STYLES
