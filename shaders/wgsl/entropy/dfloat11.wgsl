// DFloat11 to bf16: weight i = sign_mantissa[i] with the exponent that the i-th code of a Huffman-coded stream stands for
// (Zhang et al. 2025, arXiv 2504.11651). Lossless: the bits are those that were encoded.
//
// A workgroup decodes a block of 4096 bytes of the stream, of which is known how many weights start before it. Its 512 chunks of 64
// bits know where their first code starts ("gaps"), so that
//   1. every lane counts the codes that start in its two chunks (one in each half of the block),
//   2. the counts of both halves are summed over the lanes at once, 16 bits each,
//   3. every lane decodes its chunk again, now knowing where its weights go. Exponents meet in workgroup memory, 8192 at a time, from
//      where the lanes put the weights together four by four: sign_mantissa is read and the weights are written side by side.
// A word holds two weights, and a half of a block may end within one: who owns the even weight writes both, so the last lane of a half
// decodes one code more. Nothing is written twice, and what was there before does not matter.
//
// Codes of up to 8 bits, nearly all, take one look into `root`; longer ones walk up to three tables more. A stream that lies gives
// wrong weights: every code advances, an entry can only name a table that is there, and only wanted weights are written.
//
// GATHER: embedding rows, y[t, :] = scale · W[token[t], :]; a workgroup a token, which finds the row's first block by bisection.
//
// Grid: blocks in x, continued in y; GATHER: one in x, tokens in y.
// Limited by the chains of dependent look-ups (24 codes a lane, twice), then by memory: 0.67 bytes in for 1 out.

//:option GATHER = 0 1

