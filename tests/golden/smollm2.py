"""Reference numbers of SmolLM2-135M-Instruct (Q4_1 GGUF) from an f64 forward pass that shares no code with tersor.

    python smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf [--check] [--threads N]

The file's blocks are de-quantized by the `gguf` package, the forward pass below runs in float64, the tokenizer is the
`tokenizers` library fed with the file's vocabulary and merges. `--check` runs transformers (float32, eager attention) on
the same tokens as a second opinion and records how far apart the two are. Outputs, under smollm2/ (see README.md there):
golden.safetensors, greedy.json, perplexity.json.
"""

import argparse
import json
import math
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = Path(__file__).parent
OUT = HERE / "smollm2"
ASSETS = HERE.parent.parent / "assets"
N_CTX, TOP, BUCKETS, CONTINUATION = 512, 128, 32, 64
FULL_POSITIONS = [0, 1, 31, 100, 255, 256, 400, 511]


def load_tokenizer(reader):
    """SmolLM's tokenizer: single digits split off, then GPT-2's byte-level regular expression and BPE."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer


class Llama:
    """The Llama forward pass in float64 with a key-value cache, weights named and laid out as in GGUF."""

    def __init__(self, reader):
        get = lambda key: reader.fields[f"llama.{key}"].contents()  # noqa: E731
        self.layers, self.heads, self.kv_heads = get("block_count"), get("attention.head_count"), get("attention.head_count_kv")
        self.eps, self.base = float(get("attention.layer_norm_rms_epsilon")), float(get("rope.freq_base"))
        self.weights = {}
        for tensor in reader.tensors:
            shape = [int(n) for n in reversed(tensor.shape)]
            values = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
            self.weights[tensor.name] = torch.from_numpy(values.astype(np.float64))
        self.head_dim = int(get("embedding_length")) // self.heads

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weights[name]

    def rope(self, x, start):
        """x [tokens, heads, head_dim]; the GGUF layout of Llama rotates neighbouring pairs."""
        inverse = self.base ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angle = torch.arange(start, start + len(x), dtype=torch.float64)[:, None, None] * inverse
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).reshape(x.shape)

    @torch.no_grad()
    def hidden(self, tokens, cache):
        """Final hidden state after the output norm, [tokens, width]; cache: list of (k, v) a layer, grown in place."""
        start = len(cache[0][0]) if cache else 0
        x = self.weights["token_embd.weight"][torch.tensor(tokens)]
        mask = torch.full((len(tokens), start + len(tokens)), -math.inf, dtype=torch.float64).triu(start + 1)
        for layer in range(self.layers):
            linear = lambda x, name: x @ self.weights[f"blk.{layer}.{name}.weight"].T  # noqa: B023, E731
            heads = lambda x: x.view(len(tokens), -1, self.head_dim)  # noqa: E731
            h = self.norm(x, f"blk.{layer}.attn_norm.weight")
            q, k = self.rope(heads(linear(h, "attn_q")), start), self.rope(heads(linear(h, "attn_k")), start)
            v = heads(linear(h, "attn_v"))
            if start:
                k, v = torch.cat([cache[layer][0], k]), torch.cat([cache[layer][1], v])
                cache[layer] = (k, v)
            else:
                cache.append((k, v))
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.head_dim) + mask
            out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
            x = x + linear(out.reshape(len(tokens), -1), "attn_output")
            h = self.norm(x, f"blk.{layer}.ffn_norm.weight")
            x = x + linear(torch.nn.functional.silu(linear(h, "ffn_gate")) * linear(h, "ffn_up"), "ffn_down")
        return self.norm(x, "output_norm.weight")

    def logits(self, hidden):
        return hidden @ self.weights.get("output.weight", self.weights["token_embd.weight"]).T


def window_golden(model, tokens):
    """Everything a test needs to compute KL divergences against the reference, for one window of tokens."""
    hidden = model.hidden(tokens, [])
    logits = model.logits(hidden)
    logsumexp = logits.logsumexp(-1)
    logprobs = logits - logsumexp[:, None]
    top = logprobs.topk(TOP, dim=-1)
    tail = logprobs.exp().scatter(1, top.indices, 0.0)  # mass outside the top, summed over ids that agree modulo BUCKETS
    buckets = tail.view(len(tokens), -1, BUCKETS).sum(1)
    full = logprobs[FULL_POSITIONS]
    low = full.amin(-1)
    step = (full.amax(-1) - low) / 65535
    targets = torch.tensor(tokens[1:])
    return {
        "tokens": np.array(tokens, np.int32),
        "hidden": hidden.numpy().astype(np.float32),
        "logsumexp": logsumexp.numpy(),
        "entropy": -(logprobs.exp() * logprobs).sum(-1).numpy(),
        "nll": -logprobs[:-1].gather(1, targets[:, None])[:, 0].numpy(),
        "top_ids": top.indices.numpy().astype(np.uint16),
        "top_logprobs": top.values.numpy().astype(np.float32),
        "tail_mass": buckets.numpy().astype(np.float32),
        "full_positions": np.array(FULL_POSITIONS, np.int32),
        "full_low": low.numpy(),
        "full_step": step.numpy(),
        "full_codes": ((full - low[:, None]) / step[:, None]).round().numpy().astype(np.uint16),
    }


def greedy(model, tokenizer, prompt):
    """Greedy continuation of CONTINUATION tokens (never stopped early) with the top-2 logit margin of every step."""
    ids = tokenizer.encode(prompt["text"]).ids
    cache, step, out, margins = [], ids, [], []
    for _ in range(CONTINUATION):
        top = model.logits(model.hidden(step, cache)[-1:])[0].topk(2)
        out.append(int(top.indices[0]))
        margins.append(round(float(top.values[0] - top.values[1]), 6))
        step = [out[-1]]
    text = tokenizer.decode(out, skip_special_tokens=False)
    return {**prompt, "prompt_ids": ids, "ids": out, "margins": margins, "continuation": text}


def perplexity(model, ids, n_ctx, windows):
    """Disjoint windows from the start of the text; in each, tokens 1..n_ctx-1 are scored given those before them."""
    sums = []
    for w in range(windows):
        tokens = ids[w * n_ctx : (w + 1) * n_ctx]
        logprobs = model.logits(model.hidden(tokens, [])).log_softmax(-1)
        sums.append(-float(logprobs[:-1].gather(1, torch.tensor(tokens[1:])[:, None]).sum()))
    scored = windows * (n_ctx - 1)
    return {"n_ctx": n_ctx, "windows": windows, "scored_tokens": scored, "nll_sums": sums, "perplexity": math.exp(sum(sums) / scored)}


def second_opinion(path, tokens, golden, model):
    """KL(f64 || transformers f32) over the golden window."""
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        theirs = other(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    ours = model.logits(torch.from_numpy(golden["hidden"]).double()).log_softmax(-1)
    kl = (ours.exp() * (ours - theirs)).sum(-1)
    return {"kl_mean": float(kl.mean()), "kl_max": float(kl.max()), "logprob_max_difference": float((ours - theirs).abs().max())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    OUT.mkdir(exist_ok=True)
    reader = gguf.GGUFReader(args.gguf)
    tokenizer, model = load_tokenizer(reader), Llama(reader)
    ids = tokenizer.encode((ASSETS / "text/eval.txt").read_text(encoding="utf-8")).ids
    started = time.time()

    golden = window_golden(model, ids[:N_CTX])
    save_file(golden, OUT / "golden.safetensors", metadata={"text": "assets/text/eval.txt", "arithmetic": "float64"})
    print(f"window: {time.time() - started:.0f} s, mean nll {golden['nll'].mean():.6f}", flush=True)
    if args.check:
        print("transformers:", json.dumps(second_opinion(args.gguf, ids[:N_CTX], golden, model)), flush=True)

    prompts = json.loads((ASSETS / "prompts/greedy.json").read_text(encoding="utf-8"))
    continuations = []
    for prompt in prompts:
        continuations.append(greedy(model, tokenizer, prompt))
        print(f"{time.time() - started:.0f} s {prompt['name']}: {continuations[-1]['continuation']!r}", flush=True)
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in continuations)
    (OUT / "greedy.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")

    results = [perplexity(model, ids, 512, 2), perplexity(model, ids, 256, 4), perplexity(model, ids, 512, len(ids) // 512)]
    report = {"text": "assets/text/eval.txt", "text_tokens": len(ids), "bos": False, "results": results}
    (OUT / "perplexity.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{time.time() - started:.0f} s", [r["perplexity"] for r in results], flush=True)


if __name__ == "__main__":
    main()
