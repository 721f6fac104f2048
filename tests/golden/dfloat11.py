"""DFloat11 golden data, made by an implementation of its own: an encoder and a decoder in plain Python and numpy.

Writes dfloat11.json: the two vectors of pseudo-random weights that the format's description has, and the tensors of `tiny` as a DFloat11
checkpoint, as CRC-32 (zlib's) and lengths. Every stream is decoded again before it is written.

    pip install numpy
    python dfloat11.py
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TINY = HERE / "../../assets/tiny/model.safetensors"


def lcg_weights(seed, n, most):
    """bf16 words with geometrically distributed exponents."""
    words, s = [], seed
    for _ in range(n):
        s = (s * 1664525 + 1013904223) % 2**32
        r, ones = s >> 8, 0
        while r & 1 and ones < most:
            r, ones = r >> 1, ones + 1
        s = (s * 1664525 + 1013904223) % 2**32
        words.append((s >> 31) << 15 | (124 - ones) << 7 | (s >> 16) & 0x7F)
    return np.array(words, dtype=np.uint16)


def huffman(counts):
    """Codes as strings by exponent, in the order of the merged tree, and that of the end of the file (-1, which sorts first)."""
    nodes = [(count, symbol, [(symbol, "")]) for symbol, count in counts.items()] + [(1, -1, [(-1, "")])]
    while len(nodes) > 1:
        nodes.sort(key=lambda node: node[:2])
        (ca, first, a), (cb, _, b) = nodes[:2]
        merged = [(s, "0" + code) for s, code in a] + [(s, "1" + code) for s, code in b]
        nodes = nodes[2:] + [(ca + cb, first, merged)]
    table = dict(nodes[0][2])
    return {s: code for s, code in table.items() if s >= 0}, table[-1]


def tables(codes):
    prefixes = [""]
    for code in codes.values():
        prefix = code[: (len(code) - 1) // 8 * 8]
        if prefix not in prefixes:
            prefixes.append(prefix)
    prefixes.sort(key=len)
    luts = np.zeros((len(prefixes) + 1, 256), dtype=np.uint8)
    value = 0
    for row, prefix in enumerate(prefixes):
        entries = {}
        for symbol, code in codes.items():
            if not code.startswith(prefix):
                continue
            rest = code[len(prefix) :]
            if (len(code) - 1) // 8 * 8 == len(prefix):
                entries[int(rest.ljust(8, "0"), 2)] = symbol
            else:
                entries[int(rest[:8], 2)] = 256 - prefixes.index(code[: len(prefix) + 8])
        for key in range(256):
            value = entries.get(key, value)
            luts[row, key] = value
    for symbol, code in codes.items():
        luts[-1, symbol] = len(code)
    return luts


def encode(words):
    exponents = (words >> 7 & 0xFF).astype(np.uint8)
    values, numbers = np.unique(exponents, return_counts=True)
    assert values.max() < 240
    codes, end = huffman({int(v): int(n) for v, n in zip(values, numbers)})
    assert max(map(len, codes.values())) <= 32
    lengths = np.zeros(256, dtype=np.int64)
    for symbol, code in codes.items():
        lengths[symbol] = len(code)
    bits = "".join(codes[e] for e in exponents.tolist())
    starts = np.concatenate([[0], np.cumsum(lengths[exponents])[:-1]])
    if len(bits) % 8:
        bits += end[: 8 - len(bits) % 8].ljust(8 - len(bits) % 8, "0")
    stream = int(bits, 2).to_bytes(len(bits) // 8, "big")
    blocks = -(-len(stream) // 4096)
    chunks, first = np.unique(starts // 64, return_index=True)
    gaps = np.zeros(512 * blocks, dtype=np.int64)
    gaps[chunks] = starts[first] % 64
    positions = [int(np.searchsorted(starts, 32768 * b)) for b in range(blocks)] + [len(words)]
    return {
        "luts": tables(codes),
        "encoded_exponent": np.frombuffer(stream, dtype=np.uint8),
        "sign_mantissa": ((words >> 8 & 0x80) | (words & 0x7F)).astype(np.uint8),
        "output_positions": np.frombuffer(np.array(positions, dtype="<u4").tobytes(), dtype=np.uint8),
        "gaps": np.packbits(np.unpackbits(gaps.astype(np.uint8)[:, None], axis=1)[:, 3:].reshape(-1)),
    }


def decode(group):
    """One code after the other through the tables alone."""
    luts, n = group["luts"], len(group["sign_mantissa"])
    stream = bytes(group["encoded_exponent"]) + bytes(8)
    exponents, at = np.empty(n, dtype=np.uint16), 0
    for i in range(n):
        window = int.from_bytes(stream[at // 8 : at // 8 + 5], "big") >> (8 - at % 8) & 0xFFFFFFFF
        row, level = 0, 24
        while (entry := int(luts[row, window >> level & 255])) >= 240:
            row, level = 256 - entry, level - 8
        exponents[i] = entry
        at += int(luts[-1, entry])
    sm = group["sign_mantissa"].astype(np.uint16)
    return (sm & 0x80) << 8 | exponents << 7 | sm & 0x7F


def crc(array):
    return f"{zlib.crc32(array.tobytes()):08x}"


def summary(words):
    group = encode(words)
    assert np.array_equal(decode(group), words)
    return {name: {"bytes": int(part.size), "crc32": crc(part)} for name, part in group.items()}


def main():
    vectors = []
    for seed, n, most in [(7, 40, 6), (3, 20000, 22)]:
        words = lcg_weights(seed, n, most)
        vectors.append({"seed": seed, "n": n, "most": most, "weights": crc(words), "parts": summary(words)})
    data = TINY.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])

    def bf16(name):
        info = header[name + ".weight"]
        assert info["dtype"] == "BF16"
        begin, end = info["data_offsets"]
        return np.frombuffer(data[8 + size + begin : 8 + size + end], dtype="<u2")

    inside = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    inside += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    layers = sorted({m[0] for name in header if (m := re.match(r"model\.layers\.\d+", name))})
    groups = {"model.embed_tokens": summary(bf16("model.embed_tokens"))}
    for layer in layers:
        parts = [bf16(f"{layer}.{linear}") for linear in inside]
        groups[layer] = summary(np.concatenate(parts))
        groups[layer]["split_positions"] = {
            "bytes": 8 * (len(parts) - 1),
            "crc32": crc(np.cumsum([len(part) for part in parts])[:-1].astype("<i8")),
        }
    groups["model.embed_tokens"]["split_positions"] = {"bytes": 0, "crc32": crc(np.zeros(0, dtype="<i8"))}
    pattern_dict = {"model\\.embed_tokens": [], "model\\.layers\\.\\d+": inside}
    out = {"vectors": vectors, "tiny": {"groups": groups, "pattern_dict": pattern_dict}}
    (HERE / "dfloat11.json").write_text(json.dumps(out, indent=1) + "\n")


main()
