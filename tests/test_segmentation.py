"""Segmentation: labels of photographs and of renderings with painted hair, bystanders, crops, errors."""

from dataclasses import replace

import numpy as np
import pytest

import faceverse as fv
from faceverse.errors import NoFaceError, ParameterError, WeightsError
from faceverse.graphics.camera import Camera
from faceverse.landmarks import detect_faces
from faceverse.segmentation import LABELS, SIZE, segment_face
from faceverse.segmentation.guided_filter import GuidedFilter
from faceverse.segmentation.person import segment_person, segmenter


@pytest.fixture(scope="module")
def segmented():
    picture = pytest.importorskip("skimage.data").astronaut()
    return picture, fv.segment(picture)


def share_of(segmentation, name, box, picture):
    """Share of a label in a box x0, y0, x1, y1 of the picture."""
    labels = segmentation.to_photo(segmentation.labels, picture.shape[:2])
    x0, y0, x1, y1 = box
    return (labels[y0:y1, x0:x1] == LABELS.index(name)).mean()


def test_astronaut(segmented):
    picture, labels = segmented
    for name, box in {
        "face": (205, 100, 240, 165),
        "hair": (195, 20, 250, 45),
        "clothes": (150, 250, 330, 310),
        "background": (20, 20, 100, 200),
    }.items():
        assert share_of(labels, name, box, picture) > 0.95, name
    assert share_of(labels, "neck", (215, 180, 245, 190), picture) > 0.5
    assert labels.scalp_hair > 0.8 and not labels.is_bald
    assert labels.labels.shape == labels.person.shape == labels.hair.shape == (SIZE, SIZE)
    assert (labels.person >= 0).all() and (labels.hair <= labels.person + 1e-6).all()


def test_same_photograph_same_labels(segmented):
    picture, first = segmented
    segmenter.close()
    second = fv.segment(picture)
    assert np.array_equal(first.labels, second.labels) and np.array_equal(first.hair, second.hair)


def test_box_follows_the_photograph(segmented):
    picture, first = segmented
    moved = np.full((700, 640, 3), 200, np.uint8)
    moved[120:632, 90:602] = picture
    second = fv.segment(moved)
    assert np.allclose(second.box_px - first.box_px, (90, 120, 90, 120), atol=4)
    one = first.to_photo(first.mask("hair"), (512, 512))
    other = second.to_photo(second.mask("hair"), (700, 640))[120:632, 90:602]
    assert (one & other).sum() / (one | other).sum() > 0.9


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photograph(segmented, turns):
    picture, first = segmented
    face = detect_faces(picture)[0]
    size, points = len(picture), face.landmarks_px
    for _ in range(turns):
        points = np.stack([points[:, 1], size - points[:, 0]], axis=-1)
    turned = segment_face(np.rot90(picture, turns), replace(face, landmarks_px=points))
    labels = turned.to_photo(turned.labels, (size, size))
    expected = np.rot90(first.to_photo(first.labels, (size, size)), turns)
    assert (labels == expected).mean() > 0.98


