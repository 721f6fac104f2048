// Chooses the next token from one row of logits, in one dispatch: repetition penalty (Keskar et al. 2019, arXiv 1909.05858;
// each recent token once: l > 0 ? l/penalty : l·penalty), then temperature, top-k, top-p (Holtzman et al. 2020,
// arXiv 1904.09751) and min-p (arXiv 2407.01082), in the order of Hugging Face transformers; temperature 0 is argmax.
// Beside the token it reports what the model itself thought: log-probability, entropy and the eight best tokens, all before
// penalty and temperature. The logits are left as they were.
//
// Every filter keeps the tokens above a threshold of probability (tokens of equal logit stay or go together), so a token is
// described by key = (max − l)/T in steps of 2⁻²⁶ nats and by mass = e^−(max − l)/T in units of 2⁻²⁴, both integers; beyond 17
// nats it counts as impossible. Thresholds come from a radix select over the keys, with counts and masses summed in integers:
// the same whatever order the lanes run in. The token is drawn by Philox4x32-10 (counter = position, key = seed): the same seed
// and position choose the same token. Cumulative mass runs over tokens in the order (i mod 256, i / 256).
// If no logit is a number, the token is 0xffffffff.
//
// Grid: 1 workgroup. Bound by latency: 2 passes over the row for argmax, up to 12 for everything.

//:option TOP = 8
//:import shared/top
//:import shared/wide

struct Params {
    vocab: u32,
    offset: u32,        // of the row, in floats
    slot: u32,          // which record to write
    recent: u32,        // entries of `recent` that count
    sharpness: f32,     // 1/temperature; 0: argmax
    penalty: f32,       // repetition penalty, 1: none
    top_k: u32,         // 0: all
    top_p: u32,         // fraction of 2³², 0: all
    min_mass: u32,      // min_p · 2²⁴
    position: u32,
    seed_low: u32,
    seed_high: u32,
}

@group(0) @binding(3) var<storage, read_write> logits: array<f32>;       // [offset + vocab]
@group(0) @binding(4) var<storage, read_write> recent: array<vec2<u32>>; // [recent]  (token, scratch), no token twice
// [slot + 1, 24]: token, log-probability, entropy, tokens kept by the filters, probability it was drawn with, 3 unused,
// the eight best tokens (0xffffffff where the vocabulary is smaller), their log-probabilities; floats as their bits
@group(0) @binding(5) var<storage, read_write> record: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = 256u;
const FARTHEST: f32 = 17.0;         // nats below the maximum
const KEY_STEPS: f32 = 67108864.0;  // 2²⁶ a nat
const MASS_ONE: f32 = 16777216.0;   // 2²⁴

// Tokens and their mass.
struct Sum {
    count: u32,
    mass: vec2<u32>,
}

struct Found {
    index: u32,     // the entry in which the goal is reached; 256: it is not
    before: Sum,    // of the entries before it
    here: Sum,      // of the entry; of nothing where the goal is not reached
}

struct Threshold {
    key: u32,       // the highest key kept
    kept: Sum,      // what is kept
}

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> mass_low: array<atomic<u32>, 256>;    // the low 12 bits of the masses, so that no sum overflows
var<workgroup> mass_high: array<atomic<u32>, 256>;   // the rest
var<workgroup> sums: array<Sum, 256>;
var<workgroup> group_sums: array<Sum, 16>;
var<workgroup> found: Found;
var<workgroup> reduced: array<vec2<f32>, 256>;

fn plus(a: Sum, b: Sum) -> Sum {
    return Sum(a.count + b.count, wide_add(a.mass, b.mass));
}

fn reaches(a: Sum, goal: Sum) -> bool {
    return a.count >= goal.count && !wide_less(a.mass, goal.mass);
}

// The first of the 256 `sums` with which the running total reaches both numbers of the goal.
fn find(lane: u32, goal: Sum) -> Found {
    workgroupBarrier();
    if (lane < 16u) {
        var total = sums[lane * 16u];
        for (var i = 1u; i < 16u; i++) {
            total = plus(total, sums[lane * 16u + i]);
        }
        group_sums[lane] = total;
    }
    workgroupBarrier();
    if (lane == 0u) {
        var before = Sum();
        var group = 0u;
        while (group < 16u) {
            let next = plus(before, group_sums[group]);
            if (reaches(next, goal)) {
                break;
            }
            before = next;
            group++;
        }
        var index = group * 16u;
        var here = Sum();
        while (index < 256u) {
            let next = plus(before, sums[index]);
            if (reaches(next, goal)) {
                here = sums[index];
                break;
            }
            before = next;
            index++;
        }
        found = Found(index, before, here);
    }
    return workgroupUniformLoad(&found);
}

