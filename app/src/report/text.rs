//! Generated texts beside the original's, with the first token that differs marked.

use tersor_engine::session::report::{Comparison, Generation, Variant};

use crate::table;

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

/// How a text relates to the original's, in words: "the same", "differs from token 12".
pub fn note(variant: &Variant, original: bool) -> String {
    match variant.generation.as_ref().and_then(|generation| generation.first_difference) {
        _ if original => "the original".to_owned(),
        Some(at) => format!("differs from token {}", at + 1),
        None => "the same".to_owned(),
    }
}

/// The texts of all forms, for a terminal of `width` columns, if that is known: the differing token in inverse video when
/// `colour`, else in ⟦brackets⟧. A text that is the original's is not repeated.
pub fn terminal(comparison: &Comparison, width: Option<usize>, colour: bool) -> String {
    let (before, after) = if colour { ("\x1b[7m", "\x1b[0m") } else { ("⟦", "⟧") };
    let mut out = String::new();
    for (i, variant) in comparison.variants.iter().enumerate() {
        let Some(generation) = &variant.generation else { continue };
        out.push_str(&format!("── {} ({})\n", printable(&variant.recipe), note(variant, i == 0)));
        let parts = parts(generation);
        if i == 0 || parts.differing.is_some() {
            let marked = parts.differing.map_or(String::new(), |token| format!("{before}{}{after}", visible(token)));
            let text = format!("{}{marked}{}", printable(&parts.same), printable(&parts.rest));
            let lines: Vec<String> = text.trim().lines().map(|line| wrap_line(line, width)).collect();
            out.push_str(&format!("{}\n", lines.join("\n")));
        }
        out.push('\n');
    }
    out
}

/// One line of a text, broken between words if it is too long. Spaces at its beginning stay: code is written with them.
fn wrap_line(line: &str, width: Option<usize>) -> String {
    if width.is_none_or(|columns| table::width(line) <= columns) {
        return line.to_owned();
    }
    let text = line.trim_start();
    format!("{}{}", &line[..line.len() - text.len()], table::wrap(text, width, 0))
}

/// A token that can be seen where it is marked: what is blank, or no whole character, gets a sign.
pub fn visible(token: &str) -> String {
    let shown = printable(token).replace('\n', "↵").replace('\t', "⇥");
    if shown.trim().is_empty() { shown.replace(' ', "▁") + if shown.is_empty() { "·" } else { "" } } else { shown }
}

/// Without control characters that could move the cursor or change colours: models write what they like.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
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
        let mut found = super::super::tests::comparison();
        let generation = found.variants[1].generation.as_mut().unwrap();
        generation.pieces = vec!["a\u{9b}2J".into(), "\x1b]0;x\x07\n".into(), "\x1b[31m".into()];
        let shown = terminal(&found, Some(80), false);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("⟦\u{fffd}]0;x\u{fffd}↵⟧"), "{shown}");
    }

    #[test]
    fn a_token_without_ink_is_seen() {
        assert_eq!(["", " ", "\n\n", " a"].map(visible), ["·", "▁", "↵↵", " a"]);
    }

    #[test]
    fn long_lines_break_and_short_ones_stay_as_they_are() {
        assert_eq!(wrap_line("    let x  = 1;", Some(40)), "    let x  = 1;");
        assert_eq!(wrap_line("  one two", Some(6)), "  one\ntwo");
    }
}
