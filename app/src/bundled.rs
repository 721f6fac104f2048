//! What is part of the program: the text that quality is measured on, and the prompt of the first comparison.

use tersor_engine::session::Text;

/// The last chapters of a novel that no model's licence forbids to quote.
pub fn text() -> Text {
    let text = include_str!("../../assets/text/eval.txt").to_owned();
    Text { name: "Mansfield Park, XLVI–XLVIII".to_owned(), text }
}
