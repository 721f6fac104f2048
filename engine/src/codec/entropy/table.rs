//! The decoder: a table that a state of `bits` bits looks its symbol up in.
//!
//! ```text
//! entry = table[state];   symbol = entry >> 16;   n = (entry >> 12) & 15;   state = (entry & 0xfff) + next n bits
//! ```
//!
//! This is the decoder of tabled asymmetric numeral systems (tANS; Duda, arXiv 1311.2540), and a prefix code is a case of it: there
//! the state is the window of the next `bits` bits, and `entry & 0xfff` what is left of it when the symbol's code is shifted out. A
//! kernel need not know which of the two wrote the stream; the encoder takes the one that comes out smaller.

use super::prefix;

/// Widest state: its table is 8 KiB of workgroup memory.
pub(super) const MOST_BITS: u32 = 11;

/// How symbols become bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) bits: u32,
    /// 2^bits entries.
    pub(super) entries: Vec<u32>,
}

/// The table's other direction.
#[derive(Debug)]
pub(super) enum Encoder {
    /// Codes and their lengths.
    Prefix { codes: Box<[u16; 256]>, lengths: Box<[u8; 256]> },
    /// Of each symbol its states, by rank: as many as its frequency.
    Tans { bits: u32, states: Vec<Vec<u16>> },
}

impl Table {
    /// The table that makes the fewest bits of symbols that occur so often in `streams` streams, and its encoder.
    pub(super) fn best(counts: &[u64; 256], streams: u64) -> (Self, Encoder) {
        let present = counts.iter().filter(|&&count| count > 0).count().max(1);
        let least = present.next_power_of_two().ilog2().max(1);
        // Bits, whether it is a prefix code, and the width.
        let mut best = (f64::INFINITY, true, least);
        for bits in least..=MOST_BITS {
            let table = f64::from(32u32 << bits);
            let lengths = prefix::lengths(counts, bits);
            let prefix: u64 = counts.iter().zip(lengths).map(|(&count, length)| count * u64::from(length)).sum();
            let tans = tans_bits(counts, bits) + (streams * u64::from(bits)) as f64;
            for (cost, prefix) in [(prefix as f64, true), (tans, false)] {
                if cost + table < best.0 {
                    best = (cost + table, prefix, bits);
                }
            }
        }
        match best {
            (_, true, bits) => prefix_code(counts, bits),
            (_, false, bits) => tans(counts, bits),
        }
    }

    /// Refuses entries that would lead out of the table, or to symbols of more than `symbol_bits` bits.
    pub(super) fn check(bits: u32, entries: &[u32], symbol_bits: u32) -> Result<(), String> {
        let bad = entries.iter().position(|entry| {
            let (symbol, n, base) = (entry >> 16, entry >> 12 & 15, entry & 0xfff);
            symbol >> symbol_bits != 0 || n > bits || base + (1 << n) > 1 << bits
        });
        bad.map_or(Ok(()), |at| Err(format!("entry {at} of its decoding table leads nowhere")))
    }
}

impl Encoder {
    /// Appends the stream of these symbols.
    pub(super) fn encode(&self, symbols: &[u8], out: &mut Bits) {
        match self {
            Self::Prefix { codes, lengths } => {
                for symbol in symbols.iter().map(|&symbol| usize::from(symbol)) {
                    out.put(codes[symbol].into(), lengths[symbol].into());
                }
            }
            Self::Tans { bits, states } => {
                // Backwards, from a state that nobody asks for: each symbol pushes the low bits of the state out and takes it to one
                // of its own.
                let mut state = 1u32 << bits;
                let mut pushed = Vec::with_capacity(symbols.len());
                for &symbol in symbols.iter().rev() {
                    let own = &states[usize::from(symbol)];
                    let frequency = own.len() as u32;
                    let mut n = state.ilog2() - frequency.ilog2();
                    if state >> n < frequency {
                        n -= 1;
                    }
                    pushed.push((state & ((1 << n) - 1), n));
                    state = u32::from(own[((state >> n) - frequency) as usize]) + (1 << bits);
                }
                out.put(state - (1 << bits), *bits);
                // The last symbol's bits would only lead to that first state.
                pushed.iter().skip(1).rev().for_each(|&(value, n)| out.put(value, n));
            }
        }
    }
}

/// Bits in words, the first one in the highest place.
#[derive(Debug, Default)]
pub(super) struct Bits {
    pub(super) words: Vec<u32>,
    /// Bits in use.
    pub(super) len: usize,
}

