"""Numba kernels: normalise, fire and pool over all time steps, one (sequence, channel) map after another.

Axes: R sequences (B*S, stream fastest), S streams, T time, C channels, P pixels (H*W). A map's state stays in the
first-level cache; the loops over P vectorise. Each kernel does the maps lo <= r * C + c < hi, so that threads share
the work without sharing sums: results do not depend on the number of threads. Scalars come in the arrays' own type,
and so must every literal beside them: one float64 in a float32 loop halves the vectors, or ends them.

Imported by `fire_numba` alone, when the first layer runs on it.
"""

# numba infers the types:
# mypy: ignore-errors

from __future__ import annotations

import math

import numba
import numpy as np

_plain = numba.njit(nogil=True, cache=True, error_model="numpy")
_summing = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})  # vectorised sums


@_plain
def charge_and_fire(x, scale, shift, k, leak, threshold, soft, at_threshold, v, before, spikes):
    """One step of a map: moves the potential v [P], writes the potential before reset and the spikes [P].

    leak 1 leaks, 0 does not; soft 1 subtracts the threshold on reset, 0 resets to 0.
    """
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for p in range(x.shape[0]):
        y = x[p] * scale + shift
        charged = v[p] + (y - leak * v[p]) * k
        u = charged - threshold
        fires = (u > zero) | (at_threshold & (u == zero))
        before[p] = charged
        spikes[p] = one if fires else zero
        v[p] = u * soft if fires else charged


