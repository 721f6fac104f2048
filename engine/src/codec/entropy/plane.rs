//! The coded plane: a matrix of symbols as one sequence of words, with entry points for lanes that decode side by side.
//!
//! ```text
//! 4 words                   width of the table's states in bits, index of the stream's first word, 0, 0
//! 2^width words             the decoding table (`table.rs`)
//! rows × index words        of each row: a base for every 32 chunks (words from the stream's start), then for every chunk its first
//!                           bit from there, 16 bits each, two a word, the even chunk's in the low half
//! the rest                  the stream, the first bit of a word in its highest place
//! ```
//!
//! A chunk is 128 symbols of a row, the last one of a row perhaps fewer, and a stream of its own: a lane begins at its chunk's bit and
//! decodes to its end, waiting for nobody. Neighbouring lanes' chunks lie behind one another without gaps, so what they read together
//! is together. A base begins a word. That is 0.125 bits a weight for the entry points, 32 bits for a row or for 4096 weights of it,
//! and half a word of padding for each of these.

use std::ops::Range;

use super::super::rows::for_each_chunk;
use super::table::{Bits, Encoder, MOST_BITS, Table};

/// Symbols of a chunk.
const CHUNK: usize = 128;
/// Chunks that count from one base: 32 · 128 · 11 bits are fewer than 2^16.
const SEGMENT: usize = 32;
const HEADER: usize = 4;

/// A coded plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coded<'a> {
    bits: u32,
    table: &'a [u32],
    /// `[rows, row_index]`.
    index: &'a [u32],
    stream: &'a [u32],
    /// Symbols of a row.
    cols: usize,
}

/// Rows that have anything in them: of rows of no columns there may be 2^60, which take no bytes and must take no time.
fn filled(rows: usize, cols: usize) -> usize {
    if cols == 0 { 0 } else { rows }
}

/// Words of a row in the index.
fn index_words(cols: usize) -> usize {
    let chunks = cols.div_ceil(CHUNK);
    chunks.div_ceil(SEGMENT) + chunks.div_ceil(2)
}

