"""Draw the pictures of the hair styles for the page's panel: one head, a style each.

    python benchmarks/draw_hair_styles.py -o demo/assets/hair
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import faceverse as fv

SIDE_PX, QUALITY = 128, 82
FOCAL_PX, DISTANCE_M = 2.9 * SIDE_PX, 1.0
SITTER, COLOR, TURN = 4, "brown", (28.0, 0.0, 0.0)
BACKGROUND = (233, 236, 241)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("demo/assets/hair"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    model = fv.load_model()
    bald = fv.head(model.random(SITTER, hair=False), model, texture_size=512)
    camera = fv.Camera(FOCAL_PX, (SIDE_PX / 2, 0.44 * SIDE_PX), (SIDE_PX, SIDE_PX))
    params = bald.params.replace(translation=np.array([0.0, 0.0, -DISTANCE_M], np.float32))
    bald = bald.replace(params=params)
    total = 0
    for style in fv.HAIR_STYLES:
        head = fv.edit(bald, hair=style, hair_color=COLOR)
        picture = fv.render(head, camera=camera, rotation=TURN, background=BACKGROUND, supersample=3)
        path = options.output / f"{style}.webp"
        Image.fromarray(picture.rgb).save(path, quality=QUALITY, method=6)
        total += path.stat().st_size
    print(f"{len(fv.HAIR_STYLES)} pictures, {total / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
