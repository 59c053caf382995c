"""Tables of expression weights as recorders and spreadsheets write them: the same values, whatever the form."""

import numpy as np
import pytest

from faceverse.errors import ParameterError
from faceverse.tracking.files import load_track
from faceverse.tracking.tables import read_table

NAMES = ("jawOpen", "eyeBlinkLeft")
WEIGHTS = np.array([[0.25, 0.5], [0.125, 1.0], [0.75, 0.0], [0.5, 0.25]])
HEADER = ["Timecode", "BlendShapeCount", "JawOpen", "EyeBlinkLeft", "HeadYaw", "HeadPitch", "HeadRoll"]
ANGLES = ["0.3", "0.1", "-0.2"]


def rows(weights=WEIGHTS, angles=ANGLES, timecode="10:00:{second:02d}:{frame:02d}.500", rate=60):
    """Rows of Live Link Face, two frames of a clock of 60 a second apart, across the end of a second."""
    found = [HEADER]
    for index, pair in enumerate(weights):
        place = 55 + 2 * index if rate == 60 else rate - 3 + index
        second, frame = divmod(place, rate)
        found.append([timecode.format(second=second, frame=frame), "61", *(f"{w:.10f}" for w in pair), *angles])
    return found


def text(table, separator=",", end="\n"):
    return "".join(separator.join(row) + end for row in table)


def load(tmp_path, model, content):
    path = tmp_path / "take.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_track(path, model)


def check(track):
    found = np.stack([track.expression[:, track.expression_names.index(name)] for name in NAMES], axis=1)
    np.testing.assert_allclose(found, WEIGHTS, atol=1e-6)
    np.testing.assert_allclose(track.times_s, np.arange(4) / 30, atol=1e-9)
    np.testing.assert_allclose(track.euler_deg()[:, 0], np.degrees(0.3), atol=1e-4)
    assert (track.confidence == 1).all()


def with_commas(table):
    return [table[0], *([row[0], *(cell.replace(".", ",") for cell in row[1:])] for row in table[1:])]


PLAIN = text(rows())


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        text(rows(), end="\r\n"),
        text(rows(), end="\r"),
        PLAIN.rstrip("\n"),
        PLAIN + "\n\r\n \n,,,,,,\n",
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode() + b"\0" * 300,
        text(rows(), ";"),
        text(rows(), "\t"),
        text(rows(), ", "),
        text(with_commas(rows()), ";"),
        text(with_commas(rows()), "\t"),
        "sep=;\r\n" + text(with_commas(rows()), ";", "\r\n"),
        text([[f'"{cell}"' for cell in row] for row in with_commas(rows())]),
        text([[*row, "", ""] for row in rows()]),
        text([HEADER, *([*row, ""] for row in rows()[1:])]),
        text([[name.upper() for name in HEADER], *rows()[1:]]),
    ],
    ids=str.split("""plain mark windows mac no-end empty-lines utf-16 utf-16-no-mark utf-16-be zeros semicolons tabs
    spaces decimal-commas tabs-and-commas named-separator quotes empty-columns empty-cells capitals"""),
)
def test_forms_of_one_table(content, toy_model, tmp_path):
    track = load(tmp_path, toy_model, content)
    check(track)
    assert track.warnings == ()


def test_column_names_of_western_windows(toy_model, tmp_path):
    table = [[*HEADER, "Größe"], *([*row, "1"] for row in rows()[1:])]
    track = load(tmp_path, toy_model, text(table).encode("cp1252"))
    check(track)
    assert "größe" in track.warnings[0]


def test_percentages(toy_model, tmp_path):
    track = load(tmp_path, toy_model, text(rows(100 * WEIGHTS)))
    check(track)
    assert [warning.code for warning in track.warnings] == ["trackfile.percent"]
    table = rows()
    signs = [HEADER, *([*row[:2], *(f"{100 * float(cell):g}%" for cell in row[2:4]), *row[4:]] for row in table[1:])]
    track = load(tmp_path, toy_model, text(signs))
    check(track)
    assert track.warnings == ()


def test_weights_a_little_above_1_are_no_percentages(toy_model, tmp_path):
    track = load(tmp_path, toy_model, text(rows(1.5 * WEIGHTS)))
    assert track.expression.max() == 1 and track.warnings == ()
    assert track.expression[0, track.expression_names.index("jawOpen")] == np.float32(0.375)


def test_angles_in_degrees(toy_model, tmp_path):
    track = load(tmp_path, toy_model, text(rows(angles=["20.0", "-10.0", "5.0"])))
    np.testing.assert_allclose(track.euler_deg(), np.tile([20, -10, 5], (4, 1)), atol=1e-4)
    assert [warning.code for warning in track.warnings] == ["trackfile.degrees"]
    track = load(tmp_path, toy_model, text(rows(angles=["1.5", "-1.0", "3.1"])))
    assert track.warnings == ()
    np.testing.assert_allclose(track.euler_deg()[0], np.degrees([1.5, -1.0, 3.1]), atol=1e-3)


