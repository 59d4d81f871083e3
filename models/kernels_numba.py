"""Numba kernels: normalise, fire and pool over all time steps, one band of rows after another.

Axes: R sequences (B*S, stream fastest), S streams, T time, N numbers of a frame, which lie as [H,W,C]; L = W*C numbers
of a row. A band's state stays in the first-level caches, and every inner loop runs over consecutive numbers, so that it
fills the vectors whatever C is: what differs from channel to channel comes as a whole row. Each kernel does the
sequences lo <= r < hi, so that threads share the work without sharing sums: results do not depend on the number of
threads. Scalars come in the arrays' own type, and so must every literal beside them: one float64 in a float32 loop
halves the vectors, or ends them. A loop sees five arrays at most: with more, LLVM gives up on proving that none
overlap.

Frames may be stored in 16 bits, which numba does not know: bfloat16 as uint16 with the upper half of a float32's bits,
float16 as int16. They are computed with in float32: each loop turns what it reads and writes itself (`number`,
`stored`), so that nothing passes through memory for it.

Imported by `fire_numba` alone, when the first layer runs on it.
"""

# numba infers the types:
# mypy: ignore-errors

from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

BAND = 1024
"""Numbers of a band, about: backward keeps T potentials of each."""

HALF_BIAS = np.float32(2.0**112)
"""By which the bits of a float16, where a float32 has them, are too small."""

_plain = numba.njit(nogil=True, cache=True, error_model="numpy")
_summing = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})  # vectorised sums


def number(x):
    """Return what is computed with for a stored number: itself, or the float32 of its 16 bits."""
    raise NotImplementedError


@overload(number)
def _number(x):
    if not isinstance(x, numba.types.Integer):
        return lambda x: x

    def of_bfloat16(x):
        return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)

    def of_float16(x):
        # exponent and mantissa in their places, but of another bias, which a product moves, that of subnormals, too
        bits = np.uint32((np.uint32(x) & np.uint32(0x7FFF)) << np.uint32(13))
        moved = np.float32(np.uint32(bits).view(np.float32) * HALF_BIAS).view(np.uint32)
        # the sign; and what is not finite has the highest exponent again
        endless = np.uint32(0x7F800000) if bits >= np.uint32(0x0F800000) else np.uint32(0)
        sign = np.uint32((np.uint32(x) & np.uint32(0x8000)) << np.uint32(16))
        return np.uint32(moved | endless | sign).view(np.float32)

    return of_float16 if x.signed else of_bfloat16


def stored(value, out):
    """Return a number that was computed as the array `out` stores it: itself, or rounded to 16 bits (half to even)."""
    raise NotImplementedError


@overload(stored)
def _stored(value, out):
    if not isinstance(out.dtype, numba.types.Integer):
        return lambda value, out: value

    def as_bfloat16(value, out):
        bits = np.float32(value).view(np.uint32)
        rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        return np.uint16(0x7FC0) if math.isnan(value) else np.uint16(rounded >> np.uint32(16))

    def as_float16(value, out):
        bits = np.float32(value).view(np.uint32)
        size = np.uint32(bits & np.uint32(0x7FFFFFFF))
        rounded = np.uint32(size - np.uint32(112 << 23) + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1)))
        half = np.uint32(rounded >> np.uint32(13))
        if size < np.uint32(0x38800000):  # subnormal: a sum whose last digit is theirs rounds
            summed = np.float32(np.uint32(size).view(np.float32) + np.float32(0.5))
            half = np.uint32(np.float32(summed).view(np.uint32) - np.uint32(0x3F000000))
        if size >= np.uint32(0x47800000):
            half = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else np.uint32(0x7C00)
        return np.int16(half | ((bits >> np.uint32(16)) & np.uint32(0x8000)))

    return as_float16 if out.dtype.signed else as_bfloat16


