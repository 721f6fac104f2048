"""Evaluation statistics computed with numpy from random records: evaluation.json.

    python evaluation.py
"""

import json
from pathlib import Path

import numpy as np

rng = np.random.default_rng(2407)
N, VOCAB = 800, 20

# Records of positions as they come from the GPU, in f32.
nll_a = rng.exponential(2.0, N).astype(np.float32)
nll_b = (nll_a + 0.1 * rng.standard_normal(N) + 0.02).clip(0).astype(np.float32)
kl = (rng.exponential(0.01, N) ** 1.5).astype(np.float32)
p_a, p_b = np.exp(-nll_a).astype(np.float32), np.exp(-nll_b).astype(np.float32)
target = rng.integers(0, VOCAB, N)
top_a = np.where(rng.random(N) < 0.5, target, rng.integers(0, VOCAB, N))
top_b = np.where(rng.random(N) < 0.9, top_a, rng.integers(0, VOCAB, N))
overlap = rng.integers(2, 6, N)
entropy_a, entropy_b = (rng.exponential(1.5, N).astype(np.float32) for _ in range(2))


def sem(x):
    return float(np.std(x, ddof=1) / np.sqrt(len(x)))


def estimate(x):
    return [float(np.mean(x)), sem(x)]


def proportion(hits):
    p = float(np.mean(hits))
    return [p, float(np.sqrt(p * (1 - p) / (len(hits) - 1)))]


def exp(e):
    return [float(np.exp(e[0])), float(np.exp(e[0]) * e[1])]


a, b, k = (x.astype(np.float64) for x in (nll_a, nll_b, kl))
delta = p_b.astype(np.float64) - p_a.astype(np.float64)
square = estimate(delta**2)
right_a, right_b = top_a == target, top_b == target
expected = {
    "perplexity_a": exp(estimate(a)),
    "perplexity_b": exp(estimate(b)),
    "nll_correlation": float(np.corrcoef(a, b)[0, 1]),
    "ln_ratio": estimate(b - a),
    "ratio": exp(estimate(b - a)),
    "kl": estimate(k),
    "kl_median": float(np.median(k)),
    "kl_99": float(np.quantile(k, 0.99)),
    "kl_99_9": float(np.quantile(k, 0.999)),
    "kl_max": float(k.max()),
    "delta_p": estimate(delta),
    "delta_p_rms": [float(np.sqrt(square[0])), square[1] / (2 * float(np.sqrt(square[0])))],
    "same_top": proportion(top_a == top_b),
    "top5_overlap": estimate(overlap / 5),
    "flips": proportion(right_a != right_b),
    "flips_to_wrong": float(np.mean(right_a & ~right_b)),
    "accuracy_a": float(right_a.mean()),
    "accuracy_b": float(right_b.mean()),
    "entropy_a": float(entropy_a.astype(np.float64).mean()),
    "entropy_b": float(entropy_b.astype(np.float64).mean()),
}
# The bootstrap knows nothing of formulas for standard errors: ours must lie near it.
draws = rng.integers(0, N, (2000, N))
expected["bootstrap"] = {
    "ln_ratio": float((b - a)[draws].mean(1).std()),
    "perplexity_a": float(np.exp(a[draws].mean(1)).std()),
    "delta_p_rms": float(np.sqrt((delta**2)[draws].mean(1)).std()),
}

# Embeddings: 40 texts, a drift, and some equal coordinates for ties.
emb_a = rng.standard_normal((40, 12)).astype(np.float32)
emb_b = (emb_a + 0.15 * rng.standard_normal((40, 12))).astype(np.float32)


def unit(x):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ranks(x):
    order = np.sort(x)
    return (np.searchsorted(order, x, "left") + np.searchsorted(order, x, "right") + 1) / 2


ua, ub = unit(emb_a), unit(emb_b)
sim_a, sim_b = ua @ ua.T, ub @ ub.T
upper = np.triu_indices(40, 1)
recall = []
for q in range(40):
    others = [d for d in range(40) if d != q]
    near = [set(sorted(others, key=lambda d: -s[q, d])[:10]) for s in (sim_a, sim_b)]
    recall.append(len(near[0] & near[1]) / 10)
x, y = rng.integers(0, 9, 60).astype(float), rng.integers(0, 9, 60).astype(float)
cosines = (ua * ub).sum(1)
retrieval = {
    "a": emb_a.tolist(),
    "b": emb_b.tolist(),
    "cosine_mean": float(cosines.mean()),
    "cosine_median": float(np.median(cosines)),
    "cosine_min": float(cosines.min()),
    "recall": float(np.mean(recall)),
    "rank_correlation": float(np.corrcoef(ranks(sim_a[upper]), ranks(sim_b[upper]))[0, 1]),
    "tied": {"x": x.tolist(), "y": y.tolist(), "rank_correlation": float(np.corrcoef(ranks(x), ranks(y))[0, 1])},
}

records = [
    [float(v) for v in row[:5]] + [int(v) for v in row[5:9]] + [float(v) for v in row[9:]]
    for row in zip(nll_a, nll_b, kl, p_a, p_b, top_a, top_b, overlap, target, entropy_a, entropy_b)
]
out = {"records": records, "expected": expected, "retrieval": retrieval}
Path(__file__).with_name("evaluation.json").write_text(json.dumps(out) + "\n")
