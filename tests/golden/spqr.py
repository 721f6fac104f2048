"""SpQR (Dettmers et al. 2023, arXiv 2306.03078): the published format read with float16 arithmetic, and the encoder in float64.

    python spqr.py        # numpy; writes spqr.json

`format`: random words of the Hugging Face format, decoded operation by operation in float16 as its CUDA kernel does, outliers added.
`encoder`: leave-one-out outliers, two levels of statistics and the second-order loop, column by column, without blocks; groups of 16
columns are taken by falling energy and so are the columns within them, and the outliers' threshold counts mean squares. Of the 64 pairs
of statistics' codes a group takes the one that costs it least, where an outlier costs the threshold.
"""

import json
from pathlib import Path

import numpy as np

BITS, G = 3, 16


def case_format(rows, cols, rng):
    down, across = -(-rows // G), cols // G
    words = np.zeros((down, across, G), np.uint64)
    dense = np.zeros((down * G, cols), np.float16)
    for i in range(down):
        for j in range(across):
            ws, wz = rng.integers(0, 8, (2, G))
            q = rng.integers(0, 8, (G, G))
            # Steps from subnormal to large, zero points of both signs.
            wss = np.float16(2.0 ** rng.uniform(-17, -3))
            wzs = np.float16(rng.uniform(0.05, 0.6))
            wsz = np.float16(rng.uniform(-9, 2))
            wzz = np.float16(rng.uniform(-6, 6))
            record = 0
            for k, h in enumerate((wss, wzs, wsz, wzz)):
                record |= int(h.view(np.uint16)) << (16 * k)
            for r in range(G):
                word = int(ws[r]) | int(wz[r]) << 3 | ((record >> (8 * (r // 2))) & 255) << 54
                for c in range(G):
                    word |= int(q[r, c]) << (6 + 3 * c)
                words[i, j, r] = word
                s = wss * (np.float16(ws[r]) - wsz)
                z = wzs * (np.float16(wz[r]) - wzz)
                dense[i * G + r, j * G : (j + 1) * G] = s * (q[r].astype(np.float16) - z)
    count = rng.integers(0, 6, rows)
    count[0] = 0
    entries = [[(int(c), np.float16(rng.normal())) for c in rng.choice(cols, k, replace=False)] for k in count]
    as_word = lambda entry: entry[0] | int(entry[1].view(np.uint16)) << 16
    csr_rows = [0, *np.cumsum(count).tolist()]
    csr = [as_word(e) for row in entries for e in row]
    pt_rows, pt = [0], []
    for b in range(down):
        block = [entries[r] if r < rows else [] for r in range(b * G, (b + 1) * G)]
        for k in range(max(map(len, block))):
            pt += [as_word(row[k]) if k < len(row) else 0 for row in block]
        pt_rows.append(len(pt))
    perm = rng.permutation(cols)
    permuted = dense[:rows].astype(np.float32)
    for r, row in enumerate(entries):
        for c, v in row:
            permuted[r, c] += np.float32(v)
    weights = np.zeros_like(permuted)
    weights[:, perm] = permuted  # x'[i] = x[perm[i]]
    return {
        "rows": rows,
        "cols": cols,
        "dense_weights": [f"{int(w):016x}" for w in words.flatten()],
        "csr": {"row_offsets": csr_rows, "col_vals": csr},
        "ptcsr": {"row_offsets": pt_rows, "col_vals": pt},
        "in_perm": [int(a) | int(b) << 16 for a, b in perm.reshape(-1, 2)],
        "weights": [float(w) for w in weights.flatten()],
    }


def fit(w):
    low, high = min(w.min(initial=0.0), 0.0), max(w.max(initial=0.0), 0.0)
    s = (high - low) / (2**BITS - 1)
    return s, (-low / s if s > 0 else 0.0)


def code(w, s, z):
    return np.clip(np.round((w / s if s > 0 else 0 * w) + z), 0, 2**BITS - 1)


def second_level(v):
    low, high = v.min(), v.max()
    step = float(np.float16(max((high - low) / 7, np.abs(v).max() / 1024)))
    zero = float(np.float16(-low / step))
    return step * (np.arange(8) - zero)


def encode(weights, moment, damping, threshold):
    rows, cols = weights.shape
    energy = np.diag(moment)
    groups = sorted(range(cols // G), key=lambda g: -energy[g * G : (g + 1) * G].mean())
    order = np.concatenate([g * G + np.argsort(-energy[g * G : (g + 1) * G], kind="stable") for g in groups])
    h = moment + damping * energy.mean() * np.eye(cols)
    u = np.linalg.cholesky(np.linalg.inv(h[order][:, order])).T
    d = np.diag(u)
    w = weights[:, order].copy()
    tau = threshold * ((w**2).mean(0) / d**2).mean()
    out, outliers = np.zeros_like(w), 0
    s, z = np.zeros(rows), np.zeros(rows)
    for i in range(cols):
        if i % G == 0:
            scale = d[i : i + G]
            for r in range(rows):
                x = w[r, i : i + G]
                cost = lambda x, u, s, z: ((((code(x, s, z) - z) * s - x) / u) ** 2).sum()
                total = cost(x, scale, *fit(x))
                keep = []
                for k in range(G):
                    o = np.arange(G) != k
                    if total - cost(x[o], scale[o], *fit(x[o])) <= tau:
                        keep.append(k)
                s[r], z[r] = fit(x[keep])
            for t in range(0, rows, G):
                steps, zeros = second_level(s[t : t + G].copy()), second_level(z[t : t + G].copy())
                for r in range(t, t + G):
                    x = w[r, i : i + G]
                    paid = lambda s, z: np.minimum((((code(x, s, z) - z) * s - x) / scale) ** 2, tau).sum()
                    s[r], z[r] = min(((a, b) for b in zeros for a in steps), key=lambda grid: paid(*grid))
        for r in range(rows):
            x = w[r, i]
            out[r, i] = (code(x, s[r], z[r]) - z[r]) * s[r]
            if ((x - out[r, i]) / d[i]) ** 2 > tau:
                zero = (code(0.0, s[r], z[r]) - z[r]) * s[r]
                out[r, i] = zero + float(np.float16(x - zero))
                outliers += 1
        error = (w[:, i] - out[:, i]) / d[i]
        w[:, i + 1 :] -= np.outer(error, u[i, i + 1 :])
    result = np.zeros_like(out)
    result[:, order] = out
    return result, outliers


def case_encoder(rng):
    rows, cols = 32, 96
    x = rng.standard_normal((400, cols)) * np.exp(rng.uniform(-0.7, 0.7, cols))
    for j in range(1, cols):
        x[:, j] += 0.7 * x[:, j - 1]
    moment = (x.T @ x / 400).astype(np.float32)
    weights = (rng.standard_t(5, (rows, cols)) * 0.02).astype(np.float32)
    out, outliers = encode(weights.astype(np.float64), moment.astype(np.float64), 0.01, 0.2)
    e = out - weights
    return {
        "rows": rows,
        "cols": cols,
        "moment": [float(v) for v in moment.flatten()],
        "weights": [float(v) for v in weights.flatten()],
        "encoded": [float(np.float32(v)) for v in out.flatten()],
        "outliers": outliers,
        "loss": float(np.trace(e @ moment.astype(np.float64) @ e.T)),
    }


rng = np.random.default_rng(38)
golden = {"format": case_format(20, 64, rng), "encoder": case_encoder(rng)}
print(golden["encoder"]["outliers"], golden["encoder"]["loss"])
Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
