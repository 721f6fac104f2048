"""Small GGUF and safetensors files, written by the gguf and safetensors packages, and what they contain.

    python containers.py

Writes containers/*.gguf, *.safetensors and expected.json. Tensor bytes come from LCG(seed): s = s*1664525 + 1013904223
(mod 2^32), byte = s >> 24 after the step. Checksums are CRC-32; those of decoded values are over little-endian f32 with
every NaN replaced by 0x7fc00000.
"""

import json
import zlib
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

OUT = Path(__file__).parent / "containers"


def lcg(seed, count):
    out = bytearray()
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(seed >> 24)
    return bytes(out)


def crc_f32(values):
    values = np.ascontiguousarray(values, dtype=np.float32)
    values = np.where(np.isnan(values), np.frombuffer(b"\0\0\xc0\x7f", np.float32)[0], values)
    return zlib.crc32(values.astype("<f4").tobytes())


def q4_0_block(seed):
    return b"\x00\x2c" + lcg(seed, 18)[2:]  # scale 1/16


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def toy_gguf():
    """The complete minimal file of the format notes: 352 bytes."""
    writer = gguf.GGUFWriter(OUT / "toy.gguf", "toy")
    writer.add_custom_alignment(32)
    writer.add_float32("toy.eps", 1e-5)
    writer.add_array("toy.list", ["a", "bc"])
    w = np.frombuffer(q4_0_block(1) + q4_0_block(2), np.uint8).reshape(2, 18)
    writer.add_tensor("w", w, raw_dtype=Type.Q4_0)
    writer.add_tensor("b", np.array([1, -2.5, 0.125], np.float32))
    finish(writer)
    assert zlib.crc32((OUT / "toy.gguf").read_bytes()) == 0xB4970E30


def values_gguf():
    """Every value type, every tensor type that the package knows and the engine decodes, alignment 64."""
    writer = gguf.GGUFWriter(OUT / "values.gguf", "toy")
    writer.add_custom_alignment(64)
    writer.add_uint8("v.u8", 200)
    writer.add_int8("v.i8", -100)
    writer.add_uint16("v.u16", 60000)
    writer.add_int16("v.i16", -30000)
    writer.add_uint32("v.u32", 4000000000)
    writer.add_int32("v.i32", -2000000000)
    writer.add_float32("v.f32", 0.1)
    writer.add_bool("v.bool", True)
    writer.add_string("v.str", "naïve 🦀")
    writer.add_uint64("v.u64", 2**63 + 1)
    writer.add_int64("v.i64", -(2**63))
    writer.add_float64("v.f64", 0.1)
    writer.add_array("a.i32", [1, -2, 3])
    writer.add_array("a.f32", [0.5, -0.25])
    writer.add_array("a.bool", [True, False, True])
    writer.add_array("a.str", ["", "é", "\n"])
    writer.add_key_value("a.u16", [1, 65535], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT16)

    tensors = {}
    plain = [("F32", "<f4"), ("F16", "<f2"), ("I8", "i1"), ("I16", "<i2"), ("I32", "<i4"), ("I64", "<i8"), ("F64", "<f8")]
    for i, (name, numpy_type) in enumerate(plain):
        raw = lcg(100 + i, 3 * 5 * np.dtype(numpy_type).itemsize)
        data = np.frombuffer(raw, numpy_type).reshape(3, 5)
        writer.add_tensor(f"t.{name}", data)
        with np.errstate(over="ignore", invalid="ignore"):
            tensors[f"t.{name}"] = {"dtype": name, "shape": [3, 5], "crc": zlib.crc32(raw), "crc_f32": crc_f32(data)}
    blocks = "BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0".split()
    for i, name in enumerate(blocks):
        block_len, block_bytes = gguf.GGML_QUANT_SIZES[Type[name]]
        raw = lcg(200 + i, 2 * 3 * 2 * block_bytes)
        data = np.frombuffer(raw, np.uint8).reshape(2, 3, 2 * block_bytes)
        writer.add_tensor(f"t.{name}", data, raw_dtype=Type[name])
        tensors[f"t.{name}"] = {"dtype": name, "shape": [2, 3, 2 * block_len], "crc": zlib.crc32(raw)}
    finish(writer)
    return tensors


def split_gguf():
    """values of two tensors over two parts, as llama.cpp's gguf-split names and marks them."""
    for part in range(2):
        writer = gguf.GGUFWriter(OUT / f"split-{part + 1:05}-of-00002.gguf", "toy")
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", 2)
        writer.add_tensor(f"part{part}", np.full(4, part, np.float32))
        finish(writer)


def toy_safetensors():
    """The golden file of the format notes: 172 bytes."""
    tensors = {"a": torch.tensor([[1, 2], [3, 4]], dtype=torch.int32), "b": torch.tensor([1.5, -2], dtype=torch.float16)}
    save_file(tensors, OUT / "toy.safetensors", metadata={"format": "pt"})
    assert zlib.crc32((OUT / "toy.safetensors").read_bytes()) == 0x14E1A55A


def dtypes_safetensors():
    """Every element type, the 8-bit floats with all 256 codes."""
    kinds = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8, "U8": torch.uint8,
        "I16": torch.int16, "U16": torch.uint16, "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64,
        "U64": torch.uint64,
    }  # fmt: skip
    tensors, expected = {}, {}
    for i, (name, kind) in enumerate(kinds.items()):
        raw = bytes(range(256)) if kind.itemsize == 1 else lcg(300 + i, 256)
        tensors[name] = torch.frombuffer(bytearray(raw), dtype=kind).reshape(2, -1)
        values = tensors[name].to(torch.float32).numpy()
        expected[name] = {"shape": list(values.shape), "crc": zlib.crc32(raw), "crc_f32": crc_f32(values)}
    tensors["BOOL"] = torch.tensor([True, False])
    expected["BOOL"] = {"shape": [2], "crc": zlib.crc32(b"\1\0"), "crc_f32": crc_f32([1, 0])}
    tensors["scalar"], tensors["empty"] = torch.tensor(2.0), torch.zeros(3, 0)
    expected["scalar"] = {"shape": [], "crc": zlib.crc32(b"\0\0\0\x40"), "crc_f32": crc_f32([2])}
    expected["empty"] = {"shape": [3, 0], "crc": 0, "crc_f32": crc_f32([])}
    save_file(tensors, OUT / "dtypes.safetensors", metadata={"note": "naïve 🦀"})
    return expected


def main():
    OUT.mkdir(exist_ok=True)
    toy_gguf()
    split_gguf()
    toy_safetensors()
    expected = {"values.gguf": values_gguf(), "dtypes.safetensors": dtypes_safetensors()}
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
