//! Standard output that may go away (`tersor inspect … | head` ends quietly), and notes on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};

use crate::table::wrap;

/// Writes to standard output at once.
pub fn print(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever read has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("cannot write to standard output"),
    }
}

/// [`print`] with a line's end.
pub fn line(text: impl Display) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Writes a line to standard error, broken between words where that is a terminal. What cannot be told is not told.
pub fn note(text: impl Display) {
    let width = columns(&console::Term::stderr());
    let text = text.to_string();
    let lines: Vec<String> = text.lines().map(|line| wrap(line, width, 0)).collect();
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// Columns of the terminal that standard output is; `None` where it is something else, which may have any width.
pub fn width() -> Option<usize> {
    columns(&console::Term::stdout())
}

fn columns(terminal: &console::Term) -> Option<usize> {
    terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns.into())
}
