"""How much of the light stays in the skin: differences between the textures of photographs of one person.

Run: python benchmarks/bm_skin_light.py --photos DIR --people FILE.csv
The table has a row for each photograph, its file name and its person. For each pair of photographs of a person: mean
CIELAB difference of the skins over the texels that both show well, that of their mean colours, and what is left without
it. Lips, brows, lids and hair are left out; beards and make-up are not.
"""

import argparse
import csv
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import table
from PIL import Image
from skimage.color import rgb2lab

import faceverse as fv
from faceverse.model.texture_maps import bake_planes

SIDE = 256  # of the compared textures
SHOWN = 0.8  # confidence from which a texel is compared
LEAST_TEXELS = 500
FEATURES = ("lips", "eyelids", "eyebrows", "eye_sockets", "eyeballs", "scalp")


def plain_face(model: fv.FaceModel) -> np.ndarray:
    """(SIDE, SIDE) bool: the face without FEATURES."""
    flags = np.zeros((len(model.mean_vertices), 2), np.float32)
    flags[model.regions["face"], 0] = 1
    for name in FEATURES:
        flags[model.regions[name], 1] = 1
    face, features = bake_planes(model, flags, SIDE)
    return (face > 0.9) & (features < 0.05)


def skin_of(result: fv.FitResult, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CIELAB (SIDE, SIDE, 3) of a head's texture, and (SIDE, SIDE) bool where its photograph shows the face well."""
    rgb, confidence = (
        np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BOX))
        for values in (result.texture, result.texture_confidence)
    )
    return rgb2lab(rgb / 255.0), face & (confidence > 255 * SHOWN)


def compare(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> list[float] | None:
    """Mean CIELAB difference, that of the mean colours, and that without it; None for too few common texels."""
    both = one[1] & other[1]
    if both.sum() < LEAST_TEXELS:
        return None
    difference = one[0][both] - other[0][both]
    mean = difference.mean(0)
    return [float(np.linalg.norm(v, axis=-1).mean()) for v in (difference, mean, difference - mean)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, one face each")
    parser.add_argument("--people", type=Path, required=True, help="CSV with the columns file and person")
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    options = parser.parse_args()
    people = defaultdict(list)
    with options.people.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["person"]:
                people[row["person"]].append(row["file"])
    rows, figures = [], []
    try:
        model = fv.load_model(options.model)
        face = plain_face(model)
        for person, files in people.items():
            skins = [skin_of(fv.fit(options.photos / name, model, detail=False), face) for name in files]
            pairs = [found for a, b in itertools.combinations(skins, 2) if (found := compare(a, b))]
            if pairs:
                figures.append(np.mean(pairs, axis=0))
                rows.append([person, str(len(pairs)), *(f"{value:.2f}" for value in figures[-1])])
    except fv.FaceVerseError as error:
        parser.error(str(error))
    if not figures:
        parser.error(f"{options.people}: no two photographs of one person show the same skin")
    rows.append(["mean", "", *(f"{value:.2f}" for value in np.mean(figures, axis=0))])
    print(table(["person", "pairs", "difference", "of the tone", "of the rest"], rows))


if __name__ == "__main__":
    main()
