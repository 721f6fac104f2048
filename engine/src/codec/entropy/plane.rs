//! The coded plane: a matrix of symbols as one sequence of words, with entry points for lanes that decode side by side.
//!
//! ```text
//! 4 words                   width of the table's states in bits, index of the stream's first word, the layout's version (1), index of
//!                           the first correction's word
//! 2^width words             the decoding table (`table.rs`)
//! rows × segments + 1       of each 32 chunks of a row: the first word, from the stream's start (29 bits), and the unit of its
//!                           corrections as a power of two (the 3 high bits); last, the stream's length in words
//! the corrections           of each chunk but a segment's first, 8 bits with a sign, four a word, the first in the low ones
//! the rest                  the stream, the first bit of a word in its highest place
//! ```
//!
//! A chunk is 128 symbols of a row, the last one of a row perhaps fewer, and a stream of its own: a lane begins at its chunk's bit and
//! decodes to its end, waiting for nobody. Chunk i of the n of a segment of b bits begins at bit ⌊b·i/n⌋ + correction · 2^unit: where it
//! would be if all were equally long, and how far from there. The encoder takes the smallest unit whose corrections fit into 8 bits. That
//! is bit by bit (unit 1) almost always, so that neighbouring lanes' chunks lie behind one another without gaps; in rows that are unlike
//! themselves there are gaps of fewer bits than the unit. In all that is 0.06 bits a weight for the corrections, and for a row, or for
//! 4096 weights of it, 32 bits and half a word of padding.

use std::ops::Range;

use super::super::rows::for_each_chunk;
use super::table::{Bits, Encoder, MOST_BITS, Table};

/// Symbols of a chunk.
const CHUNK: usize = 128;
/// Chunks of one base.
const SEGMENT: usize = 32;
const HEADER: usize = 4;
/// What word 2 says of this layout. It was 0 when every chunk had 16 bits of index.
const VERSION: u32 = 1;
/// Low bits of a base: its word. Those above: the unit of its corrections.
const WORD_BITS: u32 = 29;
const WORD_MASK: u32 = (1 << WORD_BITS) - 1;
/// Bits of a segment at most. With corrections in units of up to 2^7 bits any lengths of its chunks can be said: the farthest from where
/// it would be in equal ones is half as far as its half, 8 · (128·11 + 127) bits, and 127 · 2^7 are more.
const MOST_SEGMENT_BITS: u32 = (SEGMENT * (CHUNK * MOST_BITS as usize + 127) + 31) as u32;

/// A coded plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coded<'a> {
    bits: u32,
    table: &'a [u32],
    /// `[rows * segments + 1]`.
    bases: &'a [u32],
    /// `[rows * (chunks - segments)]` bytes, four a word.
    corrections: &'a [u32],
    stream: &'a [u32],
    /// Symbols of a row.
    cols: usize,
}

/// Rows that have anything in them: of rows of no columns there may be 2^60, which take no bytes and must take no time.
fn filled(rows: usize, cols: usize) -> usize {
    if cols == 0 { 0 } else { rows }
}

/// Chunks and segments of a row.
fn parts(cols: usize) -> (usize, usize) {
    let chunks = cols.div_ceil(CHUNK);
    (chunks, chunks.div_ceil(SEGMENT))
}

