"""Files of NumPy and PyTorch: what is read, and that nothing in a hostile one is ever run."""

import argparse
import builtins
import codecs
import collections
import copyreg
import importlib
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from faceverse.errors import WeightsError
from faceverse.io import pickles
from faceverse.io.pickles import read_checkpoint, read_npy
from faceverse.messages import Message

PROTOCOLS = range(6)


def npy_bytes(pickled, shape="()"):
    """A .npy file with an object array whose pickle is given."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + pickled


def write(folder, pickled, shape="()"):
    path = folder / "model.npy"
    path.write_bytes(npy_bytes(pickled, shape))
    return path


def boxed(value):
    array = np.empty((), object)
    array[()] = value
    return array


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert (found.dtype.newbyteorder("="), found.shape) == (expected.dtype.newbyteorder("="), expected.shape)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


RECORD = np.dtype([("point", "<f4", (3,)), ("name", "<U4"), ("face", [("a", ">i2"), ("b", "u1")])])
VALUES = {
    "meanshape": np.arange(3000, dtype=np.float32).reshape(1, -1),
    "modes": np.asfortranarray(np.arange(24.0).reshape(4, 6)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "half": np.array([1, 2.5], np.float16),
    "big_endian": np.arange(4, dtype=">f8"),
    "mask": np.array([[True, False]]),
    "select_id": np.arange(500, dtype=np.int64),
    "bytes": np.arange(5, dtype=np.uint8),
    "complex": np.array([1 + 2j], np.complex64),
    "text": np.array(["jawOpen", "eyeBlink_L", "ä"]),
    "ascii": np.array([b"abc", b"d"]),
    "records": np.array([((1, 2, 3), "a", (4, 5)), ((6, 7, 8), "b", (9, 10))], RECORD),
    "objects": np.array([None, "a", 3, [1, 2]], object),
    "empty": np.zeros((0, 3), np.float32),
    "single": np.array(7.0),
    "scale": np.float32(0.01),
    "flag": np.bool_(True),
    "label": np.str_("x"),
    "nothing": np.str_(""),
    "record": np.array([((1, 2, 3), "a", (4, 5))], RECORD)[0],
    "names": ["browDown_L", "ünï", ""],
    "numbers": [1, -1, 300, 70000, -(2**40), 2**100, 1.5, True, False, None],
    "nested": {"left": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()], "right": {}},
    "raw": b"\x00\xff" * 200,
    "dtype": np.dtype("<i4"),
}


# -- what is read -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_dictionary_of_any_protocol_and_numpy(tmp_path, protocol, core):
    pickled = pickle.dumps(boxed(VALUES), protocol)
    if core == "numpy.core":  # the name of NumPy 1, in both ways in which pickle spells it
        pickled = without_frames(pickled).replace(b"cnumpy._core.", b"cnumpy.core.")
        pickled = pickled.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        pickled = pickled.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
        assert b"numpy._core" not in pickled
    assert_same(read_npy(write(tmp_path, pickled)), VALUES)


def without_frames(pickled):
    """The same pickle without its frames, so that the length of its parts may change."""
    frames = [position for operation, _, position in pickletools.genops(pickled) if operation.name == "FRAME"]
    for position in reversed(frames):
        pickled = pickled[:position] + pickled[position + 9 :]
    return pickled


def test_dictionary_as_numpy_saves_it(tmp_path):
    np.save(tmp_path / "model.npy", VALUES, allow_pickle=True)
    assert_same(read_npy(tmp_path / "model.npy"), VALUES)
    np.save(tmp_path / "list.npy", boxed(["a", 1]), allow_pickle=True)
    assert read_npy(str(tmp_path / "list.npy")) == ["a", 1]


def test_object_array_with_dimensions(tmp_path):
    expected = np.array([["a", None], [3, (1, 2)]], object)
    np.save(tmp_path / "model.npy", expected, allow_pickle=True)
    assert_same(read_npy(tmp_path / "model.npy"), expected)


def test_ordered_dictionary_becomes_a_dictionary(tmp_path):
    ordered = collections.OrderedDict([("b", 1), ("a", np.arange(3))])
    for protocol in PROTOCOLS:
        found = read_npy(write(tmp_path, pickle.dumps(boxed(ordered), protocol)))
        assert_same(found, dict(ordered))


def python_2(values):
    """The pickle that NumPy 1 wrote on Python 2: protocol 2, texts and numbers of arrays as byte strings."""

    def text(value):
        value = value.encode("latin1") if isinstance(value, str) else value
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def array(value, data):
        code = value.dtype.str[1:]
        dtype = b"cnumpy\ndtype\n(" + text("O8" if code == "O" else code) + b"K\x00K\x01tR"
        dtype += b"(K\x03" + text(value.dtype.str[0]) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(b"K" + bytes([length]) for length in value.shape) + b"t"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
        return start + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"

    pairs = b"".join(text(key) + array(value, text(value.tobytes())) for key, value in values.items())
    return b"\x80\x02" + array(np.empty((), object), b"](}(" + pairs + b"ue") + b"."


def test_dictionary_of_python_2(tmp_path):
    values = {"meanshape": np.arange(200, dtype=np.float32), "tri": np.arange(6).reshape(2, 3), "é": np.array([True])}
    assert_same(read_npy(write(tmp_path, python_2(values))), values)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("name", ["meanshape", "modes", "records", "mask", "empty", "text"])
def test_plain_arrays_of_any_version(tmp_path, version, name):
    with open(tmp_path / "array.npy", "wb") as file:
        np.lib.format.write_array(file, VALUES[name], version)
    assert_same(read_npy(tmp_path / "array.npy"), VALUES[name])


def test_arrays_can_be_written_to(tmp_path):
    np.save(tmp_path / "model.npy", VALUES, allow_pickle=True)
    read_npy(tmp_path / "model.npy")["meanshape"][0] *= -1
    np.testing.assert_array_equal(read_npy(tmp_path / "model.npy")["meanshape"], VALUES["meanshape"])


def test_dtypes_of_numpy_itself_stay_as_they_are(tmp_path):
    before = [np.dtype(code).__reduce__() for code in ("f4", "i8", "O", "?")]
    np.save(tmp_path / "model.npy", VALUES, allow_pickle=True)
    read_npy(tmp_path / "model.npy")
    assert [np.dtype(code).__reduce__() for code in ("f4", "i8", "O", "?")] == before


# -- what is refused --------------------------------------------------------------------------------------------------
class Calling:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture()
def ran(tmp_path, monkeypatch):
    """Notes every call of what hostile files like to call, and whether a shell left its mark."""
    calls = []
    # What Python imports, it runs with `exec`: the package that reads the catalogs, and a codec of pickles.
    Message("face.none")
    codecs.lookup("raw_unicode_escape")
    for module, name in [(os, "system"), (os, "popen"), (builtins, "eval"), (builtins, "exec"), (subprocess, "Popen")]:
        monkeypatch.setattr(module, name, lambda *args, name=name, **options: calls.append(name))
    if "posix" in sys.modules:
        monkeypatch.setattr(sys.modules["posix"], "system", lambda *args: calls.append("posix.system"))
    mark = tmp_path / "mark"
    return lambda: calls + [str(path) for path in [mark] if path.exists()]


def call(module, name, arguments=b"(X\x04\x00\x00\x00truetR"):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n" + arguments


NAMES = [
    "os.system",
    "posix.system",
    "nt.system",
    "builtins.eval",
    "__builtin__.eval",
    "builtins.exec",
    "builtins.getattr",
    "builtins.__import__",
    "subprocess.Popen",
    "importlib.import_module",
    "copyreg._reconstructor",
    "functools.partial",
    "operator.attrgetter",
    "pickle.loads",
    "torch.load",
    "numpy.load",
    "numpy.ndarray.__setstate__",
    "numpy.core.multiarray.frombuffer",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.getlincoef",
    "numpy.core.records.recarray",
    "faceverse.io.pickles.os.system",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", ["global", "stack", "instance"])
def test_calls_are_refused_by_name(tmp_path, ran, name, spelling):
    module, _, attribute = name.rpartition(".")
    if spelling == "global":
        pickled = b"\x80\x02" + call(module, attribute) + b"."
    elif spelling == "instance":
        pickled = b"(X\x04\x00\x00\x00truei" + f"{module}\n{attribute}\n".encode() + b"."
    else:
        words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, attribute))
        pickled = b"\x80\x04" + words + b"\x93\x8c\x04true\x85R."
    with pytest.raises(WeightsError) as error:
        read_npy(write(tmp_path, pickled))
    assert f"is not opened: it tries to call {name};" in str(error.value)
    assert "\n" not in str(error.value)
    assert ran() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch mark",), f"{os.system.__module__}.system"),
        (eval, ("1 + 1",), "eval"),
        (subprocess.Popen, (["true"],), "(subprocess|commands).Popen"),  # the latter for Python 2
        (getattr, ("text", "format"), "getattr"),
    ],
)
def test_calls_deep_inside_are_refused(tmp_path, protocol, function, arguments, name):
    hostile = {
        "meanshape": VALUES["meanshape"],
        "parsing": {"face": np.array([1, Calling(function, *arguments)], object)},
    }
    path = write(tmp_path, pickle.dumps(boxed(hostile), protocol))
    with pytest.raises(WeightsError, match=f"tries to call .*{name}"):
        read_npy(path)


def test_nothing_runs_in_a_fresh_interpreter(tmp_path):
    hostile = boxed({"meanshape": np.zeros(3), "x": Calling(os.system, f"touch {tmp_path / 'mark'}")})
    np.save(tmp_path / "model.npy", hostile, allow_pickle=True)
    torch.save({"g_ema": Calling(os.system, f"touch {tmp_path / 'mark'}")}, tmp_path / "model.pt")
    script = (
        "import sys\nfrom faceverse.io.pickles import read_checkpoint, read_npy\n"
        "for read, path in [(read_npy, sys.argv[1]), (read_checkpoint, sys.argv[2])]:\n"
        "    try:\n        read(path)\n    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.npy"), str(tmp_path / "model.pt")]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=True)
    lines = answer.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("WeightsError") and "tries to call" in line and "system" in line for line in lines)
    assert not (tmp_path / "mark").exists()
    np.load(tmp_path / "model.npy", allow_pickle=True)  # the file is as hostile as it looks
    assert (tmp_path / "mark").exists()


DTYPE = call("numpy", "dtype", b"(X\x02\x00\x00\x00%s\x89\x88tR")
FLOAT = DTYPE % b"f4" + b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
OBJECT = DTYPE % b"O8" + b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
EMPTY = call("numpy.core.multiarray", "_reconstruct", b"(cnumpy\nndarray\n(K\x00tC\x01btR")
HUGE = b"(\x8a\x06\x00\x00\x00\x00\x00\x01t"  # the shape (2 ** 40,)
POINTERS = (
    DTYPE % b"V8"
    + b"(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}X\x01\x00\x00\x00a("
    + OBJECT
    + b"K\x00tsK\x08K\x01K\x00tb"
)
TRICKS = {
    "persistent id": (b"X\x01\x00\x00\x00aQ", "the pickle instruction BINPERSID"),
    "persistent id as text": (b"Pabc\n", "the pickle instruction PERSID"),
    "extension registry": (b"\x82\xf0", "the pickle instruction EXT1"),
    "extension registry 2": (b"\x83\xf0\x00", "the pickle instruction EXT2"),
    "extension registry 4": (b"\x84\xf0\x00\x00\x00", "the pickle instruction EXT4"),
    "new object": (b"cnumpy\nndarray\n)\x81", "the pickle instruction NEWOBJ"),
    "new object by name": (b"cnumpy\nndarray\n)}\x92", "the pickle instruction NEWOBJ_EX"),
    "object on the stack": (b"(cnumpy\nndarray\nK\x03o", "the pickle instruction OBJ"),
    "buffer from outside": (b"\x97", "the pickle instruction NEXT_BUFFER"),
    "call of the class": (b"cnumpy\nndarray\n(K\x03tR", "tries to call a object"),
    "call of an array": (EMPTY + b")R", "tries to call a ndarray"),
    "arguments that are none": (b"cnumpy\ndtype\n]R", "tries to call a method"),
    "other encoding": (call("_codecs", "encode", b"(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR"), "with 'rot13'"),
    "inside of a function": (b"cnumpy\ndtype\n}X\x08\x00\x00\x00__code__Nsb", "the inside of a method"),
    "inside of a class": (b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aNsb", "the inside of a type"),
    "inside of a list": (b"]}X\x01\x00\x00\x00aNsb", "the inside of a list"),
    "item of an array": (EMPTY + b"K\x00K\x01s", "the inside of a ndarray"),
    "items of a function": (b"cnumpy\ndtype\n(K\x00K\x01u", "the inside of a method"),
    "something appended to an array": (EMPTY + b"K\x00a", "the inside of a ndarray"),
    "some things appended to a dictionary": (b"}(K\x00e", "the inside of a dict"),
    "dtype of objects as text": (DTYPE % b"O,", "requests the dtype 'O,'"),
    "dtype by name": (call("numpy", "dtype", b"(X\x08\x00\x00\x00datetimetR"), "requests the dtype"),
    "dtype that is none": (call("numpy", "dtype", b"(]tR"), "requests the dtype"),
    "dtype that is not complete": (EMPTY + b"(K\x01(K\x01t" + DTYPE % b"f4" + b"\x89C\x04abcdtb", "not complete"),
    "dtype that is a text": (EMPTY + b"(K\x01(K\x01tX\x02\x00\x00\x00f4\x89C\x04abcdtb", "not complete"),
    "pointers as numbers": (POINTERS, "contradicts itself"),
    "fields in a float": (POINTERS.replace(b"V8", b"f8"), "contradicts itself"),
    "fields in an object": (POINTERS.replace(b"V8", b"O8", 1), "contradicts itself"),
    "flags of objects on bytes": (DTYPE % b"S8" + b"(K\x03X\x01\x00\x00\x00|NNNK\x08K\x01K?tb", None),
    "size of a text": (DTYPE % b"S8" + b"(K\x03X\x01\x00\x00\x00|NNNJ\x00\x00\x00\x7fK\x01K\x00tb", None),
    "dtype changed in use": (FLOAT + b"(K\x03X\x01\x00\x00\x00>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb", "in use"),
    "pointers in an array": (EMPTY + b"(K\x01(K\x01t" + OBJECT + b"\x89C\x08abcdefghtb", "from something else"),
    "missing objects": (EMPTY + b"(K\x01" + HUGE + OBJECT + b"\x89]tb", "from something else"),
    "missing numbers": (EMPTY + b"(K\x01" + HUGE + FLOAT + b"\x89C\x04abcdtb", "from something else"),
    "too many numbers": (EMPTY + b"(K\x01(K\x01t" + FLOAT + b"\x89C\x08abcdefghtb", "from something else"),
    "numbers of negative length": (EMPTY + b"(K\x01(J\xff\xff\xff\xfft" + FLOAT + b"\x89C\x00tb", "no shape"),
    "shape that is a number": (EMPTY + b"(K\x01K\x01" + FLOAT + b"\x89C\x04abcdtb", "no shape"),
    "state of other kind": (EMPTY + b"(K\x02(K\x01t" + FLOAT + b"\x89C\x04abcdtb", "in use"),
    "filled twice": (EMPTY + (b"(K\x01(K\x01t" + FLOAT + b"\x89C\x04abcdtb") * 2, "in use"),
    "state that is none": (EMPTY + b"K\x01b", "is damaged"),
    "empty array of a size": (EMPTY.replace(b"(K\x00t", HUGE), "an empty array of shape"),
    "another class of array": (EMPTY.replace(b"cnumpy\nndarray\n", b"N"), "an empty array"),
    "scalar from elsewhere": (call("numpy.core.multiarray", "scalar", b"(" + FLOAT + b"C\x02abtR"), "something else"),
    "scalar of objects": (
        call("numpy.core.multiarray", "scalar", b"(" + OBJECT + b"C\x08abcdefghtR"),
        "something else",
    ),
    "buffer of objects": (
        call("numpy._core.numeric", "_frombuffer", b"(C\x08abcdefgh" + OBJECT + b"(K\x01tX\x01\x00\x00\x00CtR"),
        "something else",
    ),
    "long text": (b"\x8d" + struct.pack("<Q", 2**62) + b"a", "is damaged"),
    "many bytes": (b"\x8e" + struct.pack("<Q", 2**45) + b"a", "is damaged"),
    "frame": (b"\x95" + struct.pack("<Q", 2**45) + b"a", "is damaged"),
    "unknown instruction": (b"\xff", "is damaged"),
    "line break in a name": (b"\x8c\x05a\nb\x1b[\x8c\x01c\x93", r"tries to call a\?b\?\[\.c"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_are_refused_in_one_line(tmp_path, ran, name):
    trick, message = TRICKS[name]
    copyreg.add_extension("os", "system", 0xF0)
    try:
        path = write(tmp_path, b"\x80\x05" + trick + b".")
        with pytest.raises(WeightsError, match=message) as error:
            read_npy(path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 + len(str(path))
    assert ran() == []


def test_dtype_cannot_lie_about_its_size(tmp_path):
    # Flags and sizes in the file are ignored: dtype and bytes determine the array.
    for size, flags in [(8, 63), (2**31 - 1, 0)]:
        dtype = (
            DTYPE % b"S8"
            + b"(K\x03X\x01\x00\x00\x00|NNN"
            + struct.pack("<cicBcB", b"J", size, b"K", 1, b"K", flags)
            + b"tb"
        )
        filled = EMPTY + b"(K\x01(K\x01t" + dtype + b"\x89C\x08abcdefghtb"
        boxed_array = EMPTY + b"(K\x01)" + OBJECT + b"\x89](" + filled + b"etb."
        found = read_npy(write(tmp_path, b"\x80\x05" + boxed_array))
        assert found.dtype == "S8" and found.tolist() == [b"abcdefgh"] and not found.dtype.hasobject


DAMAGED = {
    "empty": b"",
    "magic only": b"\x93NUMPY",
    "other magic": b"PK\x03\x04" + bytes(100),
    "text": b"version https://git-lfs.github.com/spec/v1\n",
    "unknown version": b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
    "header of code": b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('true')\n",
    "no pickle": npy_bytes(b""),
    "pickle of something else": npy_bytes(pickle.dumps({"a": 1})),
    "other shape": npy_bytes(pickle.dumps(boxed(1)), "(3,)"),
    "something after the end": npy_bytes(pickle.dumps(boxed({"a": 1})) + b"x"),
    "no stack": npy_bytes(b"\x80\x04."),
    "missing memo": npy_bytes(b"\x80\x04h\x07."),
    "unhashable key": npy_bytes(b"\x80\x04}]Ns."),
    "odd items": npy_bytes(b"\x80\x04}(K\x01u."),
    "huge": b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000, 3), }".ljust(117)
    + b"\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_line(tmp_path, ran, name):
    (tmp_path / "model.npy").write_bytes(DAMAGED[name])
    with pytest.raises(WeightsError, match="model.npy is damaged, cut short or not a .npy file") as error:
        read_npy(tmp_path / "model.npy")
    assert "\n" not in str(error.value)
    assert ran() == []


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x96"])  # BINBYTES8, BYTEARRAY8
def test_lengths_are_not_allocated_on_the_word_of_a_file(opcode, tmp_path, monkeypatch):
    """A length of 2^40 bytes is limited to what is left of the file before memory is reserved for it."""
    asked = []

    class Counting(pickles._BoundedFile):
        def read(self, count=-1):
            before = self._file.tell()
            content = super().read(count)
            asked.append((count, len(content), self._file.tell() - before))
            return content

    monkeypatch.setattr(pickles, "_BoundedFile", Counting)
    (tmp_path / "model.npy").write_bytes(npy_bytes(b"\x80\x05" + opcode + (1 << 40).to_bytes(8, "little") + b"short"))
    with pytest.raises(WeightsError, match="is damaged"):
        read_npy(tmp_path / "model.npy")
    assert (1 << 40, 5, 5) in asked


def test_text_of_numbers_that_are_no_characters(tmp_path):
    names = np.array(["ab"])
    np.save(tmp_path / "model.npy", {"names": names}, allow_pickle=True)
    whole = (tmp_path / "model.npy").read_bytes()
    assert read_npy(tmp_path / "model.npy")["names"].tolist() == ["ab"]
    damaged = whole.replace(names.tobytes(), np.array([0x61, 0x110000], np.uint32).tobytes())
    assert damaged != whole
    (tmp_path / "model.npy").write_bytes(damaged)
    with pytest.raises(WeightsError, match="text with numbers that are no characters"):
        read_npy(tmp_path / "model.npy")


@pytest.mark.parametrize("name", ["meanshape", "all"])
def test_files_cut_short_are_refused(tmp_path, name):
    np.save(tmp_path / "model.npy", VALUES if name == "all" else VALUES[name], allow_pickle=True)
    whole = (tmp_path / "model.npy").read_bytes()
    for length in [*range(0, len(whole) - 1, 97), len(whole) - 1]:
        (tmp_path / "model.npy").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="is damaged"):
            read_npy(tmp_path / "model.npy")
    (tmp_path / "model.npy").write_bytes(whole + b"\x00")
    with pytest.raises(WeightsError, match="is damaged"):
        read_npy(tmp_path / "model.npy")


def test_changed_bytes_never_do_more_than_fail(tmp_path, ran):
    np.save(
        tmp_path / "model.npy",
        {key: VALUES[key] for key in ("mask", "big_endian", "scale", "names", "objects")},
        allow_pickle=True,
    )
    whole = (tmp_path / "model.npy").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(1500):
        changed = bytearray(whole)
        for place in rng.integers(128, len(whole), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        (tmp_path / "model.npy").write_bytes(changed)
        try:
            repr(read_npy(tmp_path / "model.npy"))
        except WeightsError as error:
            assert "\n" not in str(error)
    assert ran() == []


def test_lists_within_lists_are_no_recursion(tmp_path):
    depth = 100_000
    nested = b"\x80\x04" + EMPTY + b"(K\x01)" + OBJECT + b"\x89](" + b"]" * depth + b"a" * (depth - 1) + b"etb."
    found, levels = read_npy(write(tmp_path, nested)), 1
    while found:
        found, levels = found[0], levels + 1
    assert levels == depth


@pytest.mark.parametrize("read", [read_npy, read_checkpoint])
def test_missing_files_and_folders(tmp_path, read):
    for path, words in ((tmp_path / "none.npy", "there is no model file"), (tmp_path, "is a folder; give a file")):
        with pytest.raises(WeightsError, match=words):
            read(path)


# -- checkpoints ------------------------------------------------------------------------------------------------------
def checkpoint():
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    arguments = argparse.Namespace(size=1024, channel_multiplier=2, path="data", r1=10.0, ckpt=None, mixing=True)
    return {"g_ema": layer.state_dict(), "g_optim": optimizer.state_dict(), "args": arguments, "ada_aug_p": 0.25}


@pytest.mark.parametrize("archive", [True, False])
def test_checkpoint_of_a_training_script(tmp_path, archive):
    expected = checkpoint()
    torch.save(expected, tmp_path / "model.pt", _use_new_zipfile_serialization=archive)
    found = read_checkpoint(str(tmp_path / "model.pt"))
    assert list(found) == list(expected)
    assert vars(found["args"]) == vars(expected["args"]) and type(found["args"]) is not argparse.Namespace
    for name, weight in expected["g_ema"].items():
        torch.testing.assert_close(found["g_ema"][name], weight, rtol=0, atol=0)
    assert torch.equal(found["g_optim"]["state"][0]["exp_avg"], expected["g_optim"]["state"][0]["exp_avg"])
    assert "argparse.Namespace" not in str(torch.serialization.get_safe_globals())


def test_compressed_checkpoint(tmp_path):
    torch.save(checkpoint(), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as old, zipfile.ZipFile(tmp_path / "packed.pt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    expected, found = (read_checkpoint(tmp_path / name)["g_ema"] for name in ("model.pt", "packed.pt"))
    assert torch.equal(found["weight"], expected["weight"])


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, f"{os.system.__module__}.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (importlib.import_module, "importlib.import_module"),
    ],
)
def test_hostile_checkpoints_are_refused_by_name(tmp_path, archive, function, name):
    hostile = {"g_ema": {"weight": torch.ones(2)}, "args": argparse.Namespace(size=Calling(function, "touch mark"))}
    torch.save(hostile, tmp_path / "model.pt", _use_new_zipfile_serialization=archive)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(tmp_path / "model.pt")
    assert f"model.pt is not opened: it tries to call {name};" in str(error.value)
    assert "\n" not in str(error.value)
    assert "argparse.Namespace" not in str(torch.serialization.get_safe_globals())


def test_other_checkpoints_are_refused_in_one_line(tmp_path):
    path = tmp_path / "model.pt"
    torch.save([torch.ones(2)], path)
    with pytest.raises(WeightsError, match="holds a list, not a dictionary"):
        read_checkpoint(path)
    torch.save(checkpoint(), tmp_path / "new.pt")
    torch.save(checkpoint(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    new, old = (tmp_path / "new.pt").read_bytes(), (tmp_path / "old.pt").read_bytes()
    empty = zipfile.ZipFile(tmp_path / "empty.pt", "w")
    empty.writestr("readme.txt", "no weights")
    empty.close()
    damaged = [
        b"",
        b"PK",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(99),
        new[:-30],
        new[: len(new) // 2],
        old[:-1],
        old[:99],
    ]
    damaged += [
        old[:15],
        b"\x80\x02}q\x00.",
        pickle.dumps({"a": 1}),
        (tmp_path / "empty.pt").read_bytes(),
    ]
    damaged += [b"\x80\x04\x95" + old[2:], npy_bytes(pickle.dumps(boxed({})))]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="model.pt is damaged, cut short or not a checkpoint") as error:
            read_checkpoint(path)
        assert "\n" not in str(error.value)
