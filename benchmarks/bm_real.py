"""Heads of real people, measured without ground truth, on a folder of photographs and videos.

Run: python -m faceverse bench real --photos DIR [--people CSV] [--videos DIR] [--sheets DIR] [--detail]
The CSV has the columns file and person. Likeness needs dlib's recogniser. docs/fitting.md explains the figures.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from common import labelled, photographs_in, table
from PIL import Image
from real_figures import (
    LIDS,
    LIKENESS_PX,
    LIPS,
    Describe,
    GapFigures,
    OutlineView,
    contour_error,
    distance,
    face_crop,
    face_descriptor,
    gap_figures,
    shape_spread_mm,
    skin_difference,
)
from wrinkle_figures import explained_shading

import faceverse as fv
from faceverse.graphics.camera import project, transform

VIEWS = {"front": (0, "color"), "30 degrees": (30, "color"), "35 degrees": (35, "color"), "clay": (0, "clay")}
SHEET_PX = 360
OVERLAY = 0.6  # opacity of the head before the photograph
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".webm", ".mkv")
FRAME_STEP = 6  # every so many frames of a video are compared


@dataclass(frozen=True)
class Measured:
    """Figures of one photograph.

    Args:
        name: of the file.
        detected, fitted: (478, 2) landmarks in pixels.
        result: the fitted head.
        outline: intersection over union above the chin, NaN for models without hair.
        wrinkles: share of the wrinkles' shading that the displacement explains; NaN without detail.
        seconds: processor time of the fit.
        portrait: descriptor of the photograph, or None.
        views: descriptors of the head by name in VIEWS, or None.
    """

    name: str
    detected: np.ndarray
    fitted: np.ndarray
    result: fv.FitResult
    outline: float
    wrinkles: float
    seconds: float
    portrait: np.ndarray | None = None
    views: dict[str, np.ndarray | None] = field(default_factory=dict)

    @property
    def contours(self) -> tuple[float, float]:
        """Errors of lips and lids in percent of the eye distance."""
        return contour_error(self.detected, self.fitted, LIPS), contour_error(self.detected, self.fitted, LIDS)


# -- photographs ------------------------------------------------------------------------------------------------------
def measure(path: Path, model: fv.FaceModel, describe: Describe | None, options: argparse.Namespace) -> Measured:
    """Fit a photograph and measure the head."""
    photo = fv.read_image(path)
    started = time.process_time()
    result = fv.fit(photo, model, detail=options.detail)
    seconds = time.process_time() - started
    assert result.landmarks_px is not None and result.projected_landmarks_px is not None  # a fit has both
    outline = float("nan")
    if "hair" in result.parts or (model.parts is not None and model.parts.styles("hair")):
        view = OutlineView.of(photo, result, fv.segment(photo))
        outline = view.outline(view.drawn(result))
    portrait, views = None, {}
    if describe is not None:
        portrait = describe(face_crop(photo.rgb, result.landmarks_px * photo.scale))
        for name, (yaw, mode) in VIEWS.items():
            views[name] = describe(fv.render(result, LIKENESS_PX, mode, rotation=(yaw, 0, 0)).rgb)
    if options.sheets is not None:
        save_sheet(photo, result, options.sheets / f"{path.stem}.jpg")
    wrinkles = float("nan") if result.displacement is None else explained_shading(photo.rgb, result)[0]
    return Measured(
        path.name, result.landmarks_px, result.projected_landmarks_px, result, outline,
        wrinkles, seconds, portrait, views,
    )  # fmt: skip


def save_sheet(photo, result: fv.FitResult, path: Path) -> None:
    """Write photograph, overlay, clay, the head from three sides and without expression as one picture."""
    low, high = result.landmarks_px.min(0), result.landmarks_px.max(0)
    centre, half = (low + high) / 2, 0.95 * float((high - low).max())
    x, y = (float(value) for value in centre)
    box, size = (x - half, y - 1.15 * half, x + half, y + 0.85 * half), (SHEET_PX, SHEET_PX)
    scaled = tuple(value * photo.scale for value in box)
    seen = Image.fromarray(photo.rgb).transform(size, Image.Transform.EXTENT, scaled, Image.Resampling.BICUBIC)
    camera = result.camera.cropped(box, size)
    drawn = fv.render(result, camera=camera)
    mask = OVERLAY * np.asarray(drawn.mask, np.float32)[..., None]
    overlay = (np.asarray(seen) * (1 - mask) + drawn.rgb * mask).astype(np.uint8)
    neutral = fv.edit(result, expression="neutral")
    pictures = {"photograph": np.asarray(seen), "overlay": overlay}
    pictures["clay"] = fv.render(result, camera=camera, mode="clay").rgb
    for yaw in (0, 35, 90):
        pictures[f"{yaw} degrees"] = fv.render(result, SHEET_PX, rotation=(yaw, 0, 0)).rgb
    pictures["neutral"] = fv.render(neutral, SHEET_PX, rotation=(0, 0, 0)).rgb
    row = [labelled(picture, name) for name, picture in pictures.items()]
    Image.fromarray(np.hstack(row)).save(path, quality=90)


def people_of(path: Path | None) -> dict[str, str]:
    """Person by file name, from a CSV with the columns file and person."""
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {row["file"]: row["person"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise fv.ParameterError(f"{path} is no table with the columns file and person ({error})") from error


# -- tables -----------------------------------------------------------------------------------------------------------
def photo_table(measured: list[Measured]) -> str:
    """A line for each photograph, and the mean."""
    header = ["photograph", "lips %", "lids %", "outline", "wrinkles", "seconds"]
    figures = np.array([[*one.contours, one.outline, one.wrinkles, one.seconds] for one in measured])
    columns = [column[np.isfinite(column)] for column in figures.T]
    means = [float(column.mean()) if len(column) else float("nan") for column in columns]
    names = [one.name for one in measured]
    rows = [[name, *map(cell, row)] for name, row in zip([*names, "mean"], [*figures, means], strict=True)]
    return table(header, rows)


def cell(value: float, digits: int = 2) -> str:
    """A number as text; a dash for NaN."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def gap_table(figures: dict[str, GapFigures]) -> str:
    """Correlation, slope, bias and mean error by feature."""
    rows = [
        [name, f"{f.correlation:.2f}", f"{f.slope:.2f}", f"{f.bias:+.2f}", f"{f.error:.2f}"]
        for name, f in figures.items()
    ]
    return table(["% of the eye distance", "correlation", "slope", "bias", "mean error"], rows)