impl Bits {
    fn put(&mut self, value: u32, n: u32) {
        if n == 0 {
            return;
        }
        self.words.resize((self.len + n as usize).div_ceil(32), 0);
        let free = 32 - self.len as u32 % 32;
        let at = self.len / 32;
        if n <= free {
            self.words[at] |= value << (free - n);
        } else {
            self.words[at] |= value >> (n - free);
            self.words[at + 1] |= value << (32 - (n - free));
        }
        self.len += n as usize;
    }

    /// Appends others.
    pub(super) fn append(&mut self, other: &Self) {
        for (i, &word) in other.words.iter().enumerate() {
            let n = (other.len - 32 * i).min(32) as u32;
            self.put(word >> (32 - n), n);
        }
    }

    /// Zeros up to bit `len`, which is not before the end.
    pub(super) fn skip_to(&mut self, len: usize) {
        self.words.resize(len.div_ceil(32), 0);
        self.len = len;
    }
}

fn entry(symbol: usize, n: u32, base: u32) -> u32 {
    (symbol as u32) << 16 | n << 12 | base
}

fn prefix_code(counts: &[u64; 256], bits: u32) -> (Table, Encoder) {
    let lengths = prefix::lengths(counts, bits);
    let codes = prefix::codes(&lengths);
    // A symbol that is alone has no code: every state is its.
    let alone = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let mut entries: Vec<u32> = (0..1 << bits).map(|state| entry(alone, 0, state)).collect();
    for symbol in (0..256).filter(|&symbol| lengths[symbol] > 0) {
        let n = u32::from(lengths[symbol]);
        let first = u32::from(codes[symbol]) << (bits - n);
        for state in first..first + (1 << (bits - n)) {
            entries[state as usize] = entry(symbol, n, state << n & ((1 << bits) - 1));
        }
    }
    (Table { bits, entries }, Encoder::Prefix { codes: Box::new(codes), lengths: Box::new(lengths) })
}

/// How many of 2^bits states each symbol gets: about in proportion, one at least.
fn frequencies(counts: &[u64; 256], bits: u32) -> [u32; 256] {
    let (size, total) = (1u64 << bits, counts.iter().sum::<u64>().max(1));
    let mut given = counts.map(|count| if count == 0 { 0 } else { ((count * size / total) as u32).max(1) });
    let mut sum: u32 = given.iter().sum();
    // One more state saves a symbol about count / (frequency + ½) nats in all, one less costs it count / (frequency − ½).
    let dearer = |a: usize, b: usize, halves: &dyn Fn(usize) -> u64| {
        u128::from(counts[a]) * u128::from(halves(b)) > u128::from(counts[b]) * u128::from(halves(a))
    };
    while sum != size as u32 {
        let (more, step) = (sum < size as u32, if sum < size as u32 { 1 } else { u32::MAX });
        let halves = |symbol: usize| u64::from(2 * given[symbol] + if more { 1 } else { 0 }) - u64::from(!more);
        let possible = (0..256).filter(|&symbol| counts[symbol] > 0 && (more || given[symbol] > 1));
        let choice = possible.reduce(|best, other| if dearer(other, best, &halves) == more { other } else { best });
        let Some(symbol) = choice else { break }; // nothing to code, or more symbols than states
        given[symbol] = given[symbol].wrapping_add(step);
        sum = sum.wrapping_add(step);
    }
    given
}

/// Σ count·(bits − log2 frequency).
fn tans_bits(counts: &[u64; 256], bits: u32) -> f64 {
    let cost = |(&count, frequency): (&u64, u32)| match count {
        0 => 0.0,
        count => count as f64 * (f64::from(bits) - f64::from(frequency).log2()),
    };
    counts.iter().zip(frequencies(counts, bits)).map(cost).sum()
}

