//! Least-squares fits of quantization grids, shared by the encoders that search.
//!
//! All minimise the plain squared error Σ (x − y)², which is proportional to the expected error of y = W x for inputs
//! without a preferred direction. Each alternates between rounding to the grid and the closed form of the best grid for
//! the levels found, from several starts, and keeps the best. They are where encoding spends its time, so on x86-64 there is
//! a second copy of each for processors with AVX2. It gives the same bits: the order of all sums is fixed, and nothing is fused.

/// Rounds of alternation after the best start, unless it settles before.
const REFINEMENTS: usize = 8;

/// Nearest integer, ties to even, for |v| < 2^22. Adding 1.5·2^23 leaves no fraction bits; unlike `round` it vectorises.
#[inline(always)]
pub(super) fn nearest(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// The integer of `lo..=hi` nearest to `v`; `lo` for NaN. (Plain comparisons: `max` and `min` take twice the instructions.)
#[inline(always)]
pub(super) fn level(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v > lo { v } else { lo };
    nearest(if v < hi { v } else { hi })
}

/// Sums run in this many lanes, since the order of a float sum is not the compiler's to change. Groups are multiples of it.
pub(super) const LANES: usize = 8;

/// Σ over the weights of what `terms` makes of each.
#[inline(always)]
pub(super) fn sum<const TERMS: usize>(x: &[f32], terms: impl Fn(f32) -> [f32; TERMS]) -> [f32; TERMS] {
    let mut sums = [[0.0f32; LANES]; TERMS];
    for x in x.as_chunks::<LANES>().0 {
        for (lane, &x) in x.iter().enumerate() {
            for (sum, term) in sums.iter_mut().zip(terms(x)) {
                sum[lane] += term;
            }
        }
    }
    sums.map(|lanes| lanes.iter().sum())
}

/// Largest magnitude of `x`, with its sign.
#[inline(always)]
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |best, &x| if x.abs() > best.abs() { x } else { best })
}

/// The step `s` of the grid `s·l`, l integer in `lo..=hi`, that fits `x`. It may be negative, and is 0 for zeros.
///
/// `starts` are the (fractional) levels at which the extreme weight is tried.
pub(super) fn symmetric(x: &[f32], lo: f32, hi: f32, starts: impl Iterator<Item = f32>) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(x: &[f32], lo: f32, hi: f32, starts: impl Iterator<Item = f32>) -> f32 {
            symmetric_here(x, lo, hi, starts)
        }
        // SAFETY: the processor has AVX2.
        return unsafe { wide(x, lo, hi, starts) };
    }
    symmetric_here(x, lo, hi, starts)
}

#[inline(always)]
fn symmetric_here(x: &[f32], lo: f32, hi: f32, starts: impl Iterator<Item = f32>) -> f32 {
    let extreme = extreme(x);
    if !(1.0 / extreme).is_finite() {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    for start in starts {
        let found = symmetric_step(x, start / extreme, lo, hi);
        if found.0 > best.0 {
            best = found;
        }
    }
    for _ in 0..REFINEMENTS {
        let found = symmetric_step(x, 1.0 / best.1, lo, hi);
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// The best step for the levels that `x * inverse` rounds to, after what it gains: given levels, that step is Σ xl / Σ l², and
/// the error Σ x² less (Σ xl)² / Σ l².
#[inline(always)]
fn symmetric_step(x: &[f32], inverse: f32, lo: f32, hi: f32) -> (f32, f32) {
    let [xl, ll] = sum(x, |x| {
        let l = level(x * inverse, lo, hi);
        [x * l, l * l]
    });
    if ll > 0.0 { (xl * (xl / ll), xl / ll) } else { (0.0, 0.0) }
}

/// A grid `s·l + m`, l integer from 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Affine {
    pub(super) s: f32,
    pub(super) m: f32,
}

/// The grid with levels `0..=levels` that fits `x`; s ≥ 0, and m ≤ 0 if `below_zero`.
///
/// `starts` are pairs: the (fractional) levels over which the range of `x` is tried to spread, and the share of those beyond
/// `levels` that the grid leaves out at the low end (the rest at the high end).
pub(super) fn affine(x: &[f32], levels: f32, below_zero: bool, starts: impl Iterator<Item = (f32, f32)>) -> Affine {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(x: &[f32], levels: f32, below_zero: bool, starts: impl Iterator<Item = (f32, f32)>) -> Affine {
            affine_here(x, levels, below_zero, starts)
        }
        // SAFETY: the processor has AVX2.
        return unsafe { wide(x, levels, below_zero, starts) };
    }
    affine_here(x, levels, below_zero, starts)
}

#[inline(always)]
fn affine_here(x: &[f32], levels: f32, below_zero: bool, starts: impl Iterator<Item = (f32, f32)>) -> Affine {
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    for &x in x {
        (min, max) = (min.min(x), max.max(x));
    }
    if below_zero {
        min = min.min(0.0);
    }
    let range = max - min;
    if !(levels / range).is_finite() {
        return Affine { s: 0.0, m: min };
    }
    // Around the minimum, so that weights far from zero do not drown the differences that count.
    let [sx, xx] = sum(x, |x| [x - min, (x - min) * (x - min)]);
    let data = AffineData { x, min, sx, xx, levels, below_zero };
    let mut best = (f32::INFINITY, Affine { s: range / levels, m: min });
    for (spread, low) in starts {
        let step = range / spread;
        let found = data.fit(1.0 / step, min + (spread - levels) * low * step);
        if found.0 < best.0 {
            best = found;
        }
    }
    for _ in 0..REFINEMENTS {
        let Affine { s, m } = best.1;
        if s <= 0.0 {
            break;
        }
        let found = data.fit(1.0 / s, m);
        if found.0 >= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// Weights that a grid is fitted to: their sum and sum of squares, counted from their minimum.
struct AffineData<'a> {
    x: &'a [f32],
    min: f32,
    sx: f32,
    xx: f32,
    levels: f32,
    below_zero: bool,
}

impl AffineData<'_> {
    /// The best grid for the levels that `(x - offset) * inverse` rounds to, after its squared error.
    #[inline(always)]
    fn fit(&self, inverse: f32, offset: f32) -> (f32, Affine) {
        let Self { x, min, sx, xx, levels, below_zero } = *self;
        let n = x.len() as f32;
        let [sl, ll, xl] = sum(x, |x| {
            let l = level((x - offset) * inverse, 0.0, levels);
            [l, l * l, (x - min) * l]
        });
        let determinant = n * ll - sl * sl;
        let (mut s, mut m) = if determinant > 0.0 {
            ((n * xl - sx * sl) / determinant, (ll * sx - sl * xl) / determinant)
        } else {
            (0.0, sx / n)
        };
        if below_zero && m + min > 0.0 {
            m = -min;
            s = if ll > 0.0 { (xl - m * sl) / ll } else { 0.0 };
        }
        let error = xx + s * s * ll + n * m * m + 2.0 * (s * m * sl - s * xl - m * sx);
        (error, Affine { s, m: m + min })
    }
}
