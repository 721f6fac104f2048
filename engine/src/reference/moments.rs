//! Twin of `calibrate/moments`.

/// Σ x and Σ x xᵀ (`[cols, cols]`) over inputs `[tokens, cols]`, in f64.
pub fn moments(x: &[f32], cols: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut first, mut second) = (vec![0.0; cols], vec![0.0; cols * cols]);
    for x in x.chunks_exact(cols) {
        for i in 0..cols {
            first[i] += f64::from(x[i]);
            for j in 0..cols {
                second[i * cols + j] += f64::from(x[i]) * f64::from(x[j]);
            }
        }
    }
    (first, second)
}
