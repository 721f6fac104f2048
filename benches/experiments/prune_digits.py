"""Large and sparse against small and dense, on scikit-learn's digits (Zhu & Gupta 2017, arXiv 1710.01878, at toy scale).

    pip install numpy scikit-learn && python benches/experiments/prune_digits.py

A 64-256-256-10 ReLU network is trained while its two hidden layers are pruned by magnitude, each by the cubic schedule from 0 to
97 % (the output layer, 3 % of the weights, is left alone); beside it a dense 64-h-h-10 network with as many weights as the other has
left. Adam, 40 epochs, batches of 64, the same number of steps for both. Each of 8 seeds draws weights and the 497 test images anew.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS, BATCH, RATE, LAST = 40, 64, 2e-3, 0.97


def schedule(step, first, last, final):
    if step < first:
        return 0.0
    return final * (1 - (1 - min(1.0, (step - first) / (last - first))) ** 3)


def train(sizes, x, y, rng, final=0.0):
    weights = [rng.normal(0, np.sqrt(2 / a), (a, b)) for a, b in zip(sizes, sizes[1:])]
    biases = [np.zeros(b) for b in sizes[1:]]
    moments = [[np.zeros_like(p), np.zeros_like(p)] for p in weights + biases]
    masks = [np.ones_like(w) for w in weights]
    steps = EPOCHS * (len(x) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            step += 1
            share = schedule(step, steps // 5, steps * 7 // 10, final)
            if step % 10 == 0 or step == steps:
                for w, mask in zip(weights[:-1], masks):
                    pruned = int(share * w.size)
                    mask[...] = 1
                    if pruned:
                        mask.ravel()[np.argpartition(np.abs(w).ravel(), pruned)[:pruned]] = 0
            for w, mask in zip(weights, masks):
                w *= mask
            pick = order[start : start + BATCH]
            outputs = [x[pick]]
            for i, (w, b) in enumerate(zip(weights, biases)):
                z = outputs[-1] @ w + b
                outputs.append(z if i == len(weights) - 1 else np.maximum(z, 0))
            p = np.exp(outputs[-1] - outputs[-1].max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(pick)), y[pick]] -= 1
            delta = p / len(pick)
            gradients = [None] * (2 * len(weights))
            for i in reversed(range(len(weights))):
                gradients[i] = (outputs[i].T @ delta) * masks[i]
                gradients[len(weights) + i] = delta.sum(0)
                if i:
                    delta = (delta @ weights[i].T) * (outputs[i] > 0)
            for p_, g, m in zip(weights + biases, gradients, moments):
                m[0] += 0.1 * (g - m[0])
                m[1] += 0.001 * (g * g - m[1])
                p_ -= RATE * (m[0] / (1 - 0.9**step)) / (np.sqrt(m[1] / (1 - 0.999**step)) + 1e-8)
    for w, mask in zip(weights, masks):
        w *= mask
    return weights, biases


def accuracy(network, x, y):
    for i, (w, b) in enumerate(zip(*network)):
        x = x @ w + b
        if i < len(network[0]) - 1:
            x = np.maximum(x, 0)
    return float((x.argmax(1) == y).mean())


def main():
    data = load_digits()
    sparse, dense = [], []
    for seed in range(8):
        x, test_x, y, test_y = train_test_split(data.data / 16, data.target, test_size=497, random_state=seed)
        network = train([64, 256, 256, 10], x, y, np.random.default_rng(seed), LAST)
        left = sum(int((w != 0).sum()) for w in network[0])
        # 64h + h² + 10h weights.
        h = round((-74 + np.sqrt(74**2 + 4 * left)) / 2)
        small = train([64, h, h, 10], x, y, np.random.default_rng(seed))
        sparse.append(accuracy(network, test_x, test_y))
        dense.append(accuracy(small, test_x, test_y))
        print(f"seed {seed}: {left} weights left of {64 * 256 + 256 * 256 + 2560}: {sparse[-1]:.4f}; 64-{h}-{h}-10, {64 * h + h * h + 10 * h} weights: {dense[-1]:.4f}")
    wins = sum(a > b for a, b in zip(sparse, dense))
    print(f"mean {np.mean(sparse):.4f} sparse, {np.mean(dense):.4f} dense; sparse wins {wins} of 8")


if __name__ == "__main__":
    main()
