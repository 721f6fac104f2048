//! SentencePiece's precompiled character map: a double-array trie of byte strings and what each is replaced by.
//!
//! Layout: `u32` size of the trie in bytes, the trie's units as `u32`, then the replacements, each ended by a zero byte; all
//! little-endian. A unit holds (from bit 0) 8 bits label, 1 bit "a value follows", 1 bit "offset is shifted by 8", 21 bits
//! offset, 1 bit "this is a value": the unit's lower 31 bits are then a position in the replacements.

use std::collections::HashSet;

/// A parsed map. Look-ups are bounds-checked, so that any bytes may be tried.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

/// The most units a map may have: 16 times T5's.
const UNITS_MAX: usize = 1 << 20;

impl CharsMap {
    /// Parses the map; `None` if its parts do not fit together.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        if size > rest.len() || !size.is_multiple_of(4) || size / 4 > UNITS_MAX {
            return None;
        }
        let (trie, replacements) = rest.split_at(size);
        let (units, _) = trie.as_chunks::<4>();
        Some(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: std::str::from_utf8(replacements).ok()?.to_owned(),
        })
    }

    /// Replaces, at each place of `text`, the longest byte string that the map knows.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let known = self.longest(rest.as_bytes()).and_then(|(length, position)| {
                let replacement = self.replacements.get(position..)?;
                Some((rest.get(length..)?, replacement.split('\0').next().unwrap_or(replacement)))
            });
            match known {
                Some((behind, replacement)) => {
                    out.push_str(replacement);
                    rest = behind;
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }

    /// Length of the longest known prefix of `text` and where its replacement begins.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let mut best = None;
        let mut at = offset(*self.units.first()?);
        for (index, &byte) in text.iter().enumerate() {
            let child = at ^ byte as usize;
            let Some(&unit) = self.units.get(child) else { break };
            if byte == 0 || label(unit) != u32::from(byte) {
                break;
            }
            at = child ^ offset(unit);
            if has_value(unit) {
                let Some(&value) = self.units.get(at) else { break };
                best = Some((index + 1, value_of(value)));
            }
        }
        best
    }

    /// True if no look-up, whatever the text, leaves the trie or the replacements: for code that does not check.
    pub(super) fn is_closed(&self) -> bool {
        let Some(&root) = self.units.first() else { return false };
        let mut seen = HashSet::from([offset(root)]);
        let mut open = vec![offset(root)];
        while let Some(at) = open.pop() {
            // XOR with a byte stays within the aligned block of 256 units.
            if at | 0xff >= self.units.len() {
                return false;
            }
            for byte in 1..=255usize {
                let unit = self.units[at ^ byte];
                if label(unit) != byte as u32 {
                    continue;
                }
                let next = (at ^ byte) ^ offset(unit);
                if has_value(unit) {
                    let Some(&value) = self.units.get(next) else { return false };
                    if !self.replacements.is_char_boundary(value_of(value)) {
                        return false;
                    }
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        true
    }
}

/// The byte that leads to this unit; values have their top bit set, so that they match no byte.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn has_value(unit: u32) -> bool {
    unit & (1 << 8) != 0
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

fn value_of(unit: u32) -> usize {
    (unit & !(1 << 31)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map that replaces `a` by "xy" and `ab` by "z": root block at 256, its child's at 512.
    fn bytes() -> Vec<u8> {
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        units[256 ^ 0x61] = (0x61 ^ 256 ^ 512) << 10 | 1 << 8 | 0x61;
        units[512] = 1 << 31;
        units[512 ^ 0x62] = (0x62 ^ 512 ^ 768) << 10 | 1 << 8 | 0x62;
        units[768] = 1 << 31 | 3;
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"xy\0z\0");
        bytes
    }

    #[test]
    fn longest_match_is_replaced() {
        let map = CharsMap::parse(&bytes()).unwrap();
        assert_eq!(map.apply("cabaé"), "czxyé");
        assert!(map.is_closed());
    }

    #[test]
    fn broken_maps_are_refused_or_harmless() {
        assert!(CharsMap::parse(&[]).is_none());
        assert!(CharsMap::parse(&[255, 255, 255, 255, 0]).is_none());
        assert!(!CharsMap::parse(&[0; 4]).unwrap().is_closed());
        for at in 0..bytes().len() {
            for bit in [0, 1, 7] {
                let mut bytes = bytes();
                bytes[at] ^= 1 << bit;
                if let Some(map) = CharsMap::parse(&bytes) {
                    map.apply("abcab\u{1F600}");
                    map.is_closed();
                }
            }
        }
    }
}
