"""Figures of heads of real people that need no ground truth: contours, gaps, likeness, spread, outline.

`bm_real.py` and `bm_hair.py` measure with them; docs/fitting.md explains the figures.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fit_heads import face_rows, shape_error_mm
from PIL import Image
from skimage.color import rgb2lab

import faceverse as fv
from faceverse.fitting.photometric import crop_photo
from faceverse.segmentation import Segmentation

# MediaPipe's landmarks. Distances of a feature are averaged; the unit is the distance of the outer corners of the eyes.
FEATURES = {
    "opening of the mouth": ((13, 14),),
    "width of the mouth": ((61, 291),),
    "opening of the eyes": ((159, 145), (386, 374)),
    "height of the brows": ((105, 159), (334, 386)),
}
EYE_CORNERS = (33, 263)
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip
LIDS = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)  # fmt: skip
CHIN, FOREHEAD = 152, 10
OUTLINE_SIDE = 512  # of the crop in which masks are compared
BACKGROUND = (255, 0, 255)
LIKENESS_PX = 512
PORTRAIT_MARGIN = 1.9  # side of the crop that the recogniser searches, in sizes of the face
SKIN_SIDE = 256  # of the textures whose colours are compared
SEEN = 128  # least confidence of compared texels, 0..255
INSTALL_LIKENESS = "pip install dlib-bin face-recognition-models"

Describe = Callable[[np.ndarray], np.ndarray | None]


# -- landmarks --------------------------------------------------------------------------------------------------------
def eye_distance(points_px: np.ndarray) -> float:
    """Distance of the outer corners of the eyes, from landmarks (478, 2)."""
    return float(np.linalg.norm(points_px[EYE_CORNERS[0]] - points_px[EYE_CORNERS[1]]))


def gaps(points_px: np.ndarray) -> np.ndarray:
    """(features,) distances of FEATURES in percent of these landmarks' own eye distance, from (478, 2)."""
    unit = eye_distance(points_px)
    found = [np.mean([np.linalg.norm(points_px[a] - points_px[b]) for a, b in pairs]) for pairs in FEATURES.values()]
    return 100 * np.array(found) / unit


def contour_error(detected_px: np.ndarray, fitted_px: np.ndarray, contour: Sequence[int]) -> float:
    """Mean distance of detected and fitted landmarks (478, 2) of a contour, percent of the detected eye distance."""
    rows = list(contour)
    return 100 * float(np.linalg.norm(detected_px[rows] - fitted_px[rows], axis=1).mean()) / eye_distance(detected_px)


@dataclass(frozen=True)
class GapFigures:
    """Agreement of fitted with detected gaps over photographs; bias and mean error in percent of the eye distance."""

    correlation: float
    slope: float
    bias: float
    error: float

    @classmethod
    def of(cls, detected: np.ndarray, fitted: np.ndarray) -> "GapFigures":
        """From values (N,) of at least three photographs."""
        off = fitted - detected
        slope = float(np.polyfit(detected, fitted, 1)[0])
        return cls(float(np.corrcoef(detected, fitted)[0, 1]), slope, float(off.mean()), float(np.abs(off).mean()))


def gap_figures(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, GapFigures]:
    """Figures by feature from detected and fitted landmarks (478, 2) of several photographs or frames."""
    detected, fitted = (np.array([gaps(pair[k]) for pair in pairs]) for k in (0, 1))
    return {name: GapFigures.of(detected[:, k], fitted[:, k]) for k, name in enumerate(FEATURES)}


