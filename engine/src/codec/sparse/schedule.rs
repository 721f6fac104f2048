//! The gradual schedule of "To prune, or not to prune" (Zhu & Gupta 2017, arXiv 1710.01878).

/// The share that is pruned at step t of n: `s_t = s_f + (s_i − s_f)·(1 − t/n)³`, for t = 0 … n; shares are of 0 to 1.
///
/// It prunes fast while there is much to prune, and slowly towards the end. `steps` of 0 gives the last share alone.
pub fn cubic(initial: f64, last: f64, steps: u32) -> Vec<f64> {
    let at = |t: u32| if steps == 0 { 1.0 } else { f64::from(t) / f64::from(steps) };
    (0..=steps).map(|t| last + (initial - last) * (1.0 - at(t)).powi(3)).collect()
}

#[cfg(test)]
mod tests {
    use super::cubic;

    #[test]
    fn the_schedule_has_the_published_values() {
        let expected = [0.0, 0.2439, 0.4392, 0.5913, 0.7056, 0.7875, 0.8424, 0.8757, 0.8928, 0.8991, 0.9];
        let found = cubic(0.0, 0.9, 10);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        }
        assert_eq!(cubic(0.1, 0.5, 0), [0.5]);
        assert_eq!(cubic(0.25, 0.5, 1), [0.25, 0.5]);
    }
}
