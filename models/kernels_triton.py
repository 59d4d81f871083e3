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
    """Return the potential before the spike, from the one after the last reset and the input y."""
    if LEAKY:
        charged = v + (y - v) * k
    else:
        charged = v + y * k
    return charged


@triton.jit
def crosses(u, AT_THRESHOLD: tl.constexpr):
    """Say where the potential minus the threshold spikes."""
    if AT_THRESHOLD:
        fires = u >= 0
    else:
        fires = u > 0
    return fires


@triton.jit
def reset(before, fires, THRESHOLD: tl.constexpr, HARD: tl.constexpr):
    """Return the potential after the spike."""
    if HARD:
        after = tl.where(fires, 0.0, before)
    else:
        after = tl.where(fires, before - THRESHOLD, before)
    return after.to(before.dtype)


@triton.jit
def slope(u, KIND: tl.constexpr, ALPHA: tl.constexpr):
    """Return the surrogate derivative; KIND as in `backends.SURROGATE_CODES`."""
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


TWO_AT_ONCE = tl.constexpr(not triton.knobs.runtime.interpret)
"""Whether two sums are one reduction; the interpreter adds number by number then, which takes minutes."""


@triton.jit
def add_pairs(a, b, c, d):
    """Add two pairs, member by member: the operation of a reduction of two tensors at once."""
    return a + c, b + d


@triton.jit
def one_step(
    frame, after, pixels, channels, inside, C, v, k, a, d,
    ACC: tl.constexpr, POTENTIAL: tl.constexpr, LEAKY: tl.constexpr, HARD: tl.constexpr,
    THRESHOLD: tl.constexpr, AT_THRESHOLD: tl.constexpr,
):  # fmt: skip
    """Take one step of a tile: potential after reset, and spikes (0 outside), in ACC."""
    places = pixels[:, None] * C + channels[None, :]
    y = tl.load(frame + places, mask=inside, other=0.0).to(ACC) * a + d
    before = charge(v, y, k, LEAKY)
    fires = crosses(before - THRESHOLD, AT_THRESHOLD) & inside
    v = reset(before, fires, THRESHOLD, HARD)
    if POTENTIAL:
        tl.store(after + places, v, mask=inside)
    return v, tl.where(fires, 1.0, 0.0).to(ACC)


