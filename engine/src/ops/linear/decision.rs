//! Which kernel runs a linear layer: a decision from the shape and the adapter.

use crate::codec::Sparsity;
use crate::gpu::Gpu;

/// What a decision knows of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Shaders run on the CPU.
    pub cpu: bool,
    /// f16 arithmetic in shaders.
    pub f16: bool,
    /// Lanes of the smallest subgroup; 0 without subgroup operations.
    pub subgroup: u32,
}

impl Device {
    pub fn of(gpu: &Gpu) -> Self {
        let subgroup = gpu.subgroup_size().map_or(0, |size| size[0]);
        Self { cpu: gpu.is_cpu(), f16: gpu.tier().f16, subgroup }
    }
}

/// The work: `tokens` columns of x against `rows` rows of `cols` weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub tokens: u32,
    /// Rows of the matrix (both halves of a gated layer).
    pub rows: u32,
    pub cols: u32,
    /// The input is normalised on the way in.
    pub norm: bool,
}

impl Shape {
    /// Columns that do not fill a run of 32: only the variants with guarded loads will do.
    pub(super) fn tail(&self) -> bool {
        !self.cols.is_multiple_of(32)
    }
}

/// A kernel and its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// `linear/rowwise`: a lane has whole rows. For software adapters.
    Rowwise {
        /// Lanes of a subgroup load x together.
        share: bool,
        /// Columns of x that share a decoded weight: 1, 4, or 8 with `share`.
        tokens: u32,
    },
    /// `linear/walk`: a lane goes from one kept weight to the next. For one column and very sparse rows on software adapters.
    Walk,
    /// `linear/matvec`: lanes share rows, one column of x at a time.
    Matvec {
        /// Lanes that share rows: 32 or 128.
        lanes: u32,
        /// Lanes whose sums meet by subgroup shuffles: 0 (none), 8 or 32.
        subgroup: u32,
    },
    /// `linear/coded`: entropy-coded rows, decoded in sequence.
    Coded {
        /// Lanes that share rows: 8 or 32; 1 for software adapters.
        lanes: u32,
        /// Columns of x that share a decoded weight: 1, with one lane also 4 or 8.
        tokens: u32,
    },
    /// `linear/matmul`: tiles in workgroup memory.
    Matmul {
        /// Rows and tokens of a tile: 64 or 128.
        tile: u32,
        /// Tiles are kept in f16.
        f16: bool,
    },
}

/// Columns up to which a GPU reads W again for every column (out of its cache) rather than fill a tile mostly with nothing.
const MATVEC_TOKENS: u32 = 4;
/// Columns for every kept weight from which on [`Decision::Walk`] is taken. On llvmpipe it and the stream of `linear/rowwise` are equally fast at
/// ten in rows of 4096, at six or seven in rows of 576, which are padded more.
const WALK: usize = 9;

/// Columns up to which a software adapter decodes an entropy-coded matrix again for every eight of them.
const EXPAND_TOKENS_CPU: u32 = 16;

impl Decision {
    /// The variant to use.
    ///
    /// Software adapters: measured on llvmpipe (`benches/NOTES.md`). GPUs: lanes enough to fill the machine. A row of few
    /// octets gets 32 lanes, a matrix of few long rows 128; large tiles where both sides fill several of them.
    pub fn choose(device: Device, shape: Shape) -> Self {
        let Shape { tokens, rows, cols, .. } = shape;
        if device.cpu {
            let share = device.subgroup >= 8 && !shape.tail();
            let tokens = match tokens {
                1 => 1,
                2..=4 => 4,
                _ if share => 8,
                _ => 4,
            };
            return Self::Rowwise { share, tokens };
        }
        if tokens <= MATVEC_TOKENS {
            if shape.tail() {
                return Self::Matvec { lanes: 32, subgroup: 0 };
            }
            let lanes = if cols >= 2048 && rows <= 16384 { 128 } else { 32 };
            let subgroup = match device.subgroup {
                32.. => 32,
                8.. => 8,
                _ => 0,
            };
            return Self::Matvec { lanes, subgroup };
        }
        let large = tokens > 64 && rows >= 1024 && !shape.tail();
        Self::Matmul { tile: if large { 128 } else { 64 }, f16: device.f16 && !shape.tail() }
    }

    /// The variant to use for an entropy-coded matrix: for few columns one that decodes where it multiplies, for many one that
    /// reads it expanded, unless it is too large for that.
    pub fn choose_coded(device: Device, shape: Shape, expands: bool) -> Self {
        let Shape { tokens, cols, .. } = shape;
        let few = if device.cpu { EXPAND_TOKENS_CPU } else { MATVEC_TOKENS };
        if tokens > few && expands {
            return Self::choose(device, shape);
        }
        match (device.cpu, tokens) {
            (true, 1) => Self::Coded { lanes: 1, tokens: 1 },
            (true, 2..=4) => Self::Coded { lanes: 1, tokens: 4 },
            (true, _) => Self::Coded { lanes: 1, tokens: 8 },
            // No more lanes than a row has chunks, as far as there is a choice.
            (false, _) => Self::Coded { lanes: if cols > 24 * 128 { 32 } else { 8 }, tokens: 1 },
        }
    }

    /// Every variant that decodes an entropy-coded matrix where it multiplies, and the one that would be chosen for it expanded.
    pub fn all_coded(device: Device, shape: Shape) -> Vec<Self> {
        let mut all = vec![Self::choose(device, shape)];
        for (lanes, tokens) in [(1, 1), (1, 4), (1, 8), (8, 1), (32, 1)] {
            if tokens == 1 || !(shape.tokens == 1 || shape.norm) {
                all.push(Self::Coded { lanes, tokens });
            }
        }
        all
    }

