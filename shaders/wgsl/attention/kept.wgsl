// The kept key blocks of every query block as a list, from a mask of one bit a pair: what attention/prefill with BLOCKS walks over.
//   list[h, i] = (count, j₀ < j₁ < …)  with  bit (h, i, j) set (clear with `invert`) and block j visible to query block i
// A mask may name blocks that no query of the block sees (the future); they are left out here, once for all tiles.
// A lane a row, word by word. Grid: ceil(heads·q_blocks / 64). Bound by latency: a row's bits are a few words.

//:import attention/visible

struct Params {
    rows: u32,         // listed heads · q_blocks
    q_blocks: u32,
    k_blocks: u32,
    head0: u32,        // the first of the heads that are listed
    head_words: u32,   // words from head to head of the mask; 0: one mask for all
    words: u32,        // words of a row: ceil(mask's key blocks / 32)
    list_stride: u32,  // more than k_blocks
    tokens: u32,
    pos0: u32,
    kv_len: u32,
    causal: u32,
    window: u32,       // 0: none
    q_block: u32,
    k_block: u32,
    gap: u32,          // positions that a key stands for
    invert: u32,       // list the blocks whose bit is clear
}

@group(0) @binding(3) var<storage, read> mask: array<u32>;          // [heads or 1, q_blocks, words]  bit j % 32 of word j / 32
@group(0) @binding(4) var<storage, read_write> kept: array<u32>;    // [listed heads, q_blocks, list_stride]  count, then blocks
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) {
        return;
    }
    let head = p.head0 + row / p.q_blocks;
    let block = row % p.q_blocks;
    let t0 = block * p.q_block;
    let last = p.pos0 + min(t0 + p.q_block, p.tokens) - 1u;
    let seen = visible_blocks(p.pos0 + t0, last, p.kv_len, p.causal, p.window, p.gap, p.k_block);
    let base = head * p.head_words + block * p.words;
    let list = row * p.list_stride;
    var count = 0u;
    for (var w = seen.x / 32u; w * 32u < seen.y; w++) {
        var bits = mask[base + w];
        if (p.invert != 0u) {
            bits = ~bits;
        }
        while (bits != 0u) {
            let j = w * 32u + firstTrailingBit(bits);
            bits &= bits - 1u;
            if (j >= seen.x && j < seen.y) {
                count++;
                kept[list + count] = j;
            }
        }
    }
    kept[list] = count;
}
