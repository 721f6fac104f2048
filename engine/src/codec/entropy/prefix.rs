//! Length-limited prefix codes: the lengths by package-merge (Larmore and Hirschberg 1990), the codes canonical.

/// Optimal code lengths for symbols with these counts, none above `limit`; 0 for a symbol that does not occur, and for one that is
/// alone. `limit` must leave room: at most 2^limit symbols occur.
pub(super) fn lengths(counts: &[u64; 256], limit: u32) -> [u8; 256] {
    let mut present: Vec<usize> = (0..256).filter(|&symbol| counts[symbol] > 0).collect();
    let mut lengths = [0; 256];
    if present.len() < 2 {
        return lengths;
    }
    present.sort_by_key(|&symbol| (counts[symbol], symbol));
    // Packages of the level below: their weight, and how often each symbol is in them. The cheapest 2n − 2 of the last level say
    // how long each symbol's code is: as often as it is in them.
    let coins: Vec<(u64, Vec<u16>)> = present.iter().map(|&symbol| (counts[symbol], vec![symbol as u16])).collect();
    let mut level = coins.clone();
    for _ in 1..limit {
        let pairs =
            level.chunks_exact(2).map(|pair| (pair[0].0 + pair[1].0, [&pair[0].1[..], &pair[1].1[..]].concat()));
        let mut next: Vec<(u64, Vec<u16>)> = coins.iter().cloned().chain(pairs).collect();
        next.sort_by_key(|(weight, _)| *weight); // stable: the same code everywhere
        level = next;
    }
    for (_, symbols) in level.iter().take(2 * present.len() - 2) {
        symbols.iter().for_each(|&symbol| lengths[usize::from(symbol)] += 1);
    }
    lengths
}

/// Canonical codes: by length, then by symbol, counting up; each in the low bits of its word.
pub(super) fn codes(lengths: &[u8; 256]) -> [u16; 256] {
    let mut codes = [0; 256];
    let mut next = 0u32;
    for length in 1..=16u8 {
        next <<= 1;
        for symbol in (0..256).filter(|&symbol| lengths[symbol] == length) {
            codes[symbol] = next as u16;
            next += 1;
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[u64]) -> [u64; 256] {
        std::array::from_fn(|symbol| list.get(symbol).copied().unwrap_or(0))
    }

    /// Σ 2^−length over the symbols that occur.
    fn kraft(lengths: &[u8; 256]) -> f64 {
        lengths.iter().filter(|&&length| length > 0).map(|&length| 0.5f64.powi(length.into())).sum()
    }

    /// The least Σ count·length over all lengths up to `limit` that Kraft's inequality allows, by trying them all.
    fn least(counts: &[u64], limit: u32, kraft: f64) -> u64 {
        let Some((first, rest)) = counts.split_first() else { return 0 };
        let possible = (1..=limit).filter(|&length| kraft + 0.5f64.powi(length as i32) <= 1.0);
        let cost = |length: u32| match least(rest, limit, kraft + 0.5f64.powi(length as i32)) {
            u64::MAX => u64::MAX,
            cost => cost + first * u64::from(length),
        };
        possible.map(cost).min().unwrap_or(u64::MAX)
    }

    #[test]
    fn lengths_are_the_best_there_are() {
        for list in [vec![1, 1], vec![5, 1, 1], vec![1, 2, 4, 8, 16, 32], vec![90, 1, 1, 1, 1], vec![3, 3, 3, 3, 3, 1]]
        {
            for limit in 1..=6 {
                if list.len() > 1 << limit {
                    continue;
                }
                let lengths = lengths(&counts(&list), limit);
                let cost: u64 = list.iter().zip(lengths).map(|(count, length)| count * u64::from(length)).sum();
                assert_eq!(cost, least(&list, limit, 0.0), "{list:?} up to {limit}");
                assert_eq!(kraft(&lengths), 1.0, "{list:?} up to {limit}");
                assert!(lengths.iter().all(|&length| u32::from(length) <= limit));
            }
        }
        assert_eq!(lengths(&counts(&[0, 7]), 8), [0; 256], "one symbol needs no bits");
        assert_eq!(lengths(&[1; 256], 8), [8; 256]);
    }

    #[test]
    fn codes_are_canonical() {
        let lengths = lengths(&counts(&[1, 2, 4, 8]), 8);
        assert_eq!(lengths[..4], [3, 3, 2, 1]);
        assert_eq!(codes(&lengths)[..4], [0b110, 0b111, 0b10, 0]);
    }
}