/// Words of the bases and of the corrections of a matrix; `None` if nobody could count them.
fn index_words(rows: usize, cols: usize) -> Option<[usize; 2]> {
    let (chunks, segments) = parts(cols);
    let bases = filled(rows, cols).checked_mul(segments)?.checked_add(1)?;
    Some([bases, filled(rows, cols).checked_mul(chunks - segments)?.div_ceil(4)])
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
        let found = words.get(2).copied().unwrap_or(VERSION);
        if found != VERSION {
            let remedy = "compress the model again from the original";
            return Err(format!(
                "its entry points are in layout {found}, and only layout {VERSION} can be read: {remedy}"
            ));
        }
        let index = index_words(rows, cols);
        let start = index.and_then(|[bases, corrections]| {
            let corrections_at = bases.checked_add(HEADER + (1 << bits))?;
            Some((corrections_at, corrections_at.checked_add(corrections)?))
        });
        let Some((corrections_at, start)) = start.filter(|&(_, start)| start <= words.len()) else {
            return Err(format!("{} words cannot hold the entry points of {rows} x {cols} weights", words.len()));
        };
        if words[1] as usize != start || words[3] as usize != corrections_at {
            let (found, expected) = ([words[3], words[1]], [corrections_at, start]);
            return Err(format!("its corrections and its stream begin at words {found:?} instead of {expected:?}"));
        }
        let (table, bases) = words[HEADER..corrections_at].split_at(1 << bits);
        Table::check(bits, table, symbol_bits)?;
        let (corrections, stream) = (&words[corrections_at..start], &words[start..]);
        let coded = Self { bits, table, bases, corrections, stream, cols };
        let lengths = bases.windows(2).map(|pair| (pair[1] & WORD_MASK).checked_sub(pair[0] & WORD_MASK));
        let in_order = lengths.into_iter().all(|words| words.is_some_and(|words| words <= MOST_SEGMENT_BITS / 32));
        if !in_order || coded.word(bases.len() - 1) > stream.len() {
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
        let mut coded: Vec<Option<Row>> = vec![None; rows];
        for_each_chunk(&mut coded, 1, |r, coded| {
            let mut symbols = vec![0; cols];
            row(r, &mut symbols);
            coded[0] = Row::encode(&encoder, &symbols);
        });
        let coded: Vec<Row> = coded.into_iter().collect::<Option<_>>()?;
        let mut bases = Vec::new();
        let mut begin = 0;
        for row in &coded {
            bases.extend(row.bases.iter().map(|base| begin + base));
            begin += row.stream.len() as u32;
            if begin > WORD_MASK {
                return None;
            }
        }
        bases.push(begin);
        let corrections: Vec<i8> = coded.iter().flat_map(|row| &row.corrections).copied().collect();
        assemble(
            table.bits,
            &table.entries,
            &bases,
            &corrections,
            &coded.iter().map(|row| &row.stream[..]).collect::<Vec<_>>(),
        )
    }

    /// Decodes a row's symbols: what the kernels do, corrupt streams included.
    pub(super) fn decode_row(&self, row: usize, symbols: &mut [u8]) {
        let (chunks, segments) = parts(self.cols);
        for (chunk, symbols) in symbols.chunks_mut(CHUNK).enumerate() {
            let (segment, i) = (chunk / SEGMENT, chunk % SEGMENT);
            let base = self.bases[row * segments + segment];
            let words = (self.bases[row * segments + segment + 1] & WORD_MASK) - (base & WORD_MASK);
            let mut first = i64::from(expected(words, i, SEGMENT.min(chunks - segment * SEGMENT)));
            if i > 0 {
                let correction = self.correction(row * (chunks - segments) + chunk - segment - 1);
                first += i64::from(correction) << (base >> WORD_BITS);
            }
            // A damaged correction may lead before the stream's start.
            let mut at = (32 * i64::from(base & WORD_MASK) + first).max(0) as u64;
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

    /// Word of the stream at which segment `i` of the matrix begins.
    fn word(&self, i: usize) -> usize {
        (self.bases[i] & WORD_MASK) as usize
    }

    fn correction(&self, i: usize) -> i8 {
        (self.corrections[i / 4] >> (8 * (i % 4))) as i8
    }

    /// The plane of some of its rows.
    pub(super) fn cut(&self, range: Range<usize>) -> Option<Vec<u32>> {
        let (chunks, segments) = parts(self.cols);
        let bases = self.bases.get(range.start * segments..range.end * segments + 1)?;
        let corrections = range.start * (chunks - segments)..range.end * (chunks - segments);
        let corrections: Vec<i8> = corrections.map(|i| self.correction(i)).collect();
        let [begin, end] = [range.start, range.end].map(|row| self.word(row * segments));
        // The high bits stay what they are: no base is below the first.
        let bases: Vec<u32> = bases.iter().map(|base| base - begin as u32).collect();
        assemble(self.bits, self.table, &bases, &corrections, &[&self.stream[begin..end]])
    }

    /// Stacks planes with equal tables and columns; `None` for others, or if it is too long for the bases.
    pub(super) fn stack(list: &[(Self, usize)]) -> Option<Vec<u32>> {
        let (first, _) = list.first()?;
        if list.iter().any(|(part, _)| part.table != first.table || part.cols != first.cols) {
            return None;
        }
        let (chunks, segments) = parts(first.cols);
        let (mut bases, mut corrections, mut streams) = (Vec::new(), Vec::new(), Vec::new());
        let mut begin = 0u32;
        for (part, rows) in list {
            let stream = &part.stream[..part.word(part.bases.len() - 1)];
            let next = begin.checked_add(u32::try_from(stream.len()).ok()?).filter(|&next| next <= WORD_MASK)?;
            bases.extend(part.bases[..part.bases.len() - 1].iter().map(|base| base + begin));
            corrections.extend((0..filled(*rows, part.cols) * (chunks - segments)).map(|i| part.correction(i)));
            streams.push(stream);
            begin = next;
        }
        bases.push(begin);
        assemble(first.bits, first.table, &bases, &corrections, &streams)
    }
}

/// Puts a plane together; `None` if it is too long for 32-bit indices.
fn assemble(bits: u32, table: &[u32], bases: &[u32], corrections: &[i8], streams: &[&[u32]]) -> Option<Vec<u32>> {
    let corrections_at = HEADER + table.len() + bases.len();
    let start = corrections_at + corrections.len().div_ceil(4);
    let words = start + streams.iter().map(|stream| stream.len()).sum::<usize>();
    u32::try_from(words).ok()?;
    let mut plane = Vec::with_capacity(words);
    plane.extend([bits, start as u32, VERSION, corrections_at as u32]);
    plane.extend(table);
    plane.extend(bases);
    let word = |four: &[i8]| four.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte as u8));
    plane.extend(corrections.chunks(4).map(word));
    streams.iter().for_each(|stream| plane.extend(*stream));
    Some(plane)
}

