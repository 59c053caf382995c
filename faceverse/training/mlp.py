"""Multilayer perceptrons (MLP) with one hidden layer and a linear skip connection: training, ensembling, files.

The parameter regressor (`regressor`) and the expression regressor (`movement`) are such networks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from ..errors import WeightsError
from ..io.files import write_atomically


@dataclass(frozen=True)
class MlpSettings:
    """Hyperparameters: hidden units, epochs, batch size, and the settings of AdamW and dropout."""

    hidden: int
    epochs: int
    batch: int
    rate: float
    decay: float
    dropout: float


class Mlp(nn.Module):
    """Map inputs (N, C) to outputs (N, O)."""

    def __init__(self, inputs: int, outputs: int, settings: MlpSettings):
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, settings.hidden), nn.Linear(settings.hidden, outputs)
        self.direct, self.dropout = nn.Linear(inputs, outputs, bias=False), nn.Dropout(settings.dropout)
        nn.init.zeros_(self.direct.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(inputs))
        return self.output(self.dropout(hidden)) + self.direct(self.dropout(inputs))


def train_mlp(
    inputs: np.ndarray,
    targets: np.ndarray,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    settings: MlpSettings,
    seed: int,
) -> Mlp:
    """Train a network on rows (N, C) and (N, O).

    Args:
        loss: of a batch's outputs and targets.
        seed: of initialisation, row order and dropout; sets torch's global generator.
    """
    torch.manual_seed(seed)
    given, wanted = torch.from_numpy(inputs), torch.from_numpy(targets)
    count, batch = len(given), min(settings.batch, len(given))
    network = Mlp(given.shape[1], wanted.shape[1], settings)
    steps = settings.epochs * (count // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=steps, pct_start=0.15)
    for _ in range(settings.epochs):
        order = torch.randperm(count)
        for rows in order[: count // batch * batch].split(batch):
            value = loss(network(given[rows]), wanted[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def combine_ensemble(networks: list[Mlp]) -> dict[str, np.ndarray]:
    """Combine an ensemble into one network with a wider hidden layer: hidden (C, H), hidden_bias, output (H, O),
    output_bias and direct (C, O)."""

    def arrays(layer: str, name: str) -> list[np.ndarray]:
        return [getattr(getattr(network, layer), name).detach().numpy() for network in networks]

    return {
        "hidden": np.concatenate(arrays("hidden", "weight")).T,
        "hidden_bias": np.concatenate(arrays("hidden", "bias")),
        "output": np.float32(1 / len(networks)) * np.concatenate(arrays("output", "weight"), axis=1).T,
        "output_bias": np.mean(arrays("output", "bias"), axis=0),
        "direct": np.mean(arrays("direct", "weight"), axis=0).T,
    }


def write_network(
    network, path: Path, kind: tuple[str, str], halves: tuple[str, ...], model_sha256: str, info: dict,
    stored_names: Mapping[str, str] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Write the arrays of a dataclass for the model file with this hash; the file is written atomically.

    Args:
        kind: format and version.
        halves: names of arrays stored as half floats.
        info: provenance and metrics, JSON values.
        stored_names: names in the file of the arrays that differ.
    Raises:
        WeightsError: the file cannot be written.
    """
    from safetensors.numpy import save

    arrays = {field.name: getattr(network, field.name) for field in fields(network)}
    arrays |= {name: arrays[name].astype(np.float16) for name in halves}
    about = {"format": kind[0], "version": kind[1], "model_sha256": model_sha256}
    metadata = about | {"info": json.dumps(info, sort_keys=True)}
    stored = {stored_names.get(name, name): np.ascontiguousarray(value) for name, value in arrays.items()}
    content = save(dict(sorted(stored.items())), metadata)
    return write_atomically(path, content, WeightsError)
