"""Contact sheets of a detail module: `python -m faceverse bench detail --sheets FOLDER`.

Close-ups in clay, lit from above and from the side, which shows skin detail best.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import faceverse as fv
from faceverse.detail.module import DetailModule
from faceverse.edit import head
from faceverse.graphics.camera import Camera
from faceverse.graphics.lighting import default_light

PEOPLE = (29, 30, 41, 58, 21, 46)  # seeds of `FaceModel.random`: 22 to 72 years
SEEDS = (1, 2, 3, 4, 5)
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
EXPRESSIONS = {
    "neutral": {},
    "brows up": {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0},
    "frown": {"browDownLeft": 1.0, "browDownRight": 1.0},
    "smile": {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "cheekSquintLeft": 0.7, "cheekSquintRight": 0.7},
    "squint": {"eyeSquintLeft": 1.0, "eyeSquintRight": 1.0, "cheekSquintLeft": 1.0, "cheekSquintRight": 1.0},
    "sneer": {"noseSneerLeft": 1.0, "noseSneerRight": 1.0},
    "pucker": {"mouthPucker": 1.0},
    "stretch": {"mouthStretchLeft": 1.0, "mouthStretchRight": 1.0, "mouthDimpleLeft": 0.7, "mouthDimpleRight": 0.7},
    "chin": {"mouthShrugLower": 1.0, "mouthFrownLeft": 0.7, "mouthFrownRight": 0.7},
}
PANE, DISTANCE_M = 384, 0.6


def close_up(result: fv.FitResult, caption: str = "", mode: str = "clay", yaw_deg: float = 18.0) -> np.ndarray:
    """(PANE, PANE, 3) uint8: the face, rotated slightly."""
    light = default_light()
    light[1:4] = light[0].mean() * light.new_tensor([[0.45], [0.05], [0.25]])
    params = result.params.replace(light=light.numpy(), translation=np.array([0.0, 0.0, -DISTANCE_M], np.float32))
    camera = Camera(3.1 * PANE, (0.48 * PANE, 0.34 * PANE), (PANE, PANE))
    shown = result.replace(params=params)
    picture = fv.render(shown, mode=mode, camera=camera, rotation=(yaw_deg, 0, 0)).rgb
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((8, 8), caption, fill=(40, 40, 40))
    return np.asarray(image)


def _person(model: fv.FaceModel, module: DetailModule, number: int, **change) -> fv.FitResult:
    params = model.random(number, hair=False).replace(expression=np.zeros(len(model.expression_names), np.float32))
    return fv.edit(head(params, model, texture_size=1024).replace(detail_module=module), **change)


def draw_sheets(model: fv.FaceModel, module: DetailModule, folder: Path) -> list[Path]:
    """Six people with five seeds each; strengths; expressions; people in colour."""
    folder.mkdir(parents=True, exist_ok=True)
    years = [model.attributes(model.random(number))["age"] for number in PEOPLE]
    rows = {"seeds": [], "strengths": [], "expressions": [], "colour": []}
    for number, age in zip(PEOPLE, years):
        skins = [_person(model, module, number, detail_seed=seed) for seed in SEEDS]
        rows["seeds"].append([close_up(skin, f"{age:.0f} years, seed {seed}") for skin, seed in zip(skins, SEEDS)])
        rows["colour"].append(
            [close_up(skin, "", "color") for skin in skins[:2]] + [close_up(skins[0]), close_up(skins[1])]
        )
        if number in PEOPLE[1::2]:
            rows["strengths"].append([close_up(fv.edit(skins[0], detail=s), f"strength {s}") for s in STRENGTHS])
    for number in PEOPLE[2:5:2]:
        person = _person(model, module, number, detail_seed=1)
        shown = [close_up(fv.edit(person, expression=weights), name) for name, weights in EXPRESSIONS.items()]
        rows["expressions"] += [shown[:5], [*shown[5:], np.full_like(shown[0], 255)]]
    paths = []
    for name, panes in rows.items():
        path = folder / f"detail_{name}.png"
        picture = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in panes]))
        small = picture.quantize(256) if name == "colour" else picture.convert("L")
        small.save(path, optimize=True)
        paths.append(path)
    return paths