fn distance_below(i: u32, highest: f32) -> f32 {
    return (highest - logits[p.offset + i]) * p.sharpness;
}

fn key_of(d: f32) -> u32 {
    return u32(d * KEY_STEPS);
}

// The product is exact, so contracting it with the sum changes nothing: every driver rounds alike.
fn mass_of(d: f32) -> u32 {
    return u32(exp(-d) * MASS_ONE + 0.5);
}

// The lowest key with which the tokens up to it reach the goal; all tokens, if they do not. Eight bits a level, beginning at
// eighths of a nat.
fn threshold(lane: u32, highest: f32, limit: u32, goal: Sum) -> Threshold {
    var prefix = 0u;
    var before = Sum();
    var result = Threshold(0xffffffffu, Sum());
    for (var above = 31u; above > 0u; above = max(above, 8u) - 8u) {
        let shift = max(above, 8u) - 8u;
        atomicStore(&counts[lane], 0u);
        atomicStore(&mass_low[lane], 0u);
        atomicStore(&mass_high[lane], 0u);
        workgroupBarrier();
        for (var i = lane; i < p.vocab; i += WG) {
            let d = distance_below(i, highest);
            if (d < FARTHEST) {
                let key = key_of(d);
                if (key >> above == prefix && key <= limit) {
                    let bin = (key >> shift) - (prefix << (above - shift));
                    let mass = mass_of(d);
                    atomicAdd(&counts[bin], 1u);
                    atomicAdd(&mass_low[bin], mass & 0xfffu);
                    atomicAdd(&mass_high[bin], mass >> 12u);
                }
            }
        }
        workgroupBarrier();
        let high = atomicLoad(&mass_high[lane]);
        sums[lane] = Sum(
            atomicLoad(&counts[lane]),
            wide_add(vec2<u32>(high << 12u, high >> 20u), vec2<u32>(atomicLoad(&mass_low[lane]), 0u)));
        var rest = Sum(max(goal.count, before.count) - before.count, vec2<u32>());
        if (wide_less(before.mass, goal.mass)) {
            rest.mass = wide_sub(goal.mass, before.mass);
        }
        let f = find(lane, rest);
        before = plus(before, f.before);
        result.kept = plus(before, f.here);
        if (f.index == 256u) {
            break;   // only at the first level: all together do not reach the goal
        }
        prefix = (prefix << (above - shift)) | f.index;
        result.key = (prefix << shift) | ((1u << shift) - 1u);
        if (f.here.count == 1u) {
            break;
        }
    }
    return result;
}

// One token, if it passes all filters.
fn kept(i: u32, highest: f32, limit: u32) -> Sum {
    if (i < p.vocab) {
        let d = distance_below(i, highest);
        if (d < FARTHEST && key_of(d) <= limit) {
            let mass = mass_of(d);
            if (mass >= p.min_mass) {
                return Sum(1u, vec2<u32>(mass, 0u));
            }
        }
    }
    return Sum();
}

struct Choice {
    token: u32,
    count: u32,         // tokens it was drawn from
    probability: f32,   // it was drawn with
}

