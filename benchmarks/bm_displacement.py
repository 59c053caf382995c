"""Errors and cost of the detail stage: on renderings of known skin, and on held-out skin of photographs.

Run: python -m faceverse bench displacement [--heads 12] [--photos FOLDER] [--repeats 3] [--sheet PNG]
The known skin is that of synthetic scans outside the training data, on random heads of the model. docs/detail.md
explains the figures.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import jpeg_round_trip, peak_memory_gb, photographs_in, spread, table, twelve_megapixels
from PIL import Image
from scipy.spatial import cKDTree

import faceverse as fv
from faceverse.detail.displacement import normal_map
from faceverse.detail.latents import multiplied, with_detail
from faceverse.detail.module import DetailModule
from faceverse.edit import head
from faceverse.fitting.detail_stage import fit_detail_maps
from faceverse.fitting.skin_observation import MAX_ERROR, observe_skin
from faceverse.fitting.texture import observe_texels
from faceverse.graphics.camera import Camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light
from faceverse.training.synthetic_skin import (
    DetailSurface,
    albedo_tone,
    likely_age_and_masculinity,
    random_z,
    synthetic_detail,
)

SEED = 90_000  # training uses small seeds
PHOTO_PX, FOCAL = (1600, 1280), 1.7  # height and width; in heights
SAME_PIXEL_PX = 1.5
VISIBLE_WEIGHT = 0.5  # least weight of an observed texel
PANE = 512


# -- known skin -------------------------------------------------------------------------------------------------------
def synthetic_photograph(model: fv.FaceModel, surface: DetailSurface, number: int) -> tuple[fv.FitResult, np.ndarray]:
    """A head with the detail of a synthetic scan, and its photograph (H, W, 3)."""
    rng = np.random.default_rng([SEED, number])
    params = model.random(SEED + number, hair=False)
    maps = synthetic_detail(
        surface, random_z(rng, *likely_age_and_masculinity(model, params, rng)), SEED + number,
        albedo_tone(model, params),
    )  # fmt: skip
    light = default_light() * float(rng.uniform(0.7, 1.1))
    # From above and slightly from the side, as estimated on the photographs of docs/fitting.md.
    light[1:4] = light[0].mean() * torch.tensor([[rng.uniform(0.25, 0.6)], [0.0], [0.25 * rng.standard_normal()]])
    rotation = rotation_from_euler_deg(*(rng.uniform(-1, 1, 3) * (20, 8, 6)))
    height, width = PHOTO_PX
    camera = Camera(FOCAL * height, (width / 2, height / 2), PHOTO_PX)
    params = params.replace(
        light=light.numpy(), rotation=rotation.numpy(), translation=np.array([0.0, 0.0, -0.5], np.float32)
    )
    plain = head(params, model, texture_size=1024)
    result = plain.replace(
        displacement=maps.displacement,
        normal_map=normal_map(model, plain.vertices, maps.displacement),
        texture=multiplied(plain.texture, maps.albedo_log),
        camera=camera,
    )
    photo = fv.render(result, camera=camera, background=(150, 150, 150)).rgb
    noisy = photo + rng.normal(0, 1.5, photo.shape) + 0.5
    return result, jpeg_round_trip(noisy.clip(0, 255).astype(np.uint8), 92)


def correlation(estimate: np.ndarray, true: np.ndarray) -> float:
    return float((estimate * true).sum() / max(np.sqrt((estimate**2).sum() * (true**2).sum()), 1e-12))


def at_the_same_pixels(photo: np.ndarray, true: fv.FitResult, fitted: fv.FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Displacements (K,) of the fitted and the true head at clearly visible texels that project to the same pixels."""
    size = true.displacement.shape[0]
    places, values = [], []
    for result in (true, fitted):
        view = observe_texels(photo, result.model, result.params, result.camera, size)
        clear = observe_skin(photo, result.model, result.params, result.camera, size).weight.numpy() > VISIBLE_WEIGHT
        places.append(view.position_px[:, clear].T)
        values.append(result.displacement[clear])
    distance, nearest = cKDTree(places[1]).query(places[0], distance_upper_bound=SAME_PIXEL_PX)
    near = np.isfinite(distance)
    return values[1][nearest[near]], values[0][near]


