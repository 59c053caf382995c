"""Read mutated files of every format: counts, time, memory, and whatever ends in more than one clear sentence.

    python -m faceverse bench fuzz --seconds 60
    python -m faceverse bench fuzz --case png:0:1234 --keep found/

Seed files are made here, mutated by structure or byte by byte, and read in worker processes with limits of time and
memory. A case, which is a format, a seed and an index, always has the same bytes. A failure is an exception that is no
FaceVerseError, a message in more than one clean line, a wrong value, a third party's warning or output, too much
memory, a hang or a crash; one of them makes the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from common import table
from fuzzing.formats import FORMATS, Format, case_files
from fuzzing.pictures import VIDEOS, Seed
from fuzzing.workers import Limits, Tally, judged, run, write_case

SHOWN = 40  # different failures that are listed


def report(tallies: dict[str, Tally]) -> str:
    """The table of all formats."""
    header = ["format", "cases", "accepted", "refused", "failed", "slowest s", "memory MB"]
    rows = [
        [
            name,
            *map(str, (one.cases, one.accepted, one.refused, len(one.failures))),
            f"{one.slowest[0]:.2f}",
            f"{one.memory[0]:.0f}",
        ]
        for name, one in tallies.items()
    ]
    sums = [sum(int(row[k]) for row in rows) for k in range(1, 5)]
    most = [max(one.slowest[0] for one in tallies.values()), max(one.memory[0] for one in tallies.values())]
    return table(header, [*rows, ["all", *map(str, sums), f"{most[0]:.2f}", f"{most[1]:.0f}"]])


def extremes(tallies: dict[str, Tally], seed: int) -> str:
    """The cases that took the most time and memory."""
    slow, large = (
        max(tallies, key=lambda name: getattr(tallies[name], quantity)[0]) for quantity in ("slowest", "memory")
    )
    return (
        f"slowest: --case {slow}:{seed}:{tallies[slow].slowest[1]}, "
        f"largest: --case {large}:{seed}:{tallies[large].memory[1]}"
    )


def failures(tallies: dict[str, Tally], seed: int) -> list[str]:
    """A line for each different failure: how often, what, and a case that shows it."""
    groups: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for name, tally in tallies.items():
        for index, outcome in tally.failures:
            groups.setdefault((name, outcome.kind, outcome.where), []).append((index, outcome.detail))
    lines = []
    for (name, kind, where), found in sorted(groups.items(), key=lambda group: -len(group[1])):
        index, detail = found[0]
        lines.append(f"{len(found)} x {kind} in {where}: {detail}\n    --case {name}:{seed}:{index}")
    return lines


def keep(tallies: dict[str, Tally], seed: int, folder: Path) -> None:
    """Write the files of all failures."""
    seeds = {name: FORMATS[name].seeds() for name, tally in tallies.items() if tally.failures}
    for name in seeds:
        for index, outcome in tallies[name].failures:
            path = write_case(case_files(FORMATS[name], seeds[name], seed, index), folder / f"{name}-{seed}-{index}")
            (path.parent / "failure.txt").write_text(
                f"{outcome.kind}: {outcome.detail}\npython -m faceverse bench fuzz --case {name}:{seed}:{index}\n"
            )


def show_case(text: str, folder: Path | None) -> int:
    """Run one case in this process, where a debugger can follow, and print what happens."""
    name, seed, index = text.split(":")
    kind, seeds = FORMATS[name], FORMATS[name].seeds()
    files = case_files(kind, seeds, int(seed), int(index))
    with tempfile.TemporaryDirectory() as temporary:
        path = write_case(files, folder / f"{name}-{seed}-{index}" if folder else Path(temporary))
        print(f"{path} ({path.stat().st_size} bytes)")
        try:
            kind.read(path)
        except Exception:
            import traceback

            traceback.print_exc()
        outcome = judged(kind, path, int(index) < len(seeds))
    print(f"{outcome.kind}: {outcome.detail}")
    return int(outcome.failed)


def warm_up(formats: dict[str, Format], seeds: dict[str, list[Seed]]) -> None:
    """Read the seed files before workers are forked: what is imported and compiled on first use takes seconds.

    Video decoders start threads, which a fork would lose.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in formats.items():
            if name not in (*VIDEOS, "upload"):
                for number, files in enumerate(seeds[name]):
                    judged(kind, write_case(files, Path(folder) / name / str(number)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="duration (default: 60)")
    parser.add_argument("--cases", type=int, help="run this many cases of each format instead, which is repeatable")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--formats", metavar="A,B", help=f"of {','.join(FORMATS)} (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument("--limit", type=float, default=Limits.seconds, help="seconds a case may take (default: 20)")
    parser.add_argument("--memory", type=float, default=Limits.memory_mb, help="MB a case may take (default: 1000)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write failing files to this folder")
    parser.add_argument("--case", metavar="FORMAT:SEED:INDEX", help="run one case and show its traceback")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.case:
        return show_case(options.case, options.keep)
    names = options.formats.split(",") if options.formats else list(FORMATS)
    if unknown := [name for name in names if name not in FORMATS]:
        parser.error(f"unknown format {unknown[0]}, choose from {','.join(FORMATS)}")
    formats = {name: FORMATS[name] for name in names}
    seeds = {name: kind.seeds() for name, kind in formats.items()}
    warm_up(formats, seeds)
    limits = Limits(options.limit, options.memory)
    tallies = run(
        formats, seeds, options.seed, limits, cases=options.cases, seconds=options.seconds, workers=options.workers
    )
    print(report(tallies), extremes(tallies, options.seed), sep="\n")
    lines = failures(tallies, options.seed)
    if lines:
        print(f"\n{len(lines)} different failures:", *lines[:SHOWN], sep="\n")
    if options.keep and lines:
        keep(tallies, options.seed, options.keep)
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
