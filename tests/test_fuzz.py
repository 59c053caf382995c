"""The fuzz suite: its cases repeat, and it reports a reader that fails in any of the ways it looks for."""

import logging
import math
import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import islice
from random import Random

import bm_fuzz
import numpy as np
import pytest
from fuzzing import containers, mutations
from fuzzing.formats import FORMATS, Format, WrongValueError, case_files
from fuzzing.workers import Limits, Outcome, Tally, next_jobs, run

import faceverse as fv

SEEDS = [{"a.txt": b"1, 2, 3\n4, 5, 6\n"}]
CASES = 60  # of each format; together they take a core about 20 seconds
LIMITS = Limits(seconds=60.0, memory_mb=100.0, address_mb=2000)


def outcome_of(read, cases=2, limits=LIMITS):
    """Failures of a planted reader: {kind: detail}, and the counts."""
    kind = Format("planted", lambda: SEEDS, read, mutations.TEXT)
    tally = run({"planted": kind}, {"planted": SEEDS}, 0, limits, cases=cases)["planted"]
    assert tally.cases == cases == tally.accepted + tally.refused + len(tally.failures)
    return {outcome.kind: f"{outcome.where} {outcome.detail}" for _, outcome in tally.failures}, tally


# --------------------------------------------------------------------------------------------------------------- cases


@pytest.mark.parametrize(
    "name", ["png", "tiff", "mp4", "track-npz", "journal", "edits", "official", "checkpoint", "obj", "rgbd"]
)
def test_cases_repeat(name):
    """The same seed files and mutations, whenever they are made; another seed makes other ones."""
    kind = FORMATS[name]
    seeds = kind.seeds()
    assert seeds == kind.seeds()
    count = 600 if name == "edits" else 60
    first, again, other = ([case_files(kind, seeds, seed, index) for index in range(count)] for seed in (3, 3, 4))
    assert first == again and first[: len(seeds)] == seeds
    changed = [a != b for a, b in zip(first, other)]
    assert sum(changed) > 0.6 * count and all(list(case) in [list(one) for one in seeds] for case in first)


def test_checksums_of_containers_are_right():
    """Faults reach what is behind the checksums: about half of the mutated PNG files are still complete PNG files."""
    import zlib

    data = FORMATS["png"].seeds()[0]["photo.png"]
    mutated = [containers.change_png(data, Random(str(k)), ()) for k in range(30)]
    for content in mutated:
        at = 8
        while at < len(content):
            size = int.from_bytes(content[at : at + 4], "big")
            body = content[at + 4 : at + 8 + size]
            assert content[at + 8 + size : at + 12 + size] == zlib.crc32(body).to_bytes(4, "big")
            at += 12 + size
    assert sum(content != data for content in mutated) > 25


# ------------------------------------------------------------------------------------------------------------- readers


def test_good_readers_pass():
    def read(path):
        if path.read_bytes() != SEEDS[0]["a.txt"]:
            raise fv.ImageError("image.empty_file", name=path.name)

    found, tally = outcome_of(read, cases=20)
    assert found == {} and tally.accepted >= 1 and tally.refused >= 15


def test_valid_files_must_be_accepted():
    def read(path):
        raise fv.ImageError("image.empty_file", name=path.name)

    found, tally = outcome_of(read)
    assert set(found) == {"value"} and "valid file is refused" in found["value"] and tally.refused == 1


def raise_key_error(path):
    return {}["missing"]


def hang(path):
    while True:
        time.sleep(0.01)


def fill_memory(path):
    np.ones(20_000_000).sum()


def allocate_without_end(path):
    try:
        np.ones(10**9)
    except MemoryError as error:
        raise fv.ImageError("image.empty_file", name=path.name) from error


def crash(path):
    os.abort()


def warn(path):
    warnings.warn("internal details", stacklevel=1)


def log(path):
    logging.getLogger("third.party").error("internal details")


def print_traceback(path):
    os.write(2, b"Traceback (most recent call last):\n")


def write_two_lines(path):
    raise fv.ImageError("first\nsecond")