def known_part(model: fv.FaceModel, module: DetailModule, count: int, sheet: Path | None) -> None:
    surface, size = DetailSurface.of(model), module.detail.size
    known, whole, read, rows = [], [], [], []
    for number in range(count):
        truth, photo = synthetic_photograph(model, surface, number)
        view = observe_skin(photo, model, truth.params, truth.camera, size)
        clear = view.weight.numpy() > VISIBLE_WEIGHT
        skin = fit_detail_maps(photo, model, truth.params, truth.camera, module, number)
        known.append(correlation(skin.displacement[clear], truth.displacement[clear]))
        latents = {key: value for key, value in skin.latents.items() if "residual" not in key}
        made = with_detail(truth.replace(params=truth.params.replace(detail=latents), detail_module=module))
        read.append(correlation(made.displacement[clear], truth.displacement[clear]))
        result = fv.fit(photo, model, detail=module)
        whole.append(correlation(*at_the_same_pixels(photo, truth, result)))
        if sheet is not None and number < 6:
            normals = normal_map(model, truth.vertices, skin.displacement)
            estimate = truth.replace(displacement=skin.displacement, normal_map=normals)
            rows.append(_clays(photo, truth, estimate, result))
    print(f"\ncorrelation of estimated and true displacement, {count} heads, clearly visible texels of {size}")
    figures = {"head and camera known": known, "of which the generator alone": read, "whole fit, same pixels": whole}
    print(table(["", "median", "90th", "least"], [[n, *spread(v), f"{min(v):.2f}"] for n, v in figures.items()]))
    if sheet is not None:
        Image.fromarray(np.concatenate(rows)).save(sheet)


def _clays(photo: np.ndarray, *results: fv.FitResult) -> np.ndarray:
    """The photograph and heads in clay, the face only."""
    box = results[0].camera.image_size
    crop = (box[1] // 4, box[0] // 5, 3 * box[1] // 4, 4 * box[0] // 5)
    panes = [Image.fromarray(photo).crop(crop).resize((PANE, PANE * 6 // 5))]
    for result in results:
        picture = fv.render(result, mode="clay", camera=result.camera).rgb
        panes.append(Image.fromarray(picture).crop(crop).resize((PANE, PANE * 6 // 5)))
    return np.concatenate([np.asarray(pane) for pane in panes], axis=1)


# -- photographs ------------------------------------------------------------------------------------------------------
def photos_part(model: fv.FaceModel, module: DetailModule, folder: Path) -> None:
    """Print the error on held-out skin: of the base head, with the surrounding colour extended, and with detail."""
    rows = []
    for path in photographs_in(folder):
        result = fv.fit(path, model, detail=module)
        view = observe_skin(fv.read_image(path).rgb, model, result.params, result.camera, module.detail.size)
        stages = [stage for stage in result.stages if "detail" in stage.name]
        if not stages:
            rows.append([path.name, "too coarse", "", "", ""])
            continue
        weight = view.weight * view.held_out
        squared = view.residual.clamp(-MAX_ERROR, MAX_ERROR).square().mean(0)
        plain = float(((squared * weight).sum() / weight.sum()).sqrt())
        after = stages[-1].after
        rows.append(
            [path.name, f"{plain:.3f}", f"{view.error(0.0):.3f}", f"{after:.3f}", f"{100 * (1 - after / plain):.0f} %"]
        )
    print("\nheld-out skin of photographs, root mean square of logarithms")
    print(table(["photograph", "base head", "colour around", "with detail", "less"], rows))


# -- run time --------------------------------------------------------------------------------------------------------
def speed_part(model: fv.FaceModel, module: DetailModule, repeats: int) -> None:
    photo = twelve_megapixels()
    seconds: dict[str, list[float]] = {"base model": [], "with detail": []}
    for run in range(repeats + 1):
        for name, detail in (("base model", False), ("with detail", module)):
            started = time.perf_counter()
            fv.fit(photo, model, detail=detail)
            if run:
                seconds[name].append(time.perf_counter() - started)
    print(f"\nseconds of a fit of 12 megapixels, {repeats} warm runs each in turn")
    print(table(["", "median", "90th"], [[name, *spread(values)] for name, values in seconds.items()]))
    ratio = np.median(seconds["with detail"]) / np.median(seconds["base model"])
    print(f"  with detail {ratio:.1f} times the base fit; peak memory of this process {peak_memory_gb():.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("speed", "known", "photos"), help="one part (default: all that apply)")
    parser.add_argument("--heads", type=int, default=12, metavar="N", help="with known skin (default: 12)")
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="warm runs to time (default: 3)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw photograph, truth, known head, whole fit")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of another detail module")
    options = parser.parse_args()
    if min(options.heads, options.repeats) < 1:
        parser.error("--heads and --repeats must be 1 or more")
    model = fv.load_model()
    try:
        module = fv.load_detail(options.weights) if options.weights else fv.load_detail()
        if options.only in (None, "speed"):
            speed_part(model, module, options.repeats)
        if options.only in (None, "known"):
            known_part(model, module, options.heads, options.sheet)
        if options.photos and options.only in (None, "photos"):
            photos_part(model, module, options.photos)
    except fv.FaceVerseError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
