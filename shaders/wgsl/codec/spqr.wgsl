// SpQR (Dettmers et al. 2023, arXiv 2306.03078): w = s*(q - z), s = wss*(w_s - wsz), z = wzs*(w_z - wzz), plus an outlier here and there.
//
// q has BITS bits; s and z belong to 16 weights of a row (with SPLIT) or to a run, their 3-bit codes w_s and w_z to tiles of 16 rows.
// Kernels that walk along rows take the grid alone (codec_base_oct) and then the outliers of their rows, each once (codec_outliers,
// codec_outlier); others ask codec_oct for both, which looks for the octet's outliers among the row's by bisection.
// Limited by memory at few columns: BITS + 6/16 + 64/256 bits a weight, 32 an outlier.
//:import shared/oct
//:import shared/half
//:import shared/bits
//:option BITS = 3 4
//:option SPLIT = 1 0

// [rows, BITS*runs + ceil(6*groups/32)] u32, bit-sliced codes, then w_s | w_z << 3 of every group, six bits behind one another
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [ceil(rows/16), groups] f16: wss | wzs << 16, wsz | wzz << 16
@group(0) @binding(1) var<storage, read> codec_1: array<vec2<u32>>;
// With PUBLISHED [16*runs] the inputs' permutation, two columns a word; [rows + 1] the word where the row's outliers start; outliers,
// column | f16 << 16, by columns
@group(0) @binding(2) var<storage, read> codec_2: array<u32>;

// The authors' format: inputs are permuted, and every operation is rounded to f16.
override PUBLISHED: bool = false;

//:if SPLIT
const GROUPS: u32 = 2u; // groups of a run
//:else
const GROUPS: u32 = 1u;
//:endif

alias Scale = u32; // six bits for each group of the run

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let words = #{BITS}u * runs + (6u * GROUPS * runs + 31u) / 32u;
    let at = 6u * GROUPS * run;
    let word = row * words + #{BITS}u * runs + at / 32u;
    let shift = at % 32u;
    var bits = codec_0[word] >> shift;
    if (shift + 6u * GROUPS > 32u) {
        bits |= codec_0[word + 1u] << (32u - shift);
    }
    return bits;
}

// The nearest f16: ties to even, subnormals kept, as `quantizeToF16` need not.
fn round_to_f16(v: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(v);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    // Bits below the last one of an f16: 13, and one more for every power of two below 2^-14. From 24 on only a rounded-up 1 is left.
    let drop = min(vec4<u32>(126u) - min(magnitude >> vec4<u32>(23u), vec4<u32>(113u)), vec4<u32>(25u));
    let mantissa = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let half = (vec4<u32>(1u) << (drop - vec4<u32>(1u))) - vec4<u32>(1u);
    let kept = (mantissa + half + ((mantissa >> drop) & vec4<u32>(1u))) >> drop;
    // kept times the value of its last bit, which is a power of two: exact.
    let exponent = max(magnitude >> vec4<u32>(23u), vec4<u32>(101u));
    let ulp = bitcast<vec4<f32>>((exponent + drop - vec4<u32>(23u)) << vec4<u32>(23u));
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(vec4<f32>(kept) * ulp) | (bits & vec4<u32>(0x80000000u)));
}

// s*(q - z) for four codes.
fn on_grid(codes: u32, grid: vec4<f32>) -> vec4<f32> {
    let q = vec4<f32>(unpack4xU8(codes));
    if (PUBLISHED) {
        return round_to_f16(grid.x * round_to_f16(q - grid.y));
    }
    return (q - grid.y) * grid.x;
}

// The grid's values of an octet.
fn codec_base_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let words = #{BITS}u * runs + (6u * GROUPS * runs + 31u) / 32u;
    let first = row * words + run * #{BITS}u;
//:if BITS == 3
    let q = join_codes(codes2(codec_0[first + o / 2u], o), codes1(codec_0[first + 2u], o), 2u);
//:else
    let q = codes4(codec_0[first + o]);
//:endif
//:if SPLIT
    let half = o / 2u;
//:else
    let half = 0u;
//:endif
    let tile = codec_1[((row / 16u) * runs + run) * GROUPS + half];
    let level2 = half4_to_f32(vec4<u32>(tile.x, tile.x >> 16u, tile.y, tile.y >> 16u)); // wss, wzs, wsz, wzz
    let codes = s >> (6u * half);
    let statistics = vec2<f32>(f32(codes & 7u), f32((codes >> 3u) & 7u));
    var grid = vec4<f32>(level2.xy, 0.0, 0.0);
    if (PUBLISHED) {
        grid = round_to_f16(grid * round_to_f16(vec4<f32>(statistics - level2.zw, 0.0, 0.0)));
    } else {
        grid = vec4<f32>(level2.xy * (statistics - level2.zw), 0.0, 0.0);
    }
    return Oct(on_grid(q.a, grid), on_grid(q.b, grid));
}

// Words of codec_2 with the outliers of a row: from x to before y.
fn codec_outliers(row: u32, runs: u32) -> vec2<u32> {
    let head = select(0u, 16u * runs, PUBLISHED) + row;
    return vec2<u32>(codec_2[head], codec_2[head + 1u]);
}

struct Outlier {
    column: u32,
    value: f32,
}

fn codec_outlier(at: u32) -> Outlier {
    let entry = codec_2[at];
    return Outlier(entry & 0xffffu, half_to_f32(entry >> 16u));
}

// The input that column `column` is multiplied with.
fn codec_input(column: u32) -> u32 {
    if (PUBLISHED) {
        return (codec_2[column / 2u] >> (16u * (column & 1u))) & 0xffffu;
    }
    return column;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    var w = codec_base_oct(row, run, runs, o, s);
    let first = run * 32u + o * 8u;
    let range = codec_outliers(row, runs);
    var low = range.x;
    var high = range.y;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if ((codec_2[middle] & 0xffffu) < first) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    for (; low < range.y; low++) {
        let outlier = codec_outlier(low);
        let i = outlier.column - first;
        if (i >= 8u) {
            break;
        }
        if (i < 4u) {
            w.a[i] += outlier.value;
        } else {
            w.b[i - 4u] += outlier.value;
        }
    }
    return w;
}