struct Params {
    block0: u32,        // first block of this dispatch in the bound part of the stream
    blocks: u32,        // blocks of this dispatch; GATHER: of the bound part
    first: u32,         // weights wanted: first to last - 1, numbered in the group; first is even
    last: u32,
    sign0: u32,         // number of the weight whose byte begins sign_mantissa: a multiple of 4
    rows: u32,          // rows of tables: the last has the lengths
    offset: u32,        // of the first wanted weight, in words of `weights`; GATHER: of y[0, 0], in floats
    grid: u32,          // workgroups in x
    cols: u32,          // GATHER: of the table
    table_rows: u32,    // GATHER: of the table
    token_offset: u32,  // GATHER: of the first token's id
    stride: u32,        // GATHER: of y, in floats
    accumulate: u32,    // GATHER: add to y
    scale: f32,         // GATHER
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> luts: array<u32>;           // [rows, 64]  four entries a word, the first one lowest
@group(0) @binding(1) var<storage, read> stream: array<u32>;         // [blocks, 1024], one word more  first bit highest
@group(0) @binding(2) var<storage, read> gaps: array<u32>;           // [blocks, 80], one word more  five bits a chunk, first bit highest
@group(0) @binding(3) var<storage, read> positions: array<u32>;      // [blocks + 1]  weights before each block
@group(0) @binding(4) var<storage, read> sign_mantissa: array<u32>;  // [weights/4]  four bytes a word
//:if GATHER
@group(0) @binding(5) var<storage, read> tokens: array<u32>;         // [tokens]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;        // [tokens, stride]
//:else
@group(0) @binding(5) var<storage, read_write> weights: array<u32>;  // [weights/2]  bf16, the even one in the low half
//:endif
@group(1) @binding(0) var<uniform> p: Params;

const LANES = 256u;
const CHUNKS = 512u;
const STAGED = 8192u;  // exponents in workgroup memory
const ESCAPE = 240u;   // entries from here on lead to table 256 - entry

var<workgroup> root: array<u32, 256>;         // exponent | length << 8; length 0: entry of another table
var<workgroup> tables: array<u32, 1152>;      // 18 rows
var<workgroup> sums: array<u32, 512>;         // of counts, twice: read one, write the other
var<workgroup> total: u32;
var<workgroup> staged: array<atomic<u32>, 2048>;

fn entry(row: u32, key: u32) -> u32 {
    return (tables[row * 64u + key / 4u] >> (8u * (key & 3u))) & 255u;
}

fn code_length(exponent: u32) -> u32 {
    return clamp(entry(p.rows - 1u, exponent), 1u, 32u);
}

// The code that `bits` begin with: exponent | length << 8.
fn symbol(bits: u32) -> u32 {
    let short = root[bits >> 24u];
    if (short >= 256u) {
        return short;
    }
    var e = short;
    for (var shift = 16; shift >= 0; shift -= 8) {
        e = entry(256u - e, (bits >> u32(shift)) & 255u);
        if (e < ESCAPE) {
            break;
        }
    }
    return e | (code_length(e) << 8u);
}

// 32 bits from bit `at` of two words on.
fn funnel(a: u32, b: u32, at: u32) -> u32 {
    return (a << at) | ((b >> 1u) >> (31u - at));
}

struct Chunk {
    words: vec4<u32>,
    gap: u32,
}

fn load(chunk: u32) -> Chunk {
    let at = 2u * chunk;
    let bit = 5u * chunk;
    let gap = funnel(gaps[bit / 32u], gaps[bit / 32u + 1u], bit & 31u) >> 27u;
    return Chunk(vec4<u32>(stream[at], stream[at + 1u], stream[at + 2u], stream[at + 3u]), gap);
}

// The code at a bit below 96.
fn code_at(c: Chunk, bit: u32) -> u32 {
    let a = select(select(c.words.x, c.words.y, bit >= 32u), c.words.z, bit >= 64u);
    let b = select(select(c.words.y, c.words.z, bit >= 32u), c.words.w, bit >= 64u);
    return symbol(funnel(a, b, bit & 31u));
}

// Codes that start in the chunk.
fn count(c: Chunk) -> u32 {
    var n = 0u;
    for (var bit = c.gap; bit < 64u; n++) {
        bit += code_at(c, bit) >> 8u;
    }
    return n;
}

// Puts the exponents of `n` codes, which are those of the weights from `at` on, into the window of weights from `window` on.
fn stage(c: Chunk, n: u32, at: u32, window: u32) {
    if (at >= window + STAGED || at + n <= window) {
        return;
    }
    var bit = c.gap;
    var four = 0u;
    for (var i = at; i < at + n; i++) {
        let code = code_at(c, bit);
        bit = min(bit + (code >> 8u), 95u);
        if (i >= window && i < window + STAGED) {
            four |= (code & 255u) << (8u * (i & 3u));
            if ((i & 3u) == 3u) {
                atomicOr(&staged[(i - window) / 4u], four);
                four = 0u;
            }
        }
    }
    let end = min(at + n, window + STAGED);
    if ((end & 3u) != 0u) {
        atomicOr(&staged[(end - window) / 4u], four);
    }
}

// A bf16 of its exponent and its sign and mantissa.
fn weight(exponent: u32, sm: u32) -> u32 {
    return ((sm & 128u) << 8u) | (exponent << 7u) | (sm & 127u);
}

// Writes the wanted ones of four weights, of which this half of a block owns those from `start` to `end` - 1.
fn write(at: u32, exponents: u32, start: u32, end: u32, first: u32, last: u32, row: u32) {
    if (at >= min(end, last) || at + 4u <= max(start, first)) {
        return;
    }
    let sm = sign_mantissa[(at - p.sign0) / 4u];
    for (var i = 0u; i < 4u; i += 2u) {
        let e = at + i;
        let low = weight((exponents >> (8u * i)) & 255u, sm >> (8u * i));
        let high = weight((exponents >> (8u * i + 8u)) & 255u, sm >> (8u * i + 8u));
        if (e >= start && e < end && e >= first && e < last) {
//:if GATHER
            put(row + e - first, low);
//:else
            weights[p.offset + (e - first) / 2u] = low | select(0u, high << 16u, e + 1u < last);
//:endif
        }
//:if GATHER
        if (e + 1u >= start && e + 1u < end && e + 1u >= first && e + 1u < last) {
            put(row + e + 1u - first, high);
        }
//:endif
    }
}

//:if GATHER
fn put(at: u32, bits: u32) {
    let v = p.scale * bitcast<f32>(bits << 16u);
    y[at] = select(v, v + y[at], p.accumulate != 0u);
}

//:endif
// Writes the weights first to last - 1 as far as they are in a block. In uniform control flow only.
fn decode(block: u32, first: u32, last: u32, row: u32, lane: u32) {
    let a = load(block * CHUNKS + lane);
    let b = load(block * CHUNKS + LANES + lane);
    let counts = count(a) | (count(b) << 16u); // at most 64 each, 256·64 together
    sums[lane] = counts;
    workgroupBarrier();
    var side = 0u;
    for (var step = 1u; step < LANES; step *= 2u) {
        let here = sums[side + lane];
        let before = sums[side + max(lane, step) - step];
        side = LANES - side;
        sums[side + lane] = here + select(0u, before, lane >= step);
        workgroupBarrier();
    }
    let before = sums[side + lane] - counts;
    if (lane == LANES - 1u) {
        total = before + counts;
    }
    let all = workgroupUniformLoad(&total);
    let limit = positions[block + 1u];
    let middle = positions[block] + (all & 0xffffu);
    for (var half = 0u; half < 2u; half++) {
        let upper = half == 1u;
        let start = min(select(positions[block], middle, upper), limit);
        let end = min(select(middle, middle + (all >> 16u), upper), limit);
        let mine = start + select(before & 0xffffu, before >> 16u, upper);
        var n = select(counts & 0xffffu, counts >> 16u, upper);
        if (lane == LANES - 1u) {
            n += 1u;
        }
        for (var window = start & ~3u; window < end; window += STAGED) {
            if (window >= last || window + STAGED <= first) {
                continue;
            }
            for (var i = lane; i < STAGED / 4u; i += LANES) {
                atomicStore(&staged[i], 0u);
            }
            workgroupBarrier();
            if (upper) {
                stage(b, n, mine, window);
            } else {
                stage(a, n, mine, window);
            }
            workgroupBarrier();
            for (var i = lane; i < STAGED / 4u; i += LANES) {
                write(window + 4u * i, atomicLoad(&staged[i]), start, end, first, last, row);
            }
            workgroupBarrier();
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < p.rows * 64u; i += LANES) {
        tables[min(i, 1151u)] = luts[i];
    }
    workgroupBarrier();
    let e = entry(0u, lane);
    root[lane] = select(e, e | (code_length(e) << 8u), e < ESCAPE);
    workgroupBarrier();
//:if GATHER
    let token = tokens[p.token_offset + group.y];
    if (token >= p.table_rows) {
        return;
    }
    let first = token * p.cols;
    let last = first + p.cols;
    // The last block that starts at or before the row.
    var block = 0u;
    for (var step = 1u << 31u; step > 0u; step /= 2u) {
        if (step < p.blocks - block && positions[block + step] <= first) {
            block += step;
        }
    }
    let row = p.offset + group.y * p.stride;
    for (; block < p.blocks && positions[block] < last; block++) {
        decode(block, first, last, row, lane);
    }
//:else
    let number = group.y * p.grid + group.x;
    if (number < p.blocks) {
        decode(p.block0 + number, p.first, p.last, 0u, lane);
    }
//:endif
}