/// Bit at which chunk `i` of the `n` of a segment of so many words begins if all are equally long.
fn expected(words: u32, i: usize, n: usize) -> u32 {
    32 * words * i as u32 / n as u32
}

/// What a row becomes, its bases counted from its own first word.
#[derive(Debug, Clone)]
struct Row {
    bases: Vec<u32>,
    corrections: Vec<i8>,
    stream: Vec<u32>,
}

impl Row {
    /// `None` never comes of chunks that are no longer than [`MOST_BITS`] a symbol.
    fn encode(encoder: &Encoder, symbols: &[u8]) -> Option<Self> {
        let mut row = Self { bases: Vec::new(), corrections: Vec::new(), stream: Vec::new() };
        for symbols in symbols.chunks(CHUNK * SEGMENT) {
            let chunks: Vec<Bits> = symbols
                .chunks(CHUNK)
                .map(|symbols| {
                    let mut bits = Bits::default();
                    encoder.encode(symbols, &mut bits);
                    bits
                })
                .collect();
            let lengths: Vec<usize> = chunks.iter().map(|chunk| chunk.len).collect();
            let place = (0..1 << (32 - WORD_BITS)).find_map(|unit| Place::of(&lengths, unit))?;
            row.bases.push(row.stream.len() as u32 | place.unit << WORD_BITS);
            row.corrections.extend(&place.corrections[1..]);
            let mut out = Bits::default();
            for (chunk, first) in chunks.iter().zip(place.firsts) {
                out.skip_to(first);
                out.append(chunk);
            }
            out.skip_to(32 * place.words as usize);
            row.stream.extend(out.words);
        }
        Some(row)
    }
}

/// Where the chunks of a segment lie.
struct Place {
    words: u32,
    unit: u32,
    firsts: Vec<usize>,
    corrections: Vec<i8>,
}

impl Place {
    /// `None` if corrections in this unit do not fit into 8 bits.
    fn of(lengths: &[usize], unit: u32) -> Option<Self> {
        let mut words = lengths.iter().sum::<usize>().div_ceil(32) as u32;
        // Gaps make a segment longer, and that moves where chunks are expected. Of no more than a unit less a bit for each, so this ends.
        loop {
            let (mut end, mut firsts, mut corrections) = (0i64, Vec::new(), Vec::new());
            for (i, &length) in lengths.iter().enumerate() {
                let expected = i64::from(expected(words, i, lengths.len()));
                let correction = -((expected - end) >> unit);
                corrections.push(i8::try_from(correction).ok()?);
                let first = expected + (correction << unit);
                firsts.push(first as usize);
                end = first + length as i64;
            }
            let needed = (end as u64).div_ceil(32) as u32;
            if needed <= words {
                return Some(Self { words, unit, firsts, corrections });
            }
            words = needed;
        }
    }
}
