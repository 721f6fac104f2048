"""Rotary frequencies and attention factors as Hugging Face transformers computes them: rope.json.

    python rope.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

LONG = [1.0 + 0.5 * i for i in range(16)]
SHORT = [1.0 + 0.01 * i for i in range(16)]

# name: (head_dim, max_position_embeddings, length the table is for, rope parameters)
CASES = {
    "linear": (64, 4096, 4096, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "dynamic": (64, 2048, 5000, dict(rope_type="dynamic", rope_theta=10000.0, factor=3.0)),
    "dynamic_short": (64, 2048, 100, dict(rope_type="dynamic", rope_theta=10000.0, factor=3.0)),
    "llama3": (128, 131072, 8192, dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                                       high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "llama3_2": (64, 131072, 8192, dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0,
                                        high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "yarn": (128, 32768, 32768, dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0,
                                     original_max_position_embeddings=32768)),
    "yarn_betas": (96, 65536, 65536, dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, beta_fast=20.0, beta_slow=2.0,
                                          attention_factor=1.25, original_max_position_embeddings=4096)),
    "yarn_mscale": (64, 163840, 163840, dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, mscale=0.707,
                                             mscale_all_dim=1.0, original_max_position_embeddings=4096)),
    "yarn_exact_range": (64, 131072, 131072, dict(rope_type="yarn", rope_theta=150000.0, factor=32.0, truncate=False,
                                                  original_max_position_embeddings=4096)),
    "longrope_short": (32, 131072, 4096, dict(rope_type="longrope", rope_theta=10000.0, long_factor=LONG, short_factor=SHORT,
                                              original_max_position_embeddings=4096)),
    "longrope_long": (32, 131072, 4097, dict(rope_type="longrope", rope_theta=10000.0, long_factor=LONG, short_factor=SHORT,
                                             original_max_position_embeddings=4096)),
}

out = {}
for name, (head_dim, max_position, length, parameters) in CASES.items():
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim,
                         max_position_embeddings=max_position, rope_parameters=dict(parameters))
    frequencies, attention = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"), seq_len=length)
    out[name] = {
        "head_dim": head_dim,
        "max_position": max_position,
        "length": length,
        "parameters": parameters,
        "frequencies": frequencies.double().tolist(),
        "attention_factor": float(attention),
    }
Path(__file__).with_name("rope.json").write_text(json.dumps(out, indent=1) + "\n")
print(f"transformers {transformers.__version__}: {len(out)} cases")
