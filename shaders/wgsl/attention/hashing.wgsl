// What the kernels of EcoFormer's linear attention share (arXiv 2209.09004): queries and keys are one and the same vector, normalised and
// hashed into BITS signs by a learned kernelised hash; similarity is h_i·h_j + β with β = BITS + 1, so never below 1.

//:option BITS = 16 8 32

struct Params {
    tokens: u32,
    heads: u32,
    cols: u32,      // head_dim/4, at most 64
    anchors: u32,   // of each head
    chunks: u32,    // of tokens: ceil(tokens / CHUNK)
    own: u32,       // numerator with β·v_i, as the released code has it, in place of β·Σ v_j
    pad0: u32,
    pad1: u32,
}

@group(1) @binding(0) var<uniform> p: Params;

const CHUNK: u32 = 256u;                   // tokens that a workgroup adds up
const BETA: f32 = #{BITS + 1}.0;