def test_errors(segmented):
    _, labels = segmented
    with pytest.raises(ParameterError, match=r"no label 'wig'.*hair"):
        labels.mask("wig")
    with pytest.raises(NoFaceError):
        fv.segment(np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(ParameterError):
        fv.segment(np.zeros((64, 64, 3), np.uint8), face="mine")


def test_missing_model(monkeypatch, tmp_path):
    segmenter.close()
    with monkeypatch.context() as patch:
        patch.setenv("FACEVERSE_SEGMENTER", str(tmp_path / "none.tflite"))
        with pytest.raises(WeightsError, match="FACEVERSE_SEGMENTER"):
            segment_person(np.zeros((64, 64, 3), np.uint8))
    assert segment_person(np.zeros((64, 64, 3), np.uint8)).shape == (64, 64)


def test_guided_filter_keeps_the_edges_of_the_guide():
    guide = np.zeros((40, 40, 3), np.float32)
    guide[:, 20:] = 1
    noisy = guide[..., 0] + np.random.default_rng(0).normal(0, 0.2, (40, 40)).astype(np.float32)
    smooth = GuidedFilter(guide, 5, 1e-3)(noisy)
    assert smooth[:, 19].mean() < 0.1 and smooth[:, 20].mean() > 0.9
    assert smooth[:, 25:].std() < 0.3 * noisy[:, 25:].std()


def test_another_person_is_background(segmented):
    picture, _ = segmented
    half = picture[:, 60:400]
    two = np.hstack([half, half[:, ::-1]])
    faces = detect_faces(two)
    left, right = sorted(faces[:2], key=lambda face: face.box_px[0])
    labels = segment_face(two, left, [right])
    assert share_of(labels, "background", (340 + 110, 60, 340 + 190, 170), two) > 0.9
    assert share_of(labels, "face", (145, 100, 180, 165), two) > 0.9


# ------------------------------------------------------------------------------------------------ renderings of heads


def portrait(head, clothes_rgb):
    """A picture of a head before a wall, and the masks of head, hair and clothes."""
    size = (480, 420)
    camera = Camera(620.0, (210.0, 190.0), size)

    def draw(one, mode="color"):
        return fv.render(one, camera=camera, mode=mode, background=(0, 0, 0))

    shaded, with_hair, without = draw(head), draw(head, "albedo"), draw(fv.edit(head, hair="bald"), "albedo")
    hair = (np.abs(with_hair.rgb.astype(int) - without.rgb).sum(axis=-1) > 24) & shaded.mask
    rows, columns = np.mgrid[: size[0], : size[1]]
    collar = int(np.nonzero(without.mask.any(axis=1))[0].max()) - 25
    middle = columns[collar, without.mask[collar]].mean()
    clothes = (rows > collar) & (np.abs(columns - middle) < 45 + 1.2 * (rows - collar)) & ~hair
    rng = np.random.default_rng(0)
    picture = np.stack([150 + 0.1 * rows, 160 + 0.05 * columns, 150 + 0.05 * rows], axis=-1)
    picture[shaded.mask] = shaded.rgb[shaded.mask]
    picture[clothes] = clothes_rgb
    picture = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    return picture, (shaded.mask | clothes), hair, clothes


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(
    ("seed", "style", "beard", "yaw", "clothes"),
    [(9, "short02", "full", 0, (40, 60, 120)), (4, "bob02", "shaved", 20, (150, 30, 40))],
)
def test_renderings_with_hair(model, seed, style, beard, yaw, clothes):
    head = fv.edit(fv.head(model.random(seed=seed)), hair=style, beard=beard, rotation=(yaw, 0, 0))
    picture, person, hair, clothed = portrait(head, clothes)
    labels = fv.segment(picture)
    found = labels.to_photo(labels.labels, picture.shape[:2])
    inside = labels.to_photo(labels.inside, picture.shape[:2])
    assert overlap((found > 0) & inside, person & inside) > 0.93
    assert overlap((found == LABELS.index("hair")) & inside, hair & inside) > 0.85
    assert overlap((found == LABELS.index("clothes")) & inside, clothed & inside) > 0.85
    assert labels.mask("beard").any() == (beard == "full")
    assert not labels.is_bald


def test_bald_head(model):
    bald = fv.edit(fv.head(model.random(seed=4)), hair="bald", beard="shaved")
    picture, _, _, _ = portrait(bald, (40, 60, 120))
    # The model's scalp is shaved, hence darker: light it as the skin of the forehead.
    clay = fv.render(bald, camera=Camera(620.0, (210.0, 190.0), (480, 420)), mode="clay", background=(0, 0, 0))
    x, y = np.round(detect_faces(picture)[0].landmarks_px[151]).astype(int)
    ratio = picture[y - 5 : y + 5, x - 8 : x + 8] / np.maximum(clay.rgb[y - 5 : y + 5, x - 8 : x + 8], 1.0)
    scalp = clay.mask & (np.arange(480)[:, None] < y)
    picture[scalp] = np.clip(clay.rgb * np.median(ratio, axis=(0, 1)), 0, 255).astype(np.uint8)[scalp]
    labels = fv.segment(picture)
    assert labels.is_bald and labels.scalp_hair < 0.1
