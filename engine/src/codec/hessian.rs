//! Second-order encoding: each weight's error is made up for by the weights that are still to come.
//!
//! With inputs of second moment M the loss of a row is `(w − ŵ) M (w − ŵ)ᵀ`. Replacing the weights one column after the other, the
//! best that the remaining ones can do for an error `w_i − ŵ_i` is `w_j −= (w_i − ŵ_i) U_ij / U_ii`, where `M⁻¹ = Uᵀ U`, U upper
//! triangular (Frantar et al. 2022, GPTQ, arXiv 2210.17323; SparseGPT, arXiv 2301.00774; SpQR, arXiv 2306.03078). What replaces a
//! column is the caller's affair ([`Replace`]): a grid, zero, the weight itself.
//!
//! Rows do not know of one another, so matrices are worked on in bands of rows, in parallel. On x86-64 there is a second copy of the
//! inner loop for processors with AVX2; nothing is fused, so that it gives the same bits.

use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par, Side};

use super::{Calibration, CodecError};

/// Columns after which errors are handed to all columns that follow; before that they stay within the block, and in the cache.
const BLOCK: usize = 128;
/// How often a moment that rounding made indefinite is damped ten times as much.
const DAMPINGS: i32 = 4;

/// The order in which columns are replaced. Early ones have the most others to make up for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they are stored.
    Stored,
    /// Those with the largest mean squares first ("act order").
    Energy,
    /// The same for whole groups of so many neighbours and within them, so that groups stay together. The last may be shorter.
    Groups(usize),
}

/// How the errors of a matrix's columns weigh, and make up for one another.
#[derive(Debug, Clone)]
pub(super) struct Hessian {
    /// `order[i]` is the column that is replaced as the `i`-th.
    order: Vec<usize>,
    /// U_ii, in that order.
    diagonal: Vec<f32>,
    /// U, `[cols, cols]`, row-major, in that order; `None` for the unit matrix.
    factor: Option<Vec<f32>>,
}

impl Hessian {
    /// Of inputs like those of `calibration`, whose second moment gets `damping` times its mean square on the diagonal. A column
    /// that never was anything but 0 has just that.
    ///
    /// # Errors
    /// A second moment that cannot be inverted: it is none of any inputs.
    pub(super) fn new(calibration: &Calibration, damping: f64, order: Order) -> Result<Self, CodecError> {
        let cols = calibration.cols();
        let energies = calibration.mean_squares();
        let mean = energies.iter().map(|&v| f64::from(v)).sum::<f64>() / cols as f64;
        if mean == 0.0 {
            return Ok(Self::identity(cols));
        }
        let order = ordered(&energies, order);
        for tenfold in 0..DAMPINGS {
            let damped = damping.max(f64::EPSILON) * 10f64.powi(tenfold);
            if let Some(factor) = upper_factor(calibration.second_moment(), &order, mean, damped) {
                let diagonal = (0..cols).map(|i| factor[i * cols + i]).collect();
                return Ok(Self { order, diagonal, factor: Some(factor) });
            }
        }
        Err(CodecError::Calibration { what: "a second moment that is none: it has negative eigenvalues".into() })
    }

    /// Of inputs nothing is known of: all errors weigh alike, and none makes up for another.
    pub(super) fn identity(cols: usize) -> Self {
        Self { order: (0..cols).collect(), diagonal: vec![1.0; cols], factor: None }
    }

    /// Columns of the matrix.
    pub(super) fn cols(&self) -> usize {
        self.order.len()
    }

    /// Columns in the order in which they are replaced.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// U_ii of the columns in that order: an error e of the `i`-th costs `(e / U_ii)²` when those before it are fixed and those
    /// after it make up for it. `1 / U_ii²` is what SparseGPT and SpQR weigh weights by.
    pub(super) fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    /// Replaces the weights of a band of rows (`[rows, cols]`, as stored), column by column, by what `replace` says.
    ///
    /// It is told of every `group`-th column beforehand (in the order of replacement), when all earlier errors are made up for.
    pub(super) fn replace(&self, band: &mut [f32], group: usize, replace: &mut impl Replace) {
        let cols = self.cols();
        if cols == 0 || band.is_empty() {
            return;
        }
        let rows = band.len() / cols;
        let group = group.clamp(1, cols);
        let block = (BLOCK / group).max(1) * group;
        let mut now = vec![0.0; band.len()];
        for (to, from) in now.chunks_exact_mut(cols).zip(band.chunks_exact(cols)) {
            to.iter_mut().zip(&self.order).for_each(|(to, &col)| *to = from[col]);
        }
        let mut column = vec![0.0; rows];
        let mut errors = vec![0.0; rows * block];
        for start in (0..cols).step_by(block) {
            let end = cols.min(start + block);
            for i in start..end {
                if i.is_multiple_of(group) {
                    replace.group(Group { now: &now, cols, first: i, len: group.min(cols - i) });
                }
                column.iter_mut().zip(now.chunks_exact(cols)).for_each(|(w, row)| *w = row[i]);
                replace.column(i, &mut column);
                for ((row, &replaced), errors) in
                    now.chunks_exact_mut(cols).zip(&column).zip(errors.chunks_exact_mut(block))
                {
                    let error = (row[i] - replaced) / self.diagonal[i];
                    row[i] = replaced;
                    errors[i - start] = error;
                    if let Some(factor) = &self.factor {
                        make_up(&mut row[i + 1..end], &[error], &factor[i * cols + i + 1..][..end - i - 1], cols);
                    }
                }
            }
            if let Some(factor) = &self.factor {
                // A strip of U at a time, which then serves all rows from the cache.
                for strip in (end..cols).step_by(BLOCK) {
                    let width = BLOCK.min(cols - strip);
                    for (row, errors) in now.chunks_exact_mut(cols).zip(errors.chunks_exact(block)) {
                        let rest = &factor[start * cols + strip..];
                        make_up(&mut row[strip..][..width], &errors[..end - start], rest, cols);
                    }
                }
            }
        }
        for (to, from) in band.chunks_exact_mut(cols).zip(now.chunks_exact(cols)) {
            from.iter().zip(&self.order).for_each(|(&from, &col)| to[col] = from);
        }
    }
}

