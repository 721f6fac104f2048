"""Embeddings of 50 sentences by all-MiniLM-L6-v2, as sentence-transformers computes them.

    python minilm.py FOLDER_OF_ALL_MINILM_L6_V2

BertModel in float32 on each sentence alone (no padding), mean over its tokens, L2 norm; checked against float64.
Writes minilm/sentences.json (input, committed), minilm/ids.json and minilm/embeddings.f32.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

OUT = Path(__file__).parent / "minilm"


@torch.no_grad()
def embed(model, ids):
    hidden = model(torch.tensor([ids])).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0).double().numpy()


def main():
    folder = Path(sys.argv[1])
    sentences = json.loads((OUT / "sentences.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)  # sentence_bert_config.json: max_seq_length
    ids = [tokenizer.encode(s).ids for s in sentences]
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32, attn_implementation="eager").eval()
    embeddings = np.stack([embed(model, i) for i in ids])
    exact = np.stack([embed(model.double(), i) for i in ids])
    print("worst cosine of float32 to float64:", (embeddings * exact).sum(1).min(), "tokens:", min(map(len, ids)), "to", max(map(len, ids)))
    embeddings.astype("<f4").tofile(OUT / "embeddings.f32")
    (OUT / "ids.json").write_text("[\n" + ",\n".join(json.dumps(i) for i in ids) + "\n]\n")


if __name__ == "__main__":
    main()