// Draws a token: first the lane in whose share of the row the random mass falls, then the token in that share.
fn draw(lane: u32, highest: f32, limit: u32) -> Choice {
    var mine = Sum();
    for (var i = lane; i < p.vocab; i += WG) {
        mine = plus(mine, kept(i, highest, limit));
    }
    sums[lane] = mine;
    let all = find(lane, Sum(0xffffffffu, vec2<u32>())).before;
    let random = philox(vec4<u32>(p.position, 0u, 0u, 0u), vec2<u32>(p.seed_low, p.seed_high)).x;
    let ball = wide_add(wide_scale(all.mass, random), vec2<u32>(1u, 0u));   // in 1..=all
    let owner = find(lane, Sum(0u, ball));

    // The owner's tokens are owner + 256·j; every lane takes `run` neighbouring ones.
    let run = p.vocab / (WG * WG) + 1u;
    var share = Sum();
    for (var j = lane * run; j < lane * run + run; j++) {
        share = plus(share, kept(owner.index + WG * j, highest, limit));
    }
    sums[lane] = share;
    let left = wide_sub(ball, owner.before.mass);
    let part = find(lane, Sum(0u, left));
    // Every lane finds the token: cheaper than telling the others.
    var token = TOP_NONE;
    var mass = 0u;
    var running = part.before.mass;
    for (var j = part.index * run; j < part.index * run + run; j++) {
        let one = kept(owner.index + WG * j, highest, limit);
        running = wide_add(running, one.mass);
        if (one.count == 1u && !wide_less(running, left)) {
            token = owner.index + WG * j;
            mass = one.mass.x;
            break;
        }
    }
    return Choice(token, all.count, f32(mass) / (f32(all.mass.y) * 4294967296.0 + f32(all.mass.x)));
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let out = p.slot * 24u;

    // What the model thought: the eight best tokens, then the sum of exponentials and the entropy.
    var list = top_empty();
    for (var i = lane; i < p.vocab; i += WG) {
        top_insert(&list, logits[p.offset + i], i);
    }
//:for I in 0..TOP
    let best_#{I} = top_pop(lane, &list);
//:end
    var part = vec2<f32>();
    for (var i = lane; i < p.vocab; i += WG) {
        let d = best_0.value - logits[p.offset + i];
        let e = exp(-d);
        part += vec2<f32>(e, select(0.0, e * d, e > 0.0));
    }
    reduced[lane] = part;
    workgroupBarrier();
    for (var n = WG / 2u; n > 0u; n = n / 2u) {
        if (lane < n) {
            reduced[lane] += reduced[lane + n];
        }
        workgroupBarrier();
    }
    let log_sum = log(reduced[0].x);
    let entropy = log_sum + reduced[0].y / reduced[0].x;

    var highest = best_0.value;
    var choice = Choice(best_0.index, 1u, 1.0);
    if (p.recent > 0u) {
        for (var i = lane; i < p.recent; i += WG) {
            let at = recent[i].x;
            if (at < p.vocab) {
                let l = logits[p.offset + at];
                recent[i].y = bitcast<u32>(l);
                logits[p.offset + at] = select(l * p.penalty, l / p.penalty, l > 0.0);
            }
        }
        storageBarrier();
        var one = top_empty();
        for (var i = lane; i < p.vocab; i += WG) {
            let l = logits[p.offset + i];
            if (top_before(l, i, one.v0, one.i0)) {
                one.v0 = l;
                one.i0 = i;
            }
        }
        let ranked = top_pop(lane, &one);
        highest = ranked.value;
        choice.token = ranked.index;
    }

    if (p.sharpness > 0.0) {
        var limit = 0xffffffffu;
        if (p.top_k > 0u || p.top_p > 0u) {
            // Without top-k the goal is never reached: all tokens, and their mass for top-p.
            let goal = Sum(select(0xffffffffu, p.top_k, p.top_k > 0u), vec2<u32>());
            let first = threshold(lane, highest, limit, goal);
            limit = first.key;
            if (p.top_p > 0u) {
                limit = threshold(lane, highest, limit, Sum(1u, wide_scale(first.kept.mass, p.top_p))).key;
            }
        }
        choice = draw(lane, highest, limit);
    }

    if (p.recent > 0u) {
        for (var i = lane; i < p.recent; i += WG) {
            let at = recent[i].x;
            if (at < p.vocab) {
                logits[p.offset + at] = bitcast<f32>(recent[i].y);
            }
        }
        storageBarrier();
    }
    if (lane == 0u) {
        record[out] = choice.token;
        record[out + 1u] = 0u;
        if (choice.token != TOP_NONE) {
            record[out + 1u] = bitcast<u32>(logits[p.offset + choice.token] - best_0.value - log_sum);
        }
        record[out + 2u] = bitcast<u32>(entropy);
        record[out + 3u] = choice.count;
        record[out + 4u] = bitcast<u32>(choice.probability);
//:for I in 0..TOP
        record[out + #{8 + I}u] = best_#{I}.index;
        record[out + #{16 + I}u] = bitcast<u32>(best_#{I}.value - best_0.value - log_sum);
//:end
    }
}