@pytest.mark.parametrize("rate", [24, 25, 30, 48, 50, 60, 90, 100, 120])
def test_rate_of_the_clock_is_seen_where_a_second_begins(rate):
    frames = range(rate // 2, 2 * rate + 5)
    lines = [f"01:59:{58 + k // rate:02d}:{k % rate:02d}.{k % 7}" for k in frames]
    columns = read_table(("Timecode,JawOpen\n" + "".join(f"{line},0\n" for line in lines)).encode()).columns
    expected = np.array([k + (k % 7) / 10 for k in frames]) / rate
    np.testing.assert_allclose(columns["timecode"], expected - expected[0], atol=1e-9)


def test_clock_without_a_new_second_counts_60_frames():
    found = read_table(b"Timecode,JawOpen\n1:2:3:10,0\n1:2:3:12,0\n").columns["timecode"]
    np.testing.assert_allclose(found, [0, 2 / 60])
    # Frames that a busy phone left out say nothing about the clock.
    found = read_table(b"Timecode,JawOpen\n1:2:3:54,0\n1:2:3:56,0\n1:2:3:58,0\n1:2:4:8,0\n1:2:4:10,0\n").columns
    np.testing.assert_allclose(found["timecode"], np.array([0, 2, 4, 14, 16]) / 60)


def test_rows_without_a_face(toy_model, tmp_path):
    table = rows()
    table[3] = [table[3][0], "0"]
    track = load(tmp_path, toy_model, text(table))
    assert list(track.confidence) == [1, 1, 0, 1]
    jaw = track.expression[:, track.expression_names.index("jawOpen")]
    np.testing.assert_allclose(jaw, [0.25, 0.125, (0.125 + 0.5) / 2, 0.5], atol=1e-6)
    np.testing.assert_allclose(track.times_s, np.arange(4) / 30, atol=1e-9)
    table[3] = [table[3][0], "0", *[""] * 5]
    np.testing.assert_array_equal(load(tmp_path, toy_model, text(table)).expression, track.expression)
    with pytest.raises(ParameterError, match="none of its rows shows a face"):
        load(tmp_path, toy_model, text([HEADER, table[3]]))


def test_recording_that_was_cut_off(toy_model, tmp_path):
    more = [*rows(), ["10:00:01:03.500", "61", "0.5"]]
    track = load(tmp_path, toy_model, text(more).rstrip("\n"))
    check(track)
    assert [warning.code for warning in track.warnings] == ["trackfile.last_line"]
    with pytest.raises(ParameterError, match="line 6 has 3 columns instead of 7"):
        load(tmp_path, toy_model, text(more))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PLAIN.replace("0.5000000000", '"0.5', 1), "line 2 cannot be divided into cells"),
        (PLAIN.replace("0.5000000000", '0.5"', 1), "line 2: eyeblinkleft is"),
        (PLAIN.replace("0.5000000000", '"' + "9" * 200_000 + '"', 1), "line 2 cannot be divided into cells"),
        (PLAIN.replace("0.5000000000", "9" * 400, 1), "line 2: eyeblinkleft is '9999"),
        (PLAIN.replace("0.5000000000", "", 1), "line 2: eyeblinkleft is ''"),
        (PLAIN.replace("0.5000000000", "1,2,3", 1), "line 2 has 9 columns instead of 7"),
        (PLAIN.replace("10:00:00", "9" * 400 + ":00:00"), "line 2: timecode is"),
        (PLAIN.replace("JawOpen", "HeadYaw"), "two columns headyaw"),
        (PLAIN.replace("Timecode", "Clock"), "names no column time_s or Timecode"),
        (PLAIN.replace("0.5000000000", "0.5\0", 1), "not a text file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a text file"),
        (b"PK\x03\x04 Excel", "not a text file"),
        (b"\xff\xfe" + b"T\0i", "not a text file"),
        ("sep=;\n", "names no column"),
        (" \n\t\n;;\n", "names no column"),
        ("Timecode,BlendShapeCount,JawOpen\n1:2:3:4\n", "line 2 has 1 columns instead of 3"),
        ("Timecode,BlendShapeCount,JawOpen\n,0\n", "line 2: timecode is ''"),
        ("BlendShapeCount,JawOpen,Timecode\n0\n", "line 2: timecode is ''"),
    ],
)
def test_tables_that_cannot_be_read(content, words, toy_model, tmp_path):
    with pytest.raises(ParameterError, match=words) as caught:
        load(tmp_path, toy_model, content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["mac_newlines", "percent", "head_degrees", "30fps"])
def test_tables_that_went_wrong(name, shared, model):
    path = shared / "real" / "failing" / f"livelink_{name}.csv"
    if not path.is_file():
        pytest.skip("no such table")
    track = load_track(path, model)
    rate = 30 / 1.001 if name == "30fps" else 30
    np.testing.assert_allclose(np.diff(track.times_s), 1 / rate, atol=2e-5)
    blink = track.expression[:, track.expression_names.index("eyeBlinkLeft")]
    assert len(track) == 120 and blink[0] == np.float32(0.1236470118) and blink.max() == np.float32(0.9749079943)
    expected = [20, -10, 5] if name == "head_degrees" else [0, 0, 0]
    np.testing.assert_allclose(track.euler_deg(), np.tile(expected, (120, 1)), atol=1e-5)
    assert len(track.warnings) == (name in ("percent", "head_degrees"))
