//! Packed matrices: the planes that are uploaded to the GPU as they are.

use std::ops::Range;

use super::{CodecError, CodecRef};

/// How a plane's words belong to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneLayout {
    /// u32 words of a row, or of a group of rows.
    pub row_words: u32,
    /// Rows that share `row_words` words: 1, or a power of two. The last group may have fewer rows. 0: [`PlaneLayout::VARIABLE`].
    pub rows_per_group: u32,
}

impl PlaneLayout {
    /// A plane whose length depends on the weights (entropy-coded streams, compressed rows). Its codec checks, cuts and stacks it
    /// itself: [`Codec::check`](super::Codec::check), [`Codec::cut`](super::Codec::cut), [`Codec::stack`](super::Codec::stack).
    pub const VARIABLE: Self = Self { row_words: 0, rows_per_group: 0 };

    /// Whether the length depends on the weights.
    pub fn is_variable(&self) -> bool {
        self.rows_per_group == 0
    }

    /// A plane of which every row has `row_words` words of its own.
    pub(super) fn per_row(row_words: usize) -> Self {
        Self::per_group(row_words, 1)
    }

    /// A plane of which `rows` rows share `row_words` words.
    pub(super) fn per_group(row_words: usize, rows: usize) -> Self {
        // Kernels index planes with u32 words: wider rows could not be addressed at all, and saturated they fail to allocate.
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { row_words: word(row_words), rows_per_group: word(rows) }
    }

    /// Words of a plane with this layout and `rows` rows; `None` for one of variable length.
    pub fn words(&self, rows: usize) -> Option<usize> {
        let groups = rows.checked_next_multiple_of(self.rows_per_group as usize)? / self.rows_per_group as usize;
        Some(groups.saturating_mul(self.row_words as usize))
    }
}

/// One storage buffer's worth of words, row-aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    pub data: Vec<u32>,
    /// Words of a row, or of a group of rows.
    pub row_words: u32,
    /// Rows that share `row_words` words: 1, or a power of two; 0 in a plane of variable length.
    pub rows_per_group: u32,
}

impl Plane {
    /// A plane of zeros for `rows` rows; an empty one if its length is variable.
    pub(super) fn zeroed(layout: PlaneLayout, rows: usize) -> Self {
        Self::of(layout, vec![0; layout.words(rows).unwrap_or(0)])
    }

    /// A plane of these words.
    pub(super) fn of(layout: PlaneLayout, data: Vec<u32>) -> Self {
        let PlaneLayout { row_words, rows_per_group } = layout;
        Self { data, row_words, rows_per_group }
    }

    /// How the words belong to rows.
    pub fn layout(&self) -> PlaneLayout {
        PlaneLayout { row_words: self.row_words, rows_per_group: self.rows_per_group }
    }
}

/// A packed matrix `[rows, cols]`.
#[derive(Debug, Clone)]
pub struct Packed {
    pub codec: CodecRef,
    pub rows: usize,
    pub cols: usize,
    /// In binding order: `codec_0`, `codec_1`, `codec_2`.
    pub planes: Vec<Plane>,
}

impl Packed {
    /// Puts planes that came from a file back together.
    ///
    /// # Errors
    /// Columns the codec cannot cut into blocks, or planes that do not have the codec's layout.
    pub fn new(codec: CodecRef, rows: usize, cols: usize, planes: Vec<Plane>) -> Result<Self, CodecError> {
        super::rows::check_cols(&*codec, cols)?;
        let layout = codec.layout(cols);
        for plane in 0..layout.len().max(planes.len()) {
            let fits = match (layout.get(plane), planes.get(plane)) {
                (Some(layout), Some(found)) => {
                    found.layout() == *layout && layout.words(rows).is_none_or(|words| found.data.len() == words)
                }
                _ => false,
            };
            if !fits {
                return Err(CodecError::Layout { codec: codec.name(), plane, rows, cols });
            }
        }
        let packed = Self { codec, rows, cols, planes };
        packed.codec.check(&packed)?;
        Ok(packed)
    }

    /// The weights as the GPU sees them, `[rows, cols]`.
    pub fn decode(&self) -> Vec<f32> {
        self.codec.decode(self)
    }

    /// Bytes the planes take, on the GPU too.
    pub fn bytes(&self) -> u64 {
        self.planes.iter().map(|plane| 4 * plane.data.len() as u64).sum()
    }

    /// Stored bits per weight, everything included; 0 for an empty matrix.
    pub fn bits_per_weight(&self) -> f64 {
        let weights = self.rows as f64 * self.cols as f64;
        if weights == 0.0 { 0.0 } else { 8.0 * self.bytes() as f64 / weights }
    }

    /// Cuts of the matrix must start at a multiple of this many rows: a power of two, 1 for most codecs.
    pub fn row_granularity(&self) -> usize {
        self.codec.row_granularity(self.cols)
    }

    /// The matrix of some of the rows.
    ///
    /// # Errors
    /// A range outside the matrix, or one that does not start at a multiple of [`Packed::row_granularity`].
    pub fn rows(&self, range: Range<usize>) -> Result<Self, CodecError> {
        let granularity = self.row_granularity();
        if range.start > range.end || range.end > self.rows || !range.start.is_multiple_of(granularity) {
            let (start, end) = (range.start, range.end);
            return Err(CodecError::RowRange { codec: self.codec.name(), start, end, rows: self.rows, granularity });
        }
        self.codec.cut(self, range)
    }

    /// [`Codec::cut`](super::Codec::cut) for planes of fixed length.
    pub(super) fn cut(&self, range: Range<usize>) -> Result<Self, CodecError> {
        let cut = |(number, plane): (usize, &Plane)| {
            let layout = plane.layout();
            let words = layout.words(range.start).zip(layout.words(range.end));
            let data = words.and_then(|(start, end)| plane.data.get(start..end));
            let (rows, cols) = (self.rows, self.cols);
            let lost = || CodecError::Layout { codec: self.codec.name(), plane: number, rows, cols };
            Ok(Plane { data: data.ok_or_else(lost)?.to_vec(), ..*plane })
        };
        let planes = self.planes.iter().enumerate().map(cut).collect::<Result<_, CodecError>>()?;
        Ok(Self { codec: self.codec.clone(), rows: range.len(), cols: self.cols, planes })
    }

    /// Stacks matrices, e.g. Q, K and V into one. `None` if codecs or columns differ, if a matrix other than the last has
    /// rows that are no multiple of [`Packed::row_granularity`], or if there is none.
    pub fn concat(parts: &[&Self]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let name = first.codec.name();
        let granularity = first.row_granularity();
        let same = rest.iter().all(|part| part.cols == first.cols && part.codec.name() == name);
        let aligned = parts[..rest.len()].iter().all(|part| part.rows.is_multiple_of(granularity));
        if same && aligned { first.codec.stack(parts) } else { None }
    }

    /// [`Codec::stack`](super::Codec::stack) for planes of fixed length.
    pub(super) fn stack(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        if first.planes.iter().any(|plane| plane.layout().is_variable()) {
            return None;
        }
        let planes = (0..first.planes.len())
            .map(|i| {
                let data = parts.iter().flat_map(|part| &part.planes[i].data).copied().collect();
                Plane { data, ..first.planes[i] }
            })
            .collect();
        let rows = parts.iter().map(|part| part.rows).sum();
        Some(Self { codec: first.codec.clone(), rows, cols: first.cols, planes })
    }
}
