//! Learning a kernelised hash from tokens and which of them belong together (EcoFormer, arXiv 2209.09004; KSH, Liu et al., CVPR 2012).
//!
//! In: tokens of one head, and for each its most and its least similar ones. Out: anchors, means and matrix of a head's
//! [`Hash`](super::Hash). On the host, in f64: it happens once, before anything runs.

use crate::ops::OpsError;

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Bits of a code.
    pub bits: u32,
    /// Anchors, drawn from the tokens.
    pub anchors: u32,
    /// Most similar tokens that are to agree with a token, and as many least similar that are not to.
    pub neighbours: u32,
    /// Start each bit from the leading eigenvector of KᵀSK against KᵀK, not from a random row.
    pub spectral: bool,
    /// Steps of gradient descent for each bit, with momentum 0.9 (Nesterov).
    pub steps: u32,
    /// Their rate.
    pub rate: f64,
    /// Seed of anchors and starting rows.
    pub seed: u64,
}

impl Default for Learning {
    /// As published: 16 bits, 25 anchors, 10 neighbours, random start, 100 steps at 5·10⁻⁴.
    fn default() -> Self {
        Self { bits: 16, anchors: 25, neighbours: 10, spectral: false, steps: 100, rate: 5e-4, seed: 0 }
    }
}

/// What one head learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// `[m, dim]`.
    pub anchors: Vec<f32>,
    /// `[m]`.
    pub means: Vec<f32>,
    /// `[bits, m]`.
    pub matrix: Vec<f32>,
    /// Σ of S₀ with the codes' agreement, before the first bit was changed and after the last. Each bit is learned on what the bits before
    /// it leave over, so this need not rise; what it does to neighbours is measured in docs/methods/attention.md.
    pub agreement: [f64; 2],
}

