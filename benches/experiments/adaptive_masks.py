#!/usr/bin/env python3
"""What settings of adaptive masks (ASA) cost SmolLM2 on a long text, by a numpy model of its own: how the defaults were chosen.

    pip install numpy gguf tokenizers
    benches/experiments/adaptive_masks.py MODEL.gguf TEXT TOKENS POLICY...

A POLICY is `dense`, or options as `--attention asa:` has them: `mass=0.95,near=4,samples=32`. Options of this program's own:
`score=max` (as published: the largest exp of a block's sampled scores) or `mean` (of the sampled queries' softmax); `oracle=1` takes the
whole attention in place of a sample. Samples are numpy's, not the engine's: the same settings, other draws.
"""
import sys
import time

import gguf
import numpy as np
from gguf.quants import dequantize
from tokenizers import Tokenizer, models, pre_tokenizers

DEFAULTS = dict(block=64, samples=32, mass=0.95, min=0.05, max=1.0, sinks=1, near=4, pool=0, seed=0, score="max", oracle=0)
NEVER = -1e30


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        field = lambda key: reader.fields[key].contents()
        self.w = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(d) for d in reversed(t.shape)])
                  for t in reader.tensors}
        self.layers, self.heads, self.kv_heads = (field("llama." + key) for key in
                                                  ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.dim = field("llama.embedding_length") // self.heads
        self.eps, self.base = field("llama.attention.layer_norm_rms_epsilon"), field("llama.rope.freq_base")
        vocab = {token: i for i, token in enumerate(field("tokenizer.ggml.tokens"))}
        merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
        self.tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def perplexity(self, ids, attend):
        """exp of the mean negative log-likelihood of all tokens but the first; attend(q, k, v, head) gives a head's output."""
        tokens, w = len(ids), self.w
        angle = np.arange(tokens)[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        cos, sin = np.cos(angle).astype("f")[:, None], np.sin(angle).astype("f")[:, None]

        def rope(x):  # neighbours are pairs, as GGUF stores Llama's heads
            out = np.empty_like(x)
            out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
            out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
            return out

        x = w["token_embd.weight"][ids]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            h = self.norm(x, p + "attn_norm.weight")
            heads = lambda name, n: (h @ w[p + name].T).reshape(tokens, n, self.dim)
            q = rope(heads("attn_q.weight", self.heads)) / np.float32(self.dim ** 0.5)
            k, v = rope(heads("attn_k.weight", self.kv_heads)), heads("attn_v.weight", self.kv_heads)
            share = self.heads // self.kv_heads
            part = lambda a, i: np.ascontiguousarray(a[:, i])
            outs = [attend(part(q, i), part(k, i // share), part(v, i // share), i) for i in range(self.heads)]
            x = x + np.concatenate(outs, 1) @ w[p + "attn_output.weight"].T
            h = self.norm(x, p + "ffn_norm.weight")
            gate = h @ w[p + "ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "ffn_up.weight"].T)) @ w[p + "ffn_down.weight"].T
        x = self.norm(x, "output_norm.weight")
        table = w.get("output.weight", w["token_embd.weight"])
        total = 0.0
        for i in range(0, tokens - 1, 512):
            rows = x[i:min(i + 512, tokens - 1)] @ table.T
            top = rows.max(-1)
            lse = np.log(np.exp(rows - top[:, None]).sum(-1)) + top
            total += float((lse - rows[np.arange(len(rows)), ids[i + 1:i + 1 + len(rows)]]).sum())
        return np.exp(total / (tokens - 1))


def softmax(a):
    a = np.exp(a - a.max(-1, keepdims=True))
    return a / a.sum(-1, keepdims=True)


class Masks:
    def __init__(self, **options):
        self.__dict__.update(DEFAULTS | options)
        self.random, self.drawn = np.random.default_rng(self.seed), {}
        self.kept = self.visible = 0

    def weights(self, q, k, head):
        """P[I, J] of `attention/asa_select`, or what the whole attention says."""
        block, n = self.block, len(q) // self.block
        if self.oracle:
            p = np.zeros((n, n), "f")
            for i in range(n):
                a = q[i * block:][:block] @ k[:(i + 1) * block].T
                a[:, i * block:][np.triu_indices(block, 1)] = NEVER
                p[i, :i + 1] = softmax(a).reshape(block, i + 1, block).sum(-1).mean(0)
            return p
        if head not in self.drawn:
            self.drawn[head] = [np.sort(self.random.permutation(block)[:self.samples]) for _ in range(2)]
        at_q, at_k = ((np.arange(n)[:, None] * block + drawn).ravel() for drawn in self.drawn[head])
        t = q[at_q] @ k[at_k].T
        t[at_k[None] > at_q[:, None]] = NEVER
        if self.score == "mean":
            e = np.where(t > NEVER / 2, np.exp(t - t.max(-1, keepdims=True)), 0).reshape(n * self.samples, n, self.samples).sum(-1)
            return (e / np.maximum(e.sum(-1, keepdims=True), 1e-30)).reshape(n, self.samples, n).mean(1)
        t = t.reshape(n * self.samples, n, self.samples).max(-1)
        top = t.max(-1, keepdims=True)
        return np.where(top > NEVER / 2, np.exp(t - top), 0).reshape(n, self.samples, n).max(1)

    def choose(self, q, k, head):
        p = self.weights(q, k, head)
        keep = np.zeros(p.shape, bool)
        for i, row in enumerate(p):
            n = i + 1
            forced = (np.arange(n) < self.sinks) | (np.arange(n) >= n - self.near)
            order = np.argsort(-(row[:n] + 2 * forced), kind="stable")
            below = int((np.cumsum(row[order]) < self.mass * row[:n].sum()).sum())
            count = min(max(below, 1, int(n * self.min)), max(1, int(n * self.max)))
            keep[i, order[:max(count, int(forced.sum()))]] = True
        self.kept, self.visible = self.kept + int(keep.sum()), self.visible + len(p) * (len(p) + 1) // 2
        return keep

    def attend(self, q, k, v, head):
        keep, block, out = self.choose(q, k, head), self.block, np.empty_like(q)
        if self.pool:
            coarse_k, coarse_v = (a.reshape(-1, self.pool, a.shape[1]).mean(1) for a in (k, v))
        within = np.triu_indices(block, 1)
        for i in range(len(q) // block):
            rows = q[i * block:][:block]
            of = lambda blocks, size: (blocks[:, None] * size + np.arange(size)).ravel()
            kept = of(np.flatnonzero(keep[i, :i + 1]), block)
            a, values = rows @ k[kept].T, v[kept]
            a[:, -block:][within] = NEVER
            left = np.flatnonzero(~keep[i, :i + 1])
            if self.pool and len(left):
                left = of(left, block // self.pool)
                a = np.concatenate([a, rows @ coarse_k[left].T + np.log(self.pool)], 1)
                values = np.concatenate([values, coarse_v[left]])
            out[i * block:][:block] = softmax(a) @ values
        return out


def dense(q, k, v, _head, block=256):
    out = np.empty_like(q)
    for i in range(0, len(q), block):
        a = q[i:i + block] @ k[:i + block].T
        a[:, i:][np.triu_indices(len(a), 1)] = NEVER
        out[i:i + block] = softmax(a) @ v[:i + block]
    return out


def option(text):
    name, value = text.split("=")
    if name not in DEFAULTS:
        sys.exit(f"no option {name}: {', '.join(DEFAULTS)}")
    return name, type(DEFAULTS[name])(value)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    path, text, tokens, *policies = sys.argv[1:]
    model = Model(path)
    ids = model.tokenizer.encode(open(text, encoding="utf-8").read()).ids[:int(tokens)]
    for policy in policies:
        start = time.time()
        masks = None if policy == "dense" else Masks(**dict(map(option, policy.split(","))))
        found = model.perplexity(ids, masks.attend if masks else dense)
        kept = 100 * masks.kept / masks.visible if masks else 100
        print(f"{policy}: perplexity {found:.3f}, {kept:.1f} % of the blocks, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
