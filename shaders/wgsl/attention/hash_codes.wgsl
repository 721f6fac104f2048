// EcoFormer, second step: the hash of every token, packed (arXiv 2209.09004).
//   g_j = exp(−‖x̂ − a_j‖² / 2σ) − μ_j      y = A·g      bit b = y_b > 0  (+1, else −1),   x̂ = x/‖x‖
// A lane a token of a head. Grid: (ceil(tokens / 64), heads). Bound by loads of anchors, which all lanes share.

//:import attention/hashing

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;          // [tokens, heads, cols]
@group(0) @binding(4) var<storage, read> anchors: array<vec4<f32>>;    // [heads, anchors, cols]
@group(0) @binding(5) var<storage, read> means: array<f32>;            // [heads, anchors]  μ
@group(0) @binding(6) var<storage, read> matrix: array<f32>;           // [heads, anchors, BITS]  A, transposed
@group(0) @binding(7) var<storage, read> spread: array<f32>;           // [heads, chunks]
@group(0) @binding(8) var<storage, read_write> codes: array<u32>;      // [heads, tokens]  bit b of the hash in bit b

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.x;
    let head = id.y;
    if (token >= p.tokens) {
        return;
    }
    var total = 0.0;
    for (var i = 0u; i < p.chunks; i++) {
        total += spread[head * p.chunks + i];
    }
    let sigma = max(total / (f32(p.tokens) * f32(p.anchors)), 1e-20);

    let row = (token * p.heads + head) * p.cols;
    var energy = 0.0;
    for (var c = 0u; c < p.cols; c++) {
        energy += dot(x[row + c], x[row + c]);
    }
    let inverse = select(0.0, inverseSqrt(energy), energy > 0.0);
//:for B in 0..BITS / 4
    var y_#{B} = vec4<f32>();
//:end
    for (var j = 0u; j < p.anchors; j++) {
        let anchor = head * p.anchors + j;
        var distance = 0.0;
        for (var c = 0u; c < p.cols; c++) {
            let d = x[row + c] * inverse - anchors[anchor * p.cols + c];
            distance += dot(d, d);
        }
        let g = exp(-distance / (2.0 * sigma)) - means[anchor];
//:for B in 0..BITS / 4
        y_#{B} += g * vec4<f32>(matrix[anchor * #{BITS}u + #{4 * B}u], matrix[anchor * #{BITS}u + #{4 * B + 1}u],
            matrix[anchor * #{BITS}u + #{4 * B + 2}u], matrix[anchor * #{BITS}u + #{4 * B + 3}u]);
//:end
    }
    var code = 0u;
//:for B in 0..BITS / 4
//:for I in 0..4
    code |= select(0u, 1u << #{4 * B + I}u, y_#{B}[#{I}] > 0.0);
//:end
//:end
    codes[head * p.tokens + token] = code;
}
