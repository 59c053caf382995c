"""Numba kernels of ``faceverse.io.jpeg``: Huffman-decode the scans of a JPEG file without computing its pixels.

Common arguments:
    bits: (B + 8,) uint8, entropy-coded data of one scan without markers and stuffed zeros; the last 8 bytes are padding
        that lets 16 bits be looked ahead anywhere.
    bounds: (S, 2) int64, first bit and end of each segment, the data between two restart markers.
    layout: (6,) int64: units in the scan, which are MCUs, or blocks if it has AC coefficients of a progressive file;
        units in a segment, of which the last one may have fewer; for progressive files: position of the lowest bit in
        this scan, whether it has one further bit of known coefficients (0 or 1), first and last coefficient.
    blocks: (K, 3) int64, for each block of an MCU its component, and the rows of `tables` for DC and AC.
    tables: (T, 65536) uint16, what the next 16 bits begin with: length of the code << 8 | symbol, 0 for no code.
    limits: (C,) int64, largest absolute DC coefficient of a component.
    sizes: (C, 64) int64, largest number of bits of an AC coefficient.
    dc: (C, units) int64 of zeros; receives the sum of the DC coefficients of a unit.

They return (fault, unit): the first fault, and the unit it shows in.
"""

import numpy as np

from ..kernels import compile_kernel

NO_FAULT = 0
BAD_CODE = 1  # bits that are no code, or a symbol that this place does not admit
OUT_OF_RANGE = 2  # more coefficients than a block has, or larger than a picture can make them
TOO_SHORT = 3  # a segment ends before its last unit
TOO_LONG = 4  # data after the last unit of a segment


@compile_kernel
def _peek(bits, at):
    """The 16 bits from position `at` on, as an integer."""
    byte = at >> 3
    word = (np.int64(bits[byte]) << 16) | (np.int64(bits[byte + 1]) << 8) | np.int64(bits[byte + 2])
    return (word >> (8 - (at & 7))) & 0xFFFF


@compile_kernel
def _amplitude(bits, at, size):
    """Signed value of `size` further bits (1 to 15), see ITU-T T.81, F.2.2.1."""
    value = _peek(bits, at) >> (16 - size)
    return value if value >> (size - 1) else value - (np.int64(1) << size) + 1


@compile_kernel
def _is_padding(bits, at, end):
    """Whether only padding follows: ones by the standard, zeros by some encoders, whole bytes of them by others."""
    wanted = _peek(bits, at) >> 15
    while at < end:
        if (bits[at >> 3] >> (7 - (at & 7))) & 1 != wanted:
            return False
        at += 1
    return True


@compile_kernel
def check_sequential(bits, bounds, layout, blocks, tables, limits, sizes, dc):
    """Decode a scan of a baseline or extended sequential file."""
    units, interval = layout[0], layout[1]
    predicted = np.zeros(len(limits), np.int64)
    for segment in range(len(bounds)):
        at, end = bounds[segment, 0], bounds[segment, 1]
        predicted[:] = 0
        for unit in range(segment * interval, min((segment + 1) * interval, units)):
            for block in range(len(blocks)):
                component = blocks[block, 0]
                if at >= end:
                    return TOO_SHORT, unit
                entry = np.int64(tables[blocks[block, 1], _peek(bits, at)])
                size = entry & 255
                if entry == 0 or size > 15:
                    return BAD_CODE if at + 16 <= end else TOO_SHORT, unit
                at += entry >> 8
                if size and at < end:
                    predicted[component] += _amplitude(bits, at, size)
                at += size
                if abs(predicted[component]) > limits[component]:
                    return OUT_OF_RANGE if at <= end else TOO_SHORT, unit
                dc[component, unit] += predicted[component]
                k = 1
                while k < 64:
                    if at >= end:
                        return TOO_SHORT, unit
                    entry = np.int64(tables[blocks[block, 2], _peek(bits, at)])
                    run, size = (entry >> 4) & 15, entry & 15
                    if entry == 0 or (size == 0 and run != 0 and run != 15):
                        return BAD_CODE if at + 16 <= end else TOO_SHORT, unit
                    at += (entry >> 8) + size
                    if size == 0 and run == 0:
                        break
                    k += run
                    if k > 63 or size > sizes[component, k]:
                        return OUT_OF_RANGE if at <= end else TOO_SHORT, unit
                    k += 1
                if at > end:
                    return TOO_SHORT, unit
        if not _is_padding(bits, at, end):
            return TOO_LONG, min((segment + 1) * interval, units) - 1
    return (NO_FAULT, units) if len(bounds) * interval >= units else (TOO_SHORT, len(bounds) * interval)


