// v = v·factor + addend, again and again, in CHAINS · 4 independent variables of a lane: what the device multiplies and adds in f32 when
// it loads nothing. A ceiling of `tersor bench`: 8 · CHAINS · 8 · rounds operations a lane (8 steps a round).
//
// Grid: lanes, folded into two dimensions. Bound by arithmetic.

//:option CHAINS = 1 2 4 8
//:option FUSED = 1 0

struct Params {
    rounds: u32,
    lanes: u32,  // lanes of the whole grid
    width: u32,  // lanes of a row of the grid
    factor: f32,
    addend: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<f32>; // [lanes]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.y * p.width + id.x;
    if (lane >= p.lanes) {
        return;
    }
    let factor = vec4<f32>(p.factor);
    let addend = vec4<f32>(p.addend);
    let start = f32(lane % 64u) / 64.0;
//:for C in 0..CHAINS
    var v#{C} = vec4<f32>(start, start + 1.0, start + 2.0, start + 3.0) + #{C}.0;
//:end
    for (var i = 0u; i < p.rounds; i++) {
//:for S in 0..8
//:for C in 0..CHAINS
//:if FUSED
        v#{C} = fma(v#{C}, factor, addend);
//:else
        v#{C} = v#{C} * factor + addend;
//:endif
//:end
//:end
    }
    var sum = vec4<f32>(0.0);
//:for C in 0..CHAINS
    sum += v#{C};
//:end
    y[lane] = (sum.x + sum.y) + (sum.z + sum.w);
}
