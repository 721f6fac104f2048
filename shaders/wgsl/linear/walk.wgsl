// y = W x for one column and very sparse W on software adapters: a lane walks along the kept weights of two rows and loads the x of
// each. Formula and epilogue: linear/layer; mask: linear/sparse, bits (not blocks); kept weights: the codec.
//
// What `linear/rowwise` saves by loading x once for many rows it pays for every column, kept or not; here a kept weight costs a load of
// x and a pruned one nothing. Kept rows are equally long, so lanes stay together; only where the next bit is found differs.
// Bits that run out before the kept row does leave its last weights unused. The row of a low-rank part's B follows, whose x is t.
//
// Grid: slots / 32 in x, continued in y; a column of x in z. Limited by loads: one for a kept weight, one for a run.

//:option CODEC = codec
//:option NORM = 0 1
//:option TAIL = 0
//:skip !SPARSE || CODED

//:import linear/layer
//:import codec
//:import linear/sparse

//:if NORM
var<workgroup> part_squares: array<f32, 16>;
//:endif

struct Walk {
    bits: u32, // of the run that are still to come
    run: u32,
}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot = ((group.y * p.grid + group.x) * 16u + local) * 2u;
    let token = group.z;
    let x0 = p.x_offset + token * p.x_stride;
    var rms = 1.0;
//:if NORM
    var squares = vec4<f32>();
    for (var k4 = local; k4 < p.runs * 8u; k4 += 16u) {
        let v = x_at(token, k4);
        squares = fma(v, v, squares);
    }
    part_squares[local] = dot(squares, vec4<f32>(1.0));
    workgroupBarrier();
    var square = 0.0;
    for (var i = 0u; i < 16u; i++) {
        square += part_squares[i];
    }
    rms = inverseSqrt(square / f32(p.cols) + p.eps);
//:endif
    var first = 0.0;
    var second = 0.0;
    for (var r = 0u; r < 2u; r++) {
        let row = row_of(slot + r);
        let line = row * p.sparse.x;
        var walk = Walk(sparse_mask[line], 0u);
        var sum = vec2<f32>();
        for (var at = 0u; at < p.sparse.y * 4u; at++) {
            let w = kept_oct(row, at);
//:for J in 0..8
            while (walk.bits == 0u && walk.run + 1u < p.runs) {
                walk.run += 1u;
                walk.bits = sparse_mask[line + walk.run];
            }
            if (walk.bits != 0u) {
                let column = walk.run * 32u + firstTrailingBit(walk.bits);
                walk.bits &= walk.bits - 1u;
                let k = x0 + column;
                var v = x[k / 4u][k & 3u];
//:if NORM
                v *= norm_weight[column / 4u][column & 3u];
//:endif
//:if J < 4
                sum[#{J % 2}] = fma(w.a[#{J % 4}], v, sum[#{J % 2}]);
//:else
                sum[#{J % 2}] = fma(w.b[#{J % 4}], v, sum[#{J % 2}]);
//:endif
            }
//:end
        }
        let start = t_start(row);
        for (var o = 0u; o < p.octets; o++) {
            let f = factor_oct(row, o);
            let low = t_oct(token, start, o);
            sum += vec2<f32>(dot(f.a, low.a), dot(f.b, low.b));
        }
        if (r == 0u) {
            first = (sum.x + sum.y) * rms;
        } else {
            second = (sum.x + sum.y) * rms;
        }
    }
    store_pair(token, slot, first, second);
}
