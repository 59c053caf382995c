"""Damaged journals: what a tracker wrote is recovered, and what it did not write counts as frames without a face."""

import json

import numpy as np
import pytest

from faceverse.errors import ParameterError
from faceverse.graphics.camera import default_camera, rotation_from_euler_deg
from faceverse.tracking.files import load_track
from faceverse.tracking.journal import Journal, record_type
from faceverse.tracking.person import PersonBias, TrackedPerson
from faceverse.weights import load_model

FRAMES, FPS, SETTINGS = 40, 25.0, {"name": "clip.mp4"}


def records(model):
    """Frames of a head that turns; the fourth one shows no face."""
    generator = np.random.default_rng(3)
    frames = np.zeros(FRAMES, record_type(len(model.expression_names)))
    frames["seconds"], frames["confidence"] = np.arange(FRAMES) / FPS, 0.5
    frames["rotation"] = [rotation_from_euler_deg(yaw, 3, 1).numpy() for yaw in np.linspace(-20, 20, FRAMES)]
    frames["translation"] = np.float32([0.01, 0, -0.7])
    frames["expression"] = generator.random((FRAMES, len(model.expression_names)))
    frames["light"] = model.neutral().light
    frames[3] = np.zeros((), frames.dtype)
    frames["seconds"][3] = 3 / FPS
    return frames


def person(model):
    bias = PersonBias(np.array([-5.0, 5.0]), np.zeros((2, 68, 2)))
    return TrackedPerson(model.random(2), default_camera((90, 120)), bias=bias, warnings=("a warning",))


@pytest.fixture
def journal(toy_model, tmp_path):
    """The file, its header and its body."""
    writer = Journal(tmp_path / "run.fvtrack", SETTINGS)
    writer.open(person(toy_model), None)
    for record in records(toy_model):
        writer.add(record)
    writer.close()
    head, body = writer.path.read_bytes().split(b"\n", 1)
    return writer.path, head + b"\n", body


def test_whole_journal(toy_model, journal):
    track, frames = load_track(journal[0], toy_model), records(toy_model)
    assert track.warnings == ("a warning",) and len(track) == FRAMES
    seen = frames["confidence"] > 0
    np.testing.assert_array_equal(track.expression[seen], frames["expression"][seen])
    np.testing.assert_array_equal(track.confidence, frames["confidence"])
    content = Journal(journal[0], SETTINGS).earlier(toy_model)
    assert content.frames.tobytes() == journal[2] and not content.damaged.any() and content.intact == FRAMES


def test_damaged_records_are_frames_without_a_face(toy_model, journal):
    path, head, body = journal
    frames = np.frombuffer(body, records(toy_model).dtype).copy()
    frames["rotation"][10] *= 1.1
    frames["expression"][20, 1] = np.nan
    frames["seconds"][25] = 1e300
    frames["seconds"][26] = -1
    frames["confidence"][30] = 7
    frames["translation"][31] = 1e30
    path.write_bytes(head + frames.tobytes())
    track, expected = load_track(path, toy_model), records(toy_model)
    lost = [10, 20, 25, 26, 30, 31]
    assert list(np.flatnonzero(track.confidence == 0)) == [3, *lost]
    np.testing.assert_allclose(track.times_s, expected["seconds"], atol=1e-12)
    kept = np.setdiff1d(np.arange(FRAMES), [3, *lost])
    np.testing.assert_array_equal(track.expression[kept], expected["expression"][kept])
    assert track.warnings[1].arguments == {"first": 10, "lost": 6, "frames": FRAMES}
    # A run that continues tracks everything from the first damage on again.
    content = Journal(path, SETTINGS).earlier(toy_model)
    assert content.frames.tobytes() == body[: 10 * frames.itemsize] and not content.damaged.any()


@pytest.mark.parametrize(("added", "lost"), [(100, 0), (-100, 1), (-3 * 200, 3)])
def test_records_are_found_again_after_lost_or_added_bytes(added, lost, toy_model, journal):
    path, head, body = journal
    size = records(toy_model).itemsize
    place = 15 * size
    cut = body[:place] + b"\7" * added + body[place:] if added > 0 else body[:place] + body[place - added :]
    path.write_bytes(head + cut)
    lost = -(added // size) if added < 0 else 0
    track, expected = load_track(path, toy_model), records(toy_model)
    kept = np.setdiff1d(np.arange(FRAMES), [3, *range(15, 15 + lost)])
    assert len(track) == FRAMES
    np.testing.assert_array_equal(track.expression[kept], expected["expression"][kept])
    np.testing.assert_allclose(track.times_s, expected["seconds"], atol=1e-9)
    assert track.warnings[1].arguments == {"first": 15, "lost": lost, "frames": FRAMES}


def test_a_single_time_that_no_video_has_is_damage(toy_model, journal):
    """Times of damaged frames follow from those of the others: an absurd one would make all of them equal."""
    path, head, body = journal
    frames = np.frombuffer(body, records(toy_model).dtype).copy()
    frames["expression"][1:] = np.nan
    frames["seconds"][0] = -6e306
    path.write_bytes(head + frames.tobytes())
    with pytest.raises(ParameterError, match="all of its frames are damaged"):
        load_track(path, toy_model)


def test_journal_whose_frames_are_all_damaged(toy_model, journal):
    path, head, body = journal
    path.write_bytes(head + b"\xff" * len(body))
    with pytest.raises(ParameterError, match="all of its frames are damaged"):
        load_track(path, toy_model)
    assert Journal(path, SETTINGS).earlier(toy_model) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera": [1, 2, 3]}, "as the journal"),
        ({"camera": [0, 2, 3, 40, 50]}, "positive focal length and size"),
        ({"camera": [9, 2, 3, 1e300, 50]}, "more than 65536 pixels"),
        ({"identity": [float("nan")] * 8}, "identity has values that are not finite"),
        ({"identity": [1.0]}, "another model"),
        ({"zero": [0.0]}, "another model"),
        ({"habits": {"yaw_deg": [1, 2], "shift": [[[0, 0]]]}}, "habits has shape"),
        ({"habits": [1]}, "as the journal"),
        ({"warnings": None}, "as the journal"),
        ({"version": 3}, "another kind or version"),
    ],
)
def test_damaged_headers(changes, words, toy_model, journal):
    path, head, body = journal
    path.write_bytes(json.dumps(json.loads(head) | changes).encode() + b"\n" + body)
    with pytest.raises(ParameterError, match=words) as caught:
        load_track(path, toy_model)
    assert "\n" not in str(caught.value) and "run.fvtrack" in str(caught.value)


def test_journal_that_went_wrong(shared):
    path = shared / "real" / "failing" / "damaged.fvtrack"
    if not path.is_file():
        pytest.skip("no file damaged.fvtrack")
    track = load_track(path, load_model())
    assert len(track) == 170 and (track.confidence > 0).all()
    np.testing.assert_allclose(np.diff(track.times_s), 0.04, atol=1e-9)
    assert np.abs(track.euler_deg()).max() < 20 and track.warnings[-1].code == "journal.damaged_frames"
