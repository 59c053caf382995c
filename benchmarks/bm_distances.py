"""Opening of mouth and eyes, width of the mouth and height of the brows in photographs: of the fitted heads, and as
detected, over the distance of the outer corners of the eyes.

Run: python benchmarks/bm_distances.py --photos DIR
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import photographs_in

import faceverse as fv

# MediaPipe's landmarks; distances of a feature are averaged.
FEATURES = {
    "opening of the mouth": ((13, 14),),
    "width of the mouth": ((61, 291),),
    "opening of the eyes": ((159, 145), (386, 374)),
    "height of the brows": ((105, 159), (334, 386)),
}
EYE_CORNERS = (33, 263)


def distances(points_px: np.ndarray, unit_px: float) -> list[float]:
    """Distance of each feature, percent of a unit in pixels, from landmarks (478, 2)."""
    return [
        100 * float(np.mean([np.linalg.norm(points_px[a] - points_px[b]) for a, b in pairs])) / unit_px
        for pairs in FEATURES.values()
    ]


def measure(photos: list[Path], model: fv.FaceModel) -> np.ndarray:
    """(N, features, 2) percent, detected and fitted, of the photographs in which a face is found."""
    rows = []
    for path in photos:
        try:
            result = fv.fit(path, model, detail=False)
        except fv.FaceVerseError as error:
            print(f"  {path.name}: {error}")
            continue
        detected, fitted = result.landmarks_px, result.projected_landmarks_px
        assert detected is not None and fitted is not None  # a fit has both
        unit = float(np.linalg.norm(detected[EYE_CORNERS[0]] - detected[EYE_CORNERS[1]]))
        rows.append(np.stack([distances(detected, unit), distances(fitted, unit)], axis=1))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, one face each")
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        values = measure(photographs_in(options.photos), fv.load_model(options.model))
    except fv.FaceVerseError as error:
        parser.error(str(error))
    if len(values) < 3:
        parser.error(f"{options.photos}: faces were found in {len(values)} photographs; three are needed")
    print(f"{len(values)} photographs; percent of the distance of the outer corners of the eyes")
    print(f"{'':24s}{'correlation':>12s}{'slope':>8s}{'bias':>8s}{'mean error':>12s}")
    for name, (detected, fitted) in zip(FEATURES, values.transpose(1, 2, 0)):
        correlation, slope = np.corrcoef(detected, fitted)[0, 1], np.polyfit(detected, fitted, 1)[0]
        off = fitted - detected
        print(f"{name:24s}{correlation:12.2f}{slope:8.2f}{off.mean():+8.2f}{np.abs(off).mean():12.2f}")


if __name__ == "__main__":
    main()
