//! The best product of rank r: B A ≈ E by what errors cost, tr((E − B A) C (E − B A)ᵀ).
//!
//! With U the r first eigenvectors of E C Eᵀ, B = U and A = Uᵀ E are best, and cost the sum of the other eigenvalues (Eckart and
//! Young in the space of E C^½). With C the second moment of the inputs these are EoRA's factors: its U are the left singular vectors
//! of E Q √Λ, C = Q Λ Qᵀ, and its A = Σ Vᵀ Λ^−½ Qᵀ is Uᵀ E, which needs no inverse and minds no eigenvalue of 0. With C the
//! inputs' covariance, E C Eᵀ is that of the outputs E x, and these are LoRD's. With C = 1 it is the truncated SVD of E.
//!
//! For small matrices, U is found on the smaller side, by an eigendecomposition of E C Eᵀ, or of Rᵀ Eᵀ E R with R Rᵀ = C. For large
//! ones, by subspace iteration with more columns than are asked for (Halko, Martinsson and Tropp 2011, arXiv 0909.4061).

use faer::{Mat, MatRef, Side};

use super::super::{Calibration, CodecError};

/// Up to this size of a matrix's smaller side eigenvectors are found exactly.
const EXACT: usize = 1024;
/// Columns of a subspace iteration beyond those that are asked for, and its steps.
const OVERSAMPLING: usize = 16;
const STEPS: usize = 10;

/// What the columns of an error cost.
#[derive(Clone, Copy)]
pub(super) enum Weighing<'a> {
    /// All the same: C = 1.
    Even,
    /// C = E\[x xᵀ\].
    Moment(&'a Calibration),
    /// C = E\[x xᵀ\] − E\[x\] E\[x\]ᵀ.
    Covariance(&'a Calibration),
}

/// B `[rows, rank]` and A `[rank, cols]`, row-major; each column of B is as long as its row of A.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) b: Vec<f32>,
    pub(super) a: Vec<f32>,
}

impl Weighing<'_> {
    /// C; `None` for 1.
    fn matrix(self) -> Option<Mat<f64>> {
        let (calibration, centred) = match self {
            Self::Even => return None,
            Self::Moment(calibration) => (calibration, 0.0),
            Self::Covariance(calibration) => (calibration, 1.0),
        };
        let (n, mean, moment) = (calibration.cols(), calibration.mean(), calibration.second_moment());
        let product = |i: usize, j: usize| f64::from(mean[i]) * f64::from(mean[j]);
        Some(Mat::from_fn(n, n, |i, j| f64::from(moment[i * n + j]) - centred * product(i, j)))
    }
}

/// Factors `error` (`[rows, cols]`); `rank` is at most the smaller of both.
pub(super) fn factor(
    error: &[f32],
    rows: usize,
    cols: usize,
    rank: usize,
    weighing: Weighing,
) -> Result<Product, CodecError> {
    let e = Mat::from_fn(rows, cols, |i, j| f64::from(error[i * cols + j]));
    let c = weighing.matrix();
    let u = if rows.min(cols) <= EXACT {
        if rows <= cols { by_rows(&e, c.as_ref(), rank)? } else { by_columns(&e, c.as_ref(), rank)? }
    } else {
        by_iteration(&e, c.as_ref(), rank)?
    };
    let a = u.transpose() * &e;
    let mut product = Product { b: vec![0.0; rows * rank], a: vec![0.0; rank * cols] };
    for k in 0..rank {
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let (of_u, of_a) = (length(&mut u.col(k).iter().copied()), length(&mut a.row(k).iter().copied()));
        // Both halves equally long: small formats then lose as little of either.
        let scale = if of_u > 0.0 && of_a > 0.0 { (of_a / of_u).sqrt() } else { 1.0 };
        (0..rows).for_each(|i| product.b[i * rank + k] = (u[(i, k)] * scale) as f32);
        (0..cols).for_each(|j| product.a[k * cols + j] = (a[(k, j)] / scale) as f32);
    }
    Ok(product)
}

/// E C, or E.
fn times(e: &Mat<f64>, c: Option<&Mat<f64>>) -> Mat<f64> {
    c.map_or_else(|| e.clone(), |c| e * c)
}

