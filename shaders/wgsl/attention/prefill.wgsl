// Attention of many queries over the KV cache, for real GPUs: o = softmax(scale·q·Kᵀ + mask)·V per head, with the online
// softmax of FlashAttention (arXiv 2205.14135): no score ever reaches memory.
//
// Query t stands at position pos0 + t. It sees keys j < kv_len with (causal) j ≤ pos0 + t and (window) |pos0 + t − j| < window.
// soft_cap > 0 bounds the scores: s ← cap·tanh(s/cap) (Gemma 2). Heads share keys in groups of heads/kv_heads.
//
// A workgroup of 8×8 lanes takes 8·Q_ROWS queries of one head and walks over tiles of 32 keys. Lane (tx, ty) owns queries
// ty·Q_ROWS + r. It scores keys tx + 8j, and accumulates output columns tx + 8c (a column is four dimensions). Keys and
// queries, then values, pass through workgroup memory in chunks of 32 dimensions, so memory does not grow with head_dim.
// Rows of a chunk are 9 columns apart: 8 would put all lanes of a row on one bank.
// Grid: (ceil(tokens / (8·Q_ROWS)), heads). Bound by workgroup memory: 8 loads of a vec4 for 64 multiply-adds.
//
// With BLOCKS a workgroup's queries are of one query block and it walks over that block's kept key blocks only (attention/kept lists
// them), one after the other as if they lay side by side; what is not kept is neither read nor computed. Tiles of 32 keys may span
// several blocks, so blocks of any size cost what they hold. It also writes lse = ln Σ exp(score) of every row, for attention/merge.
// Grid: (query blocks · ceil(q_block / (8·Q_ROWS)), heads).

//:option HEAD_DIM = 16 20 24 32 40 48 64 80 96 112 120 128 160 192 256
//:option Q_ROWS = 4 2
//:option BLOCKS = 0 1
//:skip HEAD_DIM > 128 && Q_ROWS == 4
//:skip HEAD_DIM <= 128 && Q_ROWS == 2 && !BLOCKS
//:import attention/kv
//:import shared/math

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    pos0: u32,
    kv_len: u32,    // valid keys
    ctx: u32,       // positions the cache has room for
    causal: u32,
    window: u32,    // 0: none
    q_stride: u32,  // columns (four floats) from token to token
    o_stride: u32,
    scale: f32,
    soft_cap: f32,  // 0: none
//:if BLOCKS
    q_block: u32,   // queries of a block, counted from query 0
    k_block: u32,   // keys of a block, counted from key 0
    q_blocks: u32,
    list_stride: u32,
    gap: u32,       // positions that a key stands for: 1, or those of a pooled key (attention/pool_keys)
    head0: u32,     // the first of the heads that are listed
    pad0: u32,
    pad1: u32,
//:endif
}

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;        // [tokens, q_stride], head h at h·HEAD_DIM/4
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;  // [tokens, o_stride], head h at h·HEAD_DIM/4
//:if BLOCKS
@group(0) @binding(7) var<storage, read> kept: array<u32>;           // [listed heads, q_blocks, list_stride]  count, then blocks
@group(0) @binding(8) var<storage, read_write> lse: array<f32>;      // [tokens, heads]; −1e30 where no key is seen
//:import attention/tally
//:endif
@group(1) @binding(0) var<uniform> p: Params;

const COLS: u32 = #{HEAD_DIM / 4}u;        // columns of a head
const CHUNKS: u32 = #{(HEAD_DIM + 31) / 32}u;
const BQ: u32 = #{8 * Q_ROWS}u;            // queries of a workgroup
const BK: u32 = 32u;                       // keys of a tile
alias Rows = vec#{Q_ROWS}<f32>;            // one number for each of a lane's queries

var<workgroup> tile: array<vec4<f32>, #{32 * 9}>;             // [key, 9]  a chunk of keys or values
var<workgroup> q_tile: array<vec4<f32>, #{8 * Q_ROWS * 9}>;   // [query, 9]  the same chunk of the queries
var<workgroup> weights: array<Rows, #{32 * 9}>;               // [key, ty]  exp(score − max)
var<workgroup> partial: array<Rows, #{8 * 9}>;                // [ty, tx]  row maxima, then row sums
//:if BLOCKS
var<workgroup> places: array<u32, BK>;                        // [key]  its position; NOWHERE past the last
const NOWHERE: u32 = 0xffffffffu;
//:endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
//:if BLOCKS
    let tiles = (p.q_block + BQ - 1u) / BQ;
    let block = group.x / tiles;
    let head = p.head0 + group.y;
    let q0 = block * p.q_block + group.x % tiles * BQ;
    let q_end = min((block + 1u) * p.q_block, p.tokens);
    if (q0 >= q_end) {
        return;
    }