impl<'a> Coded<'a> {
    /// Reads a plane of `rows` rows of `cols` symbols of at most `symbol_bits` bits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(words: &'a [u32], rows: usize, cols: usize, symbol_bits: u32) -> Result<Self, String> {
        let bits = words.first().copied().unwrap_or(0);
        if !(1..=MOST_BITS).contains(&bits) {
            return Err(format!("its decoding table is {bits} bits wide, not 1 to {MOST_BITS}"));
        }
        let rows = filled(rows, cols);
        let start = index_words(cols).checked_mul(rows).and_then(|index| index.checked_add(HEADER + (1 << bits)));
        let Some(start) = start.filter(|&start| start <= words.len()) else {
            return Err(format!("{} words cannot hold the entry points of {rows} x {cols} weights", words.len()));
        };
        if words[1] as usize != start {
            return Err(format!("its stream begins at word {} instead of {start}", words[1]));
        }
        let (table, index) = words[HEADER..start].split_at(1 << bits);
        Table::check(bits, table, symbol_bits)?;
        let coded = Self { bits, table, index, stream: &words[start..], cols };
        let bases = (0..rows).flat_map(|row| coded.bases(row).iter().copied());
        if !bases.is_sorted() || coded.base(rows.saturating_sub(1)) as usize > coded.stream.len() {
            return Err("its entry points are not in the stream's order".to_owned());
        }
        Ok(coded)
    }

    /// Codes the symbols that `row` writes: `cols` a row. Returns the plane; `None` if it is too long for 32-bit indices.
    pub(super) fn encode(rows: usize, cols: usize, row: impl Fn(usize, &mut [u8]) + Sync) -> Option<Vec<u32>> {
        let (rows, chunks) = (filled(rows, cols), cols.div_ceil(CHUNK));
        let mut counts = vec![[0u64; 256]; rows.div_ceil(64)];
        for_each_chunk(&mut counts, 1, |group, counts| {
            let mut symbols = vec![0; cols];
            for r in 64 * group..rows.min(64 * group + 64) {
                row(r, &mut symbols);
                symbols.iter().for_each(|&symbol| counts[0][usize::from(symbol)] += 1);
            }
        });
        let counts = counts.iter().fold([0; 256], |sum, part| std::array::from_fn(|i| sum[i] + part[i]));
        let (table, encoder) = Table::best(&counts, (rows * chunks) as u64);
        let mut coded: Vec<(Vec<u32>, Vec<u32>)> = vec![Default::default(); rows];
        for_each_chunk(&mut coded, 1, |r, coded| {
            let mut symbols = vec![0; cols];
            row(r, &mut symbols);
            coded[0] = encode_row(&encoder, &symbols);
        });
        let words = |part: fn(&(Vec<u32>, Vec<u32>)) -> usize| coded.iter().map(part).sum::<usize>();
        let start = HEADER + table.entries.len() + words(|(index, _)| index.len());
        let all = start + words(|(_, stream)| stream.len());
        u32::try_from(all).ok()?;
        let mut plane = Vec::with_capacity(all);
        plane.extend([table.bits, start as u32, 0, 0]);
        plane.extend(table.entries);
        let segments = chunks.div_ceil(SEGMENT);
        let mut base = 0;
        for (index, stream) in &coded {
            let (bases, entries) = index.split_at(segments);
            plane.extend(bases.iter().map(|segment| base + segment));
            plane.extend(entries);
            base += stream.len() as u32;
        }
        coded.iter().for_each(|(_, stream)| plane.extend(stream));
        Some(plane)
    }

    /// Decodes a row's symbols: what the kernels do, corrupt streams included.
    pub(super) fn decode_row(&self, row: usize, symbols: &mut [u8]) {
        let index = &self.index[row * index_words(self.cols)..][..index_words(self.cols)];
        let (bases, entries) = index.split_at(self.cols.div_ceil(CHUNK).div_ceil(SEGMENT));
        for (chunk, symbols) in symbols.chunks_mut(CHUNK).enumerate() {
            let entry = entries[chunk / 2] >> (16 * (chunk % 2)) & 0xffff;
            let mut at = 32 * u64::from(bases[chunk / SEGMENT]) + u64::from(entry);
            let mut take = |n: u32| {
                // Past the end there are zeros here, and whatever the last word is there.
                let word = |i: u64| u64::from(self.stream.get(i as usize).copied().unwrap_or(0));
                let window = (word(at / 32) << 32 | word(at / 32 + 1)) << (at % 32);
                at += u64::from(n);
                if n == 0 { 0 } else { (window >> (64 - n)) as u32 }
            };
            let mut state = take(self.bits);
            for symbol in symbols {
                let entry = self.table[state as usize];
                *symbol = (entry >> 16) as u8;
                state = (entry & 0xfff) + take(entry >> 12 & 15);
            }
        }
    }

    fn bases(&self, row: usize) -> &'a [u32] {
        let start = row * index_words(self.cols);
        self.index.get(start..start + self.cols.div_ceil(CHUNK).div_ceil(SEGMENT)).unwrap_or(&[])
    }

    /// Word of the stream at which a row begins; 0 where there is nothing.
    fn base(&self, row: usize) -> u32 {
        self.bases(row).first().copied().unwrap_or(0)
    }

    /// The plane of some of `rows` rows.
    pub(super) fn cut(&self, range: Range<usize>, rows: usize) -> Vec<u32> {
        let range = filled(range.start, self.cols)..filled(range.end, self.cols);
        let begin = if range.start < rows { self.base(range.start) as usize } else { self.stream.len() };
        let end = if range.end < rows { self.base(range.end) as usize } else { self.stream.len() };
        Self { stream: &self.stream[begin..end.max(begin)], ..*self }.with_rows(range, begin as u32)
    }

    /// The plane of rows whose stream this is, cut off before word `begin`.
    fn with_rows(&self, range: Range<usize>, begin: u32) -> Vec<u32> {
        let start = HEADER + self.table.len() + range.len() * index_words(self.cols);
        let mut plane = vec![self.bits, start as u32, 0, 0];
        plane.extend(self.table);
        range.for_each(|row| self.put_index(row, begin.wrapping_neg(), &mut plane));
        plane.extend(self.stream);
        plane
    }

    /// Appends a row's part of the index, its bases moved.
    fn put_index(&self, row: usize, moved: u32, plane: &mut Vec<u32>) {
        let index = &self.index[row * index_words(self.cols)..][..index_words(self.cols)];
        let bases = self.bases(row).len();
        plane.extend(index[..bases].iter().map(|base| base.wrapping_add(moved)));
        plane.extend(&index[bases..]);
    }

    /// Stacks planes with equal tables and columns; `None` for others, or if it is too long for 32-bit indices.
    pub(super) fn stack(parts: &[(Self, usize)]) -> Option<Vec<u32>> {
        let (first, _) = parts.first()?;
        if parts.iter().any(|(part, _)| part.table != first.table || part.cols != first.cols) {
            return None;
        }
        let rows: usize = parts.iter().map(|(_, rows)| filled(*rows, first.cols)).sum();
        let start = HEADER + first.table.len() + rows * index_words(first.cols);
        let words = start + parts.iter().map(|(part, _)| part.stream.len()).sum::<usize>();
        u32::try_from(words).ok()?;
        let mut plane = Vec::with_capacity(words);
        plane.extend([first.bits, start as u32, 0, 0]);
        plane.extend(first.table);
        let mut moved = 0;
        for (part, rows) in parts {
            (0..filled(*rows, part.cols)).for_each(|row| part.put_index(row, moved, &mut plane));
            moved += part.stream.len() as u32;
        }
        parts.iter().for_each(|(part, _)| plane.extend(part.stream));
        Some(plane)
    }
}

/// A row's index, its bases counted from its first word, and its stream.
fn encode_row(encoder: &Encoder, symbols: &[u8]) -> (Vec<u32>, Vec<u32>) {
    let chunks = symbols.len().div_ceil(CHUNK);
    let (mut bases, mut entries) = (Vec::new(), vec![0; chunks.div_ceil(2)]);
    let mut out = Bits::default();
    for (segment, symbols) in symbols.chunks(CHUNK * SEGMENT).enumerate() {
        bases.push(out.words.len() as u32);
        for (i, symbols) in symbols.chunks(CHUNK).enumerate() {
            let chunk = segment * SEGMENT + i;
            entries[chunk / 2] |= ((out.len - 32 * bases[segment] as usize) as u32) << (16 * (chunk % 2));
            encoder.encode(symbols, &mut out);
        }
        out.align();
    }
    bases.extend(entries);
    (bases, out.words)
}
