//! What a matrix's inputs look like on a text: the statistics that calibrated codecs weigh errors by.

use super::CodecError;

/// Whether a codec uses a [`Calibration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Calibrates {
    /// It looks at the weights alone.
    No,
    /// It does better with one.
    Optionally,
    /// It cannot do without.
    Always,
}

/// Statistics of the inputs x of a linear layer `y = W x` over the tokens of a calibration text.
///
/// The second moment is the Hessian of ‖(W − Ŵ) x‖² up to a factor (SpQR, SparseGPT), its diagonal the squared norms of
/// Wanda, its eigenspace the one of EoRA; with the mean it gives the covariance of the outputs, `W (M − μμᵀ) Wᵀ` (LoRD).
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    tokens: u64,
    mean: Vec<f32>,
    second_moment: Vec<f32>,
}

impl Calibration {
    /// Statistics of `tokens` inputs: `mean` is `[cols]`, `second_moment` is `Σ x xᵀ / tokens`, `[cols, cols]`, symmetric.
    ///
    /// # Errors
    /// No tokens, lengths that do not match, numbers that are not finite, a negative square.
    pub fn new(tokens: u64, mean: Vec<f32>, second_moment: Vec<f32>) -> Result<Self, CodecError> {
        let cols = mean.len();
        let wrong = |what: String| CodecError::Calibration { what };
        if tokens == 0 || cols == 0 {
            return Err(wrong(format!("statistics of {tokens} inputs of {cols} columns")));
        }
        if cols.checked_mul(cols) != Some(second_moment.len()) {
            return Err(wrong(format!("{} second moments for {cols} columns", second_moment.len())));
        }
        if !mean.iter().chain(&second_moment).all(|v| v.is_finite()) {
            return Err(wrong("statistics that are not finite: the model overflows on this text".into()));
        }
        if (0..cols).any(|i| second_moment[i * cols + i] < 0.0) {
            return Err(wrong("a negative mean square".into()));
        }
        Ok(Self { tokens, mean, second_moment })
    }

    /// The statistics of inputs whose columns are uncorrelated and alike: E\[x\] = 0, E\[x xᵀ\] = I. What every row of a table costs
    /// that is looked up, not multiplied by; with them calibrated codecs do what uncalibrated ones do.
    pub fn even(cols: usize) -> Self {
        let mut second_moment = vec![0.0; cols * cols];
        second_moment.iter_mut().step_by(cols + 1).for_each(|v| *v = 1.0);
        Self { tokens: 1, mean: vec![0.0; cols], second_moment }
    }

    /// Inputs that were seen.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.mean.len()
    }

    /// E\[x\], `[cols]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// E\[x xᵀ\], `[cols, cols]`, symmetric.
    pub fn second_moment(&self) -> &[f32] {
        &self.second_moment
    }

    /// E\[x²\], `[cols]`: the second moment's diagonal.
    pub fn mean_squares(&self) -> Vec<f32> {
        let cols = self.cols();
        (0..cols).map(|i| self.second_moment[i * cols + i]).collect()
    }

    /// Refuses statistics of other inputs than a matrix with `cols` columns has.
    ///
    /// # Errors
    /// [`CodecError::Calibration`].
    pub fn check(&self, cols: usize) -> Result<(), CodecError> {
        if self.cols() == cols {
            return Ok(());
        }
        let what = format!("statistics of {} columns for a matrix of {cols}", self.cols());
        Err(CodecError::Calibration { what })
    }

    /// E‖E x‖² for an error `E` of the weights (`[rows, cols]`): the trace of `E M Eᵀ`.
    pub fn loss(&self, error: &[f32]) -> f64 {
        let cols = self.cols();
        let mut moved = vec![0.0f64; cols];
        error.chunks_exact(cols).fold(0.0, |total, row| {
            moved.fill(0.0);
            for (e, moments) in row.iter().zip(self.second_moment.chunks_exact(cols)) {
                if *e != 0.0 {
                    moved.iter_mut().zip(moments).for_each(|(m, v)| *m += f64::from(*e) * f64::from(*v));
                }
            }
            total + row.iter().zip(&moved).map(|(e, m)| f64::from(*e) * m).sum::<f64>()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_mean_square_of_the_outputs_error() {
        // Two inputs, (1, 2) and (3, -1): M = [[5, -0.5], [-0.5, 2.5]].
        let c = Calibration::new(2, vec![2.0, 0.5], vec![5.0, -0.5, -0.5, 2.5]).unwrap();
        let error = [0.5, -1.0, 2.0, 0.0];
        let outputs = |x: [f64; 2]| (0.5 * x[0] - x[1]).powi(2) + (2.0 * x[0]).powi(2);
        let expected = (outputs([1.0, 2.0]) + outputs([3.0, -1.0])) / 2.0;
        assert!((c.loss(&error) - expected).abs() < 1e-12);
        assert_eq!(c.mean_squares(), [5.0, 2.5]);
    }

    #[test]
    fn wrong_statistics_are_refused() {
        for (tokens, mean, moment, says) in [
            (0, vec![0.0], vec![1.0], "0 inputs"),
            (1, vec![], vec![], "0 columns"),
            (1, vec![0.0, 0.0], vec![1.0], "1 second moments for 2 columns"),
            (1, vec![f32::NAN], vec![1.0], "not finite"),
            (1, vec![0.0], vec![-1.0], "negative"),
        ] {
            let error = Calibration::new(tokens, mean, moment).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = Calibration::new(1, vec![0.0], vec![1.0]).unwrap().check(4).unwrap_err();
        assert_eq!(error.to_string(), "calibration: statistics of 1 columns for a matrix of 4");
    }
}