def name_modules(path):
    raise fv.ImageError("faceverse.io.images.read_image failed")


def return_nonsense(path):
    raise WrongValueError("not finite")


@pytest.mark.parametrize(
    ("read", "kind", "words"),
    [
        (raise_key_error, "traceback", "KeyError: 'missing'"),
        (hang, "hang", "test_fuzz.py"),
        (fill_memory, "memory", "MB for a case that was accepted"),
        (allocate_without_end, "memory", "Unable to allocate"),
        (crash, "crash", "SIGABRT"),
        (warn, "warning", "internal details"),
        (log, "output", "internal details"),
        (print_traceback, "output", "Traceback"),
        (write_two_lines, "message", "first second"),
        (name_modules, "message", "internal words"),
        (return_nonsense, "value", "not finite"),
    ],
)
def test_failures_are_reported(read, kind, words):
    found, tally = outcome_of(read, limits=replace(LIMITS, seconds=0.3) if kind == "hang" else LIMITS)
    # The first case is the valid file, which must not be refused in whatever words.
    assert set(found) - {"value"} == {kind} - {"value"} and words in found[kind]
    assert len(tally.failures) == 2, "a worker that was lost is replaced"


def test_the_librarys_own_warnings_are_fine():
    def read(path):
        warnings.warn(fv.Message("image.empty_file", name=path.name), stacklevel=1)

    assert outcome_of(read)[0] == {}


def test_failing_files_are_kept_and_run_again(tmp_path, monkeypatch, capsys):
    def read(path):
        if path.read_bytes() != SEEDS[0]["a.txt"]:
            raise KeyError("planted")

    monkeypatch.setitem(bm_fuzz.FORMATS, "planted", Format("planted", lambda: SEEDS, read, mutations.TEXT))
    arguments = ["--formats", "planted", "--cases", "5", "--seed", "2"]
    assert bm_fuzz.main([*arguments, "--keep", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "planted      5         1        0       4" in printed
    assert "4 x traceback" in printed and "--case planted:2:1" in printed
    kept = (tmp_path / "planted-2-1/a.txt").read_bytes()
    assert kept == case_files(bm_fuzz.FORMATS["planted"], SEEDS, 2, 1)["a.txt"] != SEEDS[0]["a.txt"]
    assert "--case planted:2:1" in (tmp_path / "planted-2-1/failure.txt").read_text()
    assert bm_fuzz.main(["--case", "planted:2:1"]) == 1
    assert "KeyError: 'planted'" in capsys.readouterr().out
    assert bm_fuzz.main(["--case", "planted:2:0"]) == 0


def test_time_is_shared_by_all_formats():
    tallies = {"fast": Tally(), "slow": Tally()}
    jobs, taken = next_jobs(tallies, 7, None, math.inf), []
    for name, seed, index in islice(jobs, 60):
        tallies[name].add(index, Outcome("accepted", seconds={"fast": 0.125, "slow": 1.0}[name]))
        taken.append((name, seed, index))
    assert (tallies["fast"].cases, tallies["slow"].cases) in [(53, 7), (54, 6)]
    assert sorted(taken) == sorted({(name, 7, k) for name, tally in tallies.items() for k in range(tally.cases)})
    assert list(next_jobs(tallies, 0, 2, 0)) == [("fast", 0, 0), ("slow", 0, 0), ("fast", 0, 1), ("slow", 0, 1)]


# --------------------------------------------------------------------------------------------------------------- suite


def test_no_format_fails(root):
    """A fixed number of cases of every format, in a process of its own, because workers are forked."""
    options = ["--cases", str(CASES), "--seed", "7", "--limit", "120"]
    command = [sys.executable, "-m", "faceverse", "bench", "fuzz", *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()}
    assert [name for name in FORMATS if rows[name][0] != str(CASES)] == []
    assert [name for name in FORMATS if rows[name][1] == "0"] == [], "seed files are accepted"
    assert sum(rows[name][2] != "0" for name in FORMATS) > 40, "mutations do damage"
