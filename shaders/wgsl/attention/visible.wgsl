// Which key blocks the queries of a query block may see at all.

// Queries at positions first..=last over kv_len keys that stand for `gap` positions each, in blocks of k_block: the first block, and one
// past the last. Empty where no key is seen.
fn visible_blocks(first: u32, last: u32, kv_len: u32, causal: u32, window: u32, gap: u32, k_block: u32) -> vec2<u32> {
    var end = kv_len;
    if (causal != 0u) {
        end = min(end, (last + 1u) / gap);
    }
    var begin = 0u;
    if (window != 0u) {
        end = min(end, last + window);
        begin = max(first + 1u, window) - window;
    }
    let after = (end + k_block - 1u) / k_block;
    return vec2<u32>(min(begin / k_block, after), after);
}
