"""Find the material libraries and pictures that a mesh names, as other systems and programs write such names."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import FaceVerseError
from ..io.files import read_bytes
from ..messages import reason_of
from .obj_text import LIBRARIES

_OPTION = re.compile(r"-(?:[ost](?:\s+[-+.\deE]+){1,3}|mm\s+\S+\s+\S+|\w+\s+\S+)\s+(?=\S)")


class MaterialFiles:
    """The files beside a mesh, in the form that trimesh wants: `get` by name.

    Args:
        mesh: path of the mesh; nothing outside its folder is read.
        libraries: names of its material libraries; all of them together have the name `obj_text.LIBRARIES`.

    Attributes:
        unreadable: the first picture that is none, and why; trimesh does without it, and without a word.
    """

    unreadable: tuple[str, str] | None = None

    def __init__(self, mesh: Path, libraries: tuple[str, ...] = ()):
        self._folder, self._libraries = mesh.parent, libraries
        self.file_name = mesh.name.encode("utf-8", "replace").decode()

    def get(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        if name == LIBRARIES:
            names = [part for line in self._libraries for part in ((line,) if self._path(line) else line.split())]
            return b"\n".join(self._text(path) for path in map(self._path, names) if path is not None)
        path = self._path(name)
        if path is None:
            raise FileNotFoundError(name)
        content = read_bytes(path, FaceVerseError)
        try:
            Image.open(io.BytesIO(content)).close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            self.unreadable = self.unreadable or (path.name, reason_of(error))
        return content

    __getitem__ = get

    def _text(self, path: Path) -> bytes:
        content = read_bytes(path, FaceVerseError)
        try:
            content.decode()
        except UnicodeDecodeError:
            content = content.decode("cp1252", errors="replace").encode()
        return content

    def _path(self, name: str) -> Path | None:
        """The file of a name that may have options before it, quotes, folders of another computer, other capitals."""
        plain = name.strip()
        without_options = _OPTION.sub("", plain + "\n").strip() if plain.startswith("-") else plain
        for wanted in dict.fromkeys((plain, without_options, without_options.strip("\"'"))):
            whole = wanted.replace("\\", "/")
            for part in (whole, whole.rpartition("/")[2]):
                if part and (found := self._inside(part)) is not None:
                    return found
        return None

    def _inside(self, name: str) -> Path | None:
        """A file in the folder of the mesh or in one inside it, whose name may differ in capitals."""
        place = self._folder
        for part in Path(name).parts:
            if part in ("..", "/") or not place.is_dir():
                return None
            if not (place / part).exists():
                alike = sorted(path.name for path in place.iterdir() if path.name.lower() == part.lower())
                if not alike:
                    return None
                part = alike[0]
            place = place / part
        return place if place.is_file() else None


def rgb_of_picture(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of a texture.

    Raises:
        OSError, SyntaxError, ValueError: the picture is damaged.
        Image.DecompressionBombError: it is too large.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def is_stand_in(image: Image.Image) -> bool:
    """Whether trimesh made this picture for a mesh with texture coordinates but without a picture."""
    return image.size == (2, 2) and len(image.getcolors() or ()) == 1
