// Functions that must agree on every driver: tanh, exp and their kin overflow differently under fast math, so arguments are
// clamped to where the result no longer changes in f32.

// tanh(x); ±1 in f32 beyond ±9.02.
fn safe_tanh(x: f32) -> f32 {
    return tanh(clamp(x, -10.0, 10.0));
}

// cap·tanh(x/cap): Gemma 2's bounded logits.
fn soft_cap(x: f32, cap: f32) -> f32 {
    return cap * safe_tanh(x / cap);
}

// erf(x), Abramowitz & Stegun 7.1.26: |error| ≤ 1.5e-7.
fn erf(x: f32) -> f32 {
    let a = min(abs(x), 10.0);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - poly * exp(-a * a));
}

// x·σ(x)  (SiLU, swish).
fn silu(x: f32) -> f32 {
    return x / (1.0 + exp(-max(x, -80.0)));
}

// ½x(1 + erf(x/√2))  (GELU).
fn gelu_erf(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * 0.70710678));
}

// ½x(1 + tanh(√(2/π)(x + 0.044715x³)))  (GELU, the approximation GPT-2 and Gemma use).
fn gelu_tanh(x: f32) -> f32 {
    return 0.5 * x * (1.0 + safe_tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
}
