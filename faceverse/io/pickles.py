"""Safe reading of pickled files, NumPy's .npy and PyTorch's .pt, without executing code from them.

A pickle is a program for a stack machine that can call any Python function by name: loading a hostile file with
`pickle.load` executes it. `read_npy` uses a restricted unpickler: it rejects every opcode outside an allowlist; it
looks names up in a fixed table and never imports them; the table holds methods of the unpickler, which build only
arrays, dtypes, scalars, bytes and dictionaries. NumPy's own helpers never receive unchecked values, because a dtype
with a false item size or a hidden object field would make NumPy read foreign memory: shapes, sizes and dtypes are
validated first, and a dtype cannot change once it is in use. `read_checkpoint` uses PyTorch's restricted unpickler.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
import torch

from ..errors import WeightsError
from ..messages import Message
from .archives import check_text, read_array, read_header
from .files import check_file, plain_path

_ALLOWED_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4
    FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES BINBYTES8
    SHORT_BINBYTES BYTEARRAY8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST DICT EMPTY_DICT GET BINGET PUT
    LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL""".split()  # the last two call `find_class`
_PLAIN_DTYPE = re.compile(r"[|<>=]?(\?|b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|O[48]?|[SUV]\d{1,9})")
_NDARRAY = object()  # stands for the class numpy.ndarray, which a file may name but must not receive

# How torch.save began a file before it wrote zip archives: protocol 2, then its magic number.
_LEGACY_START, _ZIP_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"PK\x03\x04"
_TORCH_REFUSAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
_TORCH_NAMES = threading.Lock()  # PyTorch's allowlist of names is global to the process


class _RefusedError(Exception):
    """A forbidden operation in a pickled file."""


# -- .npy -------------------------------------------------------------------------------------------------------------
def read_npy(path: str | os.PathLike) -> np.ndarray | dict:
    """Read an array from a .npy file, or the dictionary that `numpy.save` stored in one, without executing its code.

    Args:
        path: a file of any version of the format, written by NumPy 1 or 2 on Python 2 or 3.

    Returns:
        The array; for an object array without dimensions, in which NumPy stores a dictionary, its one object.

    Raises:
        WeightsError: there is no such file, it is damaged, or it names a callable, which the message repeats.
    """
    path = _existing(path)
    try:
        with open(path, "rb") as file:
            return _read_npy(file, path.stat().st_size)
    except _RefusedError as refused:
        raise _not_opened(path, refused.args[0]) from None
    except Exception as error:  # a damaged file can make NumPy and pickle raise nearly anything
        raise WeightsError("file.damaged_npy", path=path, reason=_reason(error)) from error


def _read_npy(file: BinaryIO, file_bytes: int) -> np.ndarray | dict:
    shape, dtype = read_header(file)
    if dtype.hasobject:
        array = _RestrictedUnpickler(_BoundedFile(file)).load()
        if type(array) is not np.ndarray or array.dtype != object or array.shape != shape or file.read(1):
            raise ValueError(Message("npy.other_content"))
        return array.item() if array.ndim == 0 else array
    file.seek(0)
    return read_array(file, file_bytes)


