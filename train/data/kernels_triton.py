"""Triton kernels of the training simulator: camera and path of a sample, then the events of a tile of its pixels.

And one that counts the stored events of recordings in the cells of frames, see `binning_triton`.

Axes: N samples, L lanes (settings and numbers of the legs), S instants after the first, C channels, H, W of an image,
h, w of the sensor grid, T time bins. Arithmetic is in float32, as that of `train.data.simulation`, which says what all
of it means; random words are those of `train.data.draws`. Imported by `simulation_triton` and `binning_triton` alone.
"""

# Triton infers the types:
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
FIRST, SECOND = tl.constexpr(0xBF58476D1CE4E5B9), tl.constexpr(0x94D049BB133111EB)


@triton.jit
def mix(value):
    """Spread every bit over all, as `train.data.draws`: the finaliser of SplitMix64."""
    value = (value ^ (value >> 30)) * FIRST
    value = (value ^ (value >> 27)) * SECOND
    return value ^ (value >> 31)


@triton.jit
def words(seed, epoch, lanes, draw):
    """Words of one draw for a vector of lanes, uint64."""
    zero = (lanes * 0).to(tl.uint64)
    state = mix((zero + (tl.load(epoch) ^ seed).to(tl.uint64, bitcast=True)) + GOLDEN)
    state = mix((state ^ lanes.to(tl.uint64)) + GOLDEN)
    return mix((state ^ draw.to(tl.uint64, bitcast=True)) + GOLDEN)


@triton.jit
def pick(values, places, place):
    """One value of a vector."""
    return tl.sum(tl.where(places == place, values, 0.0), 0)


