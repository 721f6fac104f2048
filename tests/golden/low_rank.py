"""Low-rank factors by numpy, written from the papers: low_rank.json.

    python low_rank.py

EoRA (arXiv 2410.21271) the long way, by the eigenspace of the inputs and an SVD in it: C = Q L Q^T, U S V^T = E Q L^1/2, B A = U_r S_r
V_r^T L^-1/2 Q^T. LoRD (arXiv 2309.14021) by the covariance of measured outputs. And the truncated SVD. The engine uses neither inverse nor
SVD, so that the two share no step.

The numbers of methods.md's F-W (256 x 256, Student-t weights, inputs with a spectrum of 1/i) are printed; the file holds small cases.
"""

import json
from pathlib import Path

import numpy as np


def eora(error, moment, rank):
    values, vectors = np.linalg.eigh(moment)
    values = np.clip(values, values[values > 0].min(), None)
    space = vectors * np.sqrt(values)
    u, s, v = np.linalg.svd(error @ space, full_matrices=False)
    product = (u[:, :rank] * s[:rank]) @ v[:rank] @ (vectors / np.sqrt(values)).T
    return product, float((s[rank:] ** 2).sum())


def svd(error, rank):
    u, s, v = np.linalg.svd(error, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank], float((s[rank:] ** 2).sum())


def lord(weights, inputs, rank):
    outputs = inputs @ weights.T
    mean = outputs.mean(0)
    values, vectors = np.linalg.eigh(np.cov(outputs.T, bias=True))
    kept = vectors[:, ::-1][:, :rank]
    return kept @ (kept.T @ weights), mean - kept @ (kept.T @ mean), float(values[::-1][rank:].sum())


def single(values):
    return [float(f"{np.float32(v):.9g}") for v in np.asarray(values).ravel()]


def inputs_of(rng, tokens, cols):
    basis, _ = np.linalg.qr(rng.standard_normal((cols, cols)))
    spread = basis * np.sqrt(cols / np.arange(1, cols + 1))
    return rng.standard_normal((tokens, cols)) @ spread.T + 0.5 * rng.standard_normal(cols)


def case(rng, rows, cols, rank, tokens):
    # What the engine reads is in f32; so is what is factored here.
    weights = (0.1 * rng.standard_t(5, (rows, cols))).astype(np.float32).astype(np.float64)
    inputs = inputs_of(rng, tokens, cols)
    moment, mean = inputs.T @ inputs / tokens, inputs.mean(0)
    by_inputs, inputs_cost = eora(weights, moment, rank)
    plain, plain_cost = svd(weights, rank)
    by_outputs, bias, outputs_cost = lord(weights, inputs, rank)
    return {
        "rows": rows,
        "cols": cols,
        "rank": rank,
        "tokens": tokens,
        "weights": single(weights),
        "moment": single(moment),
        "mean": single(mean),
        "eora": single(by_inputs),
        "eora_cost": inputs_cost,
        "svd": single(plain),
        "svd_cost": plain_cost,
        "lord": single(by_outputs),
        "lord_bias": single(bias),
        "lord_cost": outputs_cost,
    }


def main():
    rng = np.random.default_rng(26)
    cases = [case(rng, rows, cols, 8, 200) for rows, cols in [(16, 24), (24, 16), (20, 20)]]
    (Path(__file__).parent / "low_rank.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main()
