"""NumPy archives and JSON of unknown origin: the same values as the libraries give, and one sentence for damage."""

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest

from faceverse.io import archives
from faceverse.io.archives import read_array, read_npz
from faceverse.io.json_text import parse_json
from faceverse.messages import Message

ARRAYS = {
    "floats": np.random.default_rng(0).normal(size=(7, 3, 3)).astype(np.float32),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "names": np.array(["jawOpen", "眨眼", ""]),
    "flag": np.array(True),
    "none": np.zeros((0, 5), np.int16),
}


def npz(arrays=ARRAYS, save=np.savez_compressed):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def npy(header, body=b""):
    text = (header + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zipped(entries, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def reason(read, content):
    """The message of the error, which is one line."""
    with pytest.raises(ValueError) as caught:
        read(content)
    (message,) = caught.value.args
    assert isinstance(message, Message) and "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------------------ archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_read_as_numpy_reads_them(save):
    content = npz(save=save)
    found, expected = read_npz(content), np.load(io.BytesIO(content))
    assert list(found) == expected.files
    for name, array in found.items():
        assert array.dtype == expected[name].dtype and array.flags.writeable, name
        np.testing.assert_array_equal(array, expected[name])
    assert found["columns"].flags.f_contiguous


def test_files_that_other_programs_add_to_an_archive_are_left_out():
    array = npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b"\0\0\x80?")
    content = zipped({"a.npy": array, "__MACOSX/a": b"?"})
    assert read_npz(content) == {"a": np.float32(1)}


def patched(content, place, value):
    return content[:place] + value + content[place + len(value) :]


def test_damaged_zip_headers():
    content = npz()
    central = content.index(b"PK\x01\x02")
    for place, value, code in (
        (central + 6, struct.pack("<H", 173), "archive.damaged"),  # version needed to unpack it
        (central + 10, struct.pack("<H", 99), "archive.damaged"),  # unknown compression
        (central + 8, struct.pack("<H", 1), "archive.encrypted"),
        (central + 16, b"\1\2\3\4", "archive.damaged"),  # checksum
        (central + 24, struct.pack("<I", 2**31), "archive.size"),
        (central + 24, struct.pack("<I", 17), "archive.damaged"),
        (central + 42, struct.pack("<I", 2**31), "archive.damaged"),  # where the entry is
        (60, b"\xff" * 40, "archive.damaged"),  # compressed bytes
    ):
        assert reason(read_npz, patched(content, place, value)).code == code, place
    for cut in (0, 1, 10, len(content) // 2, len(content) - 1):
        assert reason(read_npz, content[:cut]).code == "archive.damaged"


def test_entry_that_unpacks_to_more_than_it_says():
    content = zipped({"a.npy": b"\0" * (1 << 22)}, compression=zipfile.ZIP_DEFLATED)
    central = content.index(b"PK\x01\x02")
    for place in (central + 24, 22):
        content = patched(content, place, struct.pack("<I", 1000))
    assert reason(read_npz, content).code == "archive.damaged"


def test_archives_are_bounded(monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE_BYTES", 1 << 20)
    assert len(read_npz(npz({"a": np.zeros(1 << 16)}))["a"]) == 1 << 16
    content = npz({"a": np.zeros(1 << 16), "b": np.zeros(1 << 17)})
    assert len(content) < 1 << 12 and "1 MB" in reason(read_npz, content)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}", "npy.length"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3, -1)}", "npy.length"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,)}", "npy.length"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "npy.objects"),
        ("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}", "archive.damaged"),
        ("{'descr': '<f8', 'fortran_order': False}", "archive.damaged"),
        ("{'descr'", "archive.damaged"),
        ("(" * 300, "archive.damaged"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 30 + ",)}", "npy.length"),
    ],
)
def test_arrays_are_not_allocated_on_the_word_of_their_header(header, code):
    assert reason(read_npz, zipped({"a.npy": npy(header, b"\0" * 8)})).code == code


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_numbers_that_are_no_characters(order):
    """Python raises a SystemError at the first use of such a text."""
    header = f"{{'descr': '{order}U2', 'fortran_order': False, 'shape': (2,)}}"
    whole, damaged = (np.array([0x61, 0x10FFFF, 0x62, last], f"{order}u4").tobytes() for last in (0x63, 0x110000))
    assert read_npz(zipped({"a.npy": npy(header, whole)}))["a"].tolist() == ["a\U0010ffff", "bc"]
    assert reason(read_npz, zipped({"a.npy": npy(header, damaged)})).code == "npy.text"


def test_version_of_the_format_is_checked():
    assert reason(lambda content: read_array(io.BytesIO(content), len(content)), b"\x93NUMPY\x09\x00").arguments == {
        "major": 9,
        "minor": 0,
    }


def test_random_damage_is_one_sentence():
    generator, content = random.Random(4), npz()
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 2, 8))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            read_npz(bytes(damaged))
        except ValueError as error:
            assert isinstance(error.args[0], Message)


# ---------------------------------------------------------------------------------------------------------------- JSON


DOCUMENT = {"name": "Zoë 眨眼", "values": [1, -2.5e-7, None, True], "nested": {"a": {"b": [[0.1]]}}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_json_in_every_encoding(encoding):
    content = json.dumps(DOCUMENT, ensure_ascii=False).encode(encoding)
    assert parse_json(content) == DOCUMENT == parse_json(json.dumps(DOCUMENT))


def test_json_that_cannot_be_read():
    for content, code in (
        (b"", "json.damaged"),
        (b'{"format": ', "json.damaged"),
        (b'{"format": 1} {"format": 2}', "json.damaged"),
        (b"\xff\xfe\x00", "file.no_text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "file.no_text"),
        (b"[" * 100_000, "json.nested"),
        (b'{"a":' * 100_000, "json.nested"),
        (b"[" + b"9" * 5000 + b"]", "json.digits"),
        (b'{"x": {"light": 1, "a": 2, "light": 3}}', "json.twice"),
    ):
        assert reason(parse_json, content).code == code, content[:20]
    assert "'light'" in reason(parse_json, b'{"light": 1, "light": 3}')


def test_halves_of_surrogate_pairs_are_replaced():
    found = parse_json(rb'{"a\ud800": ["\udc00 \ud83d\ude00", {"b": "\\ud800"}]}')
    assert found == {"a\ufffd": ["\ufffd 😀", {"b": r"\ud800"}]}
    json.dumps(found, ensure_ascii=False).encode()


def test_constants_are_numbers_unless_refused():
    assert parse_json(b"[Infinity, -Infinity]") == [np.inf, -np.inf]

    def refuse(name):
        raise ValueError(Message("store.constant", found=name))

    assert reason(lambda content: parse_json(content, constant=refuse), b"[NaN]").arguments == {"found": "NaN"}
