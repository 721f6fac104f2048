//! The prefix code of a group's exponents, and the lookup tables that decoders walk.
//!
//! In: how often each exponent occurs. Out: a Huffman code in the order that `dahuffman` merges in (so that files are those of the
//! reference encoder, byte for byte), and the tables `[prefixes + 1, 256]` of the format.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Exponents from here on cannot be coded: table entries 240 to 255 lead to another table.
pub(super) const ESCAPE: u8 = 240;
/// No code is longer.
pub(super) const LONGEST: u32 = 32;
/// Tables behind the root that an entry can lead to.
const MOST_TABLES: usize = 256 - ESCAPE as usize;

/// A code word: its bits, right-aligned, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    pub(super) bits: u64,
    pub(super) len: u32,
}

impl Word {
    /// Its first `count` bits.
    fn prefix(self, count: u32) -> Self {
        Self { bits: self.bits >> (self.len - count), len: count }
    }

    /// Bits of the whole bytes before its last one, which is what its table stands for.
    fn table(self) -> Self {
        self.prefix((self.len - 1) / 8 * 8)
    }
}

/// A symbol of the alphabet: exponents, and the end of the file, which sorts below all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Symbol {
    End,
    Exponent(u8),
}

/// A prefix code.
#[derive(Debug)]
pub(super) struct Code {
    /// In the order of the code table, which decides the order of the lookup tables.
    words: Vec<(u8, Word)>,
    /// Fills the last byte of a stream.
    pub(super) end: Word,
}

impl Code {
    /// The code of exponents that occur `counts` times; `None` where it needs more tables than entries can lead to: exponents are then
    /// spread far wider than those of weights.
    pub(super) fn of(counts: &[u64; 256]) -> Option<Self> {
        let mut code = Self::huffman(counts);
        // The rarest exponents by number, then by value: the reference leaves the order of equals open.
        let mut rarest: Vec<usize> = (0..256).filter(|&e| counts[e] > 0).collect();
        rarest.sort_by_key(|&e| (counts[e], e));
        let mut levelled = 2;
        while code.longest() > LONGEST {
            let mut counts = *counts;
            rarest.iter().take(levelled).for_each(|&e| counts[e] = 1);
            code = Self::huffman(&counts);
            levelled += 1; // ends when all are 1 and no code is longer than 8 bits
        }
        (code.tables().len() <= MOST_TABLES + 1).then_some(code)
    }

    /// Merges the two rarest nodes until one is left: the rarer one's codes begin with 0. Of equals, the one whose first leaf is lower
    /// comes first.
    fn huffman(counts: &[u64; 256]) -> Self {
        let leaf = |(symbol, count)| Reverse((count, symbol, vec![(symbol, Word::default())]));
        let present = (0..=255u8).filter(|&e| counts[usize::from(e)] > 0);
        let exponents = present.map(|e| (Symbol::Exponent(e), counts[usize::from(e)]));
        let mut heap: BinaryHeap<_> = exponents.chain([(Symbol::End, 1)]).map(leaf).collect();
        let mut table = Vec::new();
        while let Some(Reverse((count_a, first, mut a))) = heap.pop() {
            let Some(Reverse((count_b, _, mut b))) = heap.pop() else {
                table = a;
                break;
            };
            // A code of 64 bits or more takes more weights than any machine has (Fibonacci's numbers).
            for (_, word) in &mut a {
                word.len += 1;
            }
            for (_, word) in &mut b {
                word.bits |= 1 << word.len.min(63);
                word.len += 1;
            }
            a.append(&mut b);
            heap.push(Reverse((count_a.saturating_add(count_b), first, a)));
        }
        let mut code = Self { words: Vec::new(), end: Word::default() };
        for (symbol, word) in table {
            match symbol {
                Symbol::End => code.end = word,
                Symbol::Exponent(e) => code.words.push((e, word)),
            }
        }
        code
    }

    fn longest(&self) -> u32 {
        self.words.iter().map(|(_, word)| word.len).chain([self.end.len]).max().unwrap_or(0)
    }

