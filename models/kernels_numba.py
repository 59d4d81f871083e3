"""Numba kernels: normalise, fire and pool over all time steps, one band of rows after another.

Axes: R sequences (B*S, stream fastest), S streams, T time, N numbers of a frame, which lie as [H,W,C]; L = W*C numbers
of a row. A band's state stays in the first-level caches, and every inner loop runs over consecutive numbers, so that it
fills the vectors whatever C is: what differs from channel to channel comes as a whole row. Each kernel does the
sequences lo <= r < hi, so that threads share the work without sharing sums: results do not depend on the number of
threads. Scalars come in the arrays' own type, and so must every literal beside them: one float64 in a float32 loop
halves the vectors, or ends them. A loop sees five arrays at most: with more, LLVM gives up on proving that none
overlap.

Frames may be stored in 16 bits, which numba does not know: bfloat16 as uint16 with the upper half of a float32's bits,
float16 as int16. They are computed with in float32, and what is written so are spikes and their averages, which both
hold exactly.

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


def widened(x, scratch):
    """Return the numbers x [n] as they are computed with: themselves, or from 16 bits in scratch [n or more]."""
    raise NotImplementedError


@overload(widened)
def _widened(x, scratch):
    if not isinstance(x.dtype, numba.types.Integer):
        return lambda x, scratch: x

    def widen(x, scratch):
        bits = scratch.view(np.uint32)
        for p in range(x.shape[0]):
            bits[p] = np.uint32(x[p]) << np.uint32(16)
        return scratch[: x.shape[0]]

    def widen_float16(x, scratch):
        numbers = scratch[: x.shape[0]]
        bits = numbers.view(np.uint32)
        for p in range(x.shape[0]):  # exponent and mantissa in their places, but of another bias
            bits[p] = (np.uint32(x[p]) & np.uint32(0x7FFF)) << np.uint32(13)
        for p in range(x.shape[0]):  # which a product moves, that of numbers below the normal ones, too
            numbers[p] *= HALF_BIAS
        for p in range(x.shape[0]):  # the sign; and what is not finite has the highest exponent again
            endless = np.uint32(0x7F800000) if bits[p] >= np.uint32(0x47800000) else np.uint32(0)
            bits[p] |= endless | ((np.uint32(x[p]) & np.uint32(0x8000)) << np.uint32(16))
        return numbers

    return widen_float16 if x.dtype.signed else widen


def room(out, scratch):
    """Return where numbers for out [n] are computed: there, or for 16 bits in scratch [n or more]; then `keep`."""
    raise NotImplementedError


@overload(room)
def _room(out, scratch):
    if not isinstance(out.dtype, numba.types.Integer):
        return lambda out, scratch: out
    return lambda out, scratch: scratch[: out.shape[0]]


def keep(numbers, out):
    """Write what was computed in the `room` of out [n]; where it has 16 bits numbers are quarters from 0 to 1."""
    raise NotImplementedError


@overload(keep)
def _keep(numbers, out):
    if not isinstance(out.dtype, numba.types.Integer):
        return lambda numbers, out: None

    def narrow(numbers, out):
        bits = numbers.view(np.uint32)
        for p in range(out.shape[0]):
            out[p] = np.uint16(bits[p] >> np.uint32(16))

    def narrow_to_float16(numbers, out):
        bits = numbers.view(np.uint32)
        for p in range(out.shape[0]):
            shifted = (bits[p] >> np.uint32(13)) - np.uint32(112 << 10)
            out[p] = np.int16(shifted if bits[p] else np.uint32(0))

    return narrow_to_float16 if out.dtype.signed else narrow


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
            out[p] = row[p] * scale[p] + shift[p]


@_plain
def charge(y, v, k, leak, before):
    """Compute the potential before reset [n] from the one after the last step `v` and the input `y`; leak is 1 or 0."""
    for p in range(y.shape[0]):
        before[p] = v[p] + (y[p] - leak * v[p]) * k


@_plain
def fire(before, limit, spikes):
    """Write spikes [n] where the potential is above the limit."""
    one, zero = before.dtype.type(1), before.dtype.type(0)
    for p in range(before.shape[0]):
        spikes[p] = one if before[p] > limit else zero


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
                out[o + c] = across[a + c] + across[a + channels + c]


@_plain
def spread(grad, row, channels, across, out):
    """Multiply several rows by the gradient of `pool` for grad; a dropped row or column becomes 0.

    across [L] is scratch.
    """
    half = row // channels // 2
    quarter = grad.dtype.type(0.25)
    across[2 * half * channels :] = 0
    pairs = out.shape[0] // (2 * row)
    for i in range(pairs):
        for j in range(half):
            a, o = 2 * j * channels, (i * half + j) * channels
            for c in range(channels):
                across[a + c] = grad[o + c] * quarter
            for c in range(channels):
                across[a + channels + c] = grad[o + c] * quarter
        multiply(across, out[2 * i * row : (2 * i + 1) * row])
        multiply(across, out[(2 * i + 1) * row : (2 * i + 2) * row])
    out[2 * pairs * row :] = 0


@_plain
def multiply(grad, out):
    """Multiply out [n] by grad [n]."""
    for p in range(out.shape[0]):
        out[p] *= grad[p]


@_plain
def add(x, out):
    """Add x [n] to out [n]."""
    for p in range(out.shape[0]):
        out[p] += x[p]


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
    bands = np.empty((5, rows * row), scale.dtype)
    across = np.empty(row, scale.dtype)
    small = row // channels // 2 * channels  # numbers of a pooled row
    for r in range(lo, hi):
        s = r % scale.shape[0]
        for top in range(0, height, rows):
            begin, end = top * row, min(top + rows, height) * row
            n = end - begin
            v, before, full = bands[0, :n], bands[1, :n], bands[2, :n]
            v[:] = 0
            for t in range(T):
                y = widened(x[r, t, begin:end], bands[4])
                if scale.size:
                    normalize(y, scale[s, t], shift[s, t], bands[3, :n])
                    y = bands[3, :n]
                charge(y, v, k, leak, before)
                settle(before, limit, threshold, soft, v)
                if pooled:
                    fire(before, limit, full)
                    out = spikes[r, t, top // 2 * small : (top // 2 + n // row // 2) * small]
                    averages = room(out, bands[3])
                    pool(full, row, channels, across, averages)
                    keep(averages, out)
                else:
                    out = spikes[r, t, begin:end]
                    fired = room(out, full)
                    fire(before, limit, fired)
                    keep(fired, out)
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
        grad_y[p] = grad * k
        carried[p] = grad - grad * k * leak


@_plain
def sum_norm(grad_y, x, mean, plain, centred):
    """Add up the rows of the gradient, and of the gradient times the centred input, into two rows [L]."""
    L = mean.shape[0]
    for start in range(0, x.shape[0], L):
        grad, values = grad_y[start : start + L], x[start : start + L]
        for p in range(L):
            plain[p] += grad[p]
            centred[p] += grad[p] * (values[p] - mean[p])


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

    x and grad_spikes may have 16 bits, the others have the type of scale, in which everything is computed.
    grad_spikes and grad_after are empty where there is no gradient. sums [2,R,T,C] (of the gradient, and of the
    gradient times x - mean) and grad_k [R] are empty where nobody needs them; both are float64.
    """
    T, N = x.shape[1:]
    height = N // row
    rows = band_height(row, height)
    before_band, bands = np.empty((T, rows * row), scale.dtype), np.empty((5, rows * row), scale.dtype)
    across = np.empty(row, scale.dtype)
    totals = np.empty((2, T, row if sums.size else 0), scale.dtype)
    small = row // channels // 2 * channels
    for r in range(lo, hi):
        s = r % scale.shape[0]
        totals[:] = 0
        for top in range(0, height, rows):
            begin, end = top * row, min(top + rows, height) * row
            n = end - begin
            start, push, carried = bands[0, :n], bands[1, :n], bands[2, :n]
            start[:] = 0
            for t in range(T):
                y = widened(x[r, t, begin:end], bands[4])
                if scale.size:
                    normalize(y, scale[s, t], shift[s, t], bands[3, :n])
                    y = bands[3, :n]
                charge(y, start, k, leak, before_band[t, :n])
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
                        spread(widened(given, bands[4]), row, channels, across, push)
                    else:
                        multiply(widened(grad_spikes[r, t, begin:end], bands[4]), push)
                if grad_after.size:
                    add(grad_after[r, t, begin:end], carried)
                step_back(before, push, k, leak, limit, soft, carried, out)
                if sums.size:
                    values = widened(x[r, t, begin:end], bands[4])
                    sum_norm(out, values, mean[s, t], totals[0, t], totals[1, t])
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
        out[p] += (x[p] - mean[p]) * (x[p] - mean[p])