/// Decides what replaces weights. Columns are counted in the order of replacement, [`Hessian::order`].
pub(super) trait Replace {
    /// A group of columns is next: the time to fit its grid or to choose what is pruned.
    fn group(&mut self, group: Group) {
        let _ = group;
    }

    /// Puts in what replaces the weights of column `at`, one a row.
    fn column(&mut self, at: usize, weights: &mut [f32]);
}

/// The weights of a group of columns before they are replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    now: &'a [f32],
    cols: usize,
    first: usize,
    len: usize,
}

impl<'a> Group<'a> {
    /// Its first column.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Its columns; the last group may have fewer.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The weights of each row of the band.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        let Self { now, cols, first, len } = *self;
        now.chunks_exact(cols).map(move |row| &row[first..][..len])
    }
}

/// Columns in the order in which they are to be replaced.
fn ordered(energies: &[f32], order: Order) -> Vec<usize> {
    let falling = |a: f32, b: f32| b.total_cmp(&a);
    let mut columns: Vec<usize> = (0..energies.len()).collect();
    match order {
        Order::Stored => {}
        Order::Energy => columns.sort_by(|&a, &b| falling(energies[a], energies[b])),
        Order::Groups(len) => {
            let mean = |group: &[usize]| group.iter().map(|&c| energies[c]).sum::<f32>() / group.len() as f32;
            let mut groups: Vec<Vec<usize>> = columns.chunks(len.max(1)).map(<[usize]>::to_vec).collect();
            // A short group has to stay the last one, or groups would no longer start at multiples of their length.
            let whole = energies.len() / len.max(1);
            groups[..whole].sort_by(|a, b| falling(mean(a), mean(b)));
            groups.iter_mut().for_each(|group| group.sort_by(|&a, &b| falling(energies[a], energies[b])));
            columns = groups.concat();
        }
    }
    columns
}

/// U of `(M + damping·mean·I)⁻¹ = Uᵀ U` with the columns in `order`; `None` where there is none.
///
/// With J the reversal of the order, `J (Uᵀ U)⁻¹ J = L Lᵀ` and `U = J L⁻¹ J`: one factorisation and one triangular inverse, without
/// the inverse of M in between, which would square its condition.
fn upper_factor(moment: &[f32], order: &[usize], mean: f64, damping: f64) -> Option<Vec<f32>> {
    let cols = order.len();
    let reversed = |i: usize| order[cols - 1 - i];
    // Scaled to a mean square of 1; U is scaled back.
    let scaled = Mat::from_fn(cols, cols, |i, j| {
        let (a, b) = (reversed(i), reversed(j));
        // Of a matrix that is symmetric up to rounding, the same element for both halves.
        let value = f64::from(moment[a.max(b) * cols + a.min(b)]) / mean;
        if i == j { value + damping } else { value }
    });
    let lower = scaled.llt(Side::Lower).ok()?;
    drop(scaled);
    let mut inverse = Mat::<f64>::zeros(cols, cols);
    invert_lower_triangular(inverse.as_mut(), lower.L(), Par::Seq);
    let scale = 1.0 / mean.sqrt();
    let mut factor = vec![0.0; cols * cols];
    for i in 0..cols {
        for j in i..cols {
            factor[i * cols + j] = (inverse[(cols - 1 - i, cols - 1 - j)] * scale) as f32;
        }
    }
    let sound = (0..cols).all(|i| factor[i * cols + i] > 0.0) && factor.iter().all(|v| v.is_finite());
    sound.then_some(factor)
}

/// `weights[j] −= Σ_i errors[i]·factor[i·stride + j]`.
fn make_up(weights: &mut [f32], errors: &[f32], factor: &[f32], stride: usize) {
    #[inline(always)]
    fn here(weights: &mut [f32], errors: &[f32], factor: &[f32], stride: usize) {
        for (&error, factor) in errors.iter().zip(factor.chunks(stride)) {
            if error != 0.0 {
                weights.iter_mut().zip(factor).for_each(|(w, u)| *w -= error * u);
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(weights: &mut [f32], errors: &[f32], factor: &[f32], stride: usize) {
            here(weights, errors, factor, stride);
        }
        // SAFETY: the processor has AVX2.
        return unsafe { wide(weights, errors, factor, stride) };
    }
    here(weights, errors, factor, stride);
}

#[cfg(test)]
mod tests;