    /// Code words by exponent; those of exponents that do not occur are empty.
    pub(super) fn by_exponent(&self) -> [Word; 256] {
        let mut all = [Word::default(); 256];
        self.words.iter().for_each(|&(e, word)| all[usize::from(e)] = word);
        all
    }

    /// What the tables stand for, the root's nothing first.
    fn tables(&self) -> Vec<Word> {
        let mut tables = vec![Word::default()];
        for (_, word) in &self.words {
            if !tables.contains(&word.table()) {
                tables.push(word.table());
            }
        }
        tables.sort_by_key(|table| table.len);
        tables
    }

    /// The tensor `luts`, row-major `[tables + 1, 256]`. A row's entry for the next byte of the stream is an exponent, or 256 less the
    /// number of the table for the byte after it. The last row has the length of every exponent's code.
    pub(super) fn luts(&self) -> Vec<u8> {
        let tables = self.tables();
        let mut luts = Vec::with_capacity(256 * (tables.len() + 1));
        let mut value = 0;
        for table in &tables {
            let mut row = [None; 256];
            for &(exponent, word) in &self.words {
                if word.len <= table.len || word.prefix(table.len) != *table {
                    continue;
                }
                let rest = word.len - table.len;
                let (key, entry) = if rest <= 8 {
                    ((word.bits << (8 - rest)) & 255, exponent)
                } else {
                    let next = word.prefix(table.len + 8);
                    let number = tables.iter().position(|other| *other == next).unwrap_or(0);
                    (next.bits & 255, (256 - number) as u8)
                };
                row[key as usize] = Some(entry);
            }
            // A code shorter than a byte stands for all bytes that begin with it: keys that are not set repeat the one before.
            for entry in row {
                value = entry.unwrap_or(value);
                luts.push(value);
            }
        }
        luts.extend(self.by_exponent().map(|word| word.len as u8));
        luts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_codes_are_cut_to_32_bits_and_decode() {
        // Fibonacci's numbers make the deepest trees.
        let mut counts = [0u64; 256];
        let (mut a, mut b) = (1u64, 1u64);
        for e in 60..110 {
            counts[e] = a;
            (a, b) = (b, a + b);
        }
        assert!(Code::huffman(&counts).longest() > LONGEST);
        let code = Code::of(&counts).unwrap();
        assert!(code.longest() <= LONGEST, "{}", code.longest());
        let words = code.by_exponent();
        // Kraft's sum with the end of file is 1: the code is complete.
        let sum: u64 = words.iter().chain([&code.end]).filter(|w| w.len > 0).map(|w| 1u64 << (32 - w.len)).sum();
        assert_eq!(sum, 1 << 32);
        let luts = code.luts();
        for e in 60..110 {
            let word = words[e];
            let window = (word.bits << (32 - word.len)) as u32;
            let mut table = 0;
            let mut found = 0;
            for level in 0..4 {
                found = luts[256 * table + (window >> (24 - 8 * level) & 255) as usize];
                if found < ESCAPE {
                    break;
                }
                table = 256 - usize::from(found);
            }
            assert_eq!((usize::from(found), u32::from(luts[luts.len() - 256 + e])), (e, word.len));
        }
    }

    #[test]
    fn one_exponent_has_one_bit() {
        let mut counts = [0u64; 256];
        counts[120] = 7;
        let code = Code::of(&counts).unwrap();
        assert_eq!((code.by_exponent()[120], code.end), (Word { bits: 1, len: 1 }, Word { bits: 0, len: 1 }));
        let luts = code.luts();
        assert_eq!((luts.len(), luts[127], luts[128], luts[255], luts[256 + 120]), (512, 0, 120, 120, 1));
    }

    #[test]
    fn more_tables_than_entries_can_name_are_refused() {
        let mut counts = [1u64; 256];
        counts[240..].fill(0);
        assert!(Code::of(&counts).is_some(), "8 bits for each of 240");
        counts[100] = 240; // takes half of the code: the others have 9 bits, below more than a hundred prefixes of 8
        assert!(Code::of(&counts).is_none());
    }
}
