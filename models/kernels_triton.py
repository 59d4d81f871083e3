"""Triton kernels: normalise, fire and pool over all time steps, channels-last, state in registers.

Axes: R sequences (B*S, stream fastest), S streams, T time, P pixels (H*W), C channels; memory is [R,T,P,C]. One
program carries a tile of pixels and channels of one sequence through all T. Backward computes potential and spikes
again, keeps the T potentials of its tile in registers (loops over T are unrolled there) and runs twice: once for the
sums that BatchNorm's gradient needs, once for the gradient of the input. That moves fewer bytes than writing the
gradient behind the normalisation and reading it back, and rounds nothing to 16 bits in between.

Arithmetic is in ACC (float32; float64 for float64 input) whatever the storage. Imported by `fire_triton` alone.
"""

# Triton infers the types:
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def charge(v, y, k, LEAKY: tl.constexpr):
    """Potential before the spike, from the one after the last reset and the input y."""
    if LEAKY:
        charged = v + (y - v) * k
    else:
        charged = v + y * k
    return charged


@triton.jit
def crosses(u, AT_THRESHOLD: tl.constexpr):
    """Where the potential minus the threshold spikes."""
    if AT_THRESHOLD:
        fires = u >= 0
    else:
        fires = u > 0
    return fires


@triton.jit
def reset(before, fires, THRESHOLD: tl.constexpr, HARD: tl.constexpr):
    """Potential after the spike."""
    if HARD:
        after = tl.where(fires, 0.0, before)
    else:
        after = tl.where(fires, before - THRESHOLD, before)
    return after.to(before.dtype)


@triton.jit
def slope(u, KIND: tl.constexpr, ALPHA: tl.constexpr):
    """Surrogate derivative; KIND as in `backends.SURROGATE_CODES`."""
    if KIND == 0:
        found = tl.maximum(ALPHA - ALPHA * ALPHA * tl.abs(u), 0.0)
    elif KIND == 1:
        found = tl.where(tl.abs(u) < 0.5, 1.0, 0.0)
    elif KIND == 2:
        found = tl.where(tl.abs(u) < 1.0 / ALPHA, 1.0, 0.0)
    elif KIND == 3:
        s = 1.0 / (1.0 + tl.exp(-ALPHA * u))
        found = ALPHA * s * (1.0 - s)
    else:
        w = 1.5707963267948966 * ALPHA * u
        found = ALPHA * 0.5 / (1.0 + w * w)
    return found.to(u.dtype)


@triton.jit
def one_step(
    frame, after, pixels, channels, inside, C, v, k, a, d,
    ACC: tl.constexpr, POTENTIAL: tl.constexpr, LEAKY: tl.constexpr, HARD: tl.constexpr,
    THRESHOLD: tl.constexpr, AT_THRESHOLD: tl.constexpr,
):  # fmt: skip
    """One step of a tile: potential after reset, and spikes (0 outside), in ACC."""
    places = pixels[:, None] * C + channels[None, :]
    y = tl.load(frame + places, mask=inside, other=0.0).to(ACC) * a + d
    before = charge(v, y, k, LEAKY)
    fires = crosses(before - THRESHOLD, AT_THRESHOLD) & inside
    v = reset(before, fires, THRESHOLD, HARD)
    if POTENTIAL:
        tl.store(after + places, v, mask=inside)
    return v, tl.where(fires, 1.0, 0.0).to(ACC)