//:else
    let head = group.y;
    let q0 = group.x * BQ;
    let q_end = p.tokens;
//:endif
    let kv_base = (head / (p.heads / p.kv_heads)) * p.ctx * COLS;
    let first = p.pos0 + q0;
    let last = p.pos0 + min(q0 + BQ, q_end) - 1u;

    // Keys that any query of this workgroup may see.
    var end = p.kv_len;
    if (p.causal != 0u) {
//:if BLOCKS
        end = min(end, (last + 1u) / p.gap);
//:else
        end = min(end, last + 1u);
//:endif
    }
    var begin = 0u;
    if (p.window != 0u) {
        end = min(end, last + p.window);
        begin = (max(first + 1u, p.window) - p.window) / BK * BK;
    }

//:for C in 0..(HEAD_DIM + 31) / 32
//:for R in 0..Q_ROWS
    var o_#{C}_#{R} = vec4<f32>();
//:end
//:end
    var row_max = Rows(MASKED);
    var row_sum = Rows();   // over this lane's keys only; added up at the end

//:if BLOCKS
    // The kept keys in one line: `total` of them, whole blocks but for the last. Blocks behind this tile's last query drop out.
    let list = (group.y * p.q_blocks + block) * p.list_stride;
    var count = kept[list];
    while (count > 0u && kept[list + count] * p.k_block >= end) {
        count--;
    }
    var total = 0u;
    if (count > 0u) {
        total = (count - 1u) * p.k_block + min(p.k_block, end - kept[list + count] * p.k_block);
    }
    // The block's last tile sees all that the block sees: it counts for all.
    if (lane == 0u && q0 + BQ >= q_end) {
        tally(count);
    }

    for (var k0 = 0u; k0 < total; k0 += BK) {
        if (lane < BK) {
            var place = NOWHERE;
            if (k0 + lane < total) {
                place = kept[list + 1u + (k0 + lane) / p.k_block] * p.k_block + (k0 + lane) % p.k_block;
            }
            places[lane] = place;
        }
        workgroupBarrier();
//:else
    for (var k0 = begin; k0 < end; k0 += BK) {
//:endif
//:for R in 0..Q_ROWS
        var s_#{R} = vec4<f32>();   // scores of keys tx, tx+8, tx+16, tx+24
//:end
        for (var c = 0u; c < CHUNKS; c++) {
            let col = c * 8u + tx;
            for (var i = 0u; i < 4u; i++) {
                let key = ty + 8u * i;
//:if BLOCKS
                let place = places[key];
//:else
                let place = k0 + key;
//:endif
                var v = vec4<f32>();
                if (place < end && col < COLS) {
                    v = quad(k_cache[kv_base + place * COLS + col]);
                }
                tile[key * 9u + tx] = v;
            }
            for (var i = 0u; i < #{Q_ROWS}u; i++) {
                let row = ty + 8u * i;
                var v = vec4<f32>();
                if (q0 + row < q_end && col < COLS) {
                    v = q[(q0 + row) * p.q_stride + head * COLS + col] * p.scale;
                }
                q_tile[row * 9u + tx] = v;
            }
            workgroupBarrier();
            for (var d = 0u; d < 8u; d++) {
//:for J in 0..4
                let k_#{J} = tile[(tx + #{8 * J}u) * 9u + d];
//:end
//:for R in 0..Q_ROWS
                let q_#{R} = q_tile[(ty * #{Q_ROWS}u + #{R}u) * 9u + d];
                s_#{R} += vec4<f32>(dot(q_#{R}, k_0), dot(q_#{R}, k_1), dot(q_#{R}, k_2), dot(q_#{R}, k_3));
//:end
            }
            workgroupBarrier();
        }

        // Mask; row maxima over the eight lanes of a row.
//:if BLOCKS
        let keys = vec4<u32>(places[tx], places[tx + 8u], places[tx + 16u], places[tx + 24u]);
//:else
        let keys = vec4<u32>(k0 + tx) + vec4<u32>(0u, 8u, 16u, 24u);
//:endif
        var tile_max = Rows();
//:for R in 0..Q_ROWS
        {
            let pos = first + ty * #{Q_ROWS}u + #{R}u;
            if (p.soft_cap > 0.0) {
                let t = clamp(s_#{R} / p.soft_cap, vec4<f32>(-10.0), vec4<f32>(10.0));
                s_#{R} = p.soft_cap * tanh(t);
            }
            var seen = keys < vec4<u32>(p.kv_len);
            if (p.causal != 0u) {
//:if BLOCKS
                seen &= keys < vec4<u32>((pos + 1u) / p.gap);
//:else
                seen &= keys <= vec4<u32>(pos);
//:endif
            }
            if (p.window != 0u) {
                seen &= (keys + p.window > vec4<u32>(pos)) & (keys < vec4<u32>(pos + p.window));
            }
            s_#{R} = select(vec4<f32>(MASKED), s_#{R}, seen);
            tile_max[#{R}] = max(max(s_#{R}.x, s_#{R}.y), max(s_#{R}.z, s_#{R}.w));
        }
//:end
        partial[ty * 9u + tx] = tile_max;
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
            tile_max = max(tile_max, partial[ty * 9u + i]);
        }
        let next_max = max(row_max, tile_max);
        let shrink = exp(row_max - next_max);
        row_max = next_max;
        row_sum *= shrink;
//:for R in 0..Q_ROWS
        let w_#{R} = select(vec4<f32>(), exp(s_#{R} - next_max[#{R}]), s_#{R} > vec4<f32>(0.5 * MASKED));
        row_sum[#{R}] += w_#{R}.x + w_#{R}.y + w_#{R}.z + w_#{R}.w;
//:for C in 0..(HEAD_DIM + 31) / 32
        o_#{C}_#{R} *= shrink[#{R}];
//:end
//:end
//:for J in 0..4
//:if Q_ROWS == 4
        weights[(tx + #{8 * J}u) * 9u + ty] = vec4<f32>(w_0[#{J}], w_1[#{J}], w_2[#{J}], w_3[#{J}]);
//:else
        weights[(tx + #{8 * J}u) * 9u + ty] = vec2<f32>(w_0[#{J}], w_1[#{J}]);
//:endif
//:end

        // o += weights · V, chunk by chunk.
//:for C in 0..(HEAD_DIM + 31) / 32
        for (var i = 0u; i < 4u; i++) {
            let key = ty + 8u * i;
//:if BLOCKS
            let place = places[key];
//:else
            let place = k0 + key;
//:endif
            var v = vec4<f32>();
            if (place < end && #{8 * C}u + tx < COLS) {
                v = quad(v_cache[kv_base + place * COLS + #{8 * C}u + tx]);
            }
            tile[key * 9u + tx] = v;
        }
        workgroupBarrier();
        for (var key = 0u; key < BK; key++) {
            let w = weights[key * 9u + ty];
            let v = tile[key * 9u + tx];
//:for R in 0..Q_ROWS
            o_#{C}_#{R} += w[#{R}] * v;
//:end
        }
        workgroupBarrier();
//:end
    }

    partial[ty * 9u + tx] = row_sum;
    workgroupBarrier();
    var sum = Rows();
    for (var i = 0u; i < 8u; i++) {
        sum += partial[ty * 9u + i];
    }
    // A query that sees no key yields 0.
    let inverse = select(Rows(), 1.0 / sum, sum > Rows());
//:for R in 0..Q_ROWS
    if (q0 + ty * #{Q_ROWS}u + #{R}u < q_end) {
        let row = (q0 + ty * #{Q_ROWS}u + #{R}u) * p.o_stride + head * COLS;
//:if BLOCKS
        if (tx == 0u) {
            let at = (q0 + ty * #{Q_ROWS}u + #{R}u) * p.heads + head;
            lse[at] = select(MASKED, row_max[#{R}] + log(sum[#{R}]), sum[#{R}] > 0.0);
        }
//:endif
//:for C in 0..(HEAD_DIM + 31) / 32
        if (#{8 * C}u + tx < COLS) {
            o[row + #{8 * C}u + tx] = o_#{C}_#{R} * inverse[#{R}];
        }
//:end
    }
//:end
}
