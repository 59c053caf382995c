"""The command `python -m faceverse track`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

from ..errors import FaceVerseError, ParameterError
from ..formats.export import export, load_result
from ..io.files import remove_files
from ..messages import Message, joined, reason_of
from ..model.face_model import FaceModel
from ..tracking import LiveTracker, Track, track
from ..tracking.clips import CLIP_MODES, render_track
from ..tracking.frames import open_source
from ..tracking.journal import JOURNAL_SUFFIX, read_journal
from ..tracking.motion import TRACK_FORMATS
from ..weights import load_model
from .arguments import add_folder, add_formats, add_model
from .batch import Progress, complain, output_folder
from .names import longest_name, shortened


def run_track(options: argparse.Namespace) -> int:
    if (options.input is None) == (options.webcam is None):
        raise ParameterError("command.no_video")
    with output_folder(options.output) as folder:
        model = load_model(options.model)
        identity = None if options.identity is None else load_result(options.identity, model)
        started = time.perf_counter()
        given = {"identity": identity, "smooth": options.smooth, "focal_px": options.focal_px}
        name, journal = "webcam", None
        if options.input is not None:
            # The absolute path also gives a folder such as . its name.
            name = _result_name(Path(os.path.abspath(options.input)).stem or "frames", folder, options)
            journal = folder / f"{name}{JOURNAL_SUFFIX}"
        try:
            if journal is None:
                result = _track_camera(options.webcam, model, given)
            else:
                given |= {"quality": options.quality, "journal": journal, "keep_journal": True}
                with Progress() as progress:
                    result = track(options.input, model, **given, on_progress=progress)
            _write(result, folder, name, options, journal)
        except KeyboardInterrupt:
            if journal is not None and journal.is_file():
                complain(f"{journal} holds the frames tracked so far; the same command continues from there")
            raise
        if journal is not None:
            remove_files([journal])
        print(f"{name}: {time.perf_counter() - started:.1f} s")
    return 0


def _result_name(name: str, folder: Path, options: argparse.Namespace) -> str:
    """The name, shortened where a file's name would be too long."""
    endings = [JOURNAL_SUFFIX, *(f".{suffix}" for suffix in options.formats), f"_{options.video}.mp4"]
    found = shortened(name, longest_name(folder, endings))
    if found != name:
        complain(Message("track.name_shortened", name=found))
    return found


def _write(result: Track, folder: Path, name: str, options: argparse.Namespace, journal: Path | None) -> None:
    """Write the files of a track and print their paths; one that cannot be written does not stop the others.

    Raises:
        ParameterError: at least one cannot be written. It says what keeps the track.
    """
    problems, written = [], []
    for suffix in options.formats:
        try:
            given = {"rig": options.rig} if "rig" in TRACK_FORMATS[suffix].options else {}
            written.append(export(result, folder / f"{name}.{suffix}", **given))
            print(written[-1], flush=True)
        except FaceVerseError as error:
            problems.append(error.message)
    if options.video and options.input is None:
        complain("no video is written of a camera, because its frames are not kept")
    elif options.video:
        clip = folder / f"{name}_{options.video}.mp4"
        try:
            print(render_track(result, clip, mode=options.video, source=options.input), flush=True)
        except FaceVerseError as error:
            problems.append(error.message)
    if problems:
        kept = _keep(result, name, journal, written)
        raise ParameterError("track.not_written", problems=joined(problems), kept=kept)


def _keep(result: Track, name: str, journal: Path | None, written: list[Path]) -> Message:
    """What keeps a track of which a file is missing: its journal, another file, or one in the temporary folder."""
    if journal is not None:
        with contextlib.suppress(ParameterError):
            if read_journal(journal, result.model).intact == len(result):
                return Message("track.kept_by_journal", path=journal)
    for path in written:
        if path.suffix in (".npz", ".json"):
            return Message("track.kept_elsewhere", path=path)
    try:
        place = Path(tempfile.mkdtemp(prefix="faceverse-"))
        return Message("track.kept_elsewhere", path=result.save(place / f"{name}.npz"))
    except (OSError, ParameterError) as error:
        return Message("track.not_kept", reason=reason_of(error))


def _track_camera(camera: int, model: FaceModel, given: dict) -> Track:
    """Track a camera until Ctrl+C; a line on the standard error shows the strongest expression of each frame."""
    complain("filming; Ctrl+C ends it and writes the files")
    with LiveTracker(model, **given) as live:
        frames, _ = open_source(camera, 30.0)
        with contextlib.closing(frames), contextlib.suppress(KeyboardInterrupt):
            for seconds, rgb in frames:
                frame = live(rgb, seconds)
                strongest = int(frame.expression.argmax())
                name, weight = model.expression_names[strongest], frame.expression[strongest]
                print(f"\r{seconds:7.1f} s  {name:20s} {weight:.2f}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return live.track()


def add_track(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_track)
    parser.add_argument("input", nargs="?", help="video; a run that was stopped continues where it was")
    text = "track the camera of that number instead (default 0), until Ctrl+C"
    parser.add_argument("--webcam", type=int, nargs="?", const=0, metavar="N", help=text)
    parser.add_argument("--quality", choices=("fast", "high"), default="fast", help="high: about twice the time")
    add_folder(parser)
    parser.add_argument("--identity", type=Path, metavar="JSON", help="result of a fit of the same person")
    parser.add_argument("--no-smooth", dest="smooth", action="store_false", help="no filter over time")
    text = "focal length in pixels of the frames (default: estimated with the person)"
    parser.add_argument("--focal-px", type=float, metavar="F", help=text)
    add_formats(parser, TRACK_FORMATS, "csv,json", "one row or entry for each frame; glb is an animated head")
    modes = "; ".join(f"{name}: {mode.description}" for name, mode in CLIP_MODES.items())
    parser.add_argument("--rig", action="store_true", help="in the .glb, bones move neck, head and eyes")
    parser.add_argument("--video", choices=CLIP_MODES, help=f"also write a video. {modes}")
    add_model(parser)