@triton.jit
def forward(
    x, scale, shift, learned_k, spikes, after, S, H, W, C,
    T: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr, NORM: tl.constexpr, POOL: tl.constexpr,
    POTENTIAL: tl.constexpr, LEAKY: tl.constexpr, HARD: tl.constexpr, THRESHOLD: tl.constexpr,
    AT_THRESHOLD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Spikes [R,T,P or pooled P,C] and the potential after reset [R,T,P,C].

    scale, shift [S,T,C]; K is the share k, or 0 where it is read from learned_k. With POOL a tile's places are 2x2
    windows, those of an odd last row or column included: they have a potential and no pooled value.
    """
    high, wide = (H + 1) // 2 if POOL else H, (W + 1) // 2 if POOL else W
    tiles = tl.cdiv(high * wide, BLOCK_P)
    pid = tl.program_id(0)
    r = pid // tiles
    q = (pid % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (q < high * wide)[:, None] & (c < C)[None, :]
    k = tl.load(learned_k).to(ACC) if K == 0.0 else K
    row = (r % S) * T * C + c
    frame = r.to(tl.int64) * T * H * W * C
    v = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    if POOL:
        i, j = q // wide, q % wide
        right, down = inside & (2 * j + 1 < W)[:, None], inside & (2 * i + 1 < H)[:, None]
        both = right & down
        corner = 2 * i * W + 2 * j
        pooled = r.to(tl.int64) * T * (H // 2) * (W // 2) * C
        places = (i * (W // 2) + j)[:, None] * C + c[None, :]
        v_right, v_down, v_both = v, v, v
    for t in range(T):
        if NORM:
            a = tl.load(scale + row + t * C, mask=c < C, other=0.0)[None, :]
            d = tl.load(shift + row + t * C, mask=c < C, other=0.0)[None, :]
        else:
            a, d = 1.0, 0.0
        source, target = x + frame + t * H * W * C, after + frame + t * H * W * C
        if POOL:
            v, total = one_step(
                source, target, corner, c, inside, C, v, k, a, d,
                ACC, POTENTIAL, LEAKY, HARD, THRESHOLD, AT_THRESHOLD,
            )  # fmt: skip
            v_right, s_right = one_step(
                source, target, corner + 1, c, right, C, v_right, k, a, d,
                ACC, POTENTIAL, LEAKY, HARD, THRESHOLD, AT_THRESHOLD,
            )  # fmt: skip
            v_down, s_down = one_step(
                source, target, corner + W, c, down, C, v_down, k, a, d,
                ACC, POTENTIAL, LEAKY, HARD, THRESHOLD, AT_THRESHOLD,
            )  # fmt: skip
            v_both, s_both = one_step(
                source, target, corner + W + 1, c, both, C, v_both, k, a, d,
                ACC, POTENTIAL, LEAKY, HARD, THRESHOLD, AT_THRESHOLD,
            )  # fmt: skip
            mean = (total + s_right + s_down + s_both) * 0.25
            out = spikes + pooled + t * (H // 2) * (W // 2) * C + places
            tl.store(out, mean.to(spikes.dtype.element_ty), mask=both)
        else:
            v, spike = one_step(
                source, target, q, c, inside, C, v, k, a, d,
                ACC, POTENTIAL, LEAKY, HARD, THRESHOLD, AT_THRESHOLD,
            )  # fmt: skip
            out = spikes + frame + t * H * W * C + q[:, None] * C + c[None, :]
            tl.store(out, spike.to(spikes.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    x, scale, shift, mean, gain, slant, offset, learned_k, grad_spikes, grad_after, grad_x, sums, grad_k, S, H, W, C,
    T: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr, NORM: tl.constexpr, POOL: tl.constexpr,
    FROM_SPIKES: tl.constexpr, FROM_AFTER: tl.constexpr, SUMS: tl.constexpr, GRAD_X: tl.constexpr,
    LEAKY: tl.constexpr, HARD: tl.constexpr, THRESHOLD: tl.constexpr, AT_THRESHOLD: tl.constexpr,
    KIND: tl.constexpr, ALPHA: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Backward of a tile, with g = the gradient of y = x scale + shift.

    With SUMS, over the tile's pixels and into a row of its own: sums [2,R*tiles,T,C] of g and of g (x - mean) where
    NORM, and grad_k [R*tiles, channel tiles] where k is learned. With GRAD_X, grad_x [R,T,P,C] = gain g + slant x +
    offset, or g without NORM. mean, gain, slant, offset [S,T,C].
    """
    P = H * W
    tiles = tl.cdiv(P, BLOCK_P)
    pid = tl.program_id(0)
    r = pid // tiles
    p = (pid % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < C
    inside = (p < P)[:, None] & in_c[None, :]
    k = tl.load(learned_k).to(ACC) if K == 0.0 else K
    row = (r % S) * T * C + c
    places = p[:, None] * C + c[None, :]
    frame = r.to(tl.int64) * T * P * C
    if POOL:
        i, j = p // W // 2, p % W // 2
        pooled = (i < H // 2) & (j < W // 2) & (p < P)
        from_pixels, pooled_places = pooled[:, None] & in_c[None, :], (i * (W // 2) + j)[:, None] * C + c[None, :]
        from_frame, from_size = r.to(tl.int64) * T * (H // 2) * (W // 2) * C, (H // 2) * (W // 2) * C
        share: tl.constexpr = 0.25
    else:
        from_pixels, pooled_places, from_frame, from_size = inside, places, frame, P * C
        share: tl.constexpr = 1.0

    befores = ()
    v = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for t in tl.static_range(T):
        y = tl.load(x + frame + t * P * C + places, mask=inside, other=0.0).to(ACC)
        if NORM:
            a = tl.load(scale + row + t * C, mask=in_c, other=0.0)[None, :]
            y = y * a + tl.load(shift + row + t * C, mask=in_c, other=0.0)[None, :]
        before = charge(v, y, k, LEAKY)
        v = reset(before, crosses(before - THRESHOLD, AT_THRESHOLD), THRESHOLD, HARD)
        befores = befores + (before,)  # noqa: RUF005  (Triton adds tuples, and unpacks none)

    carried = tl.zeros((BLOCK_P, BLOCK_C), ACC)  # gradient of the potential after this step's reset
    total_k = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for t in tl.static_range(T - 1, -1, -1):
        before = befores[t]
        u = before - THRESHOLD
        if FROM_AFTER:
            carried += tl.load(grad_after + frame + t * P * C + places, mask=inside, other=0.0).to(ACC)
        if HARD:
            g = tl.where(crosses(u, AT_THRESHOLD), 0.0, carried).to(ACC)
        else:
            g = carried
        if FROM_SPIKES:
            from_spikes = grad_spikes + from_frame + t * from_size + pooled_places
            g += tl.load(from_spikes, mask=from_pixels, other=0.0).to(ACC) * share * slope(u, KIND, ALPHA)
        if LEAKY:
            carried = g - g * k
        else:
            carried = g
        grad = g * k
        if NORM or (SUMS and K == 0.0):
            raw = tl.load(x + frame + t * P * C + places, mask=inside, other=0.0).to(ACC)
        if SUMS and K == 0.0:
            y = raw
            if NORM:
                a = tl.load(scale + row + t * C, mask=in_c, other=0.0)[None, :]
                y = y * a + tl.load(shift + row + t * C, mask=in_c, other=0.0)[None, :]
            if LEAKY and t > 0:
                last = befores[t - 1 if t > 0 else 0]
                y = y - reset(last, crosses(last - THRESHOLD, AT_THRESHOLD), THRESHOLD, HARD)
            total_k += g * y
        if SUMS and NORM:
            m = tl.load(mean + row + t * C, mask=in_c, other=0.0)[None, :]
            kept = pid.to(tl.int64) * T * C + t * C + c
            far = tl.num_programs(0).to(tl.int64) * T * C
            tl.store(sums + kept, tl.sum(grad, 0), mask=in_c)
            tl.store(sums + far + kept, tl.sum(grad * tl.where(inside, raw - m, 0.0), 0), mask=in_c)
        if GRAD_X:
            if NORM:
                grad = grad * tl.load(gain + row + t * C, mask=in_c, other=0.0)[None, :]
                grad += raw * tl.load(slant + row + t * C, mask=in_c, other=0.0)[None, :]
                grad += tl.load(offset + row + t * C, mask=in_c, other=0.0)[None, :]
            tl.store(grad_x + frame + t * P * C + places, grad.to(grad_x.dtype.element_ty), mask=inside)
    if SUMS and K == 0.0:
        tl.store(grad_k + pid * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.sum(total_k, 1), 0))


@triton.jit
def moments(
    x, means, squares, B, S, P, C,
    T: tl.constexpr, ACC: tl.constexpr, TILES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean [chunks,S,T,C] and sum of squares about it, of chunks of TILES * BLOCK_N pixels of a (stream, step).

    Sums are taken about the mean of the chunk's first tile, so that a mean far from 0 costs no digits.
    """
    step = tl.program_id(0)
    s, t = step // T, step % T
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < C
    first = tl.program_id(1) * TILES * BLOCK_N
    last = tl.minimum(first + TILES * BLOCK_N, B * P)

    n = first + tl.arange(0, BLOCK_N)
    frame = ((n // P).to(tl.int64) * S + s) * T + t
    places = (frame * P + n % P)[:, None] * C + c[None, :]
    tile = tl.load(x + places, mask=(n < last)[:, None] & in_c[None, :], other=0.0).to(ACC)
    centre = tl.sum(tile, 0) / tl.minimum(last - first, BLOCK_N).to(ACC)

    total = tl.zeros((BLOCK_N, BLOCK_C), ACC)
    square = tl.zeros((BLOCK_N, BLOCK_C), ACC)
    for number in range(TILES):
        n = first + number * BLOCK_N + tl.arange(0, BLOCK_N)
        frame = ((n // P).to(tl.int64) * S + s) * T + t
        places = (frame * P + n % P)[:, None] * C + c[None, :]
        inside = (n < last)[:, None] & in_c[None, :]
        tile = tl.load(x + places, mask=inside, other=0.0).to(ACC)
        far = tl.where(inside, tile - centre[None, :], 0.0)
        total += far
        square += far * far
    count = (last - first).to(ACC)
    off = tl.sum(total, 0) / count
    kept = (tl.program_id(1) * tl.num_programs(0) + step) * C + c
    tl.store(means + kept, centre + off, mask=in_c)
    tl.store(squares + kept, tl.maximum(tl.sum(square, 0) - off * off * count, 0.0), mask=in_c)
