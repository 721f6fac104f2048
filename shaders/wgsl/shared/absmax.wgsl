// The planes of NF4 and FP4: 4-bit codes and the largest magnitude of each block, itself quantized to bytes if DOUBLE.
//:option DOUBLE = 0 1
//:option CODED = 0 1

//:if CODED
//:import shared/coded_oct
//:else
// [rows, 4*runs] u32, bit-sliced 4-bit codes: word o of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif

override BLOCK_RUNS: u32 = 2u; // runs in a block

alias Scale = f32; // absmax

//:if DOUBLE
// [rows, ceil(blocks/4)] u32, four bytes a word; blocks = runs/BLOCK_RUNS
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;
// [ceil(rows/2^n)] vec2<f32>, offset and step of the bytes of 2^n rows, the most rows with at most 256 blocks
@group(0) @binding(2) var<storage, read> codec_2: array<vec2<f32>>;

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let blocks = runs / BLOCK_RUNS;
    let block = run / BLOCK_RUNS;
    let byte = (codec_1[row * ((blocks + 3u) / 4u) + block / 4u] >> (8u * (block & 3u))) & 255u;
    // 2^n * blocks <= 256 for the largest n: 8 bits less those of blocks - 1; 0 where a row alone has more than 256 blocks.
    let n = max(countLeadingZeros(blocks - 1u), 24u) - 24u;
    let line = codec_2[row >> n];
    return line.x + f32(byte) * line.y;
}
//:else
// [rows, blocks] f32; blocks = runs/BLOCK_RUNS
@group(0) @binding(1) var<storage, read> codec_1: array<f32>;

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return codec_1[row * (runs / BLOCK_RUNS) + run / BLOCK_RUNS];
}
//:endif
