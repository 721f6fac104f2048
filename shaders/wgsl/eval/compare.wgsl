// What a compressed model's logits B say against the original's A, position by position. With log-probabilities
// log pᵢ = lᵢ − lse(l), at target token y:
//   nll = −log p(y),  KL(A‖B) = Σ pᴬ (log pᴬ − log pᴮ),  entropy = −Σ pᴬ log pᴬ, and who is first.
//
// KL without cancellation: with δᵢ = lᵇᵢ − lᵃᵢ and its mean c = Σ pᴬ δ, KL = log Σ pᴬ e^(δ − c) = log(1 + Σ pᴬ g(δᵢ − c)) with
// g(x) = e^x − 1 − x ≥ 0. No term is negative, an error in c counts squared only, and equal logits give exactly 0.
// Where the models differ so much that this could overflow (KL above 0.7), the textbook formula is exact enough.
//
// A workgroup a position; LANES 256, or 8 on software adapters (one SIMD register: barriers are free).
// Grid: (rows). Three passes over both rows. Bound by memory bandwidth and exp.

//:option LANES = 256 8
//:option TOP = 5
//:import shared/top

struct Params {
    rows: u32,
    vocab: u32,
    a_offset: u32,     // of row 0, in floats
    a_stride: u32,     // floats from row to row
    b_offset: u32,
    b_stride: u32,
    target_offset: u32,
    record_offset: u32, // which record row 0 writes
}

@group(0) @binding(3) var<storage, read> a: array<f32>;              // [rows, a_stride]  logits of the original
@group(0) @binding(4) var<storage, read> b: array<f32>;              // [rows, b_stride]  logits of the compressed model
@group(0) @binding(5) var<storage, read> targets: array<u32>;        // [rows]  the token that really follows
// [rows, 12]: nll A, nll B, KL, p A(target), p B(target), argmax A, argmax B, top-5 overlap, entropy A, entropy B, 0, 0;
// floats as their bits
@group(0) @binding(6) var<storage, read_write> record: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = #{LANES}u;
alias Reduced = vec4<f32>;

var<workgroup> reduced: array<Reduced, WG>;

fn add_up(lane: u32, v: Reduced) -> Reduced {
    reduced[lane] = v;
    workgroupBarrier();
    for (var n = WG / 2u; n > 0u; n = n / 2u) {
        if (lane < n) {
            reduced[lane] += reduced[lane + n];
        }
        workgroupBarrier();
    }
    let sum = reduced[0];
    workgroupBarrier();
    return sum;
}

// e^x − 1 − x for |x| ≤ 1: the series where the difference would cancel.
fn excess(x: f32) -> f32 {
    if (abs(x) < 0.35) {
        return x * x * (0.5 + x * (0.16666667 + x * (0.041666667 + x * (0.008333333 + x * 0.0013888889))));
    }
    return exp(x) - 1.0 - x;
}

@compute @workgroup_size(#{LANES})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row_a = p.a_offset + group.x * p.a_stride;
    let row_b = p.b_offset + group.x * p.b_stride;

    // The five best of either.
    var list_a = top_empty();
    var list_b = top_empty();
    for (var i = lane; i < p.vocab; i += WG) {
        top_insert(&list_a, a[row_a + i], i);
        top_insert(&list_b, b[row_b + i], i);
    }
//:for I in 0..TOP
    let a_#{I} = top_pop(lane, &list_a);
    let b_#{I} = top_pop(lane, &list_b);
//:end
    var overlap = 0u;
//:for I in 0..TOP
//:for J in 0..TOP
    overlap += select(0u, 1u, a_#{I}.index == b_#{J}.index && a_#{I}.index != TOP_NONE);
//:end
//:end

    // Σe^a, Σe^b (from the maxima), Σe^a·δ, Σe^a·(max − a).
    var part = Reduced();
    var part_b = 0.0;
    for (var i = lane; i < p.vocab; i += WG) {
        let la = a[row_a + i];
        let lb = b[row_b + i];
        let down_a = a_0.value - la;
        let down_b = b_0.value - lb;
        let ea = exp(-down_a);
        let eb = exp(-down_b);
        // An impossible token (−∞) has no part in a sum; 0·∞ would be no number.
        part += vec4<f32>(ea, eb, select(0.0, ea * (lb - la), ea > 0.0), select(0.0, ea * down_a, ea > 0.0));
        part_b += select(0.0, eb * down_b, eb > 0.0);
    }
    let sums = add_up(lane, part);
    let center = sums.z / sums.x;

    var terms = Reduced(0.0, part_b, 0.0, 0.0);
    for (var i = lane; i < p.vocab; i += WG) {
        let la = a[row_a + i];
        let down_a = a_0.value - la;
        let ea = exp(-down_a);
        let x = b[row_b + i] - la - center;
        if (abs(x) <= 1.0) {
            terms.x += ea * excess(x);
        } else if (ea > 0.0) {
            terms.x += exp(min(x - down_a, 80.0)) - ea * (1.0 + x);
        }
    }
    let more = add_up(lane, terms);

    if (lane == 0u) {
        let y = min(targets[p.target_offset + group.x], p.vocab - 1u);
        let log_a = log(sums.x);
        let log_b = log(sums.y);
        let nll_a = (a_0.value - a[row_a + y]) + log_a;
        let nll_b = (b_0.value - b[row_b + y]) + log_b;
        let e = more.x / sums.x;
        // log(1 + e): the series below 10⁻³, where 1 + e would round e away.
        var kl = select(log(1.0 + e), e * (1.0 - e * (0.5 - e * (0.33333333 - e * 0.25))), e < 1e-3);
        if (!(e < 1.0)) {
            kl = (b_0.value - a_0.value) + (log_b - log_a) - center;
        }
        let out = (p.record_offset + group.x) * 12u;
        record[out] = bitcast<u32>(nll_a);
        record[out + 1u] = bitcast<u32>(nll_b);
        record[out + 2u] = bitcast<u32>(max(kl, 0.0));
        record[out + 3u] = bitcast<u32>(exp(-nll_a));
        record[out + 4u] = bitcast<u32>(exp(-nll_b));
        record[out + 5u] = a_0.index;
        record[out + 6u] = b_0.index;
        record[out + 7u] = overlap;
        record[out + 8u] = bitcast<u32>(log_a + sums.w / sums.x);
        record[out + 9u] = bitcast<u32>(log_b + more.y / sums.y);
        record[out + 10u] = 0u;
        record[out + 11u] = 0u;
    }
}
