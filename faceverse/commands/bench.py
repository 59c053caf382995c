"""The command `python -m faceverse bench`: the benchmarks of the source repository."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ..errors import ParameterError
from .arguments import note_renamed

BENCHMARKS = ("rasterize", "fit", "base", "track", "registration", "detail", "displacement", "page", "real", "fuzz")
REPOSITORY = Path(__file__).resolve().parents[2]
_OLD_NAMES = {"relief": "displacement"}


def run_bench(options: argparse.Namespace) -> int:
    script = REPOSITORY / "benchmarks" / f"bm_{options.what}.py"
    if not script.is_file():
        raise ParameterError("command.no_benchmark", name=script.name)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, str(script), *options.arguments], env=environment, check=False).returncode


def _current_name(name: str) -> str:
    if name in _OLD_NAMES:
        note_renamed(f"bench {name}", f"bench {_OLD_NAMES[name]}")
    return _OLD_NAMES.get(name, name)


def add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_bench)
    parser.add_argument("what", type=_current_name, choices=BENCHMARKS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the benchmark itself")
