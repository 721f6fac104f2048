//! Random orthogonal matrices that are applied fast, to change the basis that a model's weights are written in.
//!
//! In: a dimension n and a seed. Out: an [`Orthogonal`] Q that multiplies f32 matrices from either side, in
//! O(n log n) a row. Where Q goes in front of one matrix and Qᵀ behind the one before it, the model computes what it did,
//! but its weights are mixtures of n old ones and lie on no quantization grid any more.
//!
//! Q is a parallel Kac walk: every layer pairs all coordinates at random and turns each pair by a random angle. One layer
//! spreads an entry over twice as many coordinates, so log₂ n reach all of them, and as many again plus four make rows
//! look like those of a matrix drawn from all orthogonal ones. (Any n will do; the Hadamard matrices of QuaRot, arXiv
//! 2404.00456, want one close to a power of two.) Angles keep 30° away from the axes: with uniform ones, as Kac has them,
//! some pairs are hardly mixed in any layer, and after as many layers single entries of 0.3 are left where 0.04 is usual.
//!
//! The same n and seed give the same bits on every platform: the generator is integer arithmetic, and angles are drawn
//! and applied with +, ·, / and √ only, which IEEE 754 rounds the same everywhere.

use crate::codec::rows::for_each_chunk;

/// Rows (or columns) that are turned together: a vector register or two of f64.
const LANES: usize = 8;
/// Strips of columns worked on at a time by [`Orthogonal::rotate_rows`]: enough for all cores, little memory.
const STRIPS: usize = 64;

/// Coordinate `i` of [`LANES`] vectors.
type Lane = [f64; LANES];

/// A plane rotation of coordinates `a` and `b`.
#[derive(Debug, Clone, Copy)]
struct Turn {
    a: u32,
    b: u32,
    cos: f64,
    sin: f64,
}

/// A random orthogonal matrix Q, `[n, n]`.
#[derive(Debug, Clone)]
pub struct Orthogonal {
    n: usize,
    /// All layers' rotations, in the order in which they act on a row vector.
    turns: Vec<Turn>,
}