@triton.jit
def cameras(
    ranges, legs, epoch, draws, seed, settings, places, move_x, move_y,
    S: tl.constexpr, LANES: tl.constexpr, SETTINGS: tl.constexpr, LEG_LANES: tl.constexpr, LEGS: tl.constexpr,
    STEPS: tl.constexpr, FREE: tl.constexpr, LATENESS: tl.constexpr, AMPLITUDE: tl.constexpr,
    AMPLITUDE_SPREAD: tl.constexpr, TURN: tl.constexpr, PACE: tl.constexpr, DELAY: tl.constexpr, X_START: tl.constexpr,
    Y_START: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Settings [N,LANES] and places of the image [N,2,S+1] in half widths of the grid, of a sample each.

    ranges [3,LANES]: lowest and highest value, and 1 where they are logarithms. legs [LEGS + STEPS,4]: displacement to
    the right and down, start, duration. Names in capitals are lanes, but for the sizes and LATENESS.
    """
    n = tl.program_id(0)
    lanes = tl.arange(0, BLOCK_L)
    known = lanes < LANES
    word = words(seed, epoch, lanes, tl.load(draws + n))
    number = ((word >> 11).to(tl.float64) * 1.1102230246251565e-16).to(tl.float32)  # 2**-53
    low = tl.load(ranges + lanes, mask=known, other=0.0)
    value = low + number * (tl.load(ranges + LANES + lanes, mask=known, other=0.0) - low)
    value = tl.where(tl.load(ranges + 2 * LANES + lanes, mask=known, other=0.0) > 0, tl.exp(value), value)
    tl.store(settings + n * LANES + lanes, value, mask=known)

    k = tl.arange(0, BLOCK_S)
    times = k.to(tl.float32) / S
    x, y = times * 0.0, times * 0.0
    amplitude = pick(value, lanes, AMPLITUDE)
    for part in tl.static_range(LEGS):
        first = SETTINGS + part * LEG_LANES
        spread = pick(value, lanes, AMPLITUDE_SPREAD)
        across = 1 + spread * (2 * pick(value, lanes, first) - 1)
        down = 1 + spread * (2 * pick(value, lanes, first + 1) - 1)
        dx, dy = amplitude * across * tl.load(legs + 4 * part), amplitude * down * tl.load(legs + 4 * part + 1)
        angle = pick(value, lanes, TURN)
        if FREE:
            angle += 6.283185307179586 * pick(value, lanes, first + 3)
        length = tl.load(legs + 4 * part + 3)
        duration = length * pick(value, lanes, PACE)
        late = pick(value, lanes, DELAY) + LATENESS * (2 * pick(value, lanes, first + 2) - 1)
        middle = tl.load(legs + 4 * part + 2) + length / 2 + late
        done = tl.minimum(tl.maximum((times - (middle - duration / 2)) / duration, 0.0), 1.0)
        done = done - tl.sin(6.283185307179586 * done) / 6.283185307179586
        x += (tl.cos(angle) * dx - tl.sin(angle) * dy) * done
        y += (tl.sin(angle) * dx + tl.cos(angle) * dy) * done
    if STEPS > 0:
        turn, delay = pick(value, lanes, TURN), pick(value, lanes, DELAY)
        across, down = amplitude * tl.cos(turn), amplitude * tl.sin(turn)
        for part in range(LEGS, LEGS + STEPS):
            dx, dy = tl.load(legs + 4 * part), tl.load(legs + 4 * part + 1)
            done = (times - delay - tl.load(legs + 4 * part + 2)) / tl.load(legs + 4 * part + 3)
            done = tl.minimum(tl.maximum(done, 0.0), 1.0)
            done = done - tl.sin(6.283185307179586 * done) / 6.283185307179586
            x += (across * dx - down * dy) * done
            y += (down * dx + across * dy) * done
    if FREE:
        x -= tl.sum(tl.where(k <= S, x, 0.0), 0) / (S + 1)
        y -= tl.sum(tl.where(k <= S, y, 0.0), 0) / (S + 1)
    to = places + n * 2 * (S + 1) + k
    tl.store(to, (x + pick(value, lanes, X_START)) * move_x, mask=k <= S)
    tl.store(to + S + 1, (y + pick(value, lanes, Y_START)) * move_y, mask=k <= S)


@triton.jit
def tap(image, row, column, weight, inside, H, W, ground):
    """A neighbour's part of an interpolation; outside of the image that of `ground`."""
    there = inside & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return tl.load(image + row * W + column, mask=there, other=ground) * weight


@triton.jit
def seen(image, settings, places, k, x, y, inside, H, W, S, SCALE: tl.constexpr, STRETCH: tl.constexpr,
         ROTATION: tl.constexpr, SHEAR: tl.constexpr, DARK: tl.constexpr, GAMMA: tl.constexpr,
         GROUND: tl.constexpr, WIDER: tl.constexpr, HIGHER: tl.constexpr):  # fmt: skip
    """Light of grid pixels at instant k, the dark level included."""
    rotation, scale, stretch = tl.load(settings + ROTATION), tl.load(settings + SCALE), tl.load(settings + STRETCH)
    cos, sin = tl.cos(rotation), tl.sin(rotation)
    wide, high = scale * (1 + stretch), scale * (1 - stretch)
    u, v = x - tl.load(places + k), y - tl.load(places + S + 1 + k)
    at_x = (cos / wide) * u + (sin / wide + tl.load(settings + SHEAR) * cos / high) * v
    at_y = (-sin / high) * u + (cos / high) * v
    ground, far = 0.0, 0.0
    if GROUND >= 0:
        far = 1.0  # pixels outside of the image
        if GROUND > 0:
            ground = tl.exp(tl.load(settings + GAMMA) * tl.log(GROUND))
    column = tl.minimum(tl.maximum(((at_x / WIDER + 1) * W - 1) / 2, -far), W - 1.0 + far)
    row = tl.minimum(tl.maximum(((at_y / HIGHER + 1) * H - 1) / 2, -far), H - 1.0 + far)
    left, top = tl.floor(column), tl.floor(row)
    right_share, low_share = column - left, row - top
    j, i = left.to(tl.int32), top.to(tl.int32)
    light = tap(image, i, j, (1 - low_share) * (1 - right_share), inside, H, W, ground)
    light += tap(image, i, j + 1, (1 - low_share) * right_share, inside, H, W, ground)
    light += tap(image, i + 1, j, low_share * (1 - right_share), inside, H, W, ground)
    light += tap(image, i + 1, j + 1, low_share * right_share, inside, H, W, ground)
    return tl.maximum(light, 0.0) + tl.load(settings + DARK)


@triton.jit
def field(word, index):
    """Number in [0, 1) of 24 bits: number `index` of the generator that starts at a draw's word."""
    steps = (index // 2 + 1).to(tl.uint64)
    half = mix(word + steps * GOLDEN) >> ((index % 2) * 32).to(tl.uint64)
    return ((half >> 8) & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08  # 2**-24


@triton.jit
def within(difference, on, off):
    """What is left of a difference once its events are over."""
    ups, downs = tl.floor(tl.maximum(difference / on, 0.0)), tl.floor(-tl.minimum(difference / off, 0.0))
    return difference - ups * on + downs * off


@triton.jit
def events(
    light, settings, places, epoch, draws, seed, counts, N, H, W, h, w,
    T: tl.constexpr, INSTANTS: tl.constexpr, LANES: tl.constexpr, THRESHOLD_ON: tl.constexpr, OFF_RATIO: tl.constexpr,
    THRESHOLD_SPREAD: tl.constexpr, BANDWIDTH: tl.constexpr, DEAD_TIME: tl.constexpr, LEAK: tl.constexpr,
    NOISE: tl.constexpr, SCALE: tl.constexpr, STRETCH: tl.constexpr, ROTATION: tl.constexpr, SHEAR: tl.constexpr,
    DARK: tl.constexpr, GAMMA: tl.constexpr, GROUND: tl.constexpr, FREEDOM: tl.constexpr, APPEARED: tl.constexpr,
    BEGIN: tl.constexpr, BLIND: tl.constexpr, STILL: tl.constexpr, BLANK: tl.constexpr, SIGN: tl.constexpr,
    WIDER: tl.constexpr, HIGHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts [T,N,2,h,w], OFF before ON, of a tile of grid pixels of one sample, all instants in registers."""
    S: tl.constexpr = T * INSTANTS
    n = tl.program_id(0)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = p < h * w
    image, own, path = light + n.to(tl.int64) * H * W, settings + n * LANES, places + n * 2 * (S + 1)
    x = ((p % w) * 2 + 1).to(tl.float32) / w - 1
    y = ((p // w) * 2 + 1).to(tl.float32) / h - 1

    word = words(seed, epoch, p * 0, tl.load(draws + n))
    spread = tl.load(own + THRESHOLD_SPREAD)
    on = tl.load(own + THRESHOLD_ON) * (1 + spread * (2 * field(word, p) - 1))
    off = tl.load(own + THRESHOLD_ON) * tl.load(own + OFF_RATIO) * (1 + spread * (2 * field(word, h * w + p) - 1))
    level = tl.log(seen(image, own, path, 0, x, y, inside, H, W, S, SCALE, STRETCH, ROTATION, SHEAR, DARK,
                        GAMMA, GROUND, WIDER, HIGHER))  # fmt: skip
    filtered = level
    begun, below = field(word, 2 * h * w + p), tl.load(own + FREEDOM) * off
    difference = begun * (on + below) - below  # filtered - memorised, between the thresholds
    if APPEARED:  # on a ground, which is light or dark; the events of that are over
        before = 1.0 * BLANK
        if SIGN >= 0:
            before = tl.where(tl.load(own + SIGN) < 0.5, 1.0 - BLANK, 1.0 * BLANK)
        if GROUND >= 0:
            before = 0.0
            if GROUND > 0:
                before = tl.exp(tl.load(own + GAMMA) * tl.log(GROUND))
        settled = begun * (on + off) - off
        settled = within(settled + (level - tl.log(before + tl.load(own + DARK))), on, off)
        settled = within(settled + (1 - tl.load(own + FREEDOM)) * on, on, off)
        if BEGIN >= 0:
            settled = tl.where(tl.load(own + BEGIN) < 0.5, settled, difference)
        difference = settled
    share = tl.maximum(tl.load(own + NOISE), 1e-9)
    slot = tl.floor(field(word, 3 * h * w + p) / share * (2 * T))  # 2T and more where nothing is added
    rise = tl.load(own + LEAK) * on / S
    dead = tl.load(own + DEAD_TIME) * S
    speed = tl.load(own + BANDWIDTH) / S / (1 + tl.load(own + DARK))
    blind = 0.0 * on  # instants that are left of it
    size = h * w
    for t in range(T):
        offs, ons = tl.where(slot == 2 * t, 1.0, 0.0), tl.where(slot == 2 * t + 1, 1.0, 0.0)
        for instant in range(INSTANTS):
            now = seen(image, own, path, t * INSTANTS + instant + 1, x, y, inside, H, W, S,
                       SCALE, STRETCH, ROTATION, SHEAR, DARK, GAMMA, GROUND, WIDER, HIGHER)  # fmt: skip
            follow = now * speed
            follow = follow / (1 + follow)
            step = (tl.log(now) - filtered) * follow
            filtered += step
            if BLIND:
                step += rise
                visible = tl.maximum(1 - blind, 0.0)
                difference += step * visible
                rising = step > 0
                threshold, way = tl.where(rising, on, off), tl.where(rising, difference, -difference)
                pace = tl.maximum(tl.abs(step), STILL)
                since = tl.minimum((way - threshold) / pace, visible)
                period = dead + threshold / pace
                more = tl.floor(since / period)
                since -= more * period
                fires = way >= threshold
                ahead = tl.maximum(since - dead, 0.0) * pace
                difference = tl.where(fires, tl.where(rising, ahead, -ahead), difference)
                blind = tl.where(fires, tl.maximum(dead - since, 0.0), tl.maximum(blind - 1, 0.0))
                ups = tl.where(fires & rising, more + 1, 0.0)
                downs = tl.where(fires & (step <= 0), more + 1, 0.0)
            else:
                difference += step
                difference += rise
                lost = tl.abs(step) * dead
                up, down = on + lost, off + lost
                ups = tl.floor(tl.maximum(difference / up, 0.0))
                downs = tl.floor(-tl.minimum(difference / down, 0.0))
                difference = difference - ups * up + downs * down
            ons += ups
            offs += downs
        to = counts + (t * N + n).to(tl.int64) * 2 * size + p
        tl.store(to, offs, mask=inside)
        tl.store(to + size, ons, mask=inside)


@triton.jit
def count_events(
    bytes_, shorts, longs, about, counts, H, W,
    T: tl.constexpr, ABOUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts [B,T,2,H,W], to which the stored events of one recording are added, block by block.

    The three first are the same packed events, as uint8, int16 and int64; about [B,ABOUT] is what
    `binning_triton.About` says of each recording.
    """
    n = tl.program_id(0)
    own = about + n * ABOUT
    events, long_steps, step_bytes = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    long_at, place_at, step_at = tl.load(own + 3), tl.load(own + 4), tl.load(own + 5)
    high_at, polarity_at = tl.load(own + 6), tl.load(own + 7)
    x_bits, y_bits = tl.load(own + 8), tl.load(own + 9)
    first, length, of_time, rest = tl.load(own + 10), tl.load(own + 11), tl.load(own + 12), tl.load(own + 13)
    left, top, right, bottom = tl.load(own + 14), tl.load(own + 15), tl.load(own + 16), tl.load(own + 17)
    of_bytes = tl.where(step_bytes == 1, events, 0)  # how many steps are bytes, are shorts, and places have high bits
    of_shorts, of_high = events - of_bytes, tl.where(high_at < polarity_at, events, 0)
    mark = tl.where(step_bytes == 1, 255, 65535)
    time, escaped = events * 0, events * 0  # of the last event before a block, and long steps before it
    for start in range(0, events, BLOCK):
        i = start + tl.arange(0, BLOCK).to(tl.int64)
        inside = i < events
        step = tl.load(bytes_ + step_at + i, mask=i < of_bytes, other=0).to(tl.int64)
        step += tl.load(shorts + step_at // 2 + i, mask=i < of_shorts, other=0).to(tl.int64) & 0xFFFF
        long = inside & (step == mark)
        number = escaped + tl.cumsum(long.to(tl.int64), 0) - 1
        step = tl.where(long, tl.load(longs + long_at // 8 + number, mask=long & (number < long_steps), other=0), step)
        times = time + tl.cumsum(step, 0)
        time += tl.sum(step, 0)
        escaped += tl.sum(long.to(tl.int64), 0)

        since = tl.where(of_time > 0, times, i) - first
        bin_ = since // length
        bin_ = tl.where((rest > 0) & (bin_ >= T), T - 1, bin_)
        place = tl.load(shorts + place_at // 2 + i, mask=inside, other=0).to(tl.int64) & 0xFFFF
        place += tl.load(bytes_ + high_at + i, mask=i < of_high, other=0).to(tl.int64) << 16
        x, y = place & ((1 << x_bits) - 1), (place >> x_bits) & ((1 << y_bits) - 1)
        p = (tl.load(bytes_ + polarity_at + i // 8, mask=inside, other=0).to(tl.int64) >> (i % 8)) & 1
        shown = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        cell = (p * H + (y - top) * H // (bottom - top)) * W + (x - left) * W // (right - left)
        used = inside & shown & (since >= 0) & (bin_ < T)
        to = counts + (n.to(tl.int64) * T + bin_) * (2 * H * W) + cell
        tl.atomic_add(to, 1, mask=used, sem="relaxed")
