"""Train the expression regressor: `python -m faceverse train expression-regressor` writes its weights file.

A small network (`weights/open_expression_regressor.safetensors`) learns expression weights from detected landmarks and
blendshape scores, given the same face's neutral detection. Its training data are synthetic clips (`synthetic_clips`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import ParameterError, WeightsError
from ..fitting.parameter_regressor import aligned_inputs, template_of
from ..landmarks import BLENDSHAPE_NAMES
from ..model.face_model import FaceModel
from ..threads import one_thread
from ..tracking.expression_regressor import STORED_NAMES, ExpressionRegressor
from ..weights import EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION, load_model
from .mlp import Mlp, MlpSettings, combine_ensemble, train_mlp, write_network
from .parameter_regressor import PACKAGES, error_metric, mirror_names, mirror_points, version_of
from .portraits import PortraitSamples
from .synthetic_clips import collect_clips

CLIPS = 2_000
MOTION_COMPONENTS, NEUTRAL_COMPONENTS = 150, 40  # principal components of the landmarks: motion and neutral face
MEMBERS = 3  # networks in the ensemble
SETTINGS = MlpSettings(hidden=160, epochs=30, batch=256, rate=4e-3, decay=0.02, dropout=0.2)
HELD_OUT = 8  # every eighth clip is held out for evaluation
YAW_DEG = (0.0, 15.0, 30.0, 45.0)  # lower bound of each yaw bin of errors
MILLIMETRES = 6.0  # weight of the squared surface error in mm, relative to that of the blendshape weights
HUBER_DELTA = 0.05  # Huber threshold of weight errors: most weights are 0
LEAST_SIGMA = 0.02
LEAST_VARIANCE = 1e-9  # of a component; smaller ones would not fit into half floats
HALF_FLOATS = ("components", "neutral_components", "hidden", "output", "direct")


@dataclass(frozen=True)
class ExpressionTable:
    """Training frames as network inputs and targets. NumPy float32.

    Args:
        current, neutral: (N, 1434 + P) aligned inputs of the face, and of the same face in its neutral frame.
        targets: (N, E) expression weights.
        clip: (N,) number of the clip.
        yaw_deg: (N,) estimated from the detector's depth.
    """

    current: np.ndarray
    neutral: np.ndarray
    targets: np.ndarray
    clip: np.ndarray
    yaw_deg: np.ndarray

    def rows(self, chosen: np.ndarray) -> ExpressionTable:
        """Select rows by number or mask."""
        return ExpressionTable(*(getattr(self, field.name)[chosen] for field in fields(self)))


def train_expression_regressor(
    output: str | Path,
    *,
    clips: int = CLIPS,
    seed: int = 0,
    cache: str | Path | None = None,
    model: FaceModel | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Draw clips, train the network, evaluate it on held-out people, and write it.

    Args:
        output: the `.safetensors` file to write.
        clips: number of people, each with six frames; about a second each.
        seed: same seed and versions, same file.
        cache: folder in which the frames are kept, so that an interrupted run resumes.
        model: the model whose expressions are estimated; by default the open model.
        progress: receives a line per step.
    Raises:
        ParameterError: another suffix, too few clips, or a model without the 478 landmarks.
        WeightsError: the model's file is unknown, or a file cannot be written.
    """
    started, output = time.perf_counter(), Path(output)
    if output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=output.name)
    model = load_model() if model is None else model
    if not model.info.get("sha256"):
        raise WeightsError("training.model_not_from_file")
    with one_thread():
        drawn = collect_clips(model, clips, seed, cache, progress)
        if not len(drawn):
            raise ParameterError("training.no_face_in_clips", clips=clips, model=model.name)
        network, figures = trained_network(model, drawn, seed, progress)
    info = {
        "model": model.name,
        "sources": "random clips of the model, as answered by MediaPipe's face landmarker (Apache-2.0)",
        "seed": seed,
        "clips": len(np.unique(drawn.person)),
        "frames": len(drawn),
        "packages": [f"{name}=={version_of(name)}" for name in PACKAGES],
        "figures": figures,
    }
    path = save_network(network, output, model.info["sha256"], info)
    progress(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s")
    return path


def trained_network(
    model: FaceModel, samples: PortraitSamples, seed: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[ExpressionRegressor, dict]:
    """Train the network on a model's clips; returns it with its metrics on the held-out people."""
    frame = _untrained(model)
    table = make_table(samples, frame)
    held_out = table.clip % HELD_OUT == HELD_OUT - 1
    if held_out.all() or not held_out.any():  # too few people for the regular split
        held_out = np.arange(len(table.clip)) % 2 == 1
    known = _with_mirror(table.rows(~held_out), frame)
    frame = _standardised(frame, known)
    root = np.linalg.cholesky(error_metric(model).expression + 1e-6 * np.eye(len(model.expression_names)))
    members = []
    for number in range(MEMBERS):
        with torch.random.fork_rng(devices=[]):
            members.append(_train(frame, known, root.astype(np.float32), seed * MEMBERS + number))
        progress(f"trained network {number + 1} of {MEMBERS}")
    network = replace(frame, **combine_ensemble(members))
    network = replace(network, **{n: getattr(network, n).astype(np.float16).astype(np.float32) for n in HALF_FLOATS})
    return _with_errors(network, table.rows(held_out), model.expression_names)


def save_network(network: ExpressionRegressor, path: Path, model_sha256: str, info: dict) -> Path:
    """Write a network for the model file with this hash; it is written atomically.

    Raises:
        WeightsError: the file cannot be written.
    """
    kind = (EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION)
    return write_network(network, path, kind, HALF_FLOATS, model_sha256, info, STORED_NAMES)


# -- inputs and targets -----------------------------------------------------------------------------------------------
def make_table(samples: PortraitSamples, network: ExpressionRegressor) -> ExpressionTable:
    """Frames of clips paired with the first frame of each clip, which is neutral."""
    current, neutral, yaw_deg = [], [], []
    first: dict[int, np.ndarray] = {}
    for number in range(len(samples)):
        face, size = samples.face(number), tuple(samples.photo_size[number])
        inputs = aligned_inputs(face, size, network.template)
        current.append(inputs.values)
        neutral.append(first.setdefault(int(samples.person[number]), inputs.values))
        yaw_deg.append(inputs.yaw_deg)
    return ExpressionTable(
        np.stack(current), np.stack(neutral), samples.expression, samples.person, np.array(yaw_deg, np.float32)
    )


def _with_mirror(table: ExpressionTable, network: ExpressionRegressor) -> ExpressionTable:
    """Append the mirror image of each row."""
    return ExpressionTable(
        np.concatenate([table.current, network.mirrored(table.current)]),
        np.concatenate([table.neutral, network.mirrored(table.neutral)]),
        np.concatenate([table.targets, table.targets[:, network.mirrored_expression]]),
        np.tile(table.clip, 2),
        np.concatenate([table.yaw_deg, -table.yaw_deg]),
    )


# -- training ---------------------------------------------------------------------------------------------------------
def _untrained(model: FaceModel) -> ExpressionRegressor:
    """An untrained network with the model's template and mirror permutations."""
    marks = model.landmarks_478
    assert marks is not None
    points = (model.mean_vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    nothing = np.zeros(0, np.float32)
    given = {
        "template": template_of(points)[0],
        "mirrored_points": mirror_points(points),
        "mirrored_scores": mirror_names(BLENDSHAPE_NAMES),
        "mirrored_expression": mirror_names(model.expression_names),
        "yaw_deg": np.array(YAW_DEG, np.float32),
    }
    return ExpressionRegressor(**{field.name: given.get(field.name, nothing) for field in fields(ExpressionRegressor)})


def _components(points: np.ndarray, kept: int) -> np.ndarray:
    """(D, K) leading principal directions of rows (N, D), scaled to unit variance of the projections."""
    variance, modes = np.linalg.eigh(points.T @ points / len(points))
    strongest = np.argsort(-variance)[: min(kept, len(points) - 1)]
    return (modes[:, strongest] / np.sqrt(np.maximum(variance[strongest], LEAST_VARIANCE))).astype(np.float32)


def _standardised(network: ExpressionRegressor, table: ExpressionTable) -> ExpressionRegressor:
    """Set the principal components, means and standard deviations of the network's inputs."""
    count = network.template.size
    neutral_points = table.neutral[:, :count].astype(np.float64)
    moved = table.current[:, :count] - neutral_points
    mean = neutral_points.mean(0)
    network = replace(
        network,
        components=_components(moved, MOTION_COMPONENTS),
        neutral_points_mean=mean.astype(np.float32),
        neutral_components=_components(neutral_points - mean, NEUTRAL_COMPONENTS),
        neutral_inputs_mean=table.neutral.mean(0),
    )
    inputs = network.features(table.current, table.neutral)
    return replace(network, mean=inputs.mean(0), deviation=inputs.std(0) + 1e-4)


def _train(frame: ExpressionRegressor, table: ExpressionTable, root: np.ndarray, seed: int) -> Mlp:
    """Train one ensemble member on all rows of the table."""
    millimetres = torch.from_numpy(root)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        error = torch.nn.functional.leaky_relu(outputs, 0.1) - targets
        huber = (
            torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=HUBER_DELTA)
            / HUBER_DELTA
            * error.shape[1]
        )
        return huber + MILLIMETRES * ((error @ millimetres) ** 2).sum(1).mean()

    return train_mlp(frame.standardised(table.current, table.neutral), table.targets, loss, SETTINGS, seed)


# -- measuring --------------------------------------------------------------------------------------------------------
def _with_errors(
    network: ExpressionRegressor, table: ExpressionTable, names: tuple[str, ...]
) -> tuple[ExpressionRegressor, dict]:
    """Set the error standard deviations of the network from held-out people; returns it with the metrics."""
    own = network.evaluate(table.current, table.neutral)
    reflected = network.evaluate(network.mirrored(table.current), network.mirrored(table.neutral))
    weights = np.clip((own + reflected[:, network.mirrored_expression]) / 2, 0, 1)
    wrong = weights - table.targets
    place = np.searchsorted(network.yaw_deg, np.abs(table.yaw_deg), side="right") - 1
    sigma, figures = [], {}
    for number, least in enumerate(network.yaw_deg):
        rows = place == number if (place == number).any() else slice(None)
        sigma.append(np.sqrt((wrong[rows] ** 2).mean(0)).clip(LEAST_SIGMA))
        figures[f"from {least:g} degrees"] = {
            "frames": int((place == number).sum()),
            "weights_rms": round(float(np.sqrt((wrong[rows] ** 2).mean())), 4),
            "weights_alone_rms": round(float(np.sqrt((table.targets[rows] ** 2).mean())), 4),
        }
    alike = {n: _correlation(weights[:, k], table.targets[:, k]) for k, n in enumerate(names)}
    figures["correlation"] = {name: value for name, value in alike.items() if value is not None}
    return replace(network, sigma=np.stack(sigma).astype(np.float32)), figures


def _correlation(found: np.ndarray, truth: np.ndarray) -> float | None:
    if truth.std() < 1e-6 or found.std() < 1e-6:
        return None
    return round(float(np.corrcoef(found, truth)[0, 1]), 3)