/// The largest eigenvalues of a symmetric matrix and their vectors, largest first.
fn largest(matrix: MatRef<f64>, count: usize) -> Result<(Mat<f64>, Vec<f64>), CodecError> {
    let n = matrix.nrows();
    let found = matrix.self_adjoint_eigen(Side::Lower);
    let found = found.map_err(|_| CodecError::Calibration { what: "eigenvalues that cannot be found".into() })?;
    // They come smallest first.
    let (vectors, values) = (found.U(), found.S().column_vector());
    let at = |k: usize| n - 1 - k;
    Ok((Mat::from_fn(n, count, |i, k| vectors[(i, at(k))]), (0..count).map(|k| values[at(k)]).collect()))
}

/// U from E C Eᵀ.
fn by_rows(e: &Mat<f64>, c: Option<&Mat<f64>>, rank: usize) -> Result<Mat<f64>, CodecError> {
    let covariance = times(e, c) * e.transpose();
    Ok(largest(covariance.as_ref(), rank)?.0)
}

/// U = E R V / σ from Rᵀ Eᵀ E R = V σ² Vᵀ; columns of zeros where σ is none.
fn by_columns(e: &Mat<f64>, c: Option<&Mat<f64>>, rank: usize) -> Result<Mat<f64>, CodecError> {
    let moved = match c {
        None => e.clone(),
        Some(c) => {
            let n = c.nrows();
            let (vectors, values) = largest(c.as_ref(), n)?;
            // What rounding made negative is 0.
            e * Mat::from_fn(n, n, |i, k| vectors[(i, k)] * values[k].max(0.0).sqrt())
        }
    };
    let gram = moved.transpose() * &moved;
    let (vectors, values) = largest(gram.as_ref(), rank)?;
    let least = values[0].max(0.0) * 1e-14;
    let mut u = &moved * &vectors;
    for k in 0..rank {
        let inverse = if values[k] > least { 1.0 / values[k].sqrt() } else { 0.0 };
        u.col_mut(k).iter_mut().for_each(|v| *v *= inverse);
    }
    Ok(u)
}

/// U by subspace iteration with the operator E C Eᵀ, which is never formed.
fn by_iteration(e: &Mat<f64>, c: Option<&Mat<f64>>, rank: usize) -> Result<Mat<f64>, CodecError> {
    let rows = e.nrows();
    let columns = (rank + OVERSAMPLING).min(rows);
    let apply = |x: &Mat<f64>| {
        let inner = e.transpose() * x;
        e * c.map_or_else(|| inner.clone(), |c| c * &inner)
    };
    // Deterministic numbers without a pattern (xorshift64*).
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut basis = Mat::from_fn(rows, columns, |_, _| random());
    for _ in 0..STEPS {
        basis = apply(&basis).qr().compute_thin_Q();
    }
    let projected = basis.transpose() * apply(&basis);
    let (vectors, _) = largest(projected.as_ref(), rank)?;
    Ok(&basis * &vectors)
}

