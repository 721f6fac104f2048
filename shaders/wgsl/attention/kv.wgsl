// The KV cache as attention reads it: four dimensions at a time. k_cache, v_cache: [kv_heads, ctx, head_dim/4].

//:option KV_F16 = 0 1

//:if KV_F16
alias Quad = vec2<u32>;   // four f16, the lowest dimension in the lowest half
fn quad(v: Quad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
//:else
alias Quad = vec4<f32>;
fn quad(v: Quad) -> vec4<f32> {
    return v;
}
//:endif

@group(0) @binding(4) var<storage, read> k_cache: array<Quad>;
@group(0) @binding(5) var<storage, read> v_cache: array<Quad>;

// Stands for −∞ where nothing may be attended: finite, because drivers may assume that infinities do not occur.
const MASKED: f32 = -1e30;
