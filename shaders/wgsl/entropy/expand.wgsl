// The first plane of a codec, decoded from an entropy-coded one (layout: engine/src/codec/entropy/plane.rs): for many columns of x, where a
// weight that is decoded once and then read serves them all. BITS: of the codes, which are bit-sliced (engine/src/codec/bits.rs); 16 for bf16.
//
// Grid: rows · chunks / 64 in x, continued in y; a lane decodes a chunk of 128 columns. Limited by what it writes, or by integer arithmetic.

//:option BITS = 2 3 4 5 6 8 16
//:import shared/coded
//:if BITS == 16
//:import shared/sign_mantissa
//:endif

struct Params {
    rows: u32,
    runs: u32, // runs of 32 columns in a row
    grid: u32, // workgroups in x; y continues where x ends
    pad: u32,
}

// [rows, BITS*runs] u32
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

// The two low bits of eight codes in the low half of each byte.
fn two_bits(q: Codes) -> u32 {
    return (q.a & 0x03030303u) | ((q.b & 0x03030303u) << 2u);
}

fn two_bits_above(q: Codes, low: u32) -> u32 {
    return two_bits(Codes(q.a >> low, q.b >> low));
}

fn one_bit_above(q: Codes, low: u32) -> u32 {
    return ((q.a >> low) & 0x01010101u) | (((q.b >> low) & 0x01010101u) << 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (p.runs + CHUNK_RUNS - 1u) / CHUNK_RUNS;
    let id = (group.y * p.grid + group.x) * 64u + local;
    let row = id / chunks;
    if (row >= p.rows) {
        return;
    }
    let chunk = id % chunks;
    var d = coded_start(row, chunk, p.runs);
    let end = min(p.runs, (chunk + 1u) * CHUNK_RUNS);
    for (var run = chunk * CHUNK_RUNS; run < end; run++) {
        let at = (row * p.runs + run) * #{BITS}u;
//:if BITS == 16
        for (var o = 0u; o < 4u; o++) {
            let q = coded_symbols(&d);
            let rest = (row * p.runs + run) * 8u + 2u * o;
            let a = with_exponents(q.a, codec_1[rest]);
            let b = with_exponents(q.b, codec_1[rest + 1u]);
            let low = vec4<u32>(a.xz, b.xz) >> vec4<u32>(16u);
            let pairs = low | vec4<u32>(a.yw, b.yw);
            codes[at + 4u * o] = pairs.x;
            codes[at + 4u * o + 1u] = pairs.y;
            codes[at + 4u * o + 2u] = pairs.z;
            codes[at + 4u * o + 3u] = pairs.w;
        }
//:else
//:for O in 0..4
        let q#{O} = codes_of(coded_symbols(&d));
//:if BITS == 8
        codes[at + #{2 * O}u] = q#{O}.a;
        codes[at + #{2 * O + 1}u] = q#{O}.b;
//:elif BITS >= 4
        codes[at + #{O}u] = (q#{O}.a & 0x0f0f0f0fu) | ((q#{O}.b & 0x0f0f0f0fu) << 4u);
//:endif
//:end
//:if BITS < 4
        codes[at] = two_bits(q0) | (two_bits(q1) << 4u);
        codes[at + 1u] = two_bits(q2) | (two_bits(q3) << 4u);
//:endif
//:if BITS == 6
        codes[at + 4u] = two_bits_above(q0, 4u) | (two_bits_above(q1, 4u) << 4u);
        codes[at + 5u] = two_bits_above(q2, 4u) | (two_bits_above(q3, 4u) << 4u);
//:elif BITS == 5
        codes[at + 4u] = one_bit_above(q0, 4u) | (one_bit_above(q1, 4u) << 2u) | (one_bit_above(q2, 4u) << 4u) | (one_bit_above(q3, 4u) << 6u);
//:elif BITS == 3
        codes[at + 2u] = one_bit_above(q0, 2u) | (one_bit_above(q1, 2u) << 2u) | (one_bit_above(q2, 2u) << 4u) | (one_bit_above(q3, 2u) << 6u);
//:endif
//:endif
    }
}
