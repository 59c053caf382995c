"""Hair and beards of heads that are fitted to photographs: how well they fill their outlines, and their colours.

Run: python benchmarks/bm_hair.py --photos DIR
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import photographs_in, table
from PIL import Image
from skimage.color import rgb2lab

import faceverse as fv
from faceverse.fitting.photometric import crop_photo
from faceverse.parts.hair_styles import hair_style_of

SIDE = 512  # of the crop in which masks are compared
CHIN, FOREHEAD = 152, 10  # MediaPipe's landmarks
BACKGROUND = (255, 0, 255)
LEAST_PX = 200  # from which colours are compared


@dataclass(frozen=True)
class Measured:
    """Figures of one photograph: intersection over union of head and person above the chin, and of hair and hair;
    difference of the mean colours of the hair in CIELAB, NaN where no hair is seen; style of the beard, "" for none;
    intersection over union of beard and beard, and difference of their mean colours, NaN where there is none; seconds.
    """

    name: str
    style: str
    outline: float
    hair: float
    colour: float
    beard_style: str
    beard: float
    beard_colour: float
    seconds: float


def measure(path: Path, model: fv.FaceModel, pictures: Path | None) -> Measured:
    """Fit a photograph and compare the head with it."""
    photo = fv.read_image(path)
    labels = fv.segment(photo)
    result = fv.fit(photo, model, detail=False)
    box = tuple(float(value) for value in labels.box_px)
    camera = result.camera.cropped(box, (SIDE, SIDE))
    drawn = fv.render(result, camera=camera, background=BACKGROUND).rgb
    bald = fv.render(fv.edit(result, hair=None), camera=camera, background=BACKGROUND).rgb
    head = np.abs(drawn.astype(int) - BACKGROUND).max(2) > 24
    strands = np.abs(drawn.astype(int) - bald).max(2) > 24
    person = resized(labels.person) > 0.5
    assert result.landmarks_px is not None  # a fit has them
    points = (result.landmarks_px - box[:2]) * SIDE / (box[2] - box[0])
    up = points[FOREHEAD] - points[CHIN]
    places = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), axis=-1)
    above = ((places - points[CHIN]) @ up > 0) & (resized(labels.inside.astype(np.float32)) > 0.5)
    seen = resized(labels.mask("hair").astype(np.float32)) > 0.5
    crop, _ = crop_photo(photo.rgb, tuple(value * photo.scale for value in box), SIDE)
    shaved = fv.render(fv.edit(result, beard=None), camera=camera, background=BACKGROUND).rgb
    bristles = np.abs(drawn.astype(int) - shaved).max(2) > 24
    seen_beard = resized(labels.mask("beard").astype(np.float32)) > 0.5
    if pictures is not None:
        views = [fv.render(result, size=SIDE, rotation=(yaw, 0, 0)).rgb for yaw in (0, 35, 90, 180)]
        Image.fromarray(np.hstack([crop, drawn, *views])).save(pictures / f"{path.stem}.jpg", quality=90)
    return Measured(
        path.name, hair_style_of(result.params.styles), overlap(person & above, head & above), overlap(seen, strands),
        colour_difference(drawn, crop, seen & strands), result.params.styles.get("beard", ""),
        overlap(seen_beard, bristles), colour_difference(drawn, crop, seen_beard & bristles), result.seconds,
    )  # fmt: skip


def colour_difference(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """Distance of the mean colours of two pictures in a mask, in CIELAB; NaN where it is small."""
    if where.sum() <= LEAST_PX:
        return float("nan")
    ours, theirs = (rgb2lab(image[where][None] / 255.0).mean((0, 1)) for image in (one, other))
    return float(np.linalg.norm(ours - theirs))


def resized(values: np.ndarray) -> np.ndarray:
    """A map of the labelled crop at the size at which masks are compared."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; NaN where both are empty."""
    return float((one & other).sum() / (one | other).sum()) if (one | other).any() else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, one face each")
    parser.add_argument("--pictures", type=Path, help="folder for a sheet of each head")
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    measured = []
    try:
        model = fv.load_model(options.model)
        for path in photographs_in(options.photos):
            try:
                measured.append(measure(path, model, options.pictures))
            except fv.FaceVerseError as error:
                print(f"  {path.name}: {error}")
    except fv.FaceVerseError as error:
        parser.error(str(error))
    if not measured:
        parser.error(f"{options.photos}: no face was found")
    rows = [
        [one.name, one.style, *shown(one.outline, one.hair, one.colour), one.beard_style,
         *shown(one.beard, one.beard_colour, one.seconds)]
        for one in sorted(measured, key=lambda one: one.outline)
    ]  # fmt: skip
    figures = [(o.outline, o.hair, o.colour, o.beard, o.beard_colour, o.seconds) for o in measured]
    known = [column[~np.isnan(column)] for column in np.array(figures).T]
    means = [float(column.mean()) if len(column) else np.nan for column in known]
    rows.append(["mean", "", *shown(*means[:3]), "", *shown(*means[3:])])
    print(table(["photograph", "style", "outline", "hair", "colour", "beard", "overlap", "colour", "seconds"], rows))


def shown(*values: float) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.3f}" for value in values]


if __name__ == "__main__":
    main()
