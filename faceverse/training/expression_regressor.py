"""The network that reads movements: `python -m faceverse train movement` builds weights/open_expression_regressor.safetensors.

A small network learns from clips of people who do not exist (`moving_people`) which weights are behind the landmark
detector's answer, when it is also told what the same face looks like at rest.
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
from ..tracking.expression_regressor import ExpressionRegressor
from ..weights import EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION, load_model
from .parameter_regressor import PACKAGES, error_measures, other_names, other_side, version_of
from .portraits import Samples
from .small_networks import Plan, SmallNetwork, mean_layers, trained, write_network
from .synthetic_clips import collect_clips

CLIPS = 2_000
MOVED, RESTING = 150, 40  # principal components of the points
MEMBERS = 3  # networks whose mean is taken
PLAN = Plan(hidden=160, epochs=30, batch=256, rate=4e-3, decay=0.02, dropout=0.2)
HELD_OUT = 8  # every eighth clip is kept for measuring
YAW_DEG = (0.0, 15.0, 30.0, 45.0)  # least turn of each bin of errors
MILLIMETRES = 6.0  # weight of an error's millimetres, beside that of the blendshape weights themselves
BEND = 0.05  # errors of weights count by their square up to here and by their size beyond: most weights are 0
LEAST_SIGMA = 0.02
LEAST_VARIANCE = 1e-9  # of a component; what varies less would not fit into half floats
HALF_FLOATS = ("components", "rest_components", "hidden", "output", "direct")


@dataclass(frozen=True)
class Table:
    """Frames as the network takes them. NumPy float32.

    Args:
        now (N, 1434 + P), rest (N, 1434 + P): values of the face, and of the same at rest.
        targets: (N, E) weights.
        clip: (N,) number of the clip.
        yaw_deg: (N,) by the detector's own depth.
    """

    now: np.ndarray
    rest: np.ndarray
    targets: np.ndarray
    clip: np.ndarray
    yaw_deg: np.ndarray

    def rows(self, chosen: np.ndarray) -> Table:
        """Some of the rows, by number or mask."""
        return Table(*(getattr(self, field.name)[chosen] for field in fields(self)))


def train_expression_regressor(
    output: str | Path,
    *,
    clips: int = CLIPS,
    seed: int = 0,
    cache: str | Path | None = None,
    model: FaceModel | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Draws clips, trains the network on them, measures it on people it has not seen, and writes it.

    Args:
        output: the `.safetensors` file to write.
        clips: people, each with six frames; about a second each.
        seed: same seed and versions, same file.
        cache: folder in which the frames are kept, so that a run that was broken off goes on where it was.
        model: what the network is for; by default the open model.
        progress: receives a line per step.
    Raises:
        ParameterError: another suffix, too few clips, or a model without the 478 landmarks.
        WeightsError: the model's file is unknown, or a file cannot be written.
    """
    started, output = time.perf_counter(), Path(output)
    if output.suffix.lower() != ".safetensors":
        raise ParameterError(f"the file's name must end in .safetensors, got {output.name}")
    model = load_model() if model is None else model
    if not model.info.get("sha256"):
        raise WeightsError("this network can be trained only for a model that was loaded from a file")
    with one_thread():
        drawn = collect_clips(model, clips, seed, cache, progress)
        if not len(drawn):
            raise ParameterError(f"no face is found in any of {clips} clips of {model.name}; draw more of them")
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
    model: FaceModel, samples: Samples, seed: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[ExpressionRegressor, dict]:
    """The network for a model's clips, and its figures on the people that were kept from it."""
    frame = _untrained(model)
    table = table_of(samples, frame)
    held_out = table.clip % HELD_OUT == HELD_OUT - 1
    if held_out.all() or not held_out.any():  # too few people to keep some back
        held_out = np.arange(len(table.clip)) % 2 == 1
    known = _with_mirror(table.rows(~held_out), frame)
    frame = _standardised(frame, known)
    root = np.linalg.cholesky(error_measures(model).expression + 1e-6 * np.eye(len(model.expression_names)))
    members = []
    for number in range(MEMBERS):
        with torch.random.fork_rng(devices=[]):
            members.append(_train(frame, known, root.astype(np.float32), seed * MEMBERS + number))
        progress(f"trained network {number + 1} of {MEMBERS}")
    network = replace(frame, **mean_layers(members))
    network = replace(network, **{n: getattr(network, n).astype(np.float16).astype(np.float32) for n in HALF_FLOATS})
    return _with_errors(network, table.rows(held_out), model.expression_names)