    /// Every variant that computes this shape on this adapter: for tests and benchmarks.
    pub fn all(device: Device, shape: Shape) -> Vec<Self> {
        let plain = !shape.tail();
        let one = shape.tokens == 1 || shape.norm;
        let mut all = Vec::new();
        for (share, tokens) in [(false, 1), (false, 4), (true, 1), (true, 4), (true, 8)] {
            if (!share || (device.subgroup >= 8 && plain)) && (tokens == 1 || !one) {
                all.push(Self::Rowwise { share, tokens });
            }
        }
        for (lanes, subgroup) in [(32, 0), (32, 8), (32, 32), (128, 0), (128, 8), (128, 32)] {
            if device.subgroup >= subgroup && (plain || (lanes == 32 && subgroup == 0)) {
                all.push(Self::Matvec { lanes, subgroup });
            }
        }
        for (tile, f16) in [(64, false), (64, true), (128, false), (128, true)] {
            if !shape.norm && (!f16 || device.f16) && (plain || (tile == 64 && !f16)) {
                all.push(Self::Matmul { tile, f16 });
            }
        }
        all
    }

    /// The variant with a sparse twin: sums meet in workgroup memory, tiles are small. Lanes whose rows lie in different rows of
    /// blocks multiply different columns and share none.
    pub fn for_sparse(self, sparsity: &Sparsity, cols: u32) -> Self {
        match self {
            // A load for each kept weight is less work than putting all in place.
            Self::Rowwise { tokens: 1, .. } if sparsity.block_rows == 0 && WALK * sparsity.kept <= cols as usize => {
                Self::Walk
            }
            // A workgroup of sharing lanes has 32 rows.
            Self::Rowwise { share: true, tokens } if sparsity.block_rows == 16 => {
                Self::Rowwise { share: false, tokens: tokens.min(4) }
            }
            Self::Rowwise { .. } | Self::Walk | Self::Coded { .. } => self,
            Self::Matvec { lanes, .. } => Self::Matvec { lanes, subgroup: 0 },
            Self::Matmul { f16, .. } => Self::Matmul { tile: 64, f16 },
        }
    }

    /// Columns of x that one workgroup computes.
    pub fn tokens(&self) -> u32 {
        match *self {
            Self::Rowwise { tokens, .. } | Self::Coded { tokens, .. } => tokens,
            Self::Walk | Self::Matvec { .. } => 1,
            Self::Matmul { tile, .. } => tile,
        }
    }

    /// Whether it can normalise its input on the way in: one column at a time.
    pub(super) fn takes_norm(&self) -> bool {
        match self {
            Self::Rowwise { tokens, .. } | Self::Coded { tokens, .. } => *tokens == 1,
            Self::Walk | Self::Matvec { .. } => true,
            Self::Matmul { .. } => false,
        }
    }

    /// Rows of W that one workgroup computes.
    pub(super) fn rows(&self) -> u32 {
        match *self {
            Self::Rowwise { share, .. } => 16 * rows_of_a_lane(share),
            Self::Walk => 32,
            Self::Matvec { lanes, .. } => 4 * 128 / lanes,
            Self::Coded { lanes: 1, .. } => 2 * 16,
            Self::Coded { lanes, .. } => 2 * 128 / lanes,
            Self::Matmul { tile, .. } => tile,
        }
    }
}

impl std::fmt::Display for Decision {
    /// The kernel and what distinguishes its variants: `linear/matvec lanes=32 subgroup=8`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rowwise { share, tokens } => write!(f, "linear/rowwise share={} tokens={tokens}", u8::from(*share)),
            Self::Walk => f.write_str("linear/walk"),
            Self::Matvec { lanes, subgroup } => write!(f, "linear/matvec lanes={lanes} subgroup={subgroup}"),
            Self::Coded { lanes, tokens } => write!(f, "linear/coded lanes={lanes} tokens={tokens}"),
            Self::Matmul { tile, f16 } => write!(f, "linear/matmul tile={tile} f16={}", u8::from(*f16)),
        }
    }
}

/// Rows of a lane of `linear/rowwise`: alone, it must make more of what it loads of x.
pub(super) fn rows_of_a_lane(share: bool) -> u32 {
    if share { 2 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLVMPIPE: Device = Device { cpu: true, f16: true, subgroup: 8 };
    const GPU: Device = Device { cpu: false, f16: true, subgroup: 32 };
    const BROWSER: Device = Device { cpu: false, f16: false, subgroup: 0 };

    #[test]
    fn what_is_chosen_is_among_all() {
        for device in [LLVMPIPE, GPU, BROWSER, Device { subgroup: 4, ..LLVMPIPE }, Device { subgroup: 8, ..GPU }] {
            for (rows, cols) in [(1, 32), (576, 576), (4096, 14336), (49152, 576), (10, 1000)] {
                for tokens in [1, 2, 4, 5, 64, 65, 512] {
                    let shape = Shape { tokens, rows, cols, norm: false };
                    let chosen = Decision::choose(device, shape);
                    assert!(Decision::all(device, shape).contains(&chosen), "{device:?} {shape:?}: {chosen:?}");
                }
                let shape = Shape { tokens: 1, rows, cols, norm: true };
                assert!(Decision::all(device, shape).contains(&Decision::choose(device, shape)));
            }
        }
    }

    #[test]
    fn software_adapters_never_get_workgroup_memory() {
        for tokens in [1, 7, 300] {
            let shape = Shape { tokens, rows: 1536, cols: 576, norm: false };
            assert!(matches!(Decision::choose(LLVMPIPE, shape), Decision::Rowwise { share: true, .. }));
        }
    }
}