@compile_kernel
def check_dc(bits, bounds, layout, blocks, tables, limits, dc):
    """Decode a scan of DC coefficients of a progressive file."""
    units, interval, shift, refines = layout[0], layout[1], layout[2], layout[3]
    predicted = np.zeros(len(limits), np.int64)
    for segment in range(len(bounds)):
        at, end = bounds[segment, 0], bounds[segment, 1]
        predicted[:] = 0
        for unit in range(segment * interval, min((segment + 1) * interval, units)):
            for block in range(len(blocks)):
                if at >= end:
                    return TOO_SHORT, unit
                if refines:
                    at += 1
                    continue
                component = blocks[block, 0]
                entry = np.int64(tables[blocks[block, 1], _peek(bits, at)])
                size = entry & 255
                if entry == 0 or size > 15:
                    return BAD_CODE if at + 16 <= end else TOO_SHORT, unit
                at += entry >> 8
                if size and at < end:
                    predicted[component] += _amplitude(bits, at, size)
                at += size
                if abs(predicted[component] << shift) > limits[component]:
                    return OUT_OF_RANGE if at <= end else TOO_SHORT, unit
                dc[component, unit] += predicted[component] << shift
            if at > end:
                return TOO_SHORT, unit
        if not _is_padding(bits, at, end):
            return TOO_LONG, min((segment + 1) * interval, units) - 1
    return (NO_FAULT, units) if len(bounds) * interval >= units else (TOO_SHORT, len(bounds) * interval)


@compile_kernel
def check_ac(bits, bounds, layout, blocks, tables, sizes, nonzero):
    """Decode a scan of AC coefficients of a progressive file.

    Args:
        nonzero: (units, 64) bool, coefficients that are not 0 so far; updated.
    """
    units, interval, shift, refines, first, last = layout
    component, table = blocks[0, 0], blocks[0, 2]
    for segment in range(len(bounds)):
        at, end = bounds[segment, 0], bounds[segment, 1]
        end_of_bands = np.int64(0)
        for unit in range(segment * interval, min((segment + 1) * interval, units)):
            k = first
            while end_of_bands == 0 and k <= last:
                if at >= end:
                    return TOO_SHORT, unit
                entry = np.int64(tables[table, _peek(bits, at)])
                run, size = (entry >> 4) & 15, entry & 15
                if entry == 0 or (refines and size > 1):
                    return BAD_CODE if at + 16 <= end else TOO_SHORT, unit
                at += entry >> 8
                if size == 0 and run < 15:
                    end_of_bands = np.int64(1) << run
                    if run and at < end:
                        end_of_bands += _peek(bits, at) >> (16 - run)
                    at += run
                    break
                at += size
                if not refines:
                    k += run
                else:
                    while k <= last:
                        if nonzero[unit, k]:
                            at += 1
                        elif run == 0:
                            break
                        else:
                            run -= 1
                        k += 1
                if k > last or (not refines and size + shift > sizes[component, k]):
                    return OUT_OF_RANGE if at <= end else TOO_SHORT, unit
                if size:
                    nonzero[unit, k] = True
                k += 1
            if end_of_bands:
                if refines:
                    for rest in range(k, last + 1):
                        at += nonzero[unit, rest]
                end_of_bands -= 1
            if at > end:
                return TOO_SHORT, unit
        if end_of_bands or not _is_padding(bits, at, end):
            return TOO_LONG, min((segment + 1) * interval, units) - 1
    return (NO_FAULT, units) if len(bounds) * interval >= units else (TOO_SHORT, len(bounds) * interval)
