"""Check the arrays of a file against shapes whose lengths have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..messages import Message

Shape = Sequence[int | str]


def array_problems(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    lengths: Mapping[str, int],
    indices: Sequence[str] = (),
) -> list[Message]:
    """What is wrong with the arrays of a file: missing ones, types, shapes, and values that are not finite.

        >>> array_problems({"hidden": np.zeros((4, 3)), "bias": np.zeros(2)}, {"hidden": (4, "H"), "bias": ("H",)}, {})
        ['bias must have shape (3,), got (2,)']

    Args:
        arrays: by name; further ones are passed over.
        shapes: lengths are numbers, names, or sums of both such as "K + 2". A name stands for the same number, at least
            1, wherever it occurs: the one in `lengths`, else that of the first array that has it.
        lengths: known lengths by name.
        indices: arrays of whole numbers that permute their own rows; all others are floating-point.
    """
    if missing := [name for name in shapes if name not in arrays]:
        return [Message("array.missing", keys=", ".join(missing))]
    known = dict(lengths)
    for name, shape in shapes.items():
        if len(shape) == arrays[name].ndim:
            found = zip(shape, arrays[name].shape, strict=True)
            known |= {
                key: max(n, 1) for key, n in found if isinstance(key, str) and key.isidentifier() and key not in known
            }
    problems = []
    for name, shape in shapes.items():
        array, expected = arrays[name], tuple(_length(part, known) for part in shape)
        if array.shape != expected:
            problems.append(Message("array.shape", key=name, expected=expected, shape=array.shape))
        elif name in indices:
            if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= len(array):
                problems.append(Message("array.index", name=name, last=len(array) - 1))
        elif array.dtype.kind != "f":
            problems.append(Message("array.type", key=name, dtype="float", expected=expected, found=array.dtype))
        elif not np.isfinite(array).all():
            problems.append(Message("array.not_finite", key=name))
    return problems


def _length(part: int | str, known: Mapping[str, int]) -> int:
    """A number, a name, or a sum; a name that no array defines has the length 1."""
    if isinstance(part, int):
        return part
    terms = (term.strip() for term in part.split("+"))
    return sum(int(term) if term.isdigit() else known.get(term, 1) for term in terms)
