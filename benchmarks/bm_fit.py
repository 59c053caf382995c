"""Seconds and memory of a fit by stage, and how well heads that the model itself drew are found again.

Run: python benchmarks/bm_fit.py [--photo PHOTO] [--repeats 5] [--heads 20]
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from PIL import Image

import faceverse as fv
from faceverse.camera import Camera, project, rotation_from_euler_deg, transform
from faceverse.lighting import default_light, srgb_from_linear
from faceverse.render import render_head


def draw_head(model: fv.FaceModel, number: int, size: int = 512) -> dict:
    """A random head in a random pose, light and (every second one) expression, rendered: picture and truth."""
    rng = np.random.default_rng(1000 + number)
    params = model.random(5000 + number)
    expression = np.zeros(len(model.expression_names), np.float32)
    if number % 2:
        expression[rng.choice(len(expression), 5, replace=False)] = rng.uniform(0.1, 0.6, 5)
        if "tongueOut" in model.expression_names:
            expression[model.expression_names.index("tongueOut")] = 0
    rotation = rotation_from_euler_deg(rng.uniform(-30, 30), rng.uniform(-12, 12), rng.uniform(-8, 8))
    translation = torch.tensor([*(0.01 * rng.standard_normal(2)), -rng.uniform(0.5, 0.9)], dtype=torch.float32)
    camera = Camera(size * 1.6 * float(-translation[2]) / 0.62, (size / 2, size / 2), (size, size))
    light = default_light() * rng.uniform(0.8, 1.15)
    light[1:4] += torch.from_numpy(0.25 * rng.standard_normal((3, 1))).float()
    identity, weights = torch.from_numpy(params.identity)[None], torch.from_numpy(expression)[None]
    with torch.no_grad():
        vertices = model.vertices(identity, weights)
        albedo = model.albedo(torch.from_numpy(params.albedo)[None]).clamp(0.003, 1)
        shaded = render_head(vertices, albedo, model.face_index, rotation[None], translation[None], light[None], camera)
        background = torch.from_numpy(rng.uniform(0.1, 0.9, 3)).float()
        picture = torch.where(shaded.mask[0, ..., None], srgb_from_linear(shaded.rgb[0]), background)
        points = model.landmark_bases(model.fit_landmarks).points(identity, weights)[0]
        landmarks = project(transform(points, rotation, translation), camera)[:, :2]
        neutral = model.vertices(identity)[0]
    return {
        "picture": (picture.numpy() * 255 + 0.5).astype(np.uint8),
        "focal_px": camera.focal_px,
        "rotation": rotation.numpy(),
        "neutral": neutral.numpy(),
        "landmarks_px": landmarks.numpy(),
    }


def shape_error_mm(found: np.ndarray, truth: np.ndarray, face: np.ndarray) -> float:
    """Mean distance of corresponding face vertices after the best similarity transform, in millimetres."""
    a, b = found[face].astype(np.float64), truth[face].astype(np.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    moved = a @ ((u * sign) @ vt).T * ((s * sign).sum() / (a**2).sum())
    return 1000 * float(np.linalg.norm(moved - b, axis=1).mean())


def recover(model: fv.FaceModel, count: int) -> None:
    """Prints what is found again of `count` heads."""
    rows, face = [], model.regions.get("face", slice(None))
    for number in range(count):
        truth = draw_head(model, number)
        try:
            result = fv.fit(truth["picture"], model, focal_px=truth["focal_px"])
        except fv.NoFaceError:
            print(f"  head {number}: no face found")
            continue
        turn = result.params.rotation @ truth["rotation"].T
        eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
        rows.append(
            (
                np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))),
                100 * np.linalg.norm(result.projected_landmarks_px - truth["landmarks_px"], axis=1).mean() / eyes,
                shape_error_mm(result.neutral_vertices, truth["neutral"], face),
                shape_error_mm(model.mean_vertices, truth["neutral"], face),
            )
        )
    median = np.median(np.array(rows), axis=0)
    print(f"heads of the model found again: {len(rows)} of {count}; medians:")
    print(f"  pose {median[0]:.2f} degrees, landmarks {median[1]:.2f} % of the eye distance")
    print(f"  neutral shape {median[2]:.2f} mm, mean head {median[3]:.2f} mm, ratio {median[2] / median[3]:.2f}")


def speed(model: fv.FaceModel, photo: np.ndarray, repeats: int) -> None:
    """Prints seconds by stage and the peak memory."""
    results, totals = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        results.append(fv.fit(photo, model))
        totals.append(time.perf_counter() - started)
    height, width = photo.shape[:2]
    print(f"fit of {width} x {height} pixels ({width * height / 1e6:.1f} megapixels), {repeats} warm runs")
    print(
        f"  first {totals[0]:.2f} s, warm median {statistics.median(totals[1:]):.2f} s, least {min(totals[1:]):.2f} s"
    )
    for index, stage in enumerate(results[-1].stages):
        median = statistics.median(r.stages[index].seconds for r in results[1:])
        loss = f", loss {stage.before:.0f} -> {stage.after:.0f}" if stage.loss_terms else ""
        print(f"  {stage.name:20s} {median:6.2f} s, {stage.iterations} iterations{loss}")
    r = results[-1]
    eyes = np.linalg.norm(r.landmarks_px[33] - r.landmarks_px[263])
    error = np.linalg.norm(r.matched_landmarks_px - r.projected_landmarks_px, axis=1).mean()
    print(f"  overlay: found and projected landmarks {100 * error / eyes:.2f} % of the eye distance apart")
    print(f"  peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", help="by default the astronaut of scikit-image, enlarged to 12 megapixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heads", type=int, default=20, help="0 skips the recovery")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = fv.load_model()
    if arguments.photo:
        photo = fv.read_image(arguments.photo).rgb
    else:
        from skimage.data import astronaut

        photo = np.asarray(Image.fromarray(astronaut()).resize((3464, 3464), Image.Resampling.BICUBIC))
    speed(model, photo, arguments.repeats)
    if arguments.heads:
        recover(model, arguments.heads)


if __name__ == "__main__":
    main()
