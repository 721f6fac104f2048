"""Second-order encoding (GPTQ), textbook form in float64: invert the damped second moment, factor the inverse, walk the columns.

    python hessian.py        # numpy; writes hessian.json

Source: Frantar et al. 2022, arXiv 2210.17323, algorithm 1 (without its blocking, which changes nothing but rounding).
"""

import json
from pathlib import Path

import numpy as np

TOKENS, COLS, ROWS, STEP = 96, 24, 5, 0.25
DEAD = 7  # a column that is always 0

rng = np.random.default_rng(38)
x = rng.standard_normal((TOKENS, COLS)) * np.exp(rng.uniform(-1, 1, COLS))
for j in range(1, COLS):  # neighbours are alike
    x[:, j] += 0.8 * x[:, j - 1]
x[:, DEAD] = 0
moment = (x.T @ x / TOKENS).astype(np.float32)
weights = rng.standard_normal((ROWS, COLS)).astype(np.float32)


def grid(w):
    return np.clip(np.round(w / STEP), -8, 7) * STEP


def case(order, damping):
    h = moment.astype(np.float64)
    h = h + damping * np.diag(h).mean() * np.eye(COLS)
    h = h[order][:, order]
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    w = weights.astype(np.float64)[:, order]
    for i in range(COLS):
        error = (w[:, i] - grid(w[:, i])) / u[i, i]
        w[:, i] = grid(w[:, i])
        w[:, i + 1 :] -= np.outer(error, u[i, i + 1 :])
    replaced = np.empty_like(w)
    replaced[:, order] = w
    return {"damping": damping, "order": [int(i) for i in order], "u": u.flatten().tolist(), "replaced": replaced.flatten().tolist()}


energy = np.argsort(-np.diag(moment), kind="stable")
golden = {
    "rows": ROWS,
    "cols": COLS,
    "step": STEP,
    "moment": [float(v) for v in moment.flatten()],
    "weights": [float(v) for v in weights.flatten()],
    "stored": case(np.arange(COLS), 0.01),
    "energy": case(energy, 1.0),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