@triton.jit(do_not_specialize=["S", "H", "W"])
def forward(
    x, scale, shift, learned_k, spikes, after, S, H, W, C,
    T: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr, NORM: tl.constexpr, POOL: tl.constexpr,
    POTENTIAL: tl.constexpr, LEAKY: tl.constexpr, HARD: tl.constexpr, THRESHOLD: tl.constexpr,
    AT_THRESHOLD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write spikes [R,T,P or pooled P,C] and the potential after reset [R,T,P,C].

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


@triton.jit(do_not_specialize=["S", "H", "W"])
def backward(
    x, scale, shift, mean, gain, slant, offset, learned_k, grad_spikes, grad_after, grad_x, sums, grad_k, S, H, W, C,
    T: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr, NORM: tl.constexpr, POOL: tl.constexpr,
    FROM_SPIKES: tl.constexpr, FROM_AFTER: tl.constexpr, SUMS: tl.constexpr, GRAD_X: tl.constexpr,
    LEAKY: tl.constexpr, HARD: tl.constexpr, THRESHOLD: tl.constexpr, AT_THRESHOLD: tl.constexpr,
    KIND: tl.constexpr, ALPHA: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Go backward through a tile, with g = the gradient of y = x scale + shift.

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

    # every load of memory comes before the first store, behind which none could move: one wait instead of T
    raws, from_s, from_a = (), (), ()
    for t in tl.static_range(T):
        raws = raws + (tl.load(x + frame + t * P * C + places, mask=inside, other=0.0),)
        if FROM_SPIKES:
            at = grad_spikes + from_frame + t * from_size + pooled_places
            from_s = from_s + (tl.load(at, mask=from_pixels, other=0.0),)
        if FROM_AFTER:
            at = grad_after + frame + t * P * C + places
            from_a = from_a + (tl.load(at, mask=inside, other=0.0),)
    befores = ()
    v = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for t in tl.static_range(T):
        y = raws[t].to(ACC)
        if NORM:
            a = tl.load(scale + row + t * C, mask=in_c, other=0.0)[None, :]
            y = y * a + tl.load(shift + row + t * C, mask=in_c, other=0.0)[None, :]
        before = charge(v, y, k, LEAKY)
        v = reset(before, crosses(before - THRESHOLD, AT_THRESHOLD), THRESHOLD, HARD)
        befores = befores + (before,)

    carried = tl.zeros((BLOCK_P, BLOCK_C), ACC)  # gradient of the potential after this step's reset
    total_k = tl.zeros((BLOCK_P, BLOCK_C), ACC)
    for t in tl.static_range(T - 1, -1, -1):
        before = befores[t]
        u = before - THRESHOLD
        if FROM_AFTER:
            carried += from_a[t].to(ACC)
        if HARD:
            g = tl.where(crosses(u, AT_THRESHOLD), 0.0, carried).to(ACC)
        else:
            g = carried
        if FROM_SPIKES:
            g += from_s[t].to(ACC) * share * slope(u, KIND, ALPHA)
        if LEAKY:
            carried = g - g * k
        else:
            carried = g
        grad = g * k
        if NORM or (SUMS and K == 0.0):
            raw = raws[t].to(ACC)
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
            weighed = grad * tl.where(inside, raw - m, 0.0)
            if TWO_AT_ONCE:
                plain, centred = tl.reduce((grad, weighed), 0, add_pairs)
            else:
                plain, centred = tl.sum(grad, 0), tl.sum(weighed, 0)
            tl.store(sums + kept, plain, mask=in_c)
            tl.store(sums + far + kept, centred, mask=in_c)
        if GRAD_X:
            if NORM:
                grad = grad * tl.load(gain + row + t * C, mask=in_c, other=0.0)[None, :]
                grad += raw * tl.load(slant + row + t * C, mask=in_c, other=0.0)[None, :]
                grad += tl.load(offset + row + t * C, mask=in_c, other=0.0)[None, :]
            tl.store(grad_x + frame + t * P * C + places, grad.to(grad_x.dtype.element_ty), mask=inside)
    if SUMS and K == 0.0:
        tl.store(grad_k + pid * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.sum(total_k, 1), 0))


@triton.jit(do_not_specialize=["B", "S", "P"])
def moments(
    x, means, squares, B, S, P, C,
    T: tl.constexpr, ACC: tl.constexpr, TILES: tl.constexpr, AHEAD: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write mean [chunks,S,T,C] and sum of squares about it, of chunks of TILES * BLOCK_N pixels of a (stream, step).

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
    for number in range(0, TILES, AHEAD):
        tiles, insides = (), ()
        for ahead in tl.static_range(AHEAD):  # all of these loads are under way before the first is needed
            n = first + (number + ahead) * BLOCK_N + tl.arange(0, BLOCK_N)
            frame = ((n // P).to(tl.int64) * S + s) * T + t
            places = (frame * P + n % P)[:, None] * C + c[None, :]
            inside = (n < last)[:, None] & in_c[None, :]
            tiles = tiles + (tl.load(x + places, mask=inside, other=0.0),)
            insides = insides + (inside,)
        for ahead in tl.static_range(AHEAD):
            far = tl.where(insides[ahead], tiles[ahead].to(ACC) - centre[None, :], 0.0)
            total += far
            square += far * far
    count = (last - first).to(ACC)
    off = tl.sum(total, 0) / count
    kept = (tl.program_id(1) * tl.num_programs(0) + step) * C + c
    tl.store(means + kept, centre + off, mask=in_c)
    tl.store(squares + kept, tl.maximum(tl.sum(square, 0) - off * off * count, 0.0), mask=in_c)


@triton.jit
def over(values, AXIS: tl.constexpr):
    """Sum a tensor in float64 along an axis, which stays with length 1."""
    return tl.expand_dims(tl.sum(values, AXIS), AXIS)


@triton.jit(do_not_specialize=["B", "S", "P", "chunks", "chunk"])
def finish(
    means, squares, weight, bias, running_mean, running_variance, tracked, mean, inverse, variance, scale, shift,
    B, S, P, C, chunks, chunk,
    T: tl.constexpr, EPS: tl.constexpr, MOMENTUM: tl.constexpr, LOG_LEFT: tl.constexpr, POOLED: tl.constexpr,
    FIRST_ROW: tl.constexpr, MOVE: tl.constexpr, KEEP: tl.constexpr,
    STEPS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Make a layer's normalisation of the moments of its chunks, and move its running statistics; one launch.

    From means and squares [chunks,S,T,C] of `moments`, the last of whose chunks may be shorter than `chunk` pixels:
    mean and inverse deviation [S,T,C], and scale and shift [S,T,C] of weight and bias [C]. With KEEP the unbiased
    variance [S,T,C], too. With MOVE, running_mean and running_variance move in closed form, as `StepNorm` describes,
    and `tracked` counts. FIRST_ROW -1 says that all streams share the row [C]; otherwise the streams have the rows
    [2,C] from FIRST_ROW on. Arithmetic is in float64.

    A program holds BLOCK_K chunks of all S * T steps (padded to STEPS, a power of two) of BLOCK_C channels.
    """
    k = tl.arange(0, BLOCK_K)
    step = tl.arange(0, STEPS)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c, in_steps = c < C, step < S * T
    known = in_steps[:, None] & in_c[None, :]  # [STEPS,BLOCK_C]
    places = step[:, None] * C + c[None, :]
    pixels = (B * P).to(tl.float64)

    sums = tl.zeros((STEPS, BLOCK_C), tl.float64)
    for start in range(0, chunks, BLOCK_K):
        number = start + k
        counts = tl.minimum(B * P - number * chunk, chunk).to(tl.float64)[:, None, None]
        at = number.to(tl.int64)[:, None, None] * S * T * C + places[None]
        inside = (number < chunks)[:, None, None] & known[None]
        sums += tl.sum(tl.load(means + at, mask=inside, other=0.0).to(tl.float64) * counts, 0)
    if POOLED:  # over the steps of a stream
        total = pixels * T
        centre = tl.zeros((STEPS, BLOCK_C), tl.float64)
        for s in range(S):
            of_stream = (step // T == s)[:, None]
            centre += tl.where(of_stream, over(tl.where(of_stream, sums, 0.0), 0), 0.0)
        centre = centre / total
    else:
        total = pixels
        centre = sums / total

    spread = tl.zeros((STEPS, BLOCK_C), tl.float64)
    for start in range(0, chunks, BLOCK_K):
        number = start + k
        counts = tl.minimum(B * P - number * chunk, chunk).to(tl.float64)[:, None, None]
        at = number.to(tl.int64)[:, None, None] * S * T * C + places[None]
        inside = (number < chunks)[:, None, None] & known[None]
        far = tl.load(means + at, mask=inside, other=0.0).to(tl.float64) - centre[None]
        here = tl.load(squares + at, mask=inside, other=0.0).to(tl.float64) + counts * far * far
        spread += tl.sum(tl.where(inside, here, 0.0), 0)
    if POOLED:
        within = spread
        spread = tl.zeros((STEPS, BLOCK_C), tl.float64)
        for s in range(S):
            of_stream = (step // T == s)[:, None]
            spread += tl.where(of_stream, over(tl.where(of_stream, within, 0.0), 0), 0.0)

    found = 1.0 / tl.sqrt(spread / total + EPS)
    w = tl.load(weight + c, mask=in_c, other=0.0).to(tl.float64)[None, :]
    b = tl.load(bias + c, mask=in_c, other=0.0).to(tl.float64)[None, :]
    kind = mean.dtype.element_ty
    tl.store(mean + places, centre.to(kind), mask=known)
    tl.store(inverse + places, found.to(kind), mask=known)
    tl.store(scale + places, (w * found).to(kind), mask=known)
    tl.store(shift + places, (b - centre * w * found).to(kind), mask=known)
    unbiased = spread / (total - 1)
    if KEEP:
        tl.store(variance + places, unbiased.to(kind), mask=known)

    if MOVE:
        if POOLED:  # one move per stream: that of its first step stands for all
            moves, behind, counted = (step % T == 0) & in_steps, step // T, S
        else:
            moves, behind, counted = in_steps, step, S * T
        if FIRST_ROW < 0:
            left = tl.where(moves, MOMENTUM * tl.exp((counted - 1 - behind).to(tl.float64) * LOG_LEFT), 0.0)[:, None]
            kept = tl.exp((tl.zeros((BLOCK_C,), tl.float64) + counted) * LOG_LEFT)  # an int times it is float32
            move_row(running_mean + c, in_c, kept, tl.sum(left * centre, 0))
            move_row(running_variance + c, in_c, kept, tl.sum(left * unbiased, 0))
        else:
            kept = tl.exp(tl.zeros((BLOCK_C,), tl.float64) + T * LOG_LEFT)
            for s in range(S):
                those = moves & (step // T == s)
                left = tl.where(those, MOMENTUM * tl.exp((T - 1 - step % T).to(tl.float64) * LOG_LEFT), 0.0)[:, None]
                row = (FIRST_ROW + s) * C + c
                move_row(running_mean + row, in_c, kept, tl.sum(left * centre, 0))
                move_row(running_variance + row, in_c, kept, tl.sum(left * unbiased, 0))
        if tl.program_id(0) == 0:
            tl.store(tracked, tl.load(tracked) + counted)


@triton.jit
def move_row(at, inside, kept, moved):
    """Replace what lies at some places by `kept` of it plus `moved`."""
    before = tl.load(at, mask=inside, other=0.0)
    tl.store(at, (before.to(tl.float64) * kept + moved).to(before.dtype), mask=inside)


@triton.jit(do_not_specialize=["S", "count"])
def through_norm(
    totals, scale, mean, inverse, gain, slant, offset, grad_weight, grad_bias, S, C, count,
    T: tl.constexpr, CONSTANT: tl.constexpr, POOLED: tl.constexpr, STEPS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write gain, slant and offset [S,T,C], and the gradients of weight and bias [C]; one launch.

    gain g + slant x + offset leads from the gradient g behind the normalisation to the one before it. totals [2,S,T,C]
    float64: sums over batch and pixels of g, and of g times the centred input. count: values that each statistic was
    taken over; with CONSTANT the statistics are no functions of x. Arithmetic is in float64.
    """
    step = tl.arange(0, STEPS)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < C
    known = (step < S * T)[:, None] & in_c[None, :]
    places = step[:, None] * C + c[None, :]
    plain = tl.load(totals + places, mask=known, other=0.0)
    centred = tl.load(totals + S * T * C + places, mask=known, other=0.0)
    inv = tl.load(inverse + places, mask=known, other=0.0).to(tl.float64)
    g = tl.load(scale + places, mask=known, other=0.0).to(tl.float64)
    normalized = centred * inv
    kind = gain.dtype.element_ty
    tl.store(gain + places, g.to(kind), mask=known)
    tl.store(grad_weight + c, tl.sum(normalized, 0).to(grad_weight.dtype.element_ty), mask=in_c)
    tl.store(grad_bias + c, tl.sum(plain, 0).to(grad_bias.dtype.element_ty), mask=in_c)
    bent, moved = tl.zeros((STEPS, BLOCK_C), tl.float64), tl.zeros((STEPS, BLOCK_C), tl.float64)
    if not CONSTANT:
        mean_normalized, mean_plain = normalized, plain
        if POOLED:
            mean_normalized, mean_plain = bent, moved
            for s in range(S):
                of_stream = (step // T == s)[:, None]
                sum_normalized, sum_plain = (
                    over(tl.where(of_stream, normalized, 0.0), 0),
                    over(tl.where(of_stream, plain, 0.0), 0),
                )
                mean_normalized += tl.where(of_stream, sum_normalized, 0.0)
                mean_plain += tl.where(of_stream, sum_plain, 0.0)
        m = tl.load(mean + places, mask=known, other=0.0).to(tl.float64)
        bent = -g * (mean_normalized / count) * inv
        moved = -g * (mean_plain / count) - bent * m
    tl.store(slant + places, bent.to(kind), mask=known)
    tl.store(offset + places, moved.to(kind), mask=known)
