// Weights of which only some are kept: a mask, and rows of kept weights ("kept rows") in any codec.
//
//   W[row, c] = kept[row, rank(row, c)] if the mask has (row, c), else 0;   rank: kept weights of the row before c
//
// p.sparse = (words of a line of the mask, runs of a kept row, kept weights of every octet or 0, rows of a block or 0). Three kinds:
//  - bits, rank by count: any weights are kept. A line is a row: a bit a weight, then a 16-bit rank for every run.
//  - bits, a fixed number for every eight columns (2:4 is 4 of 8): a line is a row, a bit a weight.
//  - blocks of 16 or 32 rows and columns: a line is a row of blocks. A word a run: for either half of it 0, or 1 + the half run of the
//    kept row where it is. Then a word for every run of the kept row: the half runs of W that its halves are.
// Which of them is a constant of the pipeline: software adapters take both sides of a branch, and pay for the loads of all three.
// Layouts: engine/src/codec/sparse.rs. Ranks and places are clamped, so that no mask reads outside the kept row.
// A kept octet is decoded as a whole and its weights spread by selects: no load depends on a single bit.

//:option SPARSE = 0 1
//:skip SPARSE && CODEC != bf16 && CODEC != f16 && CODEC != f32 && CODEC != q8_0 && CODEC != q5_1 && CODEC != q5_0 && CODEC != q4_1 && CODEC != q4_0 && CODEC != q6_k && CODEC != q5_k && CODEC != q4_k && CODEC != q3_k && CODEC != q2_k && CODEC != iq4_nl && CODEC != uniform
//:import shared/oct

const ANY_BITS = 0u;
const FOUR_BITS = 1u; // of eight columns
const BLOCKS = 2u;
override MASK: u32 = ANY_BITS;

// [lines, p.sparse.x] u32
@group(0) @binding(8) var<storage, read> sparse_mask: array<u32>;

fn in_blocks() -> bool {
    return MASK == BLOCKS;
}

// The line of a row of blocks.
fn block_line(row: u32) -> u32 {
    return row / p.sparse.w * p.sparse.x;
}

// Runs to be multiplied: all of a row, or those of the kept row of blocks.
fn steps() -> u32 {
    return select(p.runs, p.sparse.y, in_blocks());
}

// The half runs of W that a step multiplies, one in either half of the word.
fn places(row: u32, step: u32) -> u32 {
    if (in_blocks()) {
        return sparse_mask[block_line(row) + p.runs + step];
    }
    return (2u * step) | ((2u * step + 1u) << 16u);
}

// The column of octet `o` of a step, in vec4s; past the end, which only a broken mask says, the last.
fn column4(places: u32, o: u32) -> u32 {
    return min((places >> (16u * (o / 2u))) & 0xffffu, 2u * p.runs - 1u) * 4u + (o & 1u) * 2u;
}

// Octet number `at` of a kept row.
fn kept_oct(row: u32, at: u32) -> Oct {
    let run = min(at / 4u, p.sparse.y - 1u);
    return codec_oct(row, run, p.sparse.y, at & 3u, codec_scale(row, run, p.sparse.y));
}

// Four of the 16 weights of two octets, from number `q` (0 to 12) on.
fn window(low: Oct, high: Oct, q: u32) -> vec4<f32> {
    let fourth = (q & 4u) != 0u;
    let eighth = (q & 8u) != 0u;
    let a = select(select(low.a, low.b, fourth), select(high.a, high.b, fourth), eighth);
    let b = select(select(low.b, high.a, fourth), high.b, eighth);
    let second = (q & 2u) != 0u;
    let c = select(a, vec4<f32>(a.zw, b.xy), second);
    return select(c, vec4<f32>(c.yzw, select(b.x, b.z, second)), (q & 1u) != 0u);
}

