//! Dense matrices on their way through a decomposition.

use faer::Mat;

/// A matrix `[rows, cols]`, row-major, as weights are stored: `y = W x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows · cols` numbers.
    pub data: Vec<f32>,
}

impl Matrix {
    /// Of these numbers; what is missing is 0, what is too many is dropped.
    pub fn new(rows: usize, cols: usize, mut data: Vec<f32>) -> Self {
        data.resize(rows * cols, 0.0);
        Self { rows, cols, data }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// Σ of the squares of a row.
    pub fn row_energy(&self, row: usize) -> f64 {
        self.row(row).iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    /// Σ of the squares of each column.
    pub fn col_energies(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.cols];
        for row in self.data.chunks_exact(self.cols.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v).powi(2));
        }
        sums
    }

    /// Rows `first .. first + count` as a matrix of their own.
    pub fn part(&self, first: usize, count: usize) -> Self {
        Self { rows: count, cols: self.cols, data: self.data[first * self.cols..][..count * self.cols].to_vec() }
    }

    /// Stacks matrices of the same columns.
    pub fn stack(parts: &[&Self]) -> Self {
        Self {
            rows: parts.iter().map(|part| part.rows).sum(),
            cols: parts.first().map_or(0, |part| part.cols),
            data: parts.iter().flat_map(|part| &part.data).copied().collect(),
        }
    }

    /// Keeps these rows, in this order.
    pub fn keep_rows(&mut self, keep: &[usize]) {
        self.data = keep.iter().flat_map(|row| &self.data[row * self.cols..][..self.cols]).copied().collect();
        self.rows = keep.len();
    }

    /// Keeps these columns, in this order.
    pub fn keep_cols(&mut self, keep: &[usize]) {
        let rows = self.data.chunks_exact(self.cols.max(1));
        self.data = rows.flat_map(|row| keep.iter().map(move |col| row[*col])).collect();
        self.cols = keep.len();
    }

    /// Adds columns of zeros up to `cols`.
    pub fn pad_cols(&mut self, cols: usize) {
        let old = self.cols;
        let mut data = vec![0.0; self.rows * cols];
        for (new, row) in data.chunks_exact_mut(cols.max(1)).zip(self.data.chunks_exact(old.max(1))) {
            new[..old].copy_from_slice(row);
        }
        (self.cols, self.data) = (cols, data);
    }

    /// In f64, for linear algebra.
    pub fn wide(&self) -> Mat<f64> {
        Mat::from_fn(self.rows, self.cols, |row, col| self.data[row * self.cols + col].into())
    }

    /// Back to f32.
    pub fn narrow(m: &Mat<f64>) -> Self {
        let (rows, cols) = (m.nrows(), m.ncols());
        let data = (0..rows).flat_map(|row| (0..cols).map(move |col| m[(row, col)] as f32)).collect();
        Self { rows, cols, data }
    }
}

/// Keeps these numbers of a bias, in this order.
pub(super) fn keep(bias: &mut Option<Vec<f32>>, keep: &[usize]) {
    if let Some(bias) = bias {
        *bias = keep.iter().map(|at| bias[*at]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_in_order() {
        let m = Matrix::new(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut rows = m.clone();
        rows.keep_rows(&[2, 0]);
        assert_eq!(rows, Matrix::new(2, 2, vec![5.0, 6.0, 1.0, 2.0]));
        let mut cols = m.clone();
        cols.keep_cols(&[1]);
        assert_eq!(cols, Matrix::new(3, 1, vec![2.0, 4.0, 6.0]));
        cols.pad_cols(2);
        assert_eq!(cols.data, [2.0, 0.0, 4.0, 0.0, 6.0, 0.0]);
        assert_eq!(Matrix::stack(&[&m.part(0, 1), &m.part(1, 2)]), m);
        assert_eq!((m.row_energy(1), m.col_energies()), (25.0, vec![35.0, 56.0]));
        assert_eq!(Matrix::narrow(&m.wide()), m);
    }
}
