"""Official files: agreement with the original code, loading and fitting at full size, the open model in their layout.

Run: python benchmarks/bm_official.py [--reference DIR] [--version 2] [--photo FILE]
DIR holds pairs NAME.npy (a base file) and NAME_expected.npz (inputs in_*, focal_px, image_size, and what the original
code computed from them). The full-size file is synthetic: the open model's face resampled to 28,632 vertices, with as
many modes as the official files have. Times stand beside the same of the open model in the same run.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import faceverse as fv
from faceverse.graphics.rasterize import rasterize
from faceverse.landmarks import OUTER_EYE_CORNERS
from faceverse.model.data import ModelData
from faceverse.official import evaluate
from faceverse.official.writer import KEYPOINTS_66, adjacent_faces, npy_bytes
from faceverse.weights import convert_model

ROWS, COLUMNS, VERTICES = 170, 169, 28_632
TEXTURE_MODES, COMPONENTS = 251, 74
INPUTS = ("identity", "expression", "texture", "angles", "gamma", "translation")


def agreement(folder: Path) -> None:
    """Print the largest relative error of each number, and the share of pixels that differ."""
    for path in sorted(folder.glob("*_expected.npz")):
        base = path.with_name(path.name.replace("_expected.npz", ".npy"))
        if not base.is_file():
            continue
        expected, model = np.load(path), fv.load_model(base)
        model = model.coarse if "light_mesh" in expected and expected["light_mesh"] else model
        value = {name: expected[f"in_{name}"] for name in (*INPUTS, "eyes") if f"in_{name}" in expected}
        size = int(expected["image_size"])
        found = evaluate(model, **value, focal_px=float(expected["focal_px"]), image_size=size)
        print(f"{base.stem} (version {model.info['official']['version']}, {len(model.mean_vertices)} vertices)")
        numbers = [key for key in found if key in expected and key not in ("image", "clay")]
        errors = {key: np.abs(found[key] - expected[key]).max() / np.abs(expected[key]).max() for key in numbers}
        print("  relative error: " + ", ".join(f"{key} {error:.1e}" for key, error in errors.items()))
        for key in ("image", "clay"):
            if key in expected:
                other = (np.abs(found[key] - expected[key])[..., :3].max(-1) > 1).mean()
                coverage = (found[key][..., 3] != expected[key][..., 3]).mean()
                print(f"  {key}: {100 * other:.3f} % of pixels differ by more than 1 of 255, coverage {coverage:.3%}")


def full_size(data: ModelData, version: int) -> dict:
    """A dictionary of full official size: the open model's face seen from its axis on a grid, cut to a mask."""
    vertices = data.mean_vertices.astype(np.float64)
    around = np.stack([np.arctan2(vertices[:, 0], vertices[:, 2] + 0.02), -vertices[:, 1]], axis=1)
    low, high = (edge(around[data.regions["face"]], axis=0) for edge in (np.min, np.max))
    place = (around - low) / (high - low) * (COLUMNS, ROWS)
    depth = 1 - np.hypot(vertices[:, 0], vertices[:, 2])
    pixels = torch.from_numpy(np.concatenate([place, depth[:, None]], axis=1))[None]
    faces = data.faces[np.ptp(around[data.faces][..., 0], axis=1) < np.pi]  # not those across the back
    hits = rasterize(pixels, torch.from_numpy(faces), (ROWS, COLUMNS))
    triangle = np.maximum(hits.triangle[0].numpy().reshape(-1), 0)[:VERTICES]
    weights = hits.barycentric[0].numpy().reshape(-1, 3)[:VERTICES]

    def resampled(values: np.ndarray) -> np.ndarray:
        return np.einsum("kvcx,vc->kvx", values[:, faces[triangle]], weights)

    corner = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    grid = np.stack([a, b, c, a, c, d], axis=1).reshape(-1, 3)
    grid = grid[(grid < VERTICES).all(1)]
    expressions, colours = resampled(data.expression_modes), resampled(data.albedo_modes)
    generator = np.random.default_rng(0)
    if version == 1:
        mixed = generator.normal(0, 0.3, (COMPONENTS, len(expressions)))
        expressions = np.tensordot(mixed, expressions, axes=1)
    mixed = generator.normal(0, 0.02, (TEXTURE_MODES - len(colours), len(colours)))
    colours = np.concatenate([colours, np.tensordot(mixed, colours, axes=1)])
    mean = resampled(np.stack([data.mean_vertices, data.mean_albedo]))
    unit = np.array([1, -1, -1]) / 0.1564
    texels = np.stack(np.unravel_index(np.arange(VERTICES), (ROWS, COLUMNS))[::-1], axis=1) + (199 - COLUMNS) // 2
    raw = {
        "meanshape": (mean[0] * unit).reshape(1, -1).astype(np.float32),
        "meantex": (255 * np.clip(mean[1], 0, 1) ** (1 / 2.2)).reshape(1, -1).astype(np.float32),
        "idBase": columns(resampled(data.identity_modes) * unit),
        "exBase": columns(expressions * unit),
        "texBase": columns(colours * 300),
        "tri": grid,
        "point_buf": adjacent_faces(grid, VERTICES),
        "skinmask": np.ones((1, VERTICES), np.float32),
        "uv": texels,
    }
    marks = data.landmarks_68
    points = (data.mean_vertices[data.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)[list(KEYPOINTS_66)]
    raw["keypoints"] = np.array([[np.linalg.norm(mean[0] - point, axis=1).argmin() for point in points]])
    return raw | ({"exp_name_list": list(data.expression_names)} if version == 2 else {})


def columns(modes: np.ndarray) -> np.ndarray:
    """(K, V, 3) to (3V, K) float32."""
    return np.ascontiguousarray(modes.reshape(len(modes), -1).T, dtype=np.float32)


def timed(run, *arguments, **options):
    """Result of a function, and its run time in seconds."""
    started = time.perf_counter()
    result = run(*arguments, **options)
    return result, time.perf_counter() - started


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="folder of NAME.npy and NAME_expected.npz")
    parser.add_argument("--version", type=int, choices=(1, 2), default=2, help="layout of the full-size file")
    parser.add_argument("--photo", help="photograph to fit (default: the sample)")
    parser.add_argument("--keep", type=Path, help="folder to keep the synthetic file and the converted model in")
    options = parser.parse_args()
    if options.reference:
        agreement(options.reference)
    photo = options.photo
    if photo is None:
        import skimage.data

        photo = skimage.data.astronaut()
    open_model = fv.load_model()
    fv.fit(photo, open_model, detail=False)  # compiles, and loads the detector
    first, open_seconds = timed(fv.fit, photo, open_model, detail=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        path = folder / f"full_size_v{options.version}.npy"
        path.write_bytes(npy_bytes(full_size(open_model.data, options.version)))
        model, seconds = timed(fv.load_model, path)
        size, count = path.stat().st_size / 1e6, len(model.mean_vertices)
        print(f"full size: {size:.0f} MB, {count} vertices, loaded in {seconds:.2f} s")
        result, seconds = timed(fv.fit, photo, model, detail=False)
        error = residual(result)
        print(f"  fit {seconds:.2f} s ({seconds / open_seconds:.1f} x the open model), landmark error {error:.1f} %")
        print(f"  open model {open_seconds:.2f} s, landmark error {residual(first):.1f} % of the outer eye distance")
        converted, seconds = timed(lambda: convert_model(open_model, folder / "open_v2.npy", to="official-v2"))
        again, loading = timed(fv.load_model, converted)
        size = converted.stat().st_size / 1e6
        print(f"open model as official version 2: {size:.0f} MB, written in {seconds:.1f} s, loaded in {loading:.1f} s")
        second = fv.fit(photo, again, detail=False)
        apart = np.linalg.norm(first.vertices - second.vertices, axis=1).max() * 1000
        print(f"  fits on both give heads that differ by {apart:.4f} mm at most")


def residual(result: fv.FitResult) -> float:
    """Root mean square distance of detected and fitted landmarks in percent of the outer eye distance."""
    marks = result.model.fit_landmarks
    detected = result.landmarks_px if marks.detected is None else result.landmarks_px[marks.detected]
    eyes = np.linalg.norm(np.subtract(*result.landmarks_px[list(OUTER_EYE_CORNERS)]))
    return 100 * float(np.sqrt(((detected - result.projected_landmarks_px) ** 2).sum(1).mean())) / eyes


if __name__ == "__main__":
    main()
