#!/usr/bin/env python3
"""MoDeGPT's three decompositions in numpy, written from the paper (arXiv 2408.09632): what tests/modegpt.rs holds the engine to.

The engine takes shorter ways (no square roots of C_x, Gram matrices of a head's own dimensions); here everything is done as the paper has
it, in float64. Writes modegpt.safetensors. Needs numpy, scikit-learn (for its digits and its training of an MLP) and safetensors:

    python3 tests/golden/modegpt.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

RIDGE = 1e-3  # λ as a share of the mean eigenvalue
out = {}


def put(name, values, dtype=np.float64):
    out[name] = np.ascontiguousarray(values, dtype=dtype)


def root(c):
    """The symmetric square root."""
    w, q = np.linalg.eigh(c)
    return (q * np.sqrt(np.maximum(w, 0.0))) @ q.T


def nystrom(c, keep):
    """Type I: kept indices and C[:,J] C[J,J]^-1."""
    lam = RIDGE * np.trace(c) / len(c)
    leverage = np.diag(c @ np.linalg.inv(c + lam * np.eye(len(c))))
    kept = np.sort(np.argsort(-leverage, kind="stable")[:keep])
    return kept, c[:, kept] @ np.linalg.inv(c[np.ix_(kept, kept)])


def random_moments(rng, n, decay=1.0):
    x = rng.normal(size=(4 * n, n)) * decay ** np.arange(n)
    x = x @ np.linalg.qr(rng.normal(size=(n, n)))[0] + 0.3 * rng.normal(size=n)
    return x.T @ x / len(x), x.mean(axis=0)


rng = np.random.default_rng(7)

# Type I on second moments with a long tail.
c, _ = random_moments(rng, 24, 0.8)
kept, reconstruction = nystrom(c, 9)
put("nystrom.c", c)
put("nystrom.kept", kept, np.uint32)
put("nystrom.reconstruction", reconstruction)

# Type II: one KV head with two query heads of 12 dimensions that turn as (i, i + 6), with biases. Scores through square roots.
hidden, dim, group = 20, 12, 2
cx, mean = random_moments(rng, hidden)
wq, wk = rng.normal(size=(group, dim, hidden)) * rng.uniform(0.2, 2, size=(group, dim, 1)), rng.normal(size=(dim, hidden))
bq, bk = rng.normal(size=(group, dim)), rng.normal(size=dim)


def of_outputs(w, b):
    return w @ cx @ w.T + np.outer(w @ mean, b) + np.outer(b, w @ mean) + np.outer(b, b)


norms_k = np.linalg.norm(root(of_outputs(wk, bk)), axis=0)
scores = np.zeros(dim // 2)
single = []
for j in range(group):
    norms_q = np.linalg.norm(root(of_outputs(wq[j], bq[j])), axis=0)
    single.append(norms_q * norms_k)
    both = (norms_q * norms_k) ** 2
    scores += both[: dim // 2] + both[dim // 2 :]
for name, values in [("cx", cx), ("mean", mean), ("wq", wq), ("wk", wk), ("bq", bq), ("bk", bk)]:
    put(f"cr.{name}", values)
put("cr.single", single)
put("cr.pairs", np.sort(np.argsort(-scores)[:4]), np.uint32)

# Type III, one query head: the two singular value decompositions of the paper.
hidden, dim, rank, width = 20, 8, 5, 14
cx, _ = random_moments(rng, hidden)
v, o = rng.normal(size=(hidden, dim)), rng.normal(size=(dim, width))  # x V O, as the paper writes
half = root(cx)
u, s, t = np.linalg.svd(half @ v, full_matrices=False)
u2, s2, t2 = np.linalg.svd(np.diag(s) @ t @ o, full_matrices=False)
product = np.linalg.inv(half) @ u @ u2[:, :rank] @ np.diag(s2[:rank]) @ t2[:rank]
for name, values in [("cx", cx), ("v", v), ("o", o), ("product", product), ("energies", s2**2)]:
    put(f"svd.{name}", values)

# A group of two query heads: the best matrices of rank 5 that share V', by Eckart-Young on C^1/2 V [O_1 O_2].
o = rng.normal(size=(dim, 2 * width))
u, s, t = np.linalg.svd(half @ v @ o, full_matrices=False)
put("group.o", o)
put("group.product", np.linalg.inv(half) @ (u[:, :rank] * s[:rank]) @ t[:rank])
put("group.energies", s[:dim] ** 2)

# Shares of layers: L φ softmax(−s/ε), clamped at 0.8, the excess spread in proportion.
influence = np.array([0.9, 0.35, 0.2, 0.18, 0.05, 0.02, 0.3, 0.6])
for name, ratio, epsilon in [("mild", 0.3, 0.5), ("clamped", 0.4, 0.08)]:
    shares = len(influence) * ratio * np.exp(-influence / epsilon) / np.exp(-influence / epsilon).sum()
    fixed = np.zeros(len(shares), bool)
    while (shares > 0.8 + 1e-12).any():
        excess = (shares[shares > 0.8] - 0.8).sum()
        fixed |= shares >= 0.8
        shares[fixed] = 0.8
        shares[~fixed] *= 1 + excess / shares[~fixed].sum()
    put(f"shares.{name}", shares)
put("shares.influence", influence)

# A trained MLP on the digits of scikit-learn: 64 inputs, 64 hidden units (relu), 10 classes.
digits, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(digits, labels, test_size=0.2, random_state=0, stratify=labels)
net = MLPClassifier((64,), alpha=1e-4, max_iter=400, random_state=0).fit(train_x / 16, train_y)
(w1, w2), (b1, b2) = net.coefs_, net.intercepts_
h = np.maximum(train_x / 16 @ w1 + b1, 0)
moments = h.T @ h / len(h)
test_h = np.maximum(test_x / 16 @ w1 + b1, 0)


def accuracy(hidden_units, w):
    return float(((hidden_units @ w + b2).argmax(1) == test_y).mean())


kept, reconstruction = nystrom(moments, 24)
print("digits: dense", accuracy(test_h, w2), "nystrom 24/64", accuracy(test_h[:, kept], reconstruction.T @ w2),
      "the same 24 as they are", accuracy(test_h[:, kept], w2[kept]))
by_norm = np.sort(np.argsort(-np.linalg.norm(w2, axis=1))[:24])
print("digits: the 24 of largest norm as they are", accuracy(test_h[:, by_norm], w2[by_norm]))
put("digits.moments", moments)
put("digits.w1", w1.T, np.float32)
put("digits.b1", b1, np.float32)
put("digits.w2", w2.T, np.float32)
put("digits.b2", b2, np.float32)
put("digits.x", test_x, np.uint16)
put("digits.y", test_y, np.uint16)

save_file(out, str(Path(__file__).with_name("modegpt.safetensors")))