fn tans(counts: &[u64; 256], bits: u32) -> (Table, Encoder) {
    let frequencies = frequencies(counts, bits);
    // Every symbol's states are spread over all of them by an odd stride (as in Collet's FSE), and take its ranks in their order.
    let size = 1u32 << bits;
    let stride = (size / 2 + size / 8 + 3) | 1;
    let mut owner = vec![0; size as usize];
    let mut slot = 0;
    for (symbol, &frequency) in frequencies.iter().enumerate() {
        for _ in 0..frequency {
            owner[slot as usize] = symbol;
            slot = (slot + stride) & (size - 1);
        }
    }
    let mut states = vec![Vec::new(); 256];
    let mut entries = Vec::with_capacity(owner.len());
    for (state, &symbol) in owner.iter().enumerate() {
        let own: &mut Vec<u16> = &mut states[symbol];
        // The number that encoding shifted down to: between the frequency and twice it.
        let number = frequencies[symbol] + own.len() as u32;
        let n = bits - number.ilog2();
        entries.push(entry(symbol, n, (number << n) - size));
        own.push(state as u16);
    }
    (Table { bits, entries }, Encoder::Tans { bits, states })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `len` symbols.
    fn decode(table: &Table, out: &Bits, len: usize) -> Vec<u8> {
        let mut at = 0;
        let mut take = |n: u32| {
            let bit = |i: usize| out.words.get(i / 32).map_or(0, |word| word >> (31 - i % 32) & 1);
            let value = (0..n as usize).fold(0, |value, i| value << 1 | bit(at + i));
            at += n as usize;
            value
        };
        let mut state = take(table.bits);
        let mut symbol = || {
            let entry = table.entries[state as usize];
            state = (entry & 0xfff) + take(entry >> 12 & 15);
            (entry >> 16) as u8
        };
        (0..len).map(|_| symbol()).collect()
    }

    fn sample(seed: u32, len: usize, spread: u32) -> Vec<u8> {
        let mut lcg = super::super::super::tests::Lcg::new(seed);
        (0..len)
            .map(|_| (100 + (u32::from(lcg.u16()) | 1 << (16 - spread)).leading_zeros() + lcg.u16() as u32 % 2) as u8)
            .collect()
    }

    fn count(symbols: &[u8]) -> [u64; 256] {
        let mut counts = [0; 256];
        symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
        counts
    }

    #[test]
    fn both_kinds_of_code_come_back() {
        for (len, spread) in [(1, 4), (2, 4), (100, 12), (1000, 15), (1000, 1)] {
            let symbols = sample(7, len, spread);
            let counts = count(&symbols);
            for bits in 5..=MOST_BITS {
                for (table, encoder) in [prefix_code(&counts, bits), tans(&counts, bits)] {
                    Table::check(bits, &table.entries, 8).unwrap();
                    let mut out = Bits::default();
                    encoder.encode(&symbols, &mut out);
                    assert_eq!(decode(&table, &out, len), symbols, "{len} {spread} {bits}");
                }
            }
            let (table, encoder) = Table::best(&counts, 1);
            let mut out = Bits::default();
            encoder.encode(&symbols, &mut out);
            assert_eq!(decode(&table, &out, len), symbols);
        }
    }

    /// Both are near the entropy, and tANS nearer where a symbol is worth less than a bit.
    #[test]
    fn codes_are_as_short_as_they_should_be() {
        let mut lcg = super::super::super::tests::Lcg::new(3);
        let symbols: Vec<u8> = (0..20_000).map(|_| u8::from(lcg.u16() < 6_000)).collect();
        let counts = count(&symbols);
        let p = counts[1] as f64 / 20_000.0;
        let entropy = -p * p.log2() - (1.0 - p) * (1.0 - p).log2();
        let size = |(_, encoder): (Table, Encoder)| {
            let mut out = Bits::default();
            encoder.encode(&symbols, &mut out);
            out.len as f64 / 20_000.0
        };
        let (prefix, tans) = (size(prefix_code(&counts, 8)), size(tans(&counts, 8)));
        assert_eq!(prefix, 1.0);
        assert!(tans >= entropy && tans < 1.01 * entropy, "{tans} where the entropy is {entropy}");
        assert!(matches!(Table::best(&counts, 1).1, Encoder::Tans { .. }));
    }

    #[test]
    fn frequencies_fill_the_table() {
        for counts in [count(&sample(1, 5000, 15)), count(&[3]), count(&(0..=255).collect::<Vec<_>>())] {
            for bits in 8..=MOST_BITS {
                let given = frequencies(&counts, bits);
                assert_eq!(given.iter().sum::<u32>(), 1 << bits);
                assert!(counts.iter().zip(given).all(|(count, given)| (*count > 0) == (given > 0)));
            }
        }
    }

    #[test]
    fn tables_that_lead_out_are_refused() {
        let (mut table, _) = prefix_code(&count(&sample(1, 500, 9)), 8);
        for (bad, bits) in [(entry(1, 9, 0), 8), (entry(1, 1, 255), 8), (entry(1, 0, 256), 8), (entry(16, 0, 0), 4)] {
            let good = std::mem::replace(&mut table.entries[77], bad);
            assert!(Table::check(8, &table.entries, 8).is_err() == (bits == 8));
            assert!(Table::check(8, &[bad], bits).is_err());
            table.entries[77] = good;
        }
    }
}
