// The block mask of a sliding window with sinks (StreamingLLM, arXiv 2309.17453; Longformer, arXiv 2004.05150), the same for all heads:
// bit (i, j) is set if key block j holds one of the first `sinks` keys, or one at most `window − 1` positions from a query of block i.
// Whole blocks are kept, so a query sees a little more than its window. sinks = 0 and window = 0 keep everything.
// A lane a word. Grid: ceil(q_blocks·words / 64). Bound by launch.

struct Params {
    q_blocks: u32,
    k_blocks: u32,
    words: u32,     // ceil(k_blocks / 32)
    tokens: u32,
    pos0: u32,
    q_block: u32,
    k_block: u32,
    sinks: u32,     // keys
    window: u32,    // keys to either side, the query itself included
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(3) var<storage, read_write> mask: array<u32>;   // [q_blocks, words]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.q_blocks * p.words) {
        return;
    }
    let t0 = id.x / p.words * p.q_block;
    let word = id.x % p.words;
    let first = p.pos0 + t0;
    let last = p.pos0 + min(t0 + p.q_block, p.tokens) - 1u;
    let low = max(first + 1u, p.window) - p.window;
    let everything = p.sinks == 0u && p.window == 0u;
    var bits = 0u;
    for (var b = 0u; b < 32u && word * 32u + b < p.k_blocks; b++) {
        let key = (word * 32u + b) * p.k_block;
        let near = p.window != 0u && key + p.k_block > low && key <= last + (p.window - 1u);
        bits |= select(0u, 1u << b, everything || key < p.sinks || near);
    }
    mask[id.x] = bits;
}