@_plain
def band_height(row, height):
    """Return the rows of a band: an even number, so that no pair to be pooled is torn apart, or the only one."""
    return min(height, 2 * max(1, BAND // (2 * row)))


@_plain
def normalize(x, scale, shift, y):
    """Write several rows of x [n], times scale plus shift [L], into y [n]."""
    L = scale.shape[0]
    for start in range(0, x.shape[0], L):
        row, out = x[start : start + L], y[start : start + L]
        for p in range(L):
            out[p] = number(row[p]) * scale[p] + shift[p]


@_plain
def charge(y, v, k, leak, before):
    """Compute the potential before reset [n] from the one after the last step `v` and the input `y`; leak is 1 or 0."""
    for p in range(y.shape[0]):
        before[p] = v[p] + (number(y[p]) - leak * v[p]) * k


@_plain
def fire(before, limit, spikes):
    """Write spikes [n] where the potential is above the limit."""
    one, zero = before.dtype.type(1), before.dtype.type(0)
    for p in range(before.shape[0]):
        spikes[p] = stored(one if before[p] > limit else zero, spikes)


@_plain
def settle(before, limit, threshold, soft, v):
    """Write the potential [n] after reset; soft 1 subtracts the threshold, 0 resets to 0."""
    for p in range(before.shape[0]):
        v[p] = (before[p] - threshold) * soft if before[p] > limit else before[p]


@_plain
def pool(full, row, channels, across, out):
    """Average over 2x2 of several rows into out [n//2 rows of (W//2)*C]; an odd last row or column is dropped.

    across [L] is scratch.
    """
    half = row // channels // 2
    quarter = full.dtype.type(0.25)
    for i in range(full.shape[0] // (2 * row)):
        top, bottom = full[2 * i * row : (2 * i + 1) * row], full[(2 * i + 1) * row : (2 * i + 2) * row]
        for p in range(row):
            across[p] = (top[p] + bottom[p]) * quarter
        for j in range(half):
            a, o = 2 * j * channels, (i * half + j) * channels
            for c in range(channels):
                out[o + c] = stored(across[a + c] + across[a + channels + c], out)


@_plain
def spread(grad, row, channels, across, out):
    """Multiply several rows by the gradient of `pool` for grad; a dropped row or column becomes 0.

    across [L] is scratch.
    """
    half = row // channels // 2
    quarter = out.dtype.type(0.25)
    across[2 * half * channels :] = 0
    pairs = out.shape[0] // (2 * row)
    for i in range(pairs):
        for j in range(half):
            a, o = 2 * j * channels, (i * half + j) * channels
            for c in range(channels):
                across[a + c] = number(grad[o + c]) * quarter
            for c in range(channels):
                across[a + channels + c] = number(grad[o + c]) * quarter
        multiply(across, out[2 * i * row : (2 * i + 1) * row])
        multiply(across, out[(2 * i + 1) * row : (2 * i + 2) * row])
    out[2 * pairs * row :] = 0


@_plain
def multiply(grad, out):
    """Multiply out [n] by grad [n]."""
    for p in range(out.shape[0]):
        out[p] *= number(grad[p])


@_plain
def add(x, out):
    """Add x [n] to out [n]."""
    for p in range(out.shape[0]):
        out[p] += number(x[p])


@_plain
def slope(kind, alpha, threshold, before, out):
    """Write the surrogate derivative [n] at the potential before reset; `kind` as in `backends.SURROGATE_CODES`."""
    n = before.shape[0]
    zero, one, half = before.dtype.type(0), before.dtype.type(1), before.dtype.type(0.5)
    if kind == 0:
        for p in range(n):
            value = alpha - alpha * alpha * abs(before[p] - threshold)
            out[p] = value if value > zero else zero
    elif kind in (1, 2):
        edge = half if kind == 1 else one / alpha
        for p in range(n):
            out[p] = one if abs(before[p] - threshold) < edge else zero
    elif kind == 3:
        for p in range(n):
            s = one / (one + math.exp(-alpha * (before[p] - threshold)))
            out[p] = alpha * s * (one - s)
    else:
        bend = before.dtype.type(math.pi / 2) * alpha
        for p in range(n):
            w = bend * (before[p] - threshold)
            out[p] = alpha * half / (one + w * w)


@_plain
def forward(
    x, scale, shift, k, leak, limit, threshold, soft, row, channels, pooled, spikes, potential, lo, hi
):  # fmt: skip
    """Write spikes [R,T,N or pooled N] and, unless it is empty, the potential after reset [R,T,N].

    x [R,T,N]; scale, shift [S,T,L], with no numbers in them where nothing is normalised; row = L. x and spikes may have
    16 bits; what is computed with has the type of scale.
    """
    T, N = x.shape[1:]
    height = N // row
    rows = band_height(row, height)
    bands = np.empty((4, rows * row), scale.dtype)
    across = np.empty(row, scale.dtype)
    small = row // channels // 2 * channels  # numbers of a pooled row
    for r in range(lo, hi):
        s = r % scale.shape[0]
        for top in range(0, height, rows):
            begin, end = top * row, min(top + rows, height) * row
            n = end - begin
            v, before, full, y = bands[0, :n], bands[1, :n], bands[2, :n], bands[3, :n]
            v[:] = 0
            for t in range(T):
                if scale.size:
                    normalize(x[r, t, begin:end], scale[s, t], shift[s, t], y)
                    charge(y, v, k, leak, before)
                else:
                    charge(x[r, t, begin:end], v, k, leak, before)
                settle(before, limit, threshold, soft, v)
                if pooled:
                    fire(before, limit, full)
                    out = spikes[r, t, top // 2 * small : (top // 2 + n // row // 2) * small]
                    pool(full, row, channels, across, out)
                else:
                    fire(before, limit, spikes[r, t, begin:end])
                if potential.size:
                    potential[r, t, begin:end] = v


@_plain
def step_back(before, push, k, leak, limit, soft, carried, grad_y):
    """Go one step back: gradient of the neurons' input y [n], and of the potential they started from (carried [n]).

    push [n]: gradient of the spikes times the surrogate derivative. carried [n]: that of the potential after reset,
    whose own derivative is 1, or `soft` where it spiked; the spike in it is a constant.
    """
    one = before.dtype.type(1)
    for p in range(before.shape[0]):
        grad = carried[p] * (soft if before[p] > limit else one) + push[p]
        grad_y[p] = stored(grad * k, grad_y)
        carried[p] = grad - grad * k * leak


@_plain
def sum_norm(grad_y, x, mean, plain, centred):
    """Add up the rows of the gradient, and of the gradient times the centred input, into two rows [L]."""
    L = mean.shape[0]
    for start in range(0, x.shape[0], L):
        grad, values = grad_y[start : start + L], x[start : start + L]
        for p in range(L):
            plain[p] += grad[p]
            centred[p] += grad[p] * (number(values[p]) - mean[p])


@_summing
def sum_gain(grad_y, before, start, k):
    """Return a part of the gradient of k: before = start + (y - leak start) k."""
    total = grad_y.dtype.type(0)
    for p in range(before.shape[0]):
        total += grad_y[p] * (before[p] - start[p])
    return total / (k * k)


@_plain
def by_channel(row, out):
    """Write the sums over W of a row [W*C] into out [C]."""
    C = out.shape[0]
    out[:] = 0
    for start in range(0, row.shape[0], C):
        for c in range(C):
            out[c] += row[start + c]


@_plain
def backward(
    x, scale, shift, mean, k, leak, limit, threshold, soft, kind, alpha, row, channels, pooled,
    grad_spikes, grad_after, grad_y, sums, grad_k, lo, hi,
):  # fmt: skip
    """Write the gradient of the neurons' input y = x scale + shift [R,T,N]; potential and spikes are computed again.

    x and grad_spikes may have 16 bits, and grad_y where nobody needs sums and grad_k; the others have the type of
    scale, in which everything is computed.
    grad_spikes and grad_after are empty where there is no gradient. sums [2,R,T,C] (of the gradient, and of the
    gradient times x - mean) and grad_k [R] are empty where nobody needs them; both are float64.
    """
    T, N = x.shape[1:]
    height = N // row
    rows = band_height(row, height)
    before_band, bands = np.empty((T, rows * row), scale.dtype), np.empty((4, rows * row), scale.dtype)
    across = np.empty(row, scale.dtype)
    totals = np.empty((2, T, row if sums.size else 0), scale.dtype)
    small = row // channels // 2 * channels
    for r in range(lo, hi):
        s = r % scale.shape[0]
        totals[:] = 0
        for top in range(0, height, rows):
            begin, end = top * row, min(top + rows, height) * row
            n = end - begin
            start, push, carried, y = bands[0, :n], bands[1, :n], bands[2, :n], bands[3, :n]
            start[:] = 0
            for t in range(T):
                if scale.size:
                    normalize(x[r, t, begin:end], scale[s, t], shift[s, t], y)
                    charge(y, start, k, leak, before_band[t, :n])
                else:
                    charge(x[r, t, begin:end], start, k, leak, before_band[t, :n])
                settle(before_band[t, :n], limit, threshold, soft, start)
            carried[:] = 0
            for t in range(T - 1, -1, -1):
                before, out = before_band[t, :n], grad_y[r, t, begin:end]
                if not grad_spikes.size:
                    push[:] = 0
                else:
                    slope(kind, alpha, threshold, before, push)
                    if pooled:
                        pairs = n // row // 2
                        given = grad_spikes[r, t, top // 2 * small : (top // 2 + pairs) * small]
                        spread(given, row, channels, across, push)
                    else:
                        multiply(grad_spikes[r, t, begin:end], push)
                if grad_after.size:
                    add(grad_after[r, t, begin:end], carried)
                step_back(before, push, k, leak, limit, soft, carried, out)
                if sums.size:
                    sum_norm(out, x[r, t, begin:end], mean[s, t], totals[0, t], totals[1, t])
                if grad_k.size:
                    start[:] = 0
                    if t:
                        settle(before_band[t - 1, :n], limit, threshold, soft, start)
                    grad_k[r] += sum_gain(out, before, start, k)
        if sums.size:
            for t in range(T):
                by_channel(totals[0, t], sums[0, r, t])
                by_channel(totals[1, t], sums[1, r, t])


@_plain
def add_squares(x, mean, out):
    """Add the squares of x - mean [L] to out [L]."""
    for p in range(out.shape[0]):
        out[p] += (number(x[p]) - mean[p]) * (number(x[p]) - mean[p])


@_plain
def moments(x, like, row, sums, squares, lo, hi):
    """Write each frame's sum [R,T,C], and its sum of squares about its own mean [R,T,C], by channel, in float64.

    Rows are added up in the type of `like`.
    """
    T, N = x.shape[1:]
    C = sums.shape[2]
    across, centre = np.empty(row, like.dtype), np.empty(row, like.dtype)
    for r in range(lo, hi):
        for t in range(T):
            across[:] = 0
            for start in range(0, N, row):
                add(x[r, t, start : start + row], across)
            by_channel(across, sums[r, t])
            for start in range(0, row, C):
                for c in range(C):
                    centre[start + c] = sums[r, t, c] * C / N
            across[:] = 0
            for start in range(0, N, row):
                add_squares(x[r, t, start : start + row], centre, across)
            by_channel(across, squares[r, t])


@_plain
def normalize_backward(x, grad, scale, slant, offset, out, lo, hi):
    """Write scale grad + slant x + offset [R,T,N], the three [S,T,L], into out, or into grad where out is empty.

    x and out may have 16 bits.
    """
    T, N = x.shape[1:]
    L = scale.shape[2]
    for r in range(lo, hi):
        s = r % scale.shape[0]
        for t in range(T):
            a, b, d = scale[s, t], slant[s, t], offset[s, t]
            for start in range(0, N, L):
                values, given = x[r, t, start : start + L], grad[r, t, start : start + L]
                if out.size:
                    written = out[r, t, start : start + L]
                    for p in range(L):
                        written[p] = stored(given[p] * a[p] + number(values[p]) * b[p] + d[p], written)
                else:  # a loop of its own: LLVM has to see that it writes where it reads
                    for p in range(L):
                        given[p] = given[p] * a[p] + number(values[p]) * b[p] + d[p]
