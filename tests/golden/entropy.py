"""Golden data of the entropy coders: python3 entropy.py > entropy.json (no packages needed).

1. "planes": coded planes as docs/methods/entropy.md describes them, written by this script alone: bits are strings, numbers are Python's
   big integers, the prefix code is plain Huffman, the states of tANS are spread in order of their symbols (any spread is valid).
2. "rans64": pmfs, quantized CDFs and streams of the 64-bit rANS coder with escapes that learned image codecs use (CompressAI's
   conventions), by a coder of this script's own. The first three CDFs and streams A and B are also what the reference C++ coder gives.
"""

import heapq
import json
import math
import struct

MASK = 0xFFFFFFFF


def lcg(seed):
    while True:
        seed = (seed * 1664525 + 1013904223) & MASK
        yield seed


# --- coded planes ---------------------------------------------------------------------------------------------------------------


def huffman(counts):
    """Code lengths by merging the two rarest."""
    heap = [(n, i, [s]) for i, (s, n) in enumerate(sorted(counts.items()))]
    heapq.heapify(heap)
    lengths = dict.fromkeys(counts, 0)
    tie = len(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        for s in a[2] + b[2]:
            lengths[s] += 1
        heapq.heappush(heap, (a[0] + b[0], tie, a[2] + b[2]))
        tie += 1
    return lengths


class Prefix:
    def __init__(self, counts):
        lengths = huffman(counts)
        self.width = max(max(lengths.values()), 1)
        self.codes, code, before = {}, 0, 0
        for s, n in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
            code <<= n - before
            self.codes[s] = format(code, f"0{n}b")
            code, before = code + 1, n
        self.table = []
        for state in range(1 << self.width):
            bits = format(state, f"0{self.width}b")
            s = next(s for s, c in self.codes.items() if bits.startswith(c))
            n = len(self.codes[s])
            self.table.append((s, n, int((bits[n:] + "0" * n), 2)))

    def encode(self, symbols):
        return "".join(self.codes[s] for s in symbols)


class Tans:
    def __init__(self, counts, width):
        self.width, size, total = width, 1 << width, sum(counts.values())
        share = {s: max(1, n * size // total) for s, n in counts.items()}
        while sum(share.values()) != size:
            step = 1 if sum(share.values()) < size else -1
            s = max((s for s in share if share[s] + step > 0), key=lambda s: step * counts[s] / share[s])
            share[s] += step
        self.share, self.states, self.table = share, {s: [] for s in share}, []
        for s in sorted(share):
            for number in range(share[s], 2 * share[s]):
                n = width - int(math.log2(number))
                self.states[s].append(len(self.table))
                self.table.append((s, n, (number << n) - size))

    def encode(self, symbols):
        size, out, state = 1 << self.width, [], 1 << self.width
        for s in reversed(symbols):
            n = 0
            while (state >> n) >= 2 * self.share[s]:
                n += 1
            out.append(format(state & ((1 << n) - 1), f"0{n}b") if n else "")
            state = size + self.states[s][(state >> n) - self.share[s]]
        return format(state - size, f"0{self.width}b") + "".join(reversed(out[1:]))


def placed(chunks, unit):
    """First bits of a segment's chunks and its words, if they begin at whole units from where equally long ones would; None if too far."""
    n, words = len(chunks), -(-sum(map(len, chunks)) // 32)
    while True:
        firsts, end = [], 0
        for i, chunk in enumerate(chunks):
            first = 32 * words * i // n
            steps = next(k for k in range(-40000, 40000) if first + (k << unit) >= end)
            if not -128 <= steps < 128:
                return None
            firsts.append((first + (steps << unit), steps))
            end = firsts[-1][0] + len(chunk)
        if end <= 32 * words:
            return firsts, words
        words += 1


def coded_plane(code, rows, unit=0):
    """rows: lists of symbols, all of one length. unit: of corrections, as a power of two, at least."""
    bases, corrections, stream = [], [], []
    for row in rows:
        for s in range(0, len(row), 4096):
            segment = row[s : s + 4096]
            chunks = [code.encode(segment[c : c + 128]) for c in range(0, len(segment), 128)]
            own = unit
            while placed(chunks, own) is None:
                own += 1
            firsts, words = placed(chunks, own)
            bases.append(len(stream) | own << 29)
            corrections += [steps & 255 for _, steps in firsts[1:]]
            bits = ""
            for chunk, (first, _) in zip(chunks, firsts):
                bits += "0" * (first - len(bits)) + chunk
            bits += "0" * (32 * words - len(bits))
            stream += [int(bits[i : i + 32], 2) for i in range(0, len(bits), 32)]
    bases.append(len(stream))
    corrections += [0] * (-len(corrections) % 4)
    table = [s << 16 | n << 12 | base for s, n, base in code.table]
    at = 4 + len(table) + len(bases)
    corrections = struct.unpack(f"<{len(corrections) // 4}I", bytes(corrections))
    return [code.width, at + len(corrections), 1, at] + table + bases + list(corrections) + stream


def count(rows):
    counts = {}
    for row in rows:
        for s in row:
            counts[s] = counts.get(s, 0) + 1
    return counts


def words_hex(words):
    return struct.pack(f"<{len(words)}I", *words).hex()


def bf16_plane(make, rows, cols, seed):
    """Weights with exponents around 2^-6, in a matrix whose last run is not full."""
    random = lcg(seed)
    weights, exponents, rest = [], [], []
    for _ in range(rows):
        row = []
        for _ in range(cols):
            r, r2 = next(random), next(random)
            trailing = (r >> 8 ^ (r >> 8) + 1).bit_length() - 1
            row.append((r2 >> 31) << 15 | (122 - min(trailing, 20)) << 7 | (r2 >> 16) & 0x7F)
        weights += row
        padded = row + [0] * (-cols % 32)
        exponents.append([w >> 7 & 0xFF for w in padded])
        for i in range(0, len(padded), 4):
            word = 0
            for j, w in enumerate(padded[i : i + 4]):
                placed = (w & 0x807F) << 16
                word |= placed >> 8 * j | placed << (32 - 8 * j) & MASK
            rest.append(word)
    plane = coded_plane(make(count(exponents)), exponents)
    values = b"".join(struct.pack("<I", w << 16) for w in weights)
    return {"codec": "entropy:bf16", "rows": rows, "cols": cols, "planes": [words_hex(plane), words_hex(rest)], "f32": values.hex()}


def uniform_plane(make, rows, cols, seed, unit=0):
    """Codes of 4 bits, most of them near 8, with scales that are powers of two."""
    random = lcg(seed)
    codes, scales, values = [], [], b""
    for r in range(rows):
        row = [sum(next(random) >> 30 for _ in range(5)) for _ in range(cols)]
        groups = [-3 - (g + r) % 4 for g in range(cols // 64)]
        values += b"".join(struct.pack("<f", (q - 8) * 2.0 ** groups[i // 64]) for i, q in enumerate(row))
        halves = [(15 + e) << 10 for e in groups] + [0] * (len(groups) % 2)
        scales += [a | b << 16 for a, b in zip(halves[::2], halves[1::2])]
        codes.append(row)
    plane = coded_plane(make(count(codes)), codes, unit)
    codec = "entropy:uniform:bits=4,group=64"
    return {"codec": codec, "rows": rows, "cols": cols, "planes": [words_hex(plane), words_hex(scales)], "f32": values.hex()}


# --- rANS64 ---------------------------------------------------------------------------------------------------------------------


def quantized_cdf(pmf, precision=16):
    f32 = lambda x: struct.unpack("<f", struct.pack("<f", x))[0]
    c = [math.floor(f32(p) * (1 << precision) + 0.5) for p in pmf]
    total = sum(c)
    cdf = [0]
    for x in c:
        cdf.append(cdf[-1] + (x << precision) // total)
    cdf[-1] = 1 << precision
    for i in range(len(pmf)):
        if cdf[i] == cdf[i + 1]:
            free = [(cdf[j + 1] - cdf[j], j) for j in range(len(pmf)) if cdf[j + 1] - cdf[j] > 1]
            j = min(free)[1]
            span, step = (range(j + 1, i + 1), -1) if j < i else (range(i + 1, j + 1), 1)
            for k in span:
                cdf[k] += step
    return cdf


def rans64(symbols):
    """symbols: (value, cdf, offset)."""
    pushes = []  # (start, frequency, precision)
    for value, cdf, offset in symbols:
        v, most = value - offset, len(cdf) - 2
        raw = None
        if v < 0:
            v, raw = most, -2 * v - 1
        elif v >= most:
            v, raw = most, 2 * (v - most)
        pushes.append((cdf[v], cdf[v + 1] - cdf[v], 16))
        if raw is not None:
            nibbles = -(-raw.bit_length() // 4)
            lengths = [15] * (nibbles // 15) + [nibbles % 15]
            pushes += [(x, 1, 4) for x in lengths + [raw >> 4 * i & 15 for i in range(nibbles)]]
    x, words = 1 << 31, []
    for start, frequency, precision in reversed(pushes):
        if x >= (((1 << 31) >> precision) << 32) * frequency:
            words.append(x & MASK)
            x >>= 32
        x = (x // frequency << precision) + x % frequency + start
    words += [x >> 32, x & MASK]
    return struct.pack(f"<{len(words)}I", *reversed(words)).hex()


def main():
    pmfs = [[0.5, 0.25, 0.125, 0.0625, 0.0625], [0.999, 0.0005, 0, 0, 0.0005], [1, 0, 0, 0]]
    cdfs = [quantized_cdf(pmf) for pmf in pmfs]
    a = [(v, 0, 0) for v in [0, 1, 2, 3, 0, 0, 1, 7, -3, 1000000]] + [(v, 1, -2) for v in [-2, -2, -1, 2, -2, -50]]
    random = lcg(1)
    b = []
    for i in range(64):
        at = (next(random) >> 24) * 257
        cdf = cdfs[i % 2]
        b.append((next(s for s in range(len(cdf) - 1) if cdf[s] <= at < cdf[s + 1]), i % 2))
    many = [(r >> 24 if r >> 20 & 7 == 0 else r >> 30, 0, 1) for r, _ in zip(lcg(9), range(500))]
    whole = lambda list: [(v, cdfs[c], o) for v, c, o in list]
    # B codes the intervals themselves, without escapes: a symbol more makes the last one an ordinary one.
    plain = [(v, cdfs[c] + [1 << 16], 0) for v, c in b]
    bits = lambda counts: Tans(counts, 9)
    golden = {
        "planes": [
            bf16_plane(Prefix, 3, 300, 7),
            bf16_plane(bits, 2, 150, 8),
            uniform_plane(bits, 3, 320, 5),
            uniform_plane(Prefix, 2, 4224, 6),
            uniform_plane(Prefix, 2, 1024, 9, unit=3),
        ],
        "rans64": {
            "cdfs": [{"pmf": p, "cdf": c} for p, c in zip(pmfs, cdfs)],
            "streams": [
                {"symbols": [v for v, *_ in a], "cdfs": [c for _, c, _ in a], "offsets": [o for *_, o in a], "bytes": rans64(whole(a))},
                {"symbols": [v for v, *_ in many], "cdfs": [0] * 500, "offsets": [1] * 500, "bytes": rans64(whole(many))},
            ],
            "plain": {"symbols": [v for v, _ in b], "cdfs": [c for _, c in b], "bytes": rans64(plain)},
        },
    }
    print(json.dumps(golden, separators=(",", ":")))


main()