/// A generator of normal numbers (SplitMix64, Box–Muller).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    fn normal(&mut self) -> f64 {
        let unit = |word: u64| ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (a, b) = (unit(self.word()), unit(self.word()));
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// Learns one head's hash from its tokens `x` (`[n, dim]`, of any length; they are normalised).
///
/// Similar is what dot products of the normalised tokens say, as an attention map would. With K the centred kernel values and S the
/// similarity ±1 of neighbours times the bits, each bit's row a maximises yᵀSy with y = 2/(1 + exp(−K·a)) − 1; the row is taken if that
/// raises yᵀSy of the signs too, and what the signs explain is taken from S: S ← S − y·yᵀ.
///
/// # Errors
/// [`OpsError::Shape`] if there are too few tokens for the anchors or neighbours.
pub fn learn(x: &[f32], dim: usize, learning: &Learning) -> Result<Learned, OpsError> {
    let l = learning;
    let (m, bits, near) = (l.anchors as usize, l.bits as usize, l.neighbours as usize);
    let n = x.len() / dim.max(1);
    if dim == 0 || m == 0 || n < m || n < 2 * near + 1 || bits == 0 {
        let what = format!("{n} tokens of {dim} dimensions for {m} anchors and twice {near} neighbours");
        return Err(OpsError::shape("attention/hashing", what));
    }
    let mut random = Random(l.seed);
    let tokens = normalized(x, dim);
    let anchors = draw(&tokens, dim, m, &mut random);
    let (kernel, means) = kernel_values(&tokens, &anchors, dim);
    let target = neighbours(&tokens, dim, near);
    let mut residual: Vec<f64> = target.iter().map(|s| s * bits as f64).collect();
    let mut rows: Vec<Vec<f64>> = (0..bits).map(|_| (0..m).map(|_| random.normal()).collect()).collect();
    let agreement =
        |rows: &[Vec<f64>]| rows.iter().map(|a| quadratic(&target, &signs(&times(&kernel, a)))).sum::<f64>();
    let before = agreement(&rows);
    for row in &mut rows {
        if l.spectral {
            let leading = leading(&kernel, &residual, m, &mut random);
            if quadratic(&residual, &signs(&times(&kernel, &leading)))
                > quadratic(&residual, &signs(&times(&kernel, row)))
            {
                *row = leading;
            }
        }
        let better = descend(row, &kernel, &residual, l);
        if quadratic(&residual, &signs(&times(&kernel, &better))) > quadratic(&residual, &signs(&times(&kernel, row))) {
            *row = better;
        }
        let y = signs(&times(&kernel, row));
        for (i, row) in residual.chunks_exact_mut(n).enumerate() {
            row.iter_mut().zip(&y).for_each(|(s, other)| *s -= y[i] * other);
        }
    }
    let floats = |x: &[f64]| x.iter().map(|x| *x as f32).collect();
    let agreement = [before, agreement(&rows)];
    Ok(Learned { anchors: floats(&anchors), means: floats(&means), matrix: floats(&rows.concat()), agreement })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn normalized(x: &[f32], dim: usize) -> Vec<f64> {
    let mut tokens: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    for token in tokens.chunks_exact_mut(dim) {
        let length = dot(token, token).sqrt();
        if length > 0.0 {
            token.iter_mut().for_each(|x| *x /= length);
        }
    }
    tokens
}

/// Different tokens, at random.
fn draw(tokens: &[f64], dim: usize, m: usize, random: &mut Random) -> Vec<f64> {
    let mut order: Vec<usize> = (0..tokens.len() / dim).collect();
    for i in 0..m {
        let pick = i + random.below(order.len() - i);
        order.swap(i, pick);
    }
    order[..m].iter().flat_map(|t| &tokens[t * dim..][..dim]).copied().collect()
}

/// K, `[n, m]`, centred, and its means.
fn kernel_values(tokens: &[f64], anchors: &[f64], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let m = anchors.len() / dim;
    let squared = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let mut kernel: Vec<f64> =
        tokens.chunks_exact(dim).flat_map(|t| anchors.chunks_exact(dim).map(move |a| squared(t, a))).collect();
    let sigma = (kernel.iter().sum::<f64>() / kernel.len() as f64).max(f64::MIN_POSITIVE);
    kernel.iter_mut().for_each(|d| *d = (-*d / (2.0 * sigma)).exp());
    let n = (kernel.len() / m) as f64;
    let means: Vec<f64> = (0..m).map(|j| kernel.iter().skip(j).step_by(m).sum::<f64>() / n).collect();
    kernel.chunks_exact_mut(m).for_each(|row| row.iter_mut().zip(&means).for_each(|(k, mean)| *k -= mean));
    (kernel, means)
}

/// S₀, `[n, n]`: 1 for a token's most similar others, −1 for the least similar, 0 between.
fn neighbours(tokens: &[f64], dim: usize, near: usize) -> Vec<f64> {
    let n = tokens.len() / dim;
    let mut target = vec![0.0; n * n];
    for (i, row) in target.chunks_exact_mut(n).enumerate() {
        let token = &tokens[i * dim..][..dim];
        let mut order: Vec<(f64, usize)> =
            (0..n).filter(|j| *j != i).map(|j| (dot(token, &tokens[j * dim..][..dim]), j)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order[..near].iter().for_each(|(_, j)| row[*j] = 1.0);
        order[order.len() - near..].iter().for_each(|(_, j)| row[*j] = -1.0);
    }
    target
}

/// K·a.
fn times(kernel: &[f64], a: &[f64]) -> Vec<f64> {
    kernel.chunks_exact(a.len()).map(|row| dot(row, a)).collect()
}

/// Kᵀ·y.
fn transposed_times(kernel: &[f64], y: &[f64], m: usize) -> Vec<f64> {
    let mut out = vec![0.0; m];
    for (row, y) in kernel.chunks_exact(m).zip(y) {
        out.iter_mut().zip(row).for_each(|(o, k)| *o += k * y);
    }
    out
}

fn signs(y: &[f64]) -> Vec<f64> {
    y.iter().map(|y| if *y > 0.0 { 1.0 } else { -1.0 }).collect()
}

/// S·y.
fn apply(s: &[f64], y: &[f64]) -> Vec<f64> {
    s.chunks_exact(y.len()).map(|row| dot(row, y)).collect()
}

/// yᵀSy.
fn quadratic(s: &[f64], y: &[f64]) -> f64 {
    dot(&apply(s, y), y)
}

/// Gradient descent on −yᵀSy/(n·bits).
fn descend(start: &[f64], kernel: &[f64], s: &[f64], l: &Learning) -> Vec<f64> {
    const MOMENTUM: f64 = 0.9;
    let (m, n) = (start.len(), kernel.len() / start.len());
    let mut a = start.to_vec();
    let mut velocity = vec![0.0; m];
    for _ in 0..l.steps {
        let y: Vec<f64> = times(kernel, &a).iter().map(|z| 2.0 / (1.0 + (-z).exp()) - 1.0).collect();
        // S loses its symmetry with the neighbourhoods; the gradient takes both sides. dy/dz = (1 − y²)/2.
        let (left, right) = (apply(s, &y), transposed_times(s, &y, n));
        let inner: Vec<f64> =
            y.iter().zip(left.iter().zip(&right)).map(|(y, (l, r))| (l + r) * (1.0 - y * y) / 2.0).collect();
        let scale = -1.0 / (n as f64 * f64::from(l.bits));
        let gradient = transposed_times(kernel, &inner, m);
        for ((a, v), g) in a.iter_mut().zip(&mut velocity).zip(gradient) {
            let g = scale * g;
            *v = MOMENTUM * *v + g;
            *a -= l.rate * (g + MOMENTUM * *v);
        }
    }
    a
}

/// The leading generalised eigenvector of KᵀSK against KᵀK, scaled so that K·a has n entries of about one.
fn leading(kernel: &[f64], s: &[f64], m: usize, random: &mut Random) -> Vec<f64> {
    const ROUNDS: usize = 100;
    let n = kernel.len() / m;
    let mut gram = vec![0.0; m * m];
    for row in kernel.chunks_exact(m) {
        for (i, k) in row.iter().enumerate() {
            gram[i * m..][..m].iter_mut().zip(row).for_each(|(g, other)| *g += k * other);
        }
    }
    let ridge = 1e-6 * (0..m).map(|i| gram[i * m + i]).sum::<f64>() / m as f64 + f64::MIN_POSITIVE;
    (0..m).for_each(|i| gram[i * m + i] += ridge);
    // The largest absolute row sum bounds the eigenvalues: shifted by it all are positive, and the leading one is the largest.
    let shift = s.chunks_exact(n).map(|row| row.iter().map(|x| x.abs()).sum::<f64>()).fold(0.0, f64::max);
    let mut a: Vec<f64> = (0..m).map(|_| random.normal()).collect();
    for _ in 0..ROUNDS {
        let y = times(kernel, &a);
        let (left, right) = (apply(s, &y), transposed_times(s, &y, n));
        let moved: Vec<f64> = left.iter().zip(&right).zip(&y).map(|((l, r), y)| (l + r) / 2.0 + shift * y).collect();
        a = solve(&gram, &transposed_times(kernel, &moved, m));
        let size = (dot(&times(kernel, &a), &times(kernel, &a)) / n as f64).sqrt().max(f64::MIN_POSITIVE);
        a.iter_mut().for_each(|a| *a /= size);
    }
    a
}

/// Solves a symmetric positive definite system by Cholesky's factorisation.
fn solve(matrix: &[f64], right: &[f64]) -> Vec<f64> {
    let m = right.len();
    let mut l = vec![0.0; m * m];
    for i in 0..m {
        for j in 0..=i {
            let sum = matrix[i * m + j] - dot(&l[i * m..][..j], &l[j * m..][..j]);
            l[i * m + j] = if i == j { sum.max(f64::MIN_POSITIVE).sqrt() } else { sum / l[j * m + j] };
        }
    }
    let mut x = right.to_vec();
    for i in 0..m {
        x[i] = (x[i] - dot(&l[i * m..][..i], &x[..i])) / l[i * m + i];
    }
    for i in (0..m).rev() {
        let sum: f64 = (i + 1..m).map(|k| l[k * m + i] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * m + i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_solved() {
        let x = solve(&[4.0, 2.0, 2.0, 3.0], &[10.0, 9.0]);
        assert!((x[0] - 1.5).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
    }

    #[test]
    fn learning_is_the_same_every_time() {
        // Four clusters in eight dimensions.
        let mut random = Random(3);
        let centres: Vec<f64> = (0..32).map(|_| random.normal()).collect();
        let tokens: Vec<f32> =
            (0..120).flat_map(|t| (0..8).map(move |d| (t % 4) * 8 + d)).map(|i| centres[i]).map(|c| c as f32).collect();
        let tokens: Vec<f32> = tokens.iter().map(|c| c + 0.3 * random.normal() as f32).collect();
        for spectral in [false, true] {
            let learning = Learning { spectral, rate: 0.05, ..Learning::default() };
            let learned = learn(&tokens, 8, &learning).unwrap();
            let [before, after] = learned.agreement;
            assert!(before.is_finite() && after.is_finite());
            assert_eq!(learned, learn(&tokens, 8, &learning).unwrap());
            assert_eq!([learned.anchors.len(), learned.means.len(), learned.matrix.len()], [25 * 8, 25, 16 * 25]);
        }
        assert!(learn(&tokens[..80], 8, &Learning::default()).unwrap_err().to_string().contains("10 tokens of 8"));
    }
}
