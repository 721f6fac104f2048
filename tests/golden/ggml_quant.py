"""Errors of llama.cpp's own quantizers (no importance matrix) on data that a test can regenerate bit for bit.

    npm pack @node-llama-cpp/linux-x64 && tar xzf node-llama-cpp-linux-x64-*.tgz
    python ggml_quant.py package/bins/linux-x64/libggml-base.so

Calls `ggml_quantize_chunk` and `dequantize_row_*` of the prebuilt library through ctypes and writes ggml_quant.json.

Synthetic inputs, ROWS x COLS, row by row from one generator a case (32-bit wrapping arithmetic, seed = the case's number):

    state = state * 1664525 + 1013904223;  u = state >> 16                  an integer of 16 bits
    g = (sum of 12 u  -  393210) / 65536                                    nearly normal, exact in float32

and every product below is rounded to float32 at once. Real inputs are tensors of assets/tiny/model.safetensors (BF16).
NMSE = sum((w - decoded)^2) / sum(w^2), in float64.
"""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TINY = HERE.parent.parent / "assets/tiny/model.safetensors"
ROWS, COLS = 16, 1024

# ggml's type ids.
TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_nl": 20}  # fmt: skip

# Standard deviations of 16 rows of SmolLM2-135M's blk.10.ffn_down.weight times 2^20: real rows differ in scale.
ROW_STD = [175018, 209607, 205731, 205420, 225419, 183562, 199612, 206511, 206671, 223858, 206921, 206706, 191880, 204085, 215783, 205897]  # fmt: skip

TINY_TENSORS = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.self_attn.v_proj.weight",
    "model.layers.2.mlp.gate_proj.weight",
    "model.layers.3.mlp.down_proj.weight",
]


def integers(seed, count):
    state, out = seed, np.empty(count, np.int64)
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 16
    return out


def gaussian(seed):
    sums = integers(seed, ROWS * COLS * 12).reshape(ROWS, COLS, 12).sum(-1) - 393210
    return sums.astype(np.float32) / np.float32(65536)


def row_scaled(seed):
    """Rows as uneven as SmolLM2's, and every 97th column eight times as large."""
    scale = np.array(ROW_STD, np.float32) / np.float32(1 << 20)
    column = np.where(np.arange(COLS) % 97 == 0, np.float32(8), np.float32(1))
    return (gaussian(seed) * scale[:, None]) * column


def synthetic():
    """(name, formula, weights) of every case; the case's number is its generator's seed."""
    yield "gaussian", "g", gaussian(0)
    g = gaussian(1)
    yield "heavy_tailed", "(g * g) * g", (g * g) * g
    yield "row_scaled", "(g * (row_std[row] / 2^20)) * (8 if col % 97 == 0 else 1)", row_scaled(2)
    yield "small", "g / 4096", gaussian(3) / np.float32(4096)
    u = integers(4, ROWS * COLS).reshape(ROWS, COLS) - 32768
    yield "uniform", "(u - 32768) / 32768, one u a weight", u.astype(np.float32) / np.float32(32768)
    yield "offset", "g * 0.25 + 1", gaussian(5) * np.float32(0.25) + np.float32(1)


def real():
    import torch  # numpy knows no bfloat16
    from safetensors.torch import load_file

    tensors = load_file(TINY)
    for name in TINY_TENSORS:
        yield f"tiny:{name}", "tensor of assets/tiny/model.safetensors", tensors[name].to(torch.float32).numpy()


class Ggml:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.ggml_row_size.restype = ctypes.c_size_t
        self.lib.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
        self.lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        pointer, int64 = ctypes.c_void_p, ctypes.c_int64
        self.lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, int64, int64, int64, pointer]

    def round_trip(self, kind, weights):
        rows, cols = weights.shape
        weights = np.ascontiguousarray(weights, np.float32)
        blocks = np.zeros(rows * self.lib.ggml_row_size(TYPES[kind], cols), np.uint8)
        written = self.lib.ggml_quantize_chunk(TYPES[kind], weights.ctypes.data, blocks.ctypes.data, 0, rows, cols, None)
        assert written == blocks.size, (kind, written, blocks.size)
        out = np.empty_like(weights)
        decode = getattr(self.lib, f"dequantize_row_{kind}")
        decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        decode.restype = None
        decode(blocks.ctypes.data, out.ctypes.data, weights.size)
        return out


def main():
    ggml = Ggml(sys.argv[1])
    cases = []
    for name, formula, weights in [*synthetic(), *real()]:
        assert weights.dtype == np.float32
        exact = weights.astype(np.float64)
        nmse = {
            kind.lower(): float(((ggml.round_trip(kind, weights) - exact) ** 2).sum() / (exact**2).sum()) for kind in TYPES
        }
        cases.append(
            {
                "name": name,
                "formula": formula,
                "rows": weights.shape[0],
                "cols": weights.shape[1],
                "first": [float(w) for w in weights.ravel()[:4]],
                "sum_of_squares": float((exact**2).sum()),
                "sha256_f32_le": hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest(),
                "nmse": nmse,
            }
        )
        print(name, {k: f"{v:.3e}" for k, v in nmse.items()})
    report = {
        "what": "NMSE of llama.cpp's quantizers without importance matrix; NMSE = sum((w - decoded)^2) / sum(w^2)",
        "library": "libggml-base.so of npm @node-llama-cpp/linux-x64 3.22.1",
        "generator": "per case: state = its number among the synthetic ones; per draw: state = state * 1664525 + 1013904223 "
        "(u32, wrapping), u = state >> 16; g = (sum of 12 u - 393210) / 65536; row-major; products rounded to f32 one by one",
        "row_std": ROW_STD,
        "cases": cases,
    }
    (HERE / "ggml_quant.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