impl Orthogonal {
    /// The matrix of dimension `n` that belongs to `seed`. Matrices of different seeds, or different dimensions, have
    /// nothing to do with each other. For n = 1 it is 1.
    pub fn new(n: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, n);
        let layers = if n < 2 { 0 } else { 2 * n.next_power_of_two().ilog2() as usize + 4 };
        let mut order: Vec<u32> = (0..n as u32).collect();
        let mut turns = Vec::with_capacity(layers * (n / 2));
        for _ in 0..layers {
            for i in (1..n).rev() {
                order.swap(i, random.below(i + 1));
            }
            // An odd one out stays where it is in this layer.
            turns.extend(order.chunks_exact(2).map(|pair| {
                let (cos, sin) = random.direction();
                Turn { a: pair[0], b: pair[1], cos, sin }
            }));
        }
        Self { n, turns }
    }

    /// n.
    pub fn dim(&self) -> usize {
        self.n
    }

    /// W ← W·Q: of every row of `w` (`[rows, cols]`, row-major) the columns `first_col..first_col + n` are multiplied by Q
    /// from the right. This is the side of a matrix that its input comes in.
    ///
    /// # Panics
    /// If the columns are not inside the rows, or `w` is not whole rows: both are mistakes of the caller.
    pub fn rotate_columns(&self, w: &mut [f32], cols: usize, first_col: usize) {
        self.check(w, cols, first_col, cols);
        for_each_chunk(w, LANES * cols, |_, rows| {
            let mut strip = vec![[0.0; LANES]; self.n];
            for (lane, row) in rows.chunks_exact(cols).enumerate() {
                for (coordinate, &weight) in strip.iter_mut().zip(&row[first_col..]) {
                    coordinate[lane] = weight.into();
                }
            }
            self.turn(&mut strip);
            for (lane, row) in rows.chunks_exact_mut(cols).enumerate() {
                for (coordinate, weight) in strip.iter().zip(&mut row[first_col..]) {
                    *weight = coordinate[lane] as f32;
                }
            }
        });
    }

    /// W ← Qᵀ·W: rows `first_row..first_row + n` of `w` (`[rows, cols]`, row-major) are multiplied by Qᵀ from the left. This
    /// is the side of a matrix that its output leaves; a bias is a matrix of one column.
    ///
    /// # Panics
    /// If the rows are not inside `w`, or `w` is not whole rows: both are mistakes of the caller.
    pub fn rotate_rows(&self, w: &mut [f32], cols: usize, first_row: usize) {
        let rows = w.len().checked_div(cols).unwrap_or(0);
        self.check(w, cols, first_row, rows);
        let w = &mut w[first_row * cols..][..self.n * cols];
        // A column of Qᵀ·W is the row of Wᵀ·Q, so the same turns do it. Columns are not slices that threads could share
        // out: strips of them are copied, turned, and copied back.
        let mut strips = vec![[0.0; LANES]; STRIPS.min(cols.div_ceil(LANES)) * self.n];
        for begin in (0..cols).step_by(STRIPS * LANES) {
            let source: &[f32] = w;
            let width = |strip: usize| {
                let from = begin + strip * LANES;
                from..cols.min(from + LANES).max(from)
            };
            for_each_chunk(&mut strips, self.n, |number, strip| {
                let columns = width(number);
                for (coordinate, row) in strip.iter_mut().zip(source.chunks_exact(cols)) {
                    for (lane, &weight) in coordinate.iter_mut().zip(row.get(columns.clone()).unwrap_or_default()) {
                        *lane = weight.into();
                    }
                }
                self.turn(strip);
            });
            for (number, strip) in strips.chunks_exact(self.n.max(1)).enumerate() {
                for (coordinate, row) in strip.iter().zip(w.chunks_exact_mut(cols)) {
                    for (lane, weight) in coordinate.iter().zip(row.get_mut(width(number)).unwrap_or_default()) {
                        *weight = *lane as f32;
                    }
                }
            }
        }
    }

    /// Applies Q to the row vectors in the lanes; on x86-64 in registers of 256 bits where the processor has them, with the
    /// same result.
    fn turn(&self, strip: &mut [Lane]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[target_feature(enable = "avx2")]
            fn wide(q: &Orthogonal, strip: &mut [Lane]) {
                q.turn_here(strip);
            }
            // SAFETY: the processor has AVX2.
            return unsafe { wide(self, strip) };
        }
        self.turn_here(strip);
    }

    #[inline(always)]
    fn turn_here(&self, strip: &mut [Lane]) {
        for &Turn { a, b, cos, sin } in &self.turns {
            let (a, b) = (a as usize, b as usize);
            let (x, y) = (strip[a], strip[b]);
            for lane in 0..LANES {
                strip[a][lane] = cos * x[lane] - sin * y[lane];
                strip[b][lane] = sin * x[lane] + cos * y[lane];
            }
        }
    }

    fn check(&self, w: &[f32], cols: usize, first: usize, of: usize) {
        let inside = first.checked_add(self.n).is_some_and(|end| end <= of);
        assert!(inside, "{} coordinates from {first} are not among {of}", self.n);
        assert!(cols > 0 && w.len().is_multiple_of(cols), "{} weights are no rows of {cols}", w.len());
    }
}

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// Scrambles seed and dimension, so that neighbouring ones do not give shifted copies of one sequence.
    fn new(seed: u64, n: usize) -> Self {
        let mut random = Self(seed);
        Self(random.next() ^ (n as u64).rotate_left(32))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; its bias is n / 2⁶⁴.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize // below n, which is a usize
    }

    /// Between −1 and 1, in steps of 2⁻⁵².
    fn coordinate(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Cosine and sine of an angle, uniform among those that are 30° or more from the axes: a point of the disc, put on its
    /// rim. Unlike `cos` and `sin` of the platform's library, this rounds the same everywhere.
    fn direction(&mut self) -> (f64, f64) {
        loop {
            let (x, y) = (self.coordinate(), self.coordinate());
            let square = x * x + y * y;
            if square <= 1.0 && x * x >= 0.25 * square && y * y >= 0.25 * square && square > 1e-12 {
                let length = square.sqrt();
                return (x / length, y / length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q itself.
    fn matrix(n: usize, seed: u64) -> Vec<f32> {
        let mut q = vec![0.0; n * n];
        (0..n).for_each(|i| q[i * n + i] = 1.0);
        Orthogonal::new(n, seed).rotate_columns(&mut q, n, 0);
        q
    }

    fn weights(len: usize) -> Vec<f32> {
        let mut random = Random::new(7, len);
        (0..len).map(|_| random.coordinate() as f32).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn rows_are_orthonormal_and_the_transpose_undoes_it() {
        for n in [1, 2, 3, 7, 64, 96, 577] {
            let mut q = matrix(n, 5);
            let row = |i: usize| &q[i * n..][..n];
            for (i, j) in [(0, 0), (n - 1, n - 1), (0, n - 1), (n / 2, n / 3)] {
                let dot: f64 = row(i).iter().zip(row(j)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-6, "{n}: rows {i} and {j}: {dot}");
            }
            Orthogonal::new(n, 5).rotate_rows(&mut q, n, 0);
            let mut identity = vec![0.0; n * n];
            (0..n).for_each(|i| identity[i * n + i] = 1.0);
            assert!(distance(&q, &identity) < 1e-6, "{n}");
        }
    }

    #[test]
    fn both_sides_agree_with_the_matrix_and_with_each_other() {
        // More columns than are worked on at a time, and no multiple of the lanes.
        let (n, cols, first) = (9, STRIPS * LANES + LANES + 3, 2);
        let (q, w) = (matrix(n, 1), weights((n + 3) * cols));
        let mut rotated = w.clone();
        Orthogonal::new(n, 1).rotate_rows(&mut rotated, cols, first);
        let mut expected = w.clone();
        for row in 0..n {
            for col in 0..cols {
                let sum =
                    (0..n).map(|k| f64::from(q[k * n + row]) * f64::from(w[(first + k) * cols + col])).sum::<f64>();
                expected[(first + row) * cols + col] = sum as f32;
            }
        }
        assert!(distance(&rotated, &expected) < 1e-6);

        let transpose = |w: &[f32], cols: usize| -> Vec<f32> {
            let rows = w.len() / cols;
            (0..w.len()).map(|i| w[i % rows * cols + i / rows]).collect()
        };
        let mut other = transpose(&w, cols);
        Orthogonal::new(n, 1).rotate_columns(&mut other, n + 3, first);
        assert_eq!(transpose(&other, n + 3), rotated, "the same turns, bit for bit");
    }

    #[test]
    fn a_product_through_the_new_basis_is_the_old_one() {
        let (rows, n) = (5, 48);
        let (mut w, mut x) = (weights(rows * n), weights(n));
        let product = |w: &[f32], x: &[f32]| -> Vec<f32> {
            let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>() as f32;
            w.chunks_exact(n).map(dot).collect()
        };
        let before = product(&w, &x);
        let q = Orthogonal::new(n, 3);
        q.rotate_columns(&mut w, n, 0);
        q.rotate_rows(&mut x, 1, 0);
        assert!(distance(&product(&w, &x), &before) < 1e-6);
    }

    /// Every coordinate ends up spread over all, with the moments of a gaussian of variance 1 / n.
    #[test]
    fn a_unit_vector_spreads_over_all_coordinates() {
        for n in [63, 576, 1024] {
            let q = matrix(n, 1);
            let largest = q.iter().map(|w| w.abs()).fold(0.0, f32::max);
            // The largest of n² gaussians is about √(2 ln n²) standard deviations.
            assert!(largest < 1.3 * (4.0 * (n as f32).ln() / n as f32).sqrt(), "{n}: {largest}");
            for row in [0, n / 2, n - 1] {
                let fourth: f64 = q[row * n..][..n].iter().map(|&w| f64::from(w).powi(4)).sum();
                let kurtosis = fourth * n as f64;
                assert!((kurtosis - 3.0).abs() < 4.0 * (96.0 / n as f64).sqrt(), "{n}: kurtosis {kurtosis}");
            }
            let mean = q.iter().map(|&w| f64::from(w)).sum::<f64>() / (n * n) as f64;
            assert!(mean.abs() < 4.0 / (n as f64).powf(1.5), "{n}: mean {mean}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_matrix_everywhere() {
        let mut random = Random(0);
        let known = [random.next(), random.next()]; // of the reference implementation for seed 0
        assert_eq!(known, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        // Printed by tests/golden/rotate.py.
        for (n, seed, bits) in [
            (5, 1, [0x3dda_5be0, 0xbf12_0552, 0xbf35_9f87]),
            (5, 2, [0x3ec8_699b, 0xbf26_cad2, 0x3ebf_50d6]),
            (48, 1, [0x3cc6_385a, 0x3e38_32ee, 0xbe3b_6cee]),
            (576, 1, [0xbbf1_7671, 0xbbe4_ab21, 0xbca5_be5f]),
        ] {
            let q = matrix(n, seed);
            let entries = [q[0], q[n + n - 1], q[(n - 1) * n + n / 2]];
            assert_eq!(entries.map(f32::to_bits), bits, "n = {n}, seed {seed}");
        }
    }
}
