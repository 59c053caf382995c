"""Draws docs/tracking.png: frames of a synthetic person and of a moved photograph, and the tracked head.

Run: python benchmarks/draw_track.py
"""

import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image
from skimage.data import astronaut
from track_scenes import FPS, moved_photograph, pictures, speaking, swaying

import faceverse as fv

HEIGHT, FRAMES, SHOWN = 360, 150, (12, 57, 88, 119, 141)
CUT = 300  # pixels of the middle of a frame
OUT = Path(__file__).resolve().parent.parent / "docs" / "tracking.png"


def main() -> None:
    model = fv.load_model()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speaker, photograph = pictures(speaking(model, 64, FRAMES), HEIGHT), moved_photograph(
            astronaut()[:300, 60:390], swaying(FRAMES), HEIGHT
        )
        for number, (frames, modes) in enumerate(((speaker, ("overlay", "clay")), (photograph, ("overlay",)))):
            clip = folder / f"{number}.mp4"
            write(clip, frames)
            track = fv.track(clip, model)
            rows.append(read(clip))
            for mode in modes:
                rows.append(read(fv.render(track, folder / f"{number}-{mode}.mp4", mode=mode, source=clip)))
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(sheet).quantize(256).save(OUT, optimize=True)
    print(OUT, sheet.shape)


def write(path: Path, frames) -> None:
    """A video of frames."""
    writer = imageio_ffmpeg.write_frames(str(path), (HEIGHT * 16 // 9, HEIGHT), fps=FPS, macro_block_size=1, quality=8)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def read(path: Path) -> list[np.ndarray]:
    """The middles of the frames that are shown."""
    source = imageio_ffmpeg.read_frames(str(path))
    width, height = next(source)["size"]
    x, y = (width - CUT) // 2, (height - CUT) // 2
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in source]
    return [frames[min(k, len(frames) - 1)][max(y, 0) : y + CUT, max(x, 0) : x + CUT] for k in SHOWN]


if __name__ == "__main__":
    main()
