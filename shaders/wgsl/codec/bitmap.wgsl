// Unstructured sparsity: a bitmap, and the kept weights of a row behind one another. Limited by memory: 1.5 bits a weight and 2 bytes a
// kept one.
//:import shared/oct
//:option HALF = 0 1
//:if HALF
//:import shared/half
//:endif

// [rows, words] u32, the kept weights, two a word, the first in the low half
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, runs] u32, weight i of the run is kept if bit i is set
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;
// [rows, ceil(runs/2)] u32, kept weights of the row before the run; two a word, the even run's in the low half
@group(0) @binding(2) var<storage, read> codec_2: array<u32>;

// Percent of the weights that are kept.
override KEEP: u32 = 50u;

struct Scale {
    bits: u32,
    row: u32, // index of the row's first word
    first: u32, // kept weights of the row before the run
}

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let words = ((KEEP * runs * 32u + 99u) / 100u + 1u) / 2u;
    let start = codec_2[row * ((runs + 1u) / 2u) + run / 2u] >> (16u * (run & 1u));
    return Scale(codec_1[row * runs + run], row * words, start & 0xffffu);
}

// Kept weight number `rank` of the eight halves in `h`, if `bit` says so.
fn pick(h: vec4<u32>, bit: u32, rank: u32) -> f32 {
    let pair = select(select(h.x, h.y, rank >= 2u), select(h.z, h.w, rank >= 6u), rank >= 4u);
    let word = select(pair << 16u, pair & 0xffff0000u, (rank & 1u) == 1u);
//:if HALF
    let value = half_to_f32(word >> 16u);
//:else
    let value = bitcast<f32>(word);
//:endif
    return select(0.0, value, bit != 0u);
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let byte = (s.bits >> (8u * o)) & 0xffu;
    let at = s.first + countOneBits(s.bits & ((1u << (8u * o)) - 1u));
    // At most eight halves from half `at` on: the words they lie in, moved so that the first is the low half of h.x. Words beyond those
    // in use are not read.
    let word = s.row + at / 2u;
    let odd = at & 1u;
    let used = odd + countOneBits(byte);
    var w = vec4<u32>();
    var last = 0u;
    if (used > 0u) { w.x = codec_0[word]; }
    if (used > 2u) { w.y = codec_0[word + 1u]; }
    if (used > 4u) { w.z = codec_0[word + 2u]; }
    if (used > 6u) { w.w = codec_0[word + 3u]; }
    if (used > 8u) { last = codec_0[word + 4u]; }
    let moved = (w >> vec4<u32>(16u)) | (vec4<u32>(w.yzw, last) << vec4<u32>(16u));
    let h = select(w, moved, odd == 1u);
    let below = vec4<u32>(0u, 1u, 3u, 7u);
    let rank_a = countOneBits(vec4<u32>(byte) & below);
    let rank_b = countOneBits(vec4<u32>(byte) & vec4<u32>(15u, 31u, 63u, 127u));
    return Oct(
        vec4<f32>(
            pick(h, byte & 1u, rank_a.x),
            pick(h, byte & 2u, rank_a.y),
            pick(h, byte & 4u, rank_a.z),
            pick(h, byte & 8u, rank_a.w),
        ),
        vec4<f32>(
            pick(h, byte & 16u, rank_b.x),
            pick(h, byte & 32u, rank_b.y),
            pick(h, byte & 64u, rank_b.z),
            pick(h, byte & 128u, rank_b.w),
        ),
    );
}