class _BoundedFile:
    """A file whose `read` never reserves memory for more bytes than are left, whatever length a damaged file states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, os.fstat(file.fileno()).st_size
        self.readline, self.readinto = file.readline, file.readinto  # type: ignore[attr-defined]
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))


class _RestrictedUnpickler(pickle._Unpickler):
    """Executes the allowed opcodes; pickle's implementation in C cannot be restricted to them."""

    if TYPE_CHECKING:  # attributes of pickle._Unpickler that its type stubs leave out
        stack: list[Any]
        read: Callable[[int], bytes]
        readline: Callable[[], bytes]
        pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO | _BoundedFile) -> None:
        super().__init__(file, encoding="latin1")  # the encoding of Python 2's strings
        self._incomplete: dict[int, np.dtype] = {}  # dtypes before the second half of their description
        self._globals: dict[str, object] = {"numpy.ndarray": _NDARRAY, "numpy.dtype": self._dtype}
        self._globals |= {"_codecs.encode": self._encode, "__builtin__.bytes": self._encode}
        self._globals["collections.OrderedDict"] = dict
        for core in ("numpy.core", "numpy._core"):
            self._globals[f"{core}.multiarray._reconstruct"] = self._array
            self._globals[f"{core}.multiarray.scalar"] = self._scalar
            self._globals[f"{core}.numeric._frombuffer"] = self._from_buffer

    # Opcodes that name, call and change objects.
    def find_class(self, module: str, name: str) -> object:
        try:
            return self._globals[f"{module}.{name}"]
        except KeyError:
            raise _RefusedError(Message("pickle.call", name=_one_line(f"{module}.{name}"))) from None

    def _instance(self) -> NoReturn:
        module, name = (self.readline()[:-1].decode("latin1") for _ in range(2))
        raise _RefusedError(Message("pickle.call", name=_one_line(f"{module}.{name}")))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if (type(function) is not MethodType and function is not dict) or type(arguments) is not tuple:
            raise _RefusedError(Message("pickle.call_type", type=type(function).__name__))
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray:
            self._fill(target, *state)
        elif isinstance(target, np.dtype):
            self._describe(target, *state)
        else:
            raise _RefusedError(Message("pickle.change", type=type(target).__name__))

    def _put(self, kind: Any, many: bool) -> None:
        items = self.pop_mark() if many else [self.stack.pop() for _ in range(1 if kind is list else 2)][::-1]
        target: Any = self.stack[-1]
        if type(target) is not kind:
            raise _RefusedError(Message("pickle.change", type=type(target).__name__))
        if kind is list:
            target.extend(items)
        else:
            target.update(zip(items[::2], items[1::2], strict=True))

    def _load_bytearray(self) -> None:
        # pickle's own would reserve the length that the file states before it reads anything.
        self.stack.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _refuse(self, instruction: str) -> NoReturn:
        raise _RefusedError(Message("pickle.instruction", instruction=instruction))

    # Functions behind the allowed names. NumPy describes a dtype in two halves, a text and then the rest of it.
    def _dtype(self, text: str, align: bool = False, copy: bool = True) -> np.dtype:
        if type(text) is not str or not _PLAIN_DTYPE.fullmatch(text):
            raise _RefusedError(Message("pickle.dtype", dtype=repr(text)))
        dtype = np.dtype(np.dtype(object if "O" in text else text), copy=True)
        self._incomplete[id(dtype)] = dtype
        return dtype

    def _describe(self, dtype: Any, version: int, order: Any, base: Any, names: Any, fields: Any, *rest: Any) -> None:
        itemsize = rest[0]
        if self._incomplete.pop(id(dtype), None) is None:
            raise _RefusedError(Message("pickle.dtype_in_use"))
        whole: np.dtype = dtype.newbyteorder(order)
        if base is not None:
            whole = np.dtype((self._complete(base[0]), _shape(base[1])))
        elif names is not None:
            parts: Any = {"formats": [self._complete(fields[name][0]) for name in names], "names": list(names)}
            whole = np.dtype(parts | {"offsets": [fields[name][1] for name in names], "itemsize": itemsize})
        same = (whole.kind, whole.itemsize) == (dtype.kind, dtype.itemsize)
        if version != 3 or not same or (whole.hasobject and whole.kind != "O"):
            raise _RefusedError(Message("pickle.dtype_contradiction"))
        dtype.__setstate__(whole.__reduce__()[2])  # the state that NumPy gives its own dtype, not the file's

    def _complete(self, dtype: Any) -> np.dtype:
        if isinstance(dtype, np.dtype) and id(dtype) not in self._incomplete:
            return dtype
        raise _RefusedError(Message("pickle.dtype_incomplete"))

    def _content(self, dtype: Any, shape: tuple[int, ...], data: Any) -> Any:
        """The data of an array, checked for the type and length that its dtype and shape need."""
        data = data.encode("latin1") if type(data) is str else data  # text in files of Python 2
        kinds: tuple[type, ...] = (list,)
        size = 1
        if self._complete(dtype).kind != "O":
            kinds, size = (bytes, bytearray), dtype.itemsize
        if type(data) not in kinds or len(data) != math.prod(_shape(shape)) * size or (size == 0 and shape != ()):
            raise _RefusedError(Message("pickle.array_of_other", shape=repr(shape)))
        if kinds != (list,):
            check_text(dtype, data)
        return data

    def _array(self, kind: object, shape: tuple[int, ...], code: bytes | str) -> np.ndarray:
        if kind is not _NDARRAY or shape != (0,):
            raise _RefusedError(Message("pickle.array_empty", shape=repr(shape)))
        return np.ndarray(0, np.int8)

    def _fill(self, array: Any, version: int, shape: tuple, dtype: np.dtype, fortran: bool, data: Any) -> None:
        if version != 1 or array.size:
            raise _RefusedError(Message("pickle.array_in_use"))
        array.__setstate__((1, shape, dtype, bool(fortran), self._content(dtype, shape, data)))

    def _from_buffer(
        self, data: Any, dtype: np.dtype, shape: tuple, order: str, axes: tuple | None = None
    ) -> np.ndarray:
        array = np.ndarray(shape, dtype, self._content(dtype, shape, data), order="F" if order == "F" else "C")
        return array.transpose(axes) if order == "K" and axes is not None else array

    def _scalar(self, dtype: np.dtype, data: bytes | str) -> np.generic:
        return np.ndarray((), dtype, self._content(dtype, (), data))[()]

    def _encode(self, text: str = "", encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise _RefusedError(Message("pickle.encode", encoding=repr(encoding)))
        return text.encode("latin1")


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise _RefusedError(Message("pickle.array_no_shape"))
    return shape


def _opcode_handlers() -> dict[int, Callable[[Any], None]]:
    codes = {operation.name: ord(operation.code) for operation in pickletools.opcodes}
    unpickler = _RestrictedUnpickler
    handlers: dict[str, Callable[[Any], None]] = {
        "INST": unpickler._instance,
        "REDUCE": unpickler._reduce,
        "BUILD": unpickler._build,
        "BYTEARRAY8": unpickler._load_bytearray,
    }
    for name, kind in {"APPEND": list, "APPENDS": list, "SETITEM": dict, "SETITEMS": dict}.items():
        handlers[name] = partial(unpickler._put, kind=kind, many=name.endswith("S"))
    dispatch = pickle._Unpickler.dispatch
    handlers = {name: dispatch[codes[name]] for name in _ALLOWED_OPCODES} | handlers
    return {code: handlers.get(name, partial(unpickler._refuse, instruction=name)) for name, code in codes.items()}


_RestrictedUnpickler.dispatch = _opcode_handlers()  # called by `load`, by opcode


# -- .pt --------------------------------------------------------------------------------------------------------------
def read_checkpoint(path: str | os.PathLike) -> dict:
    """Read the dictionary in a file of `torch.save`, tensors on the CPU, without executing its code.

    Training scripts store their command line beside the weights (`argparse.Namespace`): it becomes a plain
    `types.SimpleNamespace`. Tensors of a zip archive are memory-mapped: do not overwrite the file while they are used.

    Args:
        path: a .pt or .pth file, a zip archive or in the older format.

    Raises:
        WeightsError: there is no such file, it is damaged, does not hold a dictionary, or names a forbidden callable,
            which the message repeats.
    """
    path = _existing(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY_START))
        archive = start.startswith(_ZIP_START)
        if start != _LEGACY_START and not archive:
            raise ValueError(Message("pickle.no_checkpoint"))
        names = torch.serialization.safe_globals([(SimpleNamespace, "argparse.Namespace")])
        with _TORCH_NAMES, names, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of protocols and classes that only damaged files have
            content = _load_archive(path) if archive else _load_legacy(path)
    except Exception as error:  # PyTorch raises the errors of pickle, zip archives, storages and tensors
        refused = _TORCH_REFUSAL.search(str(error))
        if refused:
            name = refused[1] if "." in refused[1] else f"builtins.{refused[1]}"
            raise _not_opened(path, Message("pickle.call", name=_one_line(name))) from None
        raise WeightsError("file.damaged_checkpoint", path=path, reason=_reason(error)) from error
    if not isinstance(content, dict):
        raise WeightsError("file.no_tensors", path=path, type=type(content).__name__)
    return content


def _load_archive(path: Path) -> Any:
    mmap = all(entry.compress_type == 0 for entry in zipfile.ZipFile(path).infolist())
    with plain_path(path, WeightsError) as name:
        return torch.load(name, map_location="cpu", weights_only=True, mmap=mmap)


def _load_legacy(path: Path) -> Any:
    with open(path, "rb") as file:
        bounded: Any = _BoundedFile(file)
        return torch.load(bounded, map_location="cpu", weights_only=True)


# -- both -------------------------------------------------------------------------------------------------------------
def _existing(path: str | os.PathLike) -> Path:
    path = Path(path)
    check_file(path, WeightsError, missing="file.no_model")
    return path


def _not_opened(path: Path, reason: Message) -> WeightsError:
    return WeightsError("file.not_opened", path=path, reason=reason)


def _reason(error: Exception) -> str:
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return _one_line(text.splitlines()[0] if text else type(error).__name__)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