@_plain
def moments(x, like, row, sums, squares, lo, hi):
    """Write each frame's sum [R,T,C], and its sum of squares about its own mean [R,T,C], by channel, in float64.

    Rows are added up in the type of `like`.
    """
    T, N = x.shape[1:]
    C = sums.shape[2]
    across, centre, scratch = np.empty(row, like.dtype), np.empty(row, like.dtype), np.empty(row, like.dtype)
    for r in range(lo, hi):
        for t in range(T):
            across[:] = 0
            for start in range(0, N, row):
                add(widened(x[r, t, start : start + row], scratch), across)
            by_channel(across, sums[r, t])
            for start in range(0, row, C):
                for c in range(C):
                    centre[start + c] = sums[r, t, c] * C / N
            across[:] = 0
            for start in range(0, N, row):
                add_squares(widened(x[r, t, start : start + row], scratch), centre, across)
            by_channel(across, squares[r, t])


@_plain
def normalize_backward(x, grad, scale, slant, offset, lo, hi):
    """Turn in place: grad [R,T,N] <- scale grad + slant x + offset, the three [S,T,L]."""
    T, N = x.shape[1:]
    L = scale.shape[2]
    scratch = np.empty(L, scale.dtype)
    for r in range(lo, hi):
        s = r % scale.shape[0]
        for t in range(T):
            a, b, d = scale[s, t], slant[s, t], offset[s, t]
            for start in range(0, N, L):
                values, out = widened(x[r, t, start : start + L], scratch), grad[r, t, start : start + L]
                for p in range(L):
                    out[p] = out[p] * a[p] + values[p] * b[p] + d[p]
