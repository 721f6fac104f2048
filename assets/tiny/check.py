"""Measures `tiny` with Hugging Face transformers: held-out bits per byte, and a sample of its prose.

    python check.py [FOLDER]

Weights as stored (BF16), arithmetic in float32, disjoint windows of 1,024 bytes of heldout.txt, all bytes but the first of
each window scored.
"""

import math
import sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

HERE = Path(__file__).parent


@torch.no_grad()
def main():
    model = LlamaForCausalLM.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else HERE, dtype=torch.float32).eval()
    print(sum(p.numel() for p in model.parameters()), "parameters")
    text = torch.tensor(list((HERE / "heldout.txt").read_bytes()))
    windows = text[: len(text) // 1024 * 1024].view(-1, 1024)
    bits, late = 0.0, 0.0  # late: bytes with at least 512 bytes before them
    for window in windows.split(4):
        nll = -model(window).logits[:, :-1].log_softmax(-1).gather(-1, window[:, 1:, None])[..., 0] / math.log(2)
        bits, late = bits + nll.sum().item(), late + nll[:, 511:].sum().item()
    print(f"{bits / windows[:, 1:].numel():.4f} bits per byte over {windows[:, 1:].numel()} bytes,", end=" ")
    print(f"{late / windows[:, 512:].numel():.4f} where 512 or more precede")
    torch.manual_seed(1)
    prompt = torch.tensor([list(b"CHAPTER XII\n\n\nThe morning after the ball, Anne")])
    out = model.generate(prompt, do_sample=True, temperature=0.7, top_k=40, max_length=700)
    print(bytes(out[0].tolist()).decode("utf-8", "replace"))


if __name__ == "__main__":
    main()
