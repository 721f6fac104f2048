//! The order of a video's tokens in which neighbours in space and time share blocks: a generalised Hilbert curve (Červený's "Gilbert",
//! as Video-BLADE uses it, arXiv 2508.10774). Block-sparse attention needs it because its blocks are runs of the sequence.

use crate::gpu::{BufferSlice, Recorder};
use crate::ops::{OpsError, fold, holds};

/// A point, or an axis-aligned vector.
type Vector = [i32; 3];

/// The curve through a grid of `width × height × depth` tokens: new position g holds token `order[g]`, where token
/// x + width·(y + height·z) stands at (x, y, z).
///
/// # Errors
/// [`OpsError::Shape`] for an empty grid, or one of more than 2²⁴ tokens.
pub fn order(width: u32, height: u32, depth: u32) -> Result<Vec<u32>, OpsError> {
    const MOST: u64 = 1 << 24;
    let tokens = [width, height, depth].iter().try_fold(1u64, |n, side| n.checked_mul(u64::from(*side)));
    if !tokens.is_some_and(|n| (1..=MOST).contains(&n)) {
        return Err(OpsError::shape(
            "gilbert",
            format!("a grid of {width} × {height} × {depth} tokens; 1 to {MOST} can be ordered"),
        ));
    }
    let mut curve = Curve { size: [width, height, depth].map(|n| n as i32), order: Vec::new() };
    let [x, y, z] = [[width as i32, 0, 0], [0, height as i32, 0], [0, 0, depth as i32]];
    if width >= height && width >= depth {
        curve.walk([0; 3], x, y, z);
    } else if height >= width && height >= depth {
        curve.walk([0; 3], y, x, z);
    } else {
        curve.walk([0; 3], z, x, y);
    }
    Ok(curve.order)
}

/// Where each token goes: the inverse of an order.
pub fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, token) in order.iter().enumerate() {
        if let Some(slot) = places.get_mut(*token as usize) {
            *slot = place as u32;
        }
    }
    places
}

struct Curve {
    size: Vector,
    order: Vec<u32>,
}

