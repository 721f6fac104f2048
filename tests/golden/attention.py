"""Block-sparse attention and EcoFormer in numpy, f64, from their papers: attention/golden.safetensors, and the digits that hashes are
learned on.

    python attention.py        numpy and scikit-learn (for its digits)

Nothing here shares code with tersor. Adaptive masks: Video-BLADE (arXiv 2508.10774); linear attention: EcoFormer (arXiv 2209.09004).
"""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).with_name("attention")
rng = np.random.default_rng(20258)
tensors = {}


def save(name, array, dtype):
    tensors[name] = np.ascontiguousarray(array, dtype=dtype)


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# ---- Adaptive sparse attention, bidirectional: 2 heads, T = 300 (the last block is partial), blocks of 32, 8 samples.
H, T, D, B, M = 2, 300, 32, 32, 8
n = -(-T // B)
centres = rng.standard_normal((5, D))
group_q = rng.integers(0, 5, n)
group_k = rng.integers(0, 5, n)
token_block = np.arange(T) // B
q = (0.8 * centres[group_q[token_block]] + rng.standard_normal((H, T, D))).astype(np.float32)
k = (0.8 * centres[group_k[token_block]] + rng.standard_normal((H, T, D))).astype(np.float32)
v = rng.standard_normal((H, T, D)).astype(np.float32)
offsets = np.array([[rng.permutation(B)[:M] for _ in range(2)] for _ in range(H)])    # [H, 2, M]
MASS, LOW, HIGH = 0.7, 0.1, 0.5

masks = np.zeros((H, n, n), bool)
out, lse, merged = np.zeros((H, T, D)), np.zeros((H, T)), np.zeros((H, T, D))
GAP = 30
for h in range(H):
    Q, K, V = q[h].astype(np.float64), k[h].astype(np.float64), v[h].astype(np.float64)
    # Padded by the last token; the same offsets in every block.
    pad = lambda x: np.concatenate([x, np.repeat(x[-1:], n * B - T, axis=0)])
    qs = pad(Q).reshape(n, B, D)[:, offsets[h, 0]].reshape(n * M, D)
    ks = pad(K).reshape(n, B, D)[:, offsets[h, 1]].reshape(n * M, D)
    s = qs @ ks.T / np.sqrt(D)
    top = s.max(axis=1, keepdims=True)
    tile = s.reshape(n * M, n, M).max(axis=2)                          # max over a tile's columns
    P = np.exp(tile - top).reshape(n, M, n).max(axis=1)                # max over its rows
    P /= P.sum(axis=1, keepdims=True)
    for i in range(n):
        order = np.argsort(-P[i], kind="stable")
        reached = np.nonzero(np.cumsum(P[i][order]) >= MASS * P[i].sum())[0]
        kept = reached[0] if len(reached) else n
        kept = int(np.clip(kept, max(1, int(n * LOW)), max(1, int(n * HIGH))))
        masks[h, i, order[:kept]] = True
    full = np.repeat(np.repeat(masks[h], B, axis=0), B, axis=1)[:T, :T]
    scores = np.where(full, Q @ K.T / np.sqrt(D), -np.inf)
    lse[h] = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    out[h] = softmax(scores) @ V
    # The global branch: means of GAP tokens, the tail padded by the last; each stands for GAP keys.
    groups = -(-T // GAP)
    mean = lambda x: np.concatenate([x, np.repeat(x[-1:], groups * GAP - T, axis=0)]).reshape(groups, GAP, D).mean(1)
    coarse = Q @ mean(K).T / np.sqrt(D)
    lse2 = np.log(np.exp(coarse).sum(1)) + np.log(GAP)
    alpha = softmax(np.stack([lse[h], lse2], axis=1))[:, :1]
    merged[h] = alpha * out[h] + (1 - alpha) * (softmax(coarse) @ mean(V))
by_token = lambda x: x.transpose(1, 0, 2)
save("asa.q", by_token(q), np.float32)
save("asa.k", k, np.float32)
save("asa.v", v, np.float32)
save("asa.offsets", offsets, np.uint32)
save("asa.mask", masks, np.uint32)
save("asa.out", by_token(out), np.float32)
save("asa.lse", lse.T, np.float32)
save("asa.merged", by_token(merged), np.float32)

# ---- EcoFormer: 2 heads, N = 300 tokens, 25 anchors, 16 bits.
H, N, D, m, bits = 2, 300, 16, 25, 16
x = rng.standard_normal((H, N, D)) * rng.uniform(0.5, 3, (H, N, 1))
x = x.astype(np.float32)
v = rng.standard_normal((H, N, D)).astype(np.float32)
unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=2, keepdims=True)
anchors = unit[:, rng.permutation(N)[:m]].astype(np.float32)
A = rng.standard_normal((H, bits, m)).astype(np.float32)
d2 = ((unit[:, :, None] - anchors[:, None].astype(np.float64)) ** 2).sum(-1)           # [H, N, m]
sigma = d2.mean(axis=(1, 2), keepdims=True)
kernel = np.exp(-d2 / (2 * sigma))
mean = kernel.mean(axis=1).astype(np.float32)
y = np.einsum("hbm,hnm->hnb", A.astype(np.float64), kernel - mean[:, None].astype(np.float64))
h = np.where(y > 0, 1.0, -1.0)
codes = ((y > 0) << np.arange(bits)).sum(-1)                                           # [H, N]
beta = bits + 1
similarity = np.einsum("hib,hjb->hij", h, h)
den = (similarity + beta).sum(-1, keepdims=True)
linear = (similarity + beta) @ v / den
released = (similarity @ v + beta * v) / den          # the published code adds the token's own value
save("eco.x", by_token(x), np.float32)
save("eco.v", by_token(v), np.float32)
save("eco.anchors", anchors, np.float32)
save("eco.means", mean, np.float32)
save("eco.matrix", A, np.float32)
save("eco.codes", codes, np.uint32)
save("eco.closest", np.abs(y).min(axis=2), np.float32)      # how close a token's closest bit is to changing
save("eco.linear", by_token(linear), np.float32)
save("eco.released", by_token(released), np.float32)

# ---- Digits, 8×8, 0 to 16: 400 to learn on, 400 to test.
digits = load_digits().data[:800]
save("digits", digits.astype(np.uint8).reshape(-1, 2).view("<u2"), np.uint16)

header, data = {}, b""
names = {np.dtype(np.float32): "F32", np.dtype(np.uint32): "U32", np.dtype(np.uint16): "U16"}
for name in sorted(tensors, key=lambda t: -tensors[t].itemsize):
    raw = tensors[name].tobytes()
    header[name] = {"dtype": names[tensors[name].dtype], "shape": list(tensors[name].shape),
                    "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
HERE.mkdir(exist_ok=True)
(HERE / "golden.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
print(f"{len(tensors)} tensors, {len(data)} bytes; blocks kept {masks.mean():.3f}, by row {masks.sum(2).tolist()}")
