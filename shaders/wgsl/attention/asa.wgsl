// What the kernels of adaptive sparse attention share (Video-BLADE, arXiv 2508.10774): their parameters and where samples lie.
//
// Of every block the same `samples` offsets are drawn, for queries and for keys independently, by head. Offsets past the end of a partial
// last block stand for its last token.

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    pos0: u32,
    kv_len: u32,
    ctx: u32,        // positions the cache has room for
    causal: u32,
    window: u32,     // 0: none
    q_stride: u32,   // columns (four floats) from token to token
    head0: u32,      // the first of the heads at hand
    q_blocks: u32,
    k_blocks: u32,
    q_block: u32,    // queries of a block, counted from query 0
    k_block: u32,    // keys of a block, counted from key 0
    samples: u32,    // of a block: 4, 8, 16 or 32
    words: u32,      // ceil(k_blocks / 32)
    scale: f32,
    soft_cap: f32,   // 0: none
    mass: f32,       // of attention that the kept blocks are to hold
    min_ratio: f32,  // of the visible blocks
    max_ratio: f32,
    sinks: u32,      // first blocks that are kept whatever their mass
    near: u32,       // last blocks a causal query block sees that are kept whatever their mass
    tail: u32,       // last block rows and columns that are kept whole, beyond the budget (text tokens behind a video's)
}

@group(1) @binding(0) var<uniform> p: Params;
