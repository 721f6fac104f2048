//! Twins of `norm/rms` and `norm/layer`.

/// `y = x / √(mean(x²) + eps) · weight` for every row of `weight.len()` numbers, plus the residual where there is one.
pub fn rms(x: &[f32], weight: &[f32], residual: Option<&[f32]>, eps: f32) -> Vec<f64> {
    let cols = weight.len();
    let mut y = Vec::with_capacity(x.len());
    for (r, row) in x.chunks_exact(cols).enumerate() {
        let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / cols as f64;
        let scale = (mean + f64::from(eps)).sqrt().recip();
        for c in 0..cols {
            let normed = f64::from(row[c]) * scale * f64::from(weight[c]);
            y.push(residual.map_or(0.0, |res| f64::from(res[r * cols + c])) + normed);
        }
    }
    y
}

/// `z = x + residual`; `y = (z − mean z) / √(var z + eps) · weight + bias` for every row.
pub fn layer(x: &[f32], weight: &[f32], bias: Option<&[f32]>, residual: Option<&[f32]>, eps: f32) -> Vec<f64> {
    let cols = weight.len();
    let z: Vec<f64> =
        x.iter().enumerate().map(|(i, v)| f64::from(*v) + residual.map_or(0.0, |r| f64::from(r[i]))).collect();
    let mut y = Vec::with_capacity(x.len());
    for row in z.chunks_exact(cols) {
        let mean = row.iter().sum::<f64>() / cols as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
        let scale = (variance + f64::from(eps)).sqrt().recip();
        for c in 0..cols {
            y.push((row[c] - mean) * scale * f64::from(weight[c]) + bias.map_or(0.0, |b| f64::from(b[c])));
        }
    }
    y
}