@_plain
def pool(full, width, out):
    """Average over 2x2 of one map [H*W] into out [H//2 * W//2]; an odd last row or column is dropped."""
    half = width // 2
    quarter = full.dtype.type(0.25)
    for i in range(out.shape[0] // half):
        top, bottom = 2 * i * width, (2 * i + 1) * width
        for j in range(half):
            a = top + 2 * j
            b = bottom + 2 * j
            out[i * half + j] = (full[a] + full[a + 1] + full[b] + full[b + 1]) * quarter


@_plain
def spread(grad, width, out):
    """Multiply out [H*W] by the gradient of `pool` for grad [H//2 * W//2]; a dropped row or column becomes 0."""
    half = width // 2
    quarter = grad.dtype.type(0.25)
    for i in range(grad.shape[0] // half):
        for row in (2 * i * width, (2 * i + 1) * width):
            for j in range(half):
                value = grad[i * half + j] * quarter
                out[row + 2 * j] *= value
                out[row + 2 * j + 1] *= value
            out[row + 2 * half : row + width] = 0
    out[2 * (grad.shape[0] // half) * width :] = 0


@_plain
def multiply(grad, out):
    """Multiply out [P] by grad [P]."""
    for p in range(out.shape[0]):
        out[p] *= grad[p]


@_plain
def slope(kind, alpha, threshold, before, out):
    """Surrogate derivative [P] at the potential before reset; `kind` as in `backends.SURROGATE_CODES`."""
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
    x, scale, shift, k, leak, threshold, soft, at_threshold, width, pooled, spikes, potential, lo, hi
):  # fmt: skip
    """Spikes [R,T,C,P or pooled P] and, unless it is empty, the potential after reset [R,T,C,P].

    x [R,T,C,P]; scale, shift [S,T,C]; width of a map in pixels.
    """
    T, C, P = x.shape[1:]
    v, before, full = np.empty(P, x.dtype), np.empty(P, x.dtype), np.empty(P, x.dtype)
    for i in range(lo, hi):
        r, c = i // C, i % C
        s = r % scale.shape[0]
        v[:] = 0
        for t in range(T):
            row = full if pooled else spikes[r, t, c]
            charge_and_fire(
                x[r, t, c], scale[s, t, c], shift[s, t, c], k, leak, threshold, soft, at_threshold, v, before, row
            )
            if pooled:
                pool(full, width, spikes[r, t, c])
            if potential.size:
                potential[r, t, c, :] = v


@_plain
def step_back(spikes, from_spikes, from_after, k, leak, soft, carried, grad_y):
    """One step backwards of a map: gradient of its input y [P], and of the potential it started from (carried [P]).

    from_spikes [P] has the surrogate derivative in it already: with one array more, LLVM gives up on proving that
    none overlap, and does not vectorise.
    """
    one = carried.dtype.type(1)
    for p in range(carried.shape[0]):
        kept = one - spikes[p] * (one - soft)  # the reset's own derivative; the spike in it is a constant
        grad = (carried[p] + from_after[p]) * kept + from_spikes[p]
        grad_y[p] = grad * k
        carried[p] = grad - grad * k * leak


@_summing
def sum_norm(grad_y, x, mean):
    """Sums over a map of the gradient, and of the gradient times the centred input."""
    plain, centred = grad_y.dtype.type(0), grad_y.dtype.type(0)
    for p in range(x.shape[0]):
        plain += grad_y[p]
        centred += grad_y[p] * (x[p] - mean)
    return plain, centred


@_summing
def sum_gain(grad_y, x, scale, shift, leak, start, k):
    """Sum over a map of the gradient of k."""
    total = grad_y.dtype.type(0)
    for p in range(x.shape[0]):
        total += grad_y[p] * (x[p] * scale + shift - leak * start[p])
    return total / k


@_plain
def backward(
    x, scale, shift, mean, k, leak, threshold, soft, at_threshold, kind, alpha, width, pooled,
    grad_spikes, grad_after, grad_y, sums, grad_k, lo, hi,
):  # fmt: skip
    """Gradient of the neurons' input y = x scale + shift [R,T,C,P]; potential and spikes are computed again.

    grad_spikes and grad_after are empty where there is no gradient. sums [2,R,T,C] (of the gradient, and of the
    gradient times x - mean) and grad_k [R,C] are empty where nobody needs them.
    """
    T, C, P = x.shape[1:]
    before, spikes = np.empty((T, P), x.dtype), np.empty((T, P), x.dtype)
    after = np.zeros((T + 1, P), x.dtype)  # potential that step t starts from
    carried, from_spikes, nothing = np.zeros((3, P), x.dtype)
    for i in range(lo, hi):
        r, c = i // C, i % C
        s = r % scale.shape[0]
        for t in range(T):
            after[t + 1] = after[t]
            charge_and_fire(
                x[r, t, c], scale[s, t, c], shift[s, t, c], k, leak, threshold, soft, at_threshold,
                after[t + 1], before[t], spikes[t],
            )  # fmt: skip
        carried[:] = 0
        for t in range(T - 1, -1, -1):
            if grad_spikes.size:
                slope(kind, alpha, threshold, before[t], from_spikes)
                if pooled:
                    spread(grad_spikes[r, t, c], width, from_spikes)
                else:
                    multiply(grad_spikes[r, t, c], from_spikes)
            from_after = grad_after[r, t, c] if grad_after.size else nothing
            out = grad_y[r, t, c]
            step_back(spikes[t], from_spikes, from_after, k, leak, soft, carried, out)
            if sums.size:
                sums[0, r, t, c], sums[1, r, t, c] = sum_norm(out, x[r, t, c], mean[s, t, c])
            if grad_k.size:
                grad_k[r, c] += sum_gain(out, x[r, t, c], scale[s, t, c], shift[s, t, c], leak, after[t], k)


@_summing
def moments(x, sums, squares, lo, hi):
    """Per map the sum [R,T,C] and the sum of squares about the map's own mean [R,T,C]."""
    T, C, P = x.shape[1:]
    for i in range(lo, hi):
        r, c = i // C, i % C
        for t in range(T):
            row = x[r, t, c]
            total = x.dtype.type(0)
            for p in range(P):
                total += row[p]
            centre = total / x.dtype.type(P)
            spread = x.dtype.type(0)
            for p in range(P):
                spread += (row[p] - centre) * (row[p] - centre)
            sums[r, t, c] = total
            squares[r, t, c] = spread


@_plain
def normalize_backward(x, grad, scale, slant, offset, lo, hi):
    """In place: grad [R,T,C,P] <- scale grad + slant x + offset, the three [S,T,C]."""
    T, C, P = x.shape[1:]
    for i in range(lo, hi):
        r, c = i // C, i % C
        s = r % scale.shape[0]
        for t in range(T):
            a, b, d = scale[s, t, c], slant[s, t, c], offset[s, t, c]
            row, out = x[r, t, c], grad[r, t, c]
            for p in range(P):
                out[p] = out[p] * a + row[p] * b + d
