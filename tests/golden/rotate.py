"""Golden values of random orthogonal matrices: the walk of engine/src/model/rotate.rs, written a second time.

Python's floats are IEEE 754 doubles and its `math.sqrt` is correctly rounded, so the bits must agree. Prints, for each n
and seed, the bits of three entries of the matrix as f32; they stand in that file's test.

    python tests/golden/rotate.py
"""

import math
import struct

MASK = (1 << 64) - 1


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def direction(random):
    while True:
        x, y = ((next(random) >> 11) / 2**52 - 1.0 for _ in range(2))
        square = x * x + y * y
        if 1e-12 < square <= 1.0 and min(x * x, y * y) >= 0.25 * square:
            return x / math.sqrt(square), y / math.sqrt(square)


def matrix(n, seed):
    """Rows of the matrix: the walk applied to unit vectors."""
    random = splitmix64(next(splitmix64(seed)) ^ (n << 32))
    rows = [[float(i == j) for j in range(n)] for i in range(n)]
    order = list(range(n))
    for _ in range(2 * math.ceil(math.log2(n)) + 4):
        for i in range(n - 1, 0, -1):
            j = next(random) * (i + 1) >> 64
            order[i], order[j] = order[j], order[i]
        for k in range(0, n - 1, 2):
            a, b = order[k], order[k + 1]
            c, s = direction(random)
            for row in rows:
                row[a], row[b] = c * row[a] - s * row[b], s * row[a] + c * row[b]
    return rows


for n, seed in [(5, 1), (5, 2), (48, 1), (576, 1)]:
    rows = matrix(n, seed)
    entries = [rows[0][0], rows[1][n - 1], rows[n - 1][n // 2]]
    print(n, seed, [hex(struct.unpack("<I", struct.pack("<f", entry))[0]) for entry in entries])
