"""Sparse checkpoints in compressed-tensors' formats, and the dense ones that they stand for. numpy and safetensors alone.

    python compressed_tensors.py

Takes families/llama (f32, random), rounds it to bf16, prunes its linear layers, and writes

  compressed_tensors/masked/model.safetensors    the pruned model, dense
  compressed_tensors/bitmask/                    the same, attention as sparse-bitmask, keys `<m>.weight.bitmask`
  compressed_tensors/bitmask24/                  the 2:4 model's gate, up and down as sparse-24-bitmask, keys `<m>.bitmask`

all with families/llama's configuration. The formats are as compressed-tensors 0.9 had them: per matrix [R, C] `shape` (I64),
`compressed` (values of the set bits, row by row; [R, C/2] for 2:4), `bitmask` (U8 [R, ceil(C/8)], column c in bit c % 8 of byte
c / 8) and, but for 2:4, `row_offsets` (I64 [R]).
"""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = Path(__file__).parent
OUT = HERE / "compressed_tensors"


def write(path, tensors):
    """safetensors' numpy side knows no bf16: u16 arrays go in as raw bytes and the header is renamed after."""
    save_file(tensors, path, metadata={"format": "pt"})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "U16":
            entry["dtype"] = "BF16"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def bf16(values):
    """Round to nearest even, as the upper half of an f32."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def magnitude(values):
    return values & 0x7FFF  # orders bf16 by magnitude


def two_of_four(values):
    groups = magnitude(values).reshape(-1, 4)
    keep = np.zeros(groups.shape, bool)
    np.put_along_axis(keep, np.argsort(groups, axis=1, kind="stable")[:, 2:], True, axis=1)
    return keep.reshape(values.shape)


def share(values, pruned):
    """The largest of the whole matrix: rows keep different numbers."""
    order = np.argsort(magnitude(values), axis=None, kind="stable")
    keep = np.ones(values.size, bool)
    keep[order[: int(pruned * values.size)]] = False
    return keep.reshape(values.shape)


def parts(prefix, values, keep, two_four):
    out = {
        f"{prefix}.shape": np.array(values.shape, np.int64),
        f"{prefix}.bitmask": np.packbits(keep, axis=1, bitorder="little"),
        f"{prefix}.compressed": values[keep].reshape(len(values), -1) if two_four else values[keep],
    }
    if not two_four:
        counts = keep.sum(axis=1)
        out[f"{prefix}.row_offsets"] = (np.cumsum(counts) - counts).astype(np.int64)
    return out


def main():
    with safe_open(HERE / "families/llama/model.safetensors", "numpy") as file:
        model = {name: bf16(file.get_tensor(name)) for name in file.keys()}
    dense, bitmask, bitmask24 = {}, {}, {}
    for name, values in sorted(model.items()):
        if "_proj.weight" not in name:
            dense[name] = bitmask[name] = bitmask24[name] = values
            continue
        mlp = ".mlp." in name
        keep = two_of_four(values) if mlp else share(values, 0.7 if ".q_proj" in name else 0.5)
        dense[name] = np.where(keep, values, 0).astype(np.uint16)
        if mlp:
            bitmask[name] = dense[name]
            bitmask24.update(parts(name.removesuffix(".weight"), values, keep, True))
        else:
            bitmask24[name] = dense[name]
            bitmask.update(parts(name, values, keep, False))
    config = json.loads((HERE / "families/llama/config.json").read_text())
    for folder, tensors, kind in [("masked", dense, None), ("bitmask", bitmask, "sparse-bitmask"), ("bitmask24", bitmask24, "sparse-24-bitmask")]:
        path = OUT / folder
        path.mkdir(parents=True, exist_ok=True)
        if kind:
            config["quantization_config"] = {
                "quant_method": "compressed-tensors",
                "format": "dense",
                "sparsity_config": {"format": kind, "sparsity_structure": "2:4" if "24" in kind else "unstructured", "targets": ["Linear"], "ignore": ["lm_head"]},
            }
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write(path / "model.safetensors", tensors)


if __name__ == "__main__":
    main()