# -- outline ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OutlineView:
    """The crop of a photograph in which outlines are compared.

    Args:
        camera: of the crop.
        photo: (S, S, 3) uint8.
        person: (S, S) bool, as segmented.
        hair: (S, S) bool, as segmented.
        above: (S, S) bool, where the photograph shows what is above the chin.
    """

    camera: fv.Camera
    photo: np.ndarray
    person: np.ndarray
    hair: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, photo, result: fv.FitResult, labels: Segmentation) -> "OutlineView":
        """The view of a fitted photograph, as `read_image` returns it, with its labels."""
        box, side = tuple(float(value) for value in labels.box_px), OUTLINE_SIDE
        points = (result.landmarks_px - box[:2]) * side / (box[2] - box[0])
        up = points[FOREHEAD] - points[CHIN]
        places = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), axis=-1)
        above = ((places - points[CHIN]) @ up > 0) & (resized(labels.inside.astype(np.float32)) > 0.5)
        crop, _ = crop_photo(photo.rgb, tuple(value * photo.scale for value in box), side)
        hair = resized(labels.mask("hair").astype(np.float32)) > 0.5
        return cls(result.camera.cropped(box, (side, side)), crop, resized(labels.person) > 0.5, hair, above)

    def drawn(self, result: fv.FitResult) -> np.ndarray:
        """(S, S, 3) uint8: the head in this view, before BACKGROUND."""
        return fv.render(result, camera=self.camera, background=BACKGROUND).rgb

    def outline(self, drawn: np.ndarray) -> float:
        """Intersection over union of the person and the head (S, S, 3) that `drawn` returns, above the chin."""
        return overlap(self.person & self.above, differs(drawn, np.array(BACKGROUND)) & self.above)


def differs(drawn: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(S, S) bool: where pictures differ visibly."""
    return np.abs(drawn.astype(int) - other).max(2) > 24


def resized(values: np.ndarray) -> np.ndarray:
    """A map of the labelled crop at the size at which masks are compared."""
    side = (OUTLINE_SIDE, OUTLINE_SIDE)
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(side, Image.Resampling.BILINEAR))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; NaN where both are empty."""
    return float((one & other).sum() / (one | other).sum()) if (one | other).any() else float("nan")


# -- one person in several photographs --------------------------------------------------------------------------------
def shape_spread_mm(first: fv.FitResult, second: fv.FitResult) -> float:
    """Mean distance of the faces of two heads without expression after a similarity transform, millimetres."""
    return shape_error_mm(first.neutral_vertices, second.neutral_vertices, face_rows(first.model))


def skin_difference(first: fv.FitResult, second: fv.FitResult) -> float:
    """Mean CIELAB difference of two skins where both photographs show them; NaN where they share too little."""
    size = (SKIN_SIDE, SKIN_SIDE)
    colours, seen = [], []
    for head in (first, second):
        small = Image.fromarray(head.texture).resize(size, Image.Resampling.BOX)
        colours.append(rgb2lab(np.asarray(small) / 255.0))
        seen.append(np.asarray(Image.fromarray(head.texture_confidence).resize(size, Image.Resampling.BOX)) > SEEN)
    both = seen[0] & seen[1]
    return float(np.linalg.norm(colours[0] - colours[1], axis=-1)[both].mean()) if both.sum() > 200 else float("nan")


# -- likeness ---------------------------------------------------------------------------------------------------------
def distance(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """Distance of two descriptors; NaN where no face was found."""
    return float("nan") if first is None or second is None else float(np.linalg.norm(first - second))


def face_crop(rgb: np.ndarray, points_px: np.ndarray, margin: float = PORTRAIT_MARGIN) -> np.ndarray:
    """(LIKENESS_PX, LIKENESS_PX, 3): the photograph around the face; black beyond its edges."""
    low, high = points_px.min(0), points_px.max(0)
    centre, half = (low + high) / 2, margin * (high - low).max() / 2
    box = tuple(int(v) for v in (*(centre - half), *(centre + half)))
    return np.asarray(Image.fromarray(rgb).crop(box).resize((LIKENESS_PX, LIKENESS_PX)))


def face_descriptor() -> Describe | None:
    """dlib's face recogniser: a function from a picture (H, W, 3) to a descriptor (128,), or to None without a face.

    Returns None, and prints what to install, if a package is missing.
    """
    # Locate the models' package without importing it: its code needs parts of setuptools that no longer exist.
    models = importlib.util.find_spec("face_recognition_models")
    if importlib.util.find_spec("dlib") is None or models is None:
        print(f"  likeness is left out; it needs dlib's recogniser: {INSTALL_LIKENESS}")
        return None
    import dlib

    folder = Path(models.origin).parent / "models"
    detector = dlib.get_frontal_face_detector()
    marks = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
    recogniser = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def describe(rgb: np.ndarray) -> np.ndarray | None:
        rgb = np.ascontiguousarray(rgb)
        faces = detector(rgb, 1)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.area())
        return np.array(recogniser.compute_face_descriptor(rgb, marks(rgb, largest), 5))

    return describe
