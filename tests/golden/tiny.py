"""Reference numbers of assets/tiny from Hugging Face transformers (weights as stored in BF16, arithmetic in float32).

    python tiny.py

Writes tiny/golden.safetensors and tiny/golden.json; README.md says what is in them.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

HERE = Path(__file__).parent
OUT, TINY = HERE / "tiny", HERE.parent.parent / "assets/tiny"
PROMPTS = ["It is a truth universally acknowledged, that a", "Chapter 3\n\n\nAnne ", '"My dear Mr. Bennet," said']
CONTINUATION = 64


@torch.no_grad()
def greedy(model, prompt):
    ids = list(prompt.encode())
    out, margins = [], []
    for _ in range(CONTINUATION):
        top = model(torch.tensor([ids + out])).logits[0, -1].topk(2)
        out.append(int(top.indices[0]))
        margins.append(round(float(top.values[0] - top.values[1]), 5))
    return {"prompt": prompt, "ids": out, "margins": margins, "continuation": bytes(out).decode("utf-8", "replace")}


@torch.no_grad()
def nll_sums(model, text, n_ctx, windows):
    """Nats of bytes 1..n_ctx-1 of each of the first disjoint windows."""
    sums = []
    for window in text[: windows * n_ctx].view(windows, 1, n_ctx):
        logprobs = model(window).logits[0, :-1].double().log_softmax(-1)
        sums.append(-float(logprobs.gather(1, window[0, 1:, None]).sum()))
    return {"n_ctx": n_ctx, "windows": windows, "scored_tokens": windows * (n_ctx - 1), "nll_sums": sums}


def main():
    OUT.mkdir(exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager").eval()
    text = torch.tensor(list((TINY / "heldout.txt").read_bytes()))
    with torch.no_grad():
        logits = model(text[None, :1024]).logits[0]
    positions = torch.arange(0, 1024, 33)
    golden = {
        "tokens": text[:1024].int(),
        "nll": -logits[:-1].double().log_softmax(-1).gather(1, text[1:1024, None])[:, 0],
        "positions": positions.int(),
        "logits": logits[positions].contiguous(),
    }
    save_file(golden, OUT / "golden.safetensors", metadata={"text": "assets/tiny/heldout.txt"})
    report = {
        "model_sha256": hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest(),
        "text": "assets/tiny/heldout.txt",
        "windows": [nll_sums(model, text, 1024, len(text) // 1024), nll_sums(model, text, 256, 16)],
        "greedy": [greedy(model, p) for p in PROMPTS],
    }
    (OUT / "golden.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print([w["nll_sums"][0] for w in report["windows"]], [g["continuation"] for g in report["greedy"]])


if __name__ == "__main__":
    main()
