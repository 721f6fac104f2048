// Adaptive sparse attention, second step: which key blocks each query block keeps, from sampled scores (Video-BLADE, arXiv 2508.10774).
//   M_i = max_J t[i, J]      P_J = max_i exp(t[i, J] − M_i)      over the n key blocks that the query block sees
//   k = number of blocks, by falling P, whose running sum stays below mass·ΣP, clamped to [max(1, ⌊n·min⌋), max(1, ⌊n·max⌋)]
// The first k blocks are kept; the block that reaches the mass is not, unless the clamp adds it. Sinks and the blocks around the
// queries rank before all others and count for k. `tail` then adds the last block rows and columns.
//
// Ranks by counting: every lane compares its blocks with all others, so ties fall by index and nothing is sorted. Sums run in the order
// of the blocks: the same bits on every device, but for exp.
// A workgroup of 64 lanes a row. Grid: (q_blocks, heads). Bound by workgroup memory: n² comparisons, n ≤ 1024.

//:import attention/asa
//:import attention/visible

@group(0) @binding(3) var<storage, read> t: array<f32>;                // [heads at hand, q_blocks, samples, k_blocks]
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;       // [heads, q_blocks, words]  bit j % 32 of word j / 32

const WG: u32 = 64u;
const MASKED: f32 = -1e30;
const MOST: u32 = 1024u;         // blocks of a row
alias Reduced = f32;

var<workgroup> wanted: array<f32, MOST>;    // [J]  P, and what forces a block on top of it
var<workgroup> ranks: array<u32, MOST>;     // [J]
var<workgroup> tops: array<f32, 32>;        // [i]  M
var<workgroup> parts: array<f32, WG>;
var<workgroup> counts: array<u32, WG>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.x;
    let head = p.head0 + group.y;
    let t0 = block * p.q_block;
    let first = p.pos0 + t0;
    let last = p.pos0 + min(t0 + p.q_block, p.tokens) - 1u;
    let seen = visible_blocks(first, last, p.kv_len, p.causal, p.window, 1u, p.k_block);
    let n = seen.y - seen.x;
    let scores = (group.y * p.q_blocks + block) * p.samples * p.k_blocks;

    // M: 64/samples lanes share a sampled query.
    let sample = lane % p.samples;
    let sharing = WG / p.samples;
    var top = MASKED;
    for (var j = seen.x + lane / p.samples; j < seen.y; j += sharing) {
        top = max(top, t[scores + sample * p.k_blocks + j]);
    }
    parts[lane] = top;
    workgroupBarrier();
    if (lane < p.samples) {
        for (var part = 1u; part < sharing; part++) {
            top = max(top, parts[lane + part * p.samples]);
        }
        tops[lane] = top;
    }
    workgroupBarrier();

    // P. A sampled query that sees no sampled key says nothing.
    let near = max(first / p.k_block + 1u, p.near) - p.near;
    var forced = 0u;
    for (var j = lane; j < n; j += WG) {
        var most = MASKED;
        for (var i = 0u; i < p.samples; i++) {
            if (tops[i] > 0.5 * MASKED) {
                most = max(most, t[scores + i * p.k_blocks + seen.x + j] - tops[i]);
            }
        }
        var want = select(0.0, exp(most), most > 0.5 * MASKED);
        if (seen.x + j < p.sinks || (p.causal != 0u && p.near > 0u && seen.x + j >= near)) {
            want += 2.0;   // before every P ≤ 1, and still in the order of P
            forced++;
        }
        wanted[j] = want;
    }
    counts[lane] = forced;
    workgroupBarrier();
    var most_wanted = 0u;
    for (var i = 0u; i < WG; i++) {
        most_wanted += counts[i];
    }
    var total = 0.0;
    for (var j = 0u; j < n; j++) {
        total += share(wanted[j]);
    }
    workgroupBarrier();

    // Ranks, and how many blocks stay below the mass.
    var below = 0u;
    for (var j = lane; j < n; j += WG) {
        let want = wanted[j];
        var rank = 0u;
        var sum = share(want);
        for (var other = 0u; other < n; other++) {
            let w = wanted[other];
            if (w > want || (w == want && other < j)) {
                rank++;
                sum += share(w);
            }
        }
        ranks[j] = rank;
        below += select(0u, 1u, sum < p.mass * total);
    }
    counts[lane] = below;
    workgroupBarrier();
    var k = 0u;
    for (var i = 0u; i < WG; i++) {
        k += counts[i];
    }
    let least = max(1u, u32(f32(n) * p.min_ratio));
    let budget = max(1u, u32(f32(n) * p.max_ratio));
    k = max(min(max(k, least), budget), most_wanted);

    // A lane a word of the mask.
    for (var w = lane; w < p.words; w += WG) {
        var bits = 0u;
        for (var b = 0u; b < 32u; b++) {
            let j = w * 32u + b;
            if (j >= seen.x && j < seen.y) {
                let whole = block + p.tail >= p.q_blocks || j + p.tail >= p.k_blocks;
                bits |= select(0u, 1u << b, ranks[j - seen.x] < k || whole);
            }
        }
        mask[(head * p.q_blocks + block) * p.words + w] = bits;
    }
}

// P of a block that may be forced.
fn share(want: f32) -> f32 {
    return select(want, want - 2.0, want >= 2.0);
}
