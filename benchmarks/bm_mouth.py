"""Area of teeth, tongue and mouth lining that is seen outside the lips, for all shapes of the mouth and all presets.

Run: python benchmarks/bm_mouth.py [--model open] [--parts parts.safetensors] [--heads 40]
"""

import argparse
from pathlib import Path

import numpy as np

import faceverse as fv
from faceverse.model.presets import EXPRESSION_PRESETS
from faceverse.parts.file import read_parts
from faceverse.training.expression_metrics import posed
from faceverse.training.mouth_metrics import CAVITY, SLOTS, YAWS_DEG, LipSheet, outside_area_mm2
from faceverse.training.sources import ShapeSource
from faceverse.weights import load_parts

PREFIXES = ("jaw", "mouth", "cheekPuff", "tongue", "nose")
LIMIT_MM2 = 1.0


def cases(names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Expression weights by name: each shape of the mouth, each pair of sides, each preset."""
    found = {name: {name: 1.0} for name in names if name.startswith(PREFIXES)}
    for name in [name for name in found if name.endswith("Left") and f"{name[:-4]}Right" in found]:
        if not name.startswith(("jawLeft", "mouthLeft")):
            found[name[:-4]] = {name: 1.0, f"{name[:-4]}Right": 1.0}
    return found | {f"preset {name}": dict(weights) for name, weights in EXPRESSION_PRESETS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--parts", type=Path, help="file of parts (default: the one that ships)")
    parser.add_argument("--heads", type=int, default=40, help="random heads beside the mean one (default: 40)")
    options = parser.parse_args()
    model = fv.load_model(options.model)
    library = read_parts(options.parts) if options.parts else load_parts(model)
    sheet = LipSheet(ShapeSource().head)
    people = [model.neutral().identity, *(model.random(seed).identity for seed in range(options.heads))]
    neutral = [posed(model, {}, person) for person in people]
    print(f"{len(people)} heads, yaw {YAWS_DEG[0]} to {YAWS_DEG[-1]} degrees; mm2 outside the lips")
    print(f"{'expression':24} {'median':>8} {'largest':>8} {'over ' + str(LIMIT_MM2):>9}")
    for name, weights in cases(model.expression_names).items():
        slots = (CAVITY, *SLOTS[:2]) if "tongue" in name else (CAVITY, *SLOTS)  # a tongue that is put out is outside
        seen = np.array(
            [
                outside_area_mm2(model, library, sheet, posed(model, weights, person), rest, slots=slots)
                for person, rest in zip(people, neutral, strict=True)
            ]
        )
        print(f"{name:24} {np.median(seen):8.2f} {seen.max():8.2f} {(seen > LIMIT_MM2).sum():9d}", flush=True)


if __name__ == "__main__":
    main()