def save_network(network: ExpressionRegressor, path: Path, model_sha256: str, info: dict) -> Path:
    """Writes a network for the model file with this hash; it appears complete or not at all.

    Raises:
        WeightsError: the file cannot be written.
    """
    return write_network(network, path, (EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION), HALF_FLOATS, model_sha256, info)


# -- inputs and targets -----------------------------------------------------------------------------------------------
def table_of(samples: Samples, network: ExpressionRegressor) -> Table:
    """Frames of clips beside the first frame of each, which shows the face at rest."""
    now, rest, yaw_deg = [], [], []
    first: dict[int, np.ndarray] = {}
    for number in range(len(samples)):
        face, size = samples.face(number), tuple(samples.photo_size[number])
        inputs = aligned_inputs(face, size, network.template)
        now.append(inputs.values)
        rest.append(first.setdefault(int(samples.person[number]), inputs.values))
        yaw_deg.append(inputs.yaw_deg)
    return Table(np.stack(now), np.stack(rest), samples.expression, samples.person, np.array(yaw_deg, np.float32))


def _with_mirror(table: Table, network: ExpressionRegressor) -> Table:
    """The rows, then their mirror images."""
    return Table(
        np.concatenate([table.now, network.mirrored(table.now)]),
        np.concatenate([table.rest, network.mirrored(table.rest)]),
        np.concatenate([table.targets, table.targets[:, network.mirrored_expression]]),
        np.tile(table.clip, 2),
        np.concatenate([table.yaw_deg, -table.yaw_deg]),
    )


# -- training ---------------------------------------------------------------------------------------------------------
def _untrained(model: FaceModel) -> ExpressionRegressor:
    """A network that knows the model's mirror image and nothing else yet."""
    marks = model.landmarks_478
    points = (model.mean_vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    nothing = np.zeros(0, np.float32)
    given = {
        "template": template_of(points)[0],
        "mirrored_points": other_side(points),
        "mirrored_scores": other_names(BLENDSHAPE_NAMES),
        "mirrored_expression": other_names(model.expression_names),
        "yaw_deg": np.array(YAW_DEG, np.float32),
    }
    return ExpressionRegressor(**{field.name: given.get(field.name, nothing) for field in fields(ExpressionRegressor)})


def _components(points: np.ndarray, kept: int) -> np.ndarray:
    """(D, K) directions of most variance of rows (N, D), for unit variance along each."""
    variance, modes = np.linalg.eigh(points.T @ points / len(points))
    strongest = np.argsort(-variance)[: min(kept, len(points) - 1)]
    return (modes[:, strongest] / np.sqrt(np.maximum(variance[strongest], LEAST_VARIANCE))).astype(np.float32)


def _standardised(network: ExpressionRegressor, table: Table) -> ExpressionRegressor:
    """The network with components, means and deviations of its inputs."""
    count = network.template.size
    resting = table.rest[:, :count].astype(np.float64)
    moved = table.now[:, :count] - resting
    mean = resting.mean(0)
    network = replace(
        network,
        components=_components(moved, MOVED),
        rest_mean=mean.astype(np.float32),
        rest_components=_components(resting - mean, RESTING),
        usual_rest=table.rest.mean(0),
    )
    inputs = network.raw_inputs(table.now, table.rest)
    return replace(network, mean=inputs.mean(0), deviation=inputs.std(0) + 1e-4)


def _train(frame: ExpressionRegressor, table: Table, root: np.ndarray, seed: int) -> SmallNetwork:
    """One member, trained on all rows of the table."""
    millimetres = torch.from_numpy(root)

    def loss(answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        error = torch.nn.functional.leaky_relu(answers, 0.1) - targets
        bent = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=BEND) / BEND * error.shape[1]
        return bent + MILLIMETRES * ((error @ millimetres) ** 2).sum(1).mean()

    return trained(frame.inputs_of(table.now, table.rest), table.targets, loss, PLAN, seed)


# -- measuring --------------------------------------------------------------------------------------------------------
def _with_errors(network: ExpressionRegressor, table: Table, names: tuple[str, ...]) -> tuple[ExpressionRegressor, dict]:
    """The network with the spread of its errors on a table of people it has not seen, and figures of them."""
    own = network.evaluate(table.now, table.rest)
    reflected = network.evaluate(network.mirrored(table.now), network.mirrored(table.rest))
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
