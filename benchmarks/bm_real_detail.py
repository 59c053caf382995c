"""Share of the wrinkle-scale shading of photographs that the fitted displacement explains (see wrinkle_figures.py).

Run: python benchmarks/bm_real_detail.py --photos FOLDER [--sheet PNG]
"""

import argparse
from pathlib import Path

import numpy as np
from common import photographs_in, table
from PIL import Image
from wrinkle_figures import face_crop, normal_change, r_squared

import faceverse as fv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--names", nargs="*", metavar="NAME", help="of photographs without their suffix (default: all)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw photograph and clay")
    options = parser.parse_args()
    rows, panes, model = [], [], fv.load_model()
    for path in photographs_in(options.photos):
        if options.names and path.stem not in options.names:
            continue
        photo = fv.read_image(path).rgb
        try:
            result = fv.fit(path, model)
        except fv.FaceVerseError as error:
            rows.append([path.name, str(error)[:40], "", "", ""])
            continue
        change, luminance, zone = normal_change(photo, result)
        degrees = np.rad2deg(np.sqrt((change[zone] ** 2).sum(-1).mean()))
        figures = r_squared(change, luminance, zone), r_squared(change[:, ::-1], luminance, zone)
        contrast = luminance[zone].std()
        rows.append([path.name, *(f"{value:.3f}" for value in (*figures, contrast)), f"{degrees:.2f}"])
        if options.sheet:
            crop, camera, _ = face_crop(photo, result)
            panes.append(np.concatenate([crop, fv.render(result, mode="clay", camera=camera).rgb], axis=1))
    print(table(["photograph", "R2", "mirrored", "contrast", "displacement in degrees"], rows))
    if panes:
        Image.fromarray(np.concatenate(panes)).save(options.sheet)


if __name__ == "__main__":
    main()