/// All eigenvalues of E C Eᵀ, largest first: what is left by each rank is the sum of the others.
#[cfg(test)]
pub(super) fn eigenvalues(error: &[f32], rows: usize, cols: usize, weighing: Weighing) -> Vec<f64> {
    let e = Mat::from_fn(rows, cols, |i, j| f64::from(error[i * cols + j]));
    let covariance = times(&e, weighing.matrix().as_ref()) * e.transpose();
    largest(covariance.as_ref(), rows).map(|found| found.1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    /// Correlated inputs of `cols` columns with a mean.
    fn calibration(cols: usize, tokens: usize) -> Calibration {
        let mix = numbers(cols * cols, 3);
        let mut mean = vec![0.0f64; cols];
        let mut moment = vec![0.0f64; cols * cols];
        for t in 0..tokens {
            let z = numbers(cols, 100 + t as u64);
            let x: Vec<f64> = (0..cols)
                .map(|i| {
                    0.2 + (0..cols)
                        .map(|j| f64::from(mix[i * cols + j]) * f64::from(z[j]) / (1 + j) as f64)
                        .sum::<f64>()
                })
                .collect();
            for i in 0..cols {
                mean[i] += x[i] / tokens as f64;
                (0..cols).for_each(|j| moment[i * cols + j] += x[i] * x[j] / tokens as f64);
            }
        }
        let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
        Calibration::new(tokens as u64, single(mean), single(moment)).unwrap()
    }

    fn rest(error: &[f32], rows: usize, cols: usize, found: &Product) -> Vec<f32> {
        let rank = found.b.len() / rows;
        (0..rows * cols)
            .map(|at| {
                let (i, j) = (at / cols, at % cols);
                let product: f64 =
                    (0..rank).map(|k| f64::from(found.b[i * rank + k]) * f64::from(found.a[k * cols + j])).sum();
                (f64::from(error[at]) - product) as f32
            })
            .collect()
    }

    /// All three ways find the same subspace, whichever side is smaller, and with fewer tokens than columns.
    #[test]
    fn the_ways_agree() {
        for (rows, cols, tokens) in [(12, 30, 100), (30, 12, 100), (20, 20, 7)] {
            let error = numbers(rows * cols, 9);
            let calibration = calibration(cols, tokens);
            let e = Mat::from_fn(rows, cols, |i, j| f64::from(error[i * cols + j]));
            for weighing in [Weighing::Even, Weighing::Moment(&calibration), Weighing::Covariance(&calibration)] {
                let c = weighing.matrix();
                let rank = 5;
                let found = [by_rows, by_columns, by_iteration].map(|way| way(&e, c.as_ref(), rank).unwrap());
                let cost = |u: &Mat<f64>| {
                    let left = &e - u * (u.transpose() * &e);
                    let product = times(&left, c.as_ref()) * left.transpose();
                    (0..rows).map(|i| product[(i, i)]).sum::<f64>()
                };
                let costs = found.each_ref().map(cost);
                let all = times(&e, c.as_ref()) * e.transpose();
                let values = largest(all.as_ref(), rows).unwrap().1;
                let expected: f64 = values[rank..].iter().map(|v| v.max(0.0)).sum();
                let size: f64 = values.iter().sum();
                for (way, cost) in costs.iter().enumerate() {
                    // In f32, C has eigenvalues below 0 where it should have none above.
                    assert!((cost - expected).abs() < 1e-5 * size, "{rows}x{cols}, way {way}: {cost} for {expected}");
                }
            }
        }
    }

    /// E(r) = Σ_{i>r} σ_i², and no other product of this rank costs less: not the plain one.
    #[test]
    fn weighing_pays() {
        let (rows, cols, rank) = (24, 40, 6);
        let error = numbers(rows * cols, 5);
        let calibration = calibration(cols, 200);
        let cost = |weighing| {
            let found = factor(&error, rows, cols, rank, weighing).unwrap();
            calibration.loss(&rest(&error, rows, cols, &found))
        };
        let (weighed, plain) = (cost(Weighing::Moment(&calibration)), cost(Weighing::Even));
        assert!(weighed < 0.9 * plain, "{weighed} and {plain}");
        let even = Calibration::even(cols);
        let [with_even, without] = [Weighing::Moment(&even), Weighing::Even].map(|weighing| {
            let found = factor(&error, rows, cols, rank, weighing).unwrap();
            rest(&error, rows, cols, &found)
        });
        with_even.iter().zip(&without).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "C = 1 is the plain SVD"));
    }

    #[test]
    fn nothing_is_lost_at_full_rank_and_nothing_breaks_without_an_error() {
        let (rows, cols) = (10, 7);
        let error = numbers(rows * cols, 1);
        let all = factor(&error, rows, cols, cols, Weighing::Even).unwrap();
        assert!(rest(&error, rows, cols, &all).iter().all(|v| v.abs() < 1e-5));
        let none = factor(&vec![0.0; rows * cols], rows, cols, 3, Weighing::Moment(&calibration(cols, 20))).unwrap();
        assert!(none.a.iter().all(|v| *v == 0.0) && none.b.iter().all(|v| v.is_finite()));
    }
}