// Weights put where the four bits of `nibble` are; zeros elsewhere.
fn spread(w: vec4<f32>, nibble: u32) -> vec4<f32> {
    let one = nibble & 1u;
    let two = one + ((nibble >> 1u) & 1u);
    let three = two + ((nibble >> 2u) & 1u);
    let first = select(w.x, w.y, one != 0u);
    let all = vec4<f32>(
        w.x,
        first,
        select(select(w.x, w.y, two == 1u), w.z, two == 2u),
        select(select(w.x, w.y, three == 1u), select(w.z, w.w, three == 3u), three >= 2u),
    );
    return select(vec4<f32>(), all, (vec4<u32>(nibble) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>());
}

// Eight columns with mask `byte`, whose kept weights start at weight `q` (0 to 7) of two octets.
fn spread_oct(low: Oct, high: Oct, q: u32, byte: u32) -> Oct {
    let half = q + countOneBits(byte & 15u);
    return Oct(spread(window(low, high, q), byte & 15u), spread(window(low, high, half), byte >> 4u));
}

// Eight columns with mask `byte` that has four bits: their kept weights are half an octet.
fn spread_four(w: vec4<f32>, byte: u32) -> Oct {
    let before = countOneBits(byte & 15u);
    let second = select(w, w.zwzw, (before & 2u) != 0u);
    return Oct(spread(w, byte & 15u), spread(select(second, second.yzwx, (before & 1u) != 0u), byte >> 4u));
}

// What is shared by the octets of a run.
struct Kept {
    mask: u32, // the run's bits; in blocks, where its halves are
    rank: u32, // kept weights of the row before the run
}

fn kept_of(row: u32, run: u32) -> Kept {
    if (in_blocks()) {
        return Kept(sparse_mask[block_line(row) + run], 0u);
    }
    let line = row * p.sparse.x;
    var rank = run * 4u * p.sparse.z;
    if (p.sparse.z == 0u) {
        rank = (sparse_mask[line + p.runs + run / 2u] >> (16u * (run & 1u))) & 0xffffu;
    }
    return Kept(sparse_mask[line + run], rank);
}

// Octet `o` of a run, from anywhere.
fn sparse_oct(row: u32, o: u32, k: Kept) -> Oct {
    if (in_blocks()) {
        let at = (k.mask >> (16u * (o / 2u))) & 0xffffu;
        if (at == 0u) {
            return Oct();
        }
        return kept_oct(row, (at - 1u) * 2u + (o & 1u));
    }
    let byte = (k.mask >> (8u * o)) & 0xffu;
    if (byte == 0u) {
        return Oct();
    }
    if (MASK == FOUR_BITS) {
        let half = k.rank / 4u + o;
        let w = kept_oct(row, half / 2u);
        return spread_four(select(w.a, w.b, (half & 1u) != 0u), byte);
    }
    let at = k.rank + countOneBits(k.mask & ((1u << (8u * o)) - 1u));
    let low = kept_oct(row, at / 8u);
    var high = low;
    if ((at & 7u) + countOneBits(byte) > 8u) {
        high = kept_oct(row, at / 8u + 1u);
    }
    return spread_oct(low, high, at & 7u, byte);
}

// Octet `o` of a step.
fn step_oct(row: u32, step: u32, o: u32) -> Oct {
    if (in_blocks()) {
        return codec_oct(row, step, p.sparse.y, o, codec_scale(row, step, p.sparse.y));
    }
    return sparse_oct(row, o, kept_of(row, step));
}

// A row read from its start: two octets of the kept row, of which the first is in use.
struct Stream {
    low: Oct,
    high: Oct,
    at: u32,   // the next weight's place in them
    next: u32, // the octet behind them
    mask: u32, // of the step
}

fn stream_open(row: u32) -> Stream {
    if (in_blocks()) {
        return Stream(Oct(), Oct(), 0u, 0u, 0u);
    }
    return Stream(kept_oct(row, 0u), kept_oct(row, 1u), 0u, 2u, 0u);
}

// To be called before the octets 0 to 3 of a step, which follow in this order.
fn stream_step(s: ptr<function, Stream>, row: u32, step: u32) {
    if (!in_blocks()) {
        (*s).mask = sparse_mask[row * p.sparse.x + step];
    }
}

fn stream_oct(s: ptr<function, Stream>, row: u32, step: u32, o: u32) -> Oct {
    if (in_blocks()) {
        return codec_oct(row, step, p.sparse.y, o, codec_scale(row, step, p.sparse.y));
    }
    let byte = ((*s).mask >> (8u * o)) & 0xffu;
    if (MASK == FOUR_BITS) {
        // `o` is a constant where this is called: every other octet loads.
        if ((o & 1u) == 0u) {
            (*s).low = kept_oct(row, 2u * step + o / 2u);
            return spread_four((*s).low.a, byte);
        }
        return spread_four((*s).low.b, byte);
    }
    if ((*s).at >= 8u) {
        (*s).at -= 8u;
        (*s).low = (*s).high;
        (*s).high = kept_oct(row, (*s).next);
        (*s).next += 1u;
    }
    let w = spread_oct((*s).low, (*s).high, (*s).at, byte);
    (*s).at += countOneBits(byte);
    return w;
}
