//! Generated texts beside the original's, with the first token that differs marked.

use tersor_engine::session::report::{Comparison, Generation};

/// A text cut where it first differs from the original's: what is the same, the differing token, the rest.
pub struct Parts<'a> {
    /// Equal to the original's.
    pub same: String,
    /// The first token that differs.
    pub differing: Option<&'a str>,
    /// What follows it.
    pub rest: String,
}

/// Cuts a generated text.
pub fn parts(generation: &Generation) -> Parts<'_> {
    let at = generation.first_difference.filter(|&at| at < generation.pieces.len());
    let end = at.unwrap_or(generation.pieces.len());
    Parts {
        same: generation.pieces[..end].concat(),
        differing: at.map(|at| generation.pieces[at].as_str()),
        rest: at.map(|at| generation.pieces[at + 1..].concat()).unwrap_or_default(),
    }
}

/// The texts of all forms, for a terminal: the differing token in inverse video when `colour`, else in ⟦brackets⟧.
pub fn terminal(comparison: &Comparison, colour: bool) -> String {
    let (before, after) = if colour { ("\x1b[7m", "\x1b[0m") } else { ("⟦", "⟧") };
    let mut out = String::new();
    for variant in &comparison.variants {
        let Some(generation) = &variant.generation else { continue };
        let parts = parts(generation);
        let note = match generation.first_difference {
            Some(at) => format!("differs from token {}", at + 1),
            None if std::ptr::eq(variant, &comparison.variants[0]) => "the original".to_owned(),
            None => "the same".to_owned(),
        };
        let marked = match parts.differing {
            // A token can be half a character, or nothing to see.
            Some(token) => format!("{before}{}{after}", if token.is_empty() { "·" } else { token }),
            None => String::new(),
        };
        let text = printable(&format!("{}\u{0}{}", parts.same, parts.rest)).replace('\u{0}', &marked);
        out.push_str(&format!("── {} ({note})\n{}\n\n", variant.recipe, text.trim_end()));
    }
    out
}

/// Without control characters that could move the cursor or change colours: models write what they like.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t' | '\u{0}') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tersor_engine::session::report::Stop;

    #[test]
    fn the_first_difference_is_cut_out() {
        let generation = Generation {
            text: "a b c".into(),
            tokens: vec![1, 2, 3],
            pieces: vec!["a".into(), " b".into(), " c".into()],
            stop: Stop::Length,
            first_difference: Some(1),
        };
        let cut = parts(&generation);
        assert_eq!((cut.same.as_str(), cut.differing, cut.rest.as_str()), ("a", Some(" b"), " c"));
        // The original ended earlier: nothing to point at.
        let longer = Generation { first_difference: Some(3), ..generation };
        assert_eq!(parts(&longer).differing, None);
    }

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
