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
from real_figures import OUTLINE_SIDE, OutlineView, differs, overlap, resized
from skimage.color import rgb2lab

import faceverse as fv
from faceverse.parts.hair_styles import hair_style_of

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
    view = OutlineView.of(photo, result, labels)
    drawn = view.drawn(result)
    strands = differs(drawn, view.drawn(fv.edit(result, hair=None)))
    bristles = differs(drawn, view.drawn(fv.edit(result, beard=None)))
    seen_beard = resized(labels.mask("beard").astype(np.float32)) > 0.5
    if pictures is not None:
        views = [fv.render(result, size=OUTLINE_SIDE, rotation=(yaw, 0, 0)).rgb for yaw in (0, 35, 90, 180)]
        Image.fromarray(np.hstack([view.photo, drawn, *views])).save(pictures / f"{path.stem}.jpg", quality=90)
    return Measured(
        path.name, hair_style_of(result.params.styles), view.outline(drawn), overlap(view.hair, strands),
        colour_difference(drawn, view.photo, view.hair & strands), result.params.styles.get("beard", ""),
        overlap(seen_beard, bristles), colour_difference(drawn, view.photo, seen_beard & bristles), result.seconds,
    )  # fmt: skip


def colour_difference(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """Distance of the mean colours of two pictures in a mask, in CIELAB; NaN where it is small."""
    if where.sum() <= LEAST_PX:
        return float("nan")
    ours, theirs = (rgb2lab(image[where][None] / 255.0).mean((0, 1)) for image in (one, other))
    return float(np.linalg.norm(ours - theirs))


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
