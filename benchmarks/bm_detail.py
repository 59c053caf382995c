"""Figures of a detail generator: patch distance to held-out data, its floor, diversity over seeds.

Run: python benchmarks/bm_detail.py --work DIR [--kind detail|expression] [--count 64]
measures the run in a work folder of `python -m faceverse train`; and
python benchmarks/bm_detail.py --from-scratch 60 [--size 128] [--work DIR]
trains a narrow generator for this many minutes and prints how the distance falls; and
python benchmarks/bm_detail.py --sheets FOLDER [--weights DIR]
draws heads with the details of a module, by default the installed one. Generated and held-out maps are always compared
at the same, full size of the generator.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from detail_sheets import draw_sheets

import faceverse as fv
from faceverse.training.detail_data import DetailData
from faceverse.training.generator_evaluation import evaluate_generator, synthesise
from faceverse.training.generator_plans import GeneratorPlan, detail_plan, expression_plan
from faceverse.training.generator_step import scaled_to_units
from faceverse.training.generators import (
    TrainingBudget,
    train_detail,
    train_expression,
)
from faceverse.training.patch_distance import diversity

PLANS = {"detail": detail_plan, "expression": expression_plan}
TRAINERS = {"detail": train_detail, "expression": train_expression}
SCRATCH = {"narrower": 2}
SCRATCH_SAMPLES, REPORTS = 800, 10


def over_seeds(generator, data: DetailData, people: int = 4, seeds: int = 6) -> tuple[float, float]:
    """Diversity for one condition: over noise alone, and over z and noise, in standard deviations of the data."""
    batch = data.batch(np.array(data.held_out)[:people])
    drawn = torch.Generator().manual_seed(5)
    noise, both = [], []
    for person in range(people):
        condition = batch.condition[person : person + 1].expand(seeds, -1, -1, -1)
        own = batch.z[person : person + 1].expand(seeds, -1)
        free = torch.cat([own[:, :2], torch.randn(seeds, own.shape[1] - 2, generator=drawn)], dim=1)
        for z, values in ((own, noise), (free, both)):
            values.append(diversity(synthesise(generator, condition, z, 100 * person), data.spread, data.region))
    return float(np.mean(noise)), float(np.mean(both))


def of_data(data: DetailData, count: int) -> float:
    """Diversity of held-out people: z, noise and condition all differ, so it is an upper bound."""
    numbers = np.array(data.held_out)[:count]
    return diversity(data.batch(numbers).window, data.spread, data.region)


def show(generator, data: DetailData, plan: GeneratorPlan, count: int) -> None:
    found = evaluate_generator(generator, data, plan, count)
    print(f"{'patches':14s} {'generated':>10s} {'floor':>8s} {'ratio':>7s}")
    for group, levels in found.distance.values.items():
        for side, value in levels.items():
            floor = found.floor.values[group][side]
            print(f"{group[:9]:9s} {side:4d} {value:10.4f} {floor:8.4f} {value / floor:7.2f}")
    print(f"{'all':14s} {found.distance.mean:10.4f} {found.floor.mean:8.4f} {found.ratio:7.2f}")
    noise, both = over_seeds(generator, data)
    data_diversity = of_data(data, count)
    print(f"diversity of people: {found.diversity:.2f} of the data's")
    print(f"of one condition over z and noise: {both / data_diversity:.2f} of the data's over people, ", end="")
    print(f"over noise alone: {noise / data_diversity:.2f}")


def measure(work: Path, kind: str, count: int) -> None:
    plan = PLANS[kind]()
    shards = len(list((work / "samples").glob("samples_*.npy")))
    generator = plan.generator().requires_grad_(False)
    state = torch.load(work / "state.pt", weights_only=True)
    generator.load_state_dict(state["average"])
    print(f"{kind}: step {state['steps']}, {state['seconds'] / 60:.0f} minutes")
    data = DetailData(work / "samples", plan.shape, shards)
    show(scaled_to_units(generator, data.spread), data, plan, count)


def from_scratch(minutes: float, size: int, kind: str, work: Path) -> None:
    budget = TrainingBudget(minutes=minutes, samples=SCRATCH_SAMPLES, report_minutes=minutes / REPORTS)
    TRAINERS[kind](fv.load_model(), work, budget, plan=PLANS[kind](size, **SCRATCH))
    print(f"{'minutes':>8s} {'step':>6s} {'distance':>9s} {'ratio':>7s} {'diversity':>10s} {'noise':>6s}")
    for row in csv.DictReader((work / "log.csv").open()):
        if row["distance"]:
            figure = [float(row[name]) for name in ("minutes", "distance", "ratio", "diversity", "noise")]
            print("{:8.1f} {:>6s} {:9.4f} {:7.2f} {:10.2f} {:6.3f}".format(figure[0], row["step"], *figure[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--kind", choices=list(PLANS), default="detail")
    parser.add_argument("--count", type=int, default=64, help="held-out samples to compare, half of them for the floor")
    parser.add_argument("--from-scratch", type=float, metavar="MINUTES")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--sheets", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of another detail module, for --sheets")
    arguments = parser.parse_args()
    if arguments.sheets:
        module = fv.load_detail(arguments.weights) if arguments.weights else fv.load_detail()
        print(*draw_sheets(fv.load_model(), module, arguments.sheets), sep="\n")
    elif arguments.from_scratch:
        with tempfile.TemporaryDirectory() as folder:
            from_scratch(arguments.from_scratch, arguments.size, arguments.kind, arguments.work or Path(folder))
    elif arguments.work:
        measure(arguments.work, arguments.kind, arguments.count)
    else:
        parser.error("name a work folder, --from-scratch MINUTES, or --sheets FOLDER")


if __name__ == "__main__":
    main()