def people_table(measured: list[Measured], people: dict[str, str]) -> str:
    """Likeness of heads to other photographs of the same person and of strangers; spread of shape and skin."""
    same, strangers = {name: [] for name in (*VIEWS, "photograph")}, {name: [] for name in (*VIEWS, "photograph")}
    shape, skin = [], []
    for one, other in combinations([m for m in measured if m.name in people], 2):
        is_same = people[one.name] == people[other.name]
        found = same if is_same else strangers
        for name in VIEWS:
            found[name] += [distance(a.views.get(name), b.portrait) for a, b in ((one, other), (other, one))]
        found["photograph"].append(distance(one.portrait, other.portrait))
        if is_same:
            shape.append(shape_spread_mm(one.result, other.result))
            skin.append(skin_difference(one.result, other.result))
    rows = [[f"likeness, {name}", mean_of(same[name]), mean_of(strangers[name])] for name in same]
    rows += [["shape, mm", mean_of(shape), ""], ["skin, CIELAB", mean_of(skin, 1), ""]]
    return table(["two photographs", "of one person", "of strangers"], rows)


def mean_of(values: list[float], digits: int = 3) -> str:
    """The mean of the finite values as text; a dash without any."""
    finite = [value for value in values if np.isfinite(value)]
    return cell(float(np.mean(finite)) if finite else float("nan"), digits)


# -- videos -----------------------------------------------------------------------------------------------------------
def frame_pairs(path: Path, model: fv.FaceModel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Detected and tracked landmarks (478, 2) of every FRAME_STEP-th frame of a video."""
    track, capture, marks = fv.track(path, model), cv2.VideoCapture(str(path)), model.landmarks_478
    assert marks is not None  # a model that is tracked has them
    for index in range(len(track)):
        ok, frame = capture.read()
        if not ok:
            return
        if index % FRAME_STEP or track.confidence[index] == 0:
            continue
        found = fv.detect(np.ascontiguousarray(frame[..., ::-1]))
        if not found:
            continue
        head = track.result(index)
        points = (head.vertices[head.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
        pose = (torch.from_numpy(values) for values in (head.params.rotation, head.params.translation))
        posed = transform(torch.from_numpy(points.astype(np.float32)), *pose)
        yield found[0].landmarks_px, project(posed, head.camera)[:, :2].numpy()


def videos_part(folder: Path, model: fv.FaceModel) -> None:
    """Print the gaps of all videos of a folder together."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    pairs = []
    for path in paths:
        try:
            pairs += list(frame_pairs(path, model))
        except fv.FaceVerseError as error:
            print(f"  {path.name}: {error}")
    if len(pairs) >= 3:
        print(f"\n{len(pairs)} frames of {len(paths)} videos")
        print(gap_table(gap_figures(pairs)))


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, one face each")
    parser.add_argument("--people", type=Path, metavar="CSV", help="table of file and person")
    parser.add_argument("--videos", type=Path, help="folder of videos")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write a contact sheet of each photograph")
    parser.add_argument("--detail", action="store_true", help="fit the skin's detail as well")
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
    measured = []
    try:
        people, model = people_of(options.people), fv.load_model(options.model)
        describe = face_descriptor() if people else None
        for path in photographs_in(options.photos):
            try:
                measured.append(measure(path, model, describe, options))
            except fv.FaceVerseError as error:
                print(f"  {path.name}: {error}")
    except fv.FaceVerseError as error:
        parser.error(str(error))
    if len(measured) < 3:
        parser.error(f"{options.photos}: faces were found in {len(measured)} photographs; three are needed")
    print(photo_table(measured))
    print()
    print(gap_table(gap_figures([(one.detected, one.fitted) for one in measured])))
    if people:
        print()
        print(people_table(measured, people))
    if options.videos is not None:
        videos_part(options.videos, model)


if __name__ == "__main__":
    main()
