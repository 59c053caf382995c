"""Draws the sample pictures of the web page: heads of the open model with detail, like portraits of people.

Run: python benchmarks/draw_samples.py [--folder demo/assets/samples] [--check]
These people do not exist. `--check` fits each picture and prints the result.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import faceverse as fv

SIDE_PX = 640
FOCAL_PX = 1.95 * SIDE_PX
DISTANCE_M = 0.62
QUALITY = 92
GRAIN = 2.0  # standard deviation of the noise, in levels


@dataclass(frozen=True)
class Sitter:
    """A person, and how the portrait is taken.

    Args:
        name: of the file.
        seed: of `FaceModel.random`.
        skin: seed of the detail.
        turn: yaw, pitch and roll in degrees.
        expression: weights by ARKit's names.
        light: from the side and from above, relative to the ambient light; and its warmth, -1..1.
        wall, cloth: (3,) sRGB colours of the background and of the pullover.
    """

    name: str
    seed: int
    skin: int
    turn: tuple[float, float, float]
    expression: dict[str, float]
    light: tuple[float, float, float]
    wall: tuple[int, int, int]
    cloth: tuple[int, int, int]


SITTERS = (
    Sitter(
        "ada", 44, 3, (-14, 2, 2), {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.45, "eyeSquintLeft": 0.3,
        "eyeSquintRight": 0.3}, (0.55, 0.45, 0.2), (126, 148, 158), (44, 58, 74),
    ),
    Sitter(
        "jonas", 46, 8, (16, -3, -2), {"browInnerUp": 0.5, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
        (-0.6, 0.45, 0.1), (150, 140, 122), (62, 60, 54),
    ),
    Sitter(
        "imani", 7, 12, (10, 3, -3), {"mouthSmileLeft": 0.35, "mouthSmileRight": 0.4, "jawOpen": 0.03},
        (-0.5, 0.4, 0.3), (168, 156, 138), (150, 116, 52),
    ),
    Sitter(
        "mikel", 12, 5, (-18, 0, 3), {"mouthSmileLeft": 0.2, "mouthSmileRight": 0.25, "browOuterUpLeft": 0.2},
        (0.6, 0.35, -0.1), (120, 136, 124), (74, 40, 42),
    ),
)  # fmt: skip


def portrait(model: fv.FaceModel, sitter: Sitter) -> np.ndarray:
    """Render a sample picture (640, 640, 3) uint8."""
    rng = np.random.default_rng(sitter.seed)
    plain = fv.head(model.random(sitter.seed), model, texture_size=1024)
    head = fv.edit(
        plain, detail_seed=sitter.skin, expression=sitter.expression, rotation=sitter.turn, light=_light(*sitter.light)
    )
    params = head.params.replace(translation=np.array([0.0, 0.015, -DISTANCE_M], np.float32))
    camera = fv.Camera(FOCAL_PX, (SIDE_PX / 2, SIDE_PX * 0.44), (SIDE_PX, SIDE_PX))
    on_black, on_white = (
        fv.render(head.replace(params=params), camera=camera, background=(level,) * 3, supersample=3).rgb.astype(float)
        for level in (0, 255)
    )
    transparency = (on_white - on_black).mean(-1, keepdims=True) / 255  # 1 beside the head
    back, front = _cloth(1 - transparency[..., 0])
    picture = _over(_wall(sitter.wall, rng), back, 0.55 * np.array(sitter.cloth, float))
    picture = _over(on_black + transparency * picture, front, np.array(sitter.cloth, float))
    picture += GRAIN * rng.standard_normal(picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def _light(side: float, above: float, warmth: float) -> np.ndarray:
    """(9, 3) spherical harmonics of ambient light and a slightly warmer directional light."""
    light = np.zeros((9, 3), np.float32)
    light[0] = 2.75
    tint = 1 + 0.12 * warmth * np.array([1.0, 0.0, -1.0])
    light[1], light[2], light[3] = (light[0] * share * tint for share in (above, 0.35, side))
    return light


def _wall(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A background out of focus, (640, 640, 3): large soft shapes, darker at the rim."""
    shapes = Image.fromarray((rng.uniform(0.72, 1.25, (5, 5)) * 100).astype(np.uint8))
    soft = shapes.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(40))
    across, down = np.meshgrid(*(np.linspace(-1, 1, SIDE_PX),) * 2)
    rim = 1 - 0.22 * (across**2 + down**2)
    return np.asarray(soft, float)[..., None] / 100 * rim[..., None] * np.array(colour, float)


def _cloth(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage by a pullover behind and in front of the neck, two (640, 640) of 0..1.

    Args:
        head: (640, 640) coverage by the head, which ends with its neck.
    """
    bottom = int(np.flatnonzero((head > 0.5).any(1))[-1])
    neck = np.flatnonzero(head[bottom - 55] > 0.5)
    middle, half = neck.mean(), (neck[-1] - neck[0]) / 2
    masks, top = [], bottom - 62
    for depth in (-0.28, 0.12):  # of the collar, which is higher behind the neck than in front of it
        large = Image.new("L", (2 * SIDE_PX, 2 * SIDE_PX))
        draw = ImageDraw.Draw(large)

        def box(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
            return tuple(2 * v for v in (x - width, y - height, x + width, y + height))

        draw.ellipse(box(middle, top + 2.0 * half, 3.1 * half, 2.15 * half), fill=255)
        draw.ellipse(box(middle, top, 1.14 * half, (0.3 + depth) * half + 12), fill=255 if depth < 0 else 0)
        masks.append(np.asarray(large.resize((SIDE_PX, SIDE_PX)).filter(ImageFilter.GaussianBlur(0.8)), float) / 255)
    return masks[0], masks[1]


def _over(picture: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """A picture with a cloth of one colour on it, darker towards the sides."""
    across = np.linspace(-1, 1, SIDE_PX)[None, :, None]
    shaded = colour * (1.1 - 0.4 * across**2)
    return picture * (1 - cover[..., None]) + shaded * cover[..., None]


def check(path: Path) -> str:
    """Fit a picture; describe the result in one line."""
    faces = fv.detect(path)
    result = fv.fit(path)
    age = result.model.attributes(result.params)["age"]
    warnings = "; ".join(result.warnings) or "no warning"
    return f"{path.name}: {len(faces)} face, {path.stat().st_size / 1000:.0f} kB, age {age:.0f}, {warnings}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "demo" / "assets" / "samples")
    parser.add_argument("--check", action="store_true", help="fit each picture and print the result")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = fv.load_model()
    for sitter in SITTERS:
        path = options.folder / f"{sitter.name}.jpg"
        Image.fromarray(portrait(model, sitter)).save(path, quality=QUALITY, optimize=True)
        print(check(path) if options.check else path.name)


if __name__ == "__main__":
    main()
