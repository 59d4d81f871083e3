"""The compiled loop of `pipeline.formats.tables.text`: bytes to numbers, each as digits and a power of ten."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

MOST_DIGITS = 18
"""Digits that a number of 64 bits holds; further decimals are dropped, further digits before the point an error."""
FINE, BAD_NUMBER, BAD_COUNT = 0, 1, 2
"""What a loop ends with."""


@njit(cache=True, nogil=True)
def count_lines(data: NDArray[np.uint8]) -> int:
    """Return the number of lines, the last one without an end included."""
    count = 1
    for i in range(data.size):
        if data[i] == 10:
            count += 1
    return count


@njit(cache=True, nogil=True)
def parse(  # noqa: PLR0911  (one compiled loop)
    data: NDArray[np.uint8], columns: int, digits: NDArray[np.int64], decimals: NDArray[np.int8]
) -> tuple[int, int, int]:
    """Fill `digits` and `decimals` [N,columns]: a number is digits * 10**-decimals.

    Numbers are separated by spaces, tabs, commas or semicolons; lines end with a line feed, perhaps after a carriage
    return; empty lines count as none. True and False are 1 and 0.

    Returns:
        How it ended, the number of rows, and where (a position in `data`).
    """
    row, i, size = 0, 0, data.size
    while i < size:
        column = 0
        start = i
        while True:
            while i < size and (data[i] == 32 or data[i] == 9 or data[i] == 13):
                i += 1
            if i >= size or data[i] == 10:
                break
            if column == columns:
                return BAD_COUNT, row, start
            negative = False
            if data[i] == 45 or data[i] == 43:  # minus, plus
                negative = data[i] == 45
                i += 1
            value, places, seen, point, kept = np.int64(0), 0, 0, False, 0
            letter = data[i] | 32 if i < size else 0
            if letter in (116, 102):  # t, f
                value, seen = np.int64(letter == 116), 1
                while i < size and 97 <= (data[i] | 32) <= 122:
                    i += 1
            else:
                while i < size:
                    byte = data[i]
                    if 48 <= byte <= 57:
                        seen += 1
                        if kept < MOST_DIGITS:
                            value = value * 10 + (byte - 48)
                            kept += 1 if value else 0
                            places += 1 if point else 0
                        elif not point:
                            return BAD_NUMBER, row, start
                    elif byte == 46 and not point:
                        point = True
                    else:
                        break
                    i += 1
                if seen and i < size and (data[i] | 32) == 101:  # e
                    i += 1
                    down = i < size and data[i] == 45
                    if i < size and (data[i] == 45 or data[i] == 43):
                        i += 1
                    power, first = 0, i
                    while i < size and 48 <= data[i] <= 57:
                        power = min(power * 10 + (data[i] - 48), 1000)
                        i += 1
                    if i == first:
                        return BAD_NUMBER, row, start
                    places += power if down else -power
            if seen == 0 or not -60 <= places <= 120:
                return BAD_NUMBER, row, start
            digits[row, column] = -value if negative else value
            decimals[row, column] = places
            column += 1
            while i < size and (data[i] == 32 or data[i] == 9 or data[i] == 13):
                i += 1
            if i < size and (data[i] == 44 or data[i] == 59):  # comma, semicolon
                i += 1
            elif i < size and data[i] != 10 and not (data[i - 1] == 32 or data[i - 1] == 9):
                return BAD_NUMBER, row, start
        if column == columns:
            row += 1
        elif column:
            return BAD_COUNT, row, start
        i += 1
    return FINE, row, size
