//! What somebody may have meant who mistyped a name.

/// The name of `known` that is closest to `word`, if it is close and no other is as close.
///
/// Close are names that a third of the word's letters, and at least one, make of each other when they are changed, added or left
/// out. Upper and lower case are the same.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let mut best = (word.len() / 3).max(1) + 1;
    let mut found = None;
    for name in known {
        let distance = distance(&word, name);
        if distance < best {
            (best, found) = (distance, Some(name));
        } else if distance == best {
            found = None;
        }
    }
    found
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &str) -> usize {
    // Distances of the beginnings of `a` to what has been read of `b`.
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, a) in a.iter().enumerate() {
            let changed = diagonal + usize::from(*a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_close_by_is_meant() {
        let codecs = ["q4_0", "q4_1", "q4_k", "uniform", "nf4"];
        assert_eq!(nearest("q4k", codecs), Some("q4_k"));
        assert_eq!(nearest("Q4-K", codecs), Some("q4_k"));
        assert_eq!(nearest("unifrom", codecs), Some("uniform"));
        assert_eq!(nearest("q4_9", codecs), None, "three are as close");
        assert_eq!(nearest("int8", codecs), None);
        assert_eq!(nearest("", codecs), None);
        let tensors = ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "token_embd.weight"];
        assert_eq!(nearest("blk.1.attnq.weight", tensors), Some("blk.1.attn_q.weight"));
    }

    #[test]
    fn distances_are_levenshteins() {
        let of = |a: &str, b| distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!([of("kitten", "sitting"), of("", "abc"), of("abc", ""), of("flaw", "lawn")], [3, 3, 3, 2]);
    }
}