fn add(a: Vector, b: Vector) -> Vector {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn neg(a: Vector) -> Vector {
    a.map(|x| -x)
}

fn sub(a: Vector, b: Vector) -> Vector {
    add(a, neg(b))
}

/// Length of an axis-aligned vector.
fn length(a: Vector) -> i32 {
    a.iter().sum::<i32>().abs()
}

/// Half of a vector, rounded so that halves longer than one step are even.
fn half(a: Vector) -> Vector {
    let h = a.map(|x| x.div_euclid(2));
    if length(h) % 2 == 1 && length(a) > 2 { add(h, a.map(i32::signum)) } else { h }
}

impl Curve {
    fn emit(&mut self, [x, y, z]: Vector) {
        self.order.push((x + self.size[0] * (y + self.size[1] * z)) as u32);
    }

    /// Walks the box at `p` that a (the way to go), b and c span. Every call cuts the box into two to five smaller ones, so it goes
    /// about three times as deep as the longest side has bits.
    fn walk(&mut self, p: Vector, a: Vector, b: Vector, c: Vector) {
        let (w, h, d) = (length(a), length(b), length(c));
        let [da, db, dc] = [a, b, c].map(|v| v.map(i32::signum));
        if w == 0 || h == 0 || d == 0 {
            return; // half of a side of one
        }
        for (others, steps, step) in [(h.max(d), w, da), (w.max(d), h, db), (w.max(h), d, dc)] {
            if others == 1 {
                let mut at = p;
                for _ in 0..steps {
                    self.emit(at);
                    at = add(at, step);
                }
                return;
            }
        }
        let [a2, b2, c2] = [a, b, c].map(half);
        // The far end of a, one step before it, seen from the middle of the other sides.
        let end = add(p, sub(a, da));
        if 2 * w > 3 * h && 2 * w > 3 * d {
            self.walk(p, a2, b, c);
            self.walk(add(p, a2), sub(a, a2), b, c);
        } else if 3 * h > 4 * d {
            self.walk(p, b2, c, a2);
            self.walk(add(p, b2), a, sub(b, b2), c);
            self.walk(add(end, sub(b2, db)), neg(b2), c, neg(sub(a, a2)));
        } else if 3 * d > 4 * h {
            self.walk(p, c2, a2, b);
            self.walk(add(p, c2), a, b, sub(c, c2));
            self.walk(add(end, sub(c2, dc)), neg(c2), neg(sub(a, a2)), b);
        } else {
            self.walk(p, b2, c2, a2);
            self.walk(add(p, b2), c, a2, sub(b, b2));
            self.walk(add(p, add(sub(b2, db), sub(c, dc))), a, neg(b2), neg(sub(c, c2)));
            self.walk(add(end, add(b2, sub(c, dc))), neg(c), neg(sub(a, a2)), sub(b, b2));
            self.walk(add(end, sub(b2, db)), neg(b2), c2, neg(sub(a, a2)));
        }
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    cols: u32,
    batch: u32,
    x_rows: u32,
    y_rows: u32,
    width: u32,
    pad: [u32; 2],
}

/// Rows of `batch` matrices one below the other, `rows` of each, taken in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// Rows to move.
    pub rows: u32,
    /// Floats of a row, a multiple of 4.
    pub cols: u32,
    /// Matrices.
    pub batch: u32,
    /// Rows from matrix to matrix of the input (a cache has room for more than it holds).
    pub x_rows: u32,
    /// Rows from matrix to matrix of the output.
    pub y_rows: u32,
}

/// Records `y[b, i] = x[b, order[i]]`: puts tokens in an order; with [`inverse`] it puts them back.
///
/// `order` holds rows below `x_rows`. Queries: one matrix `[tokens, heads·head_dim]`; a cache: one a head.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn reorder(
    rec: &mut Recorder,
    shape: &Reorder,
    order: impl Into<BufferSlice>,
    x: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    const OP: &str = "attention/reorder";
    let s = *shape;
    let (order, x, y) = (order.into(), x.into(), y.into());
    if !s.cols.is_multiple_of(4) || s.rows > s.x_rows.min(s.y_rows) {
        return Err(OpsError::shape(OP, format!("{s:?}")));
    }
    let words = |rows: u32| u64::from(s.batch) * u64::from(rows) * u64::from(s.cols);
    holds(OP, "order", &order, s.rows.into())?;
    holds(OP, "x", &x, words(s.x_rows))?;
    holds(OP, "y", &y, words(s.y_rows))?;
    let grid = fold(OP, rec.gpu(), u64::from(s.batch) * u64::from(s.rows) * u64::from(s.cols / 4), 64)?;
    let params = Params {
        rows: s.rows,
        cols: s.cols / 4,
        batch: s.batch,
        x_rows: s.x_rows,
        y_rows: s.y_rows,
        width: grid[0],
        pad: [0; 2],
    };
    let kernel = rec.gpu().kernel(OP, &[])?;
    Ok(rec.dispatch(&kernel, &[("order", order), ("x", x), ("y", y)], &params, grid)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32 (IEEE) of words, little-endian.
    fn crc(words: &[u32]) -> u32 {
        let mut crc = u32::MAX;
        for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn orders_are_the_published_ones() {
        let golden = [
            ([52, 30, 21], 0x0793_2bec),
            ([45, 30, 13], 0xfded_e36e),
            ([4, 3, 2], 0x7a0b_ac4c),
            ([2, 2, 2], 0xdc43_4281),
            ([3, 5, 7], 0x3ee8_430b),
        ];
        for ([w, h, d], expected) in golden {
            assert_eq!(crc(&order(w, h, d).unwrap()), expected, "{w} × {h} × {d}");
        }
        assert_eq!(order(2, 2, 2).unwrap(), [0, 2, 6, 4, 5, 7, 3, 1]);
        let wan = order(52, 30, 21).unwrap();
        assert_eq!(wan[..12], [0, 1, 53, 52, 1612, 1613, 1561, 1560, 3120, 3172, 4732, 4680]);
        assert_eq!(wan.last(), Some(&51));
        let cog = order(45, 30, 13).unwrap();
        assert_eq!(cog[..12], [0, 1350, 1351, 1, 46, 1396, 1395, 45, 90, 91, 136, 135]);
    }

    #[test]
    fn every_token_comes_once_and_the_inverse_puts_it_back() {
        for w in 1..9 {
            for h in 1..9 {
                for d in [1, 2, 3, 7] {
                    let order = order(w, h, d).unwrap();
                    let places = inverse(&order);
                    assert_eq!(order.len() as u32, w * h * d);
                    assert!(order.iter().enumerate().all(|(g, token)| places[*token as usize] == g as u32));
                }
            }
        }
        assert!(order(0, 3, 3).unwrap_err().to_string().contains("0 × 3 × 3"));
        assert!(order(u32::MAX, u32::MAX, u32::MAX).is_err());
    }
}
