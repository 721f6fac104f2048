"""Trains `tiny`, a byte-level Llama-style language model, on the CPU (or on a GPU if there is one).

    python train.py --corpus CORPUS_DIR --out OUT_DIR [--steps N] [--resume]

CORPUS_DIR holds train.txt and heldout.txt as corpus.py writes them. OUT_DIR receives state.pt (to resume) and, at every
evaluation, a Hugging Face folder OUT_DIR/export: model.safetensors (BF16), config.json, generation_config.json.

Tensor names and arithmetic are those of transformers' LlamaForCausalLM. A token is a byte; ids 256..287 are reserved and
only pad the vocabulary to a multiple of 32. Matrices are trained with Muon (orthogonalized momentum), vectors and the
embedding with AdamW; linear warm-up, then cosine decay to zero. Most steps use short windows, which are cheap; the model
does not extrapolate (1.61 bits per byte at 256 bytes of context, 2.08 at 1,024), so the last part uses the full context. An exponential moving average of the weights is what gets exported.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VOCAB, HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, CONTEXT = 288, 256, 768, 4, 4, 2, 1024
HEAD_DIM, ROPE_THETA, NORM_EPS = HIDDEN // HEADS, 10000.0, 1e-5

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": NORM_EPS,
    "rope_theta": ROPE_THETA,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "torch_dtype": "bfloat16",
    "tokenizer_class": "bytes",
}
GENERATION_CONFIG = {"do_sample": True, "temperature": 0.8, "top_k": 40, "max_length": CONTEXT}
METADATA = {"format": "pt", "tokenizer": "bytes", "model": "tiny", "text": "Jane Austen, public domain"}


def init_weights(device):
    """Name -> parameter. Normal(0.02), the two projections into the residual stream scaled down by depth."""
    generator = torch.Generator().manual_seed(1817)

    def normal(rows, cols, std=0.02):
        return (torch.randn(rows, cols, generator=generator) * std).to(device).requires_grad_()

    def ones():
        return torch.ones(HIDDEN, device=device, requires_grad=True)

    weights = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        out_std = 0.02 / math.sqrt(2 * LAYERS)
        weights |= {
            p + "input_layernorm.weight": ones(),
            p + "self_attn.q_proj.weight": normal(HEADS * HEAD_DIM, HIDDEN),
            p + "self_attn.k_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            p + "self_attn.v_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            p + "self_attn.o_proj.weight": normal(HIDDEN, HEADS * HEAD_DIM, out_std),
            p + "post_attention_layernorm.weight": ones(),
            p + "mlp.gate_proj.weight": normal(INTERMEDIATE, HIDDEN),
            p + "mlp.up_proj.weight": normal(INTERMEDIATE, HIDDEN),
            p + "mlp.down_proj.weight": normal(HIDDEN, INTERMEDIATE, out_std),
        }
    weights["model.norm.weight"] = ones()
    return weights


def rope_tables(length, device):
    inverse = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2, device=device, dtype=torch.float32) / HEAD_DIM)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * inverse
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def forward(weights, tokens, rope):
    """tokens [batch, length] -> logits [batch, length, VOCAB]."""
    batch, length = tokens.shape
    cos, sin = rope[0][:length], rope[1][:length]

    def heads(x, n):
        return x.view(batch, length, n, HEAD_DIM).transpose(1, 2)

    embedding = weights["model.embed_tokens.weight"]
    x = F.embedding(tokens, embedding)
    for layer in range(LAYERS):
        w = {k: weights[f"model.layers.{layer}.{k}.weight"] for k in LAYER_TENSORS}
        h = F.rms_norm(x, (HIDDEN,), w["input_layernorm"], NORM_EPS)
        q = rotate(heads(F.linear(h, w["self_attn.q_proj"]), HEADS), cos, sin)
        k = rotate(heads(F.linear(h, w["self_attn.k_proj"]), KV_HEADS), cos, sin)
        v = heads(F.linear(h, w["self_attn.v_proj"]), KV_HEADS)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        a = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(batch, length, HEADS * HEAD_DIM), w["self_attn.o_proj"])
        h = F.rms_norm(x, (HIDDEN,), w["post_attention_layernorm"], NORM_EPS)
        x = x + F.linear(F.silu(F.linear(h, w["mlp.gate_proj"])) * F.linear(h, w["mlp.up_proj"]), w["mlp.down_proj"])
    return F.linear(F.rms_norm(x, (HIDDEN,), weights["model.norm.weight"], NORM_EPS), embedding)


LAYER_TENSORS = [
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
]  # fmt: skip


def loss_of(weights, windows, rope, reduction="mean"):
    """Cross-entropy in nats of every byte of windows [batch, length + 1] but the first of each row."""
    logits = forward(weights, windows[:, :-1], rope)
    return F.cross_entropy(logits.float().reshape(-1, VOCAB), windows[:, 1:].reshape(-1), reduction=reduction)


@torch.no_grad()
def bits_per_byte(weights, text, rope, context=CONTEXT):
    """Held-out bits per byte with BF16-rounded weights, f32 arithmetic, disjoint windows, first byte of each unscored."""
    weights = {k: v.detach().bfloat16().float() for k, v in weights.items()}
    windows = text[: len(text) // context * context].view(-1, context)
    nats = sum(loss_of(weights, w, rope, "sum").item() for w in windows.split(8))
    return nats / math.log(2) / (windows.shape[0] * (context - 1))


def export(weights, folder, card):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().bfloat16().contiguous() for k, v in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata=METADATA)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG, indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps(card, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-bytes", type=int, default=4096, help="bytes per step")
    parser.add_argument("--context", type=int, default=256, help="window of most steps")
    parser.add_argument("--long-from", type=float, default=0.7, help="share of the steps after which windows fill the context")
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--vector-lr", type=float, default=0.003)
    parser.add_argument("--eval-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    read = lambda f: torch.from_numpy(np.frombuffer((args.corpus / f).read_bytes(), np.uint8).astype(np.int64))  # noqa: E731
    train, heldout = read("train.txt"), read("heldout.txt").to(device)
    args.out.mkdir(parents=True, exist_ok=True)

    weights = init_weights(device)
    average = {k: v.detach().clone() for k, v in weights.items()}
    rope = rope_tables(CONTEXT, device)
    matrices = [v for k, v in weights.items() if v.ndim == 2 and "embed" not in k]
    others = [v for k, v in weights.items() if v.ndim == 1 or "embed" in k]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.matrix_lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=args.vector_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    first, seconds = 0, 0.0
    if args.resume:
        state = torch.load(args.out / "state.pt", map_location=device)
        first, seconds = state["step"], state["seconds"]
        with torch.no_grad():
            for name in weights:
                weights[name].copy_(state["weights"][name])
                average[name].copy_(state["average"][name])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    started, warmup = time.time() - seconds, 100
    for step in range(first, args.steps):
        # A generator per step makes a resumed run draw the windows an uninterrupted one would.
        draw = torch.Generator().manual_seed(step)
        context = CONTEXT - 1 if step >= args.long_from * args.steps else args.context
        rows = max(1, args.batch_bytes // context)
        at = torch.randint(0, len(train) - context, (rows, 1), generator=draw)
        windows = train[at + torch.arange(context + 1)].to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(weights, windows, rope)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        scale = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for optimizer, lr in zip(optimizers, (args.matrix_lr, args.vector_lr)):
            optimizer.param_groups[0]["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            decay = min(0.99, step / (step + 10))
            for name, value in weights.items():
                average[name].lerp_(value, 1 - decay)
        if step % 10 == 0:
            print(f"step {step} loss {loss.item() / math.log(2):.4f} bits lr {scale:.3f} {time.time() - started:.0f} s", flush=True)
        if (step + 1) % args.eval_every == 0 or step + 1 == args.steps:
            bpb = bits_per_byte(average, heldout, rope)
            seconds = time.time() - started
            print(f"== step {step + 1} held out {bpb:.4f} bits per byte, {seconds:.0f} s", flush=True)
            card = {"step": step + 1, "steps": args.steps, "batch_bytes": args.batch_bytes, "heldout_bits_per_byte": bpb, "seconds": seconds}
            export(average, args.out / "export", card)
            torch.save(
                {"step": step + 1, "seconds": seconds, "weights": weights, "average": average,
                 "optimizers": [o.state_dict() for o in optimizers]},
                args.out / "state.pt",
            )  # fmt: skip


if __name__ == "__main__":
    main()
