//! Tables for people, in plain text.

use std::fmt;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a header; columns are as wide as their longest cell.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        Self { columns: columns.into_iter().map(|(name, align)| (name.to_owned(), align)).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing at its end stay empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Column names.
    pub fn header(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// Alignment of each column.
    pub fn aligns(&self) -> impl Iterator<Item = Align> {
        self.columns.iter().map(|(_, align)| *align)
    }

    /// Rows of cells.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Leaves out columns that are empty in every row.
    pub fn without_empty_columns(mut self) -> Self {
        let used: Vec<bool> = (0..self.columns.len())
            .map(|c| self.rows.iter().any(|row| row.get(c).is_some_and(|cell| !cell.is_empty())))
            .collect();
        let kept = |c: &usize| used[*c];
        self.rows = self
            .rows
            .iter()
            .map(|row| (0..row.len().min(used.len())).filter(kept).map(|c| row[c].clone()).collect())
            .collect();
        self.columns = (0..used.len()).filter(kept).map(|c| self.columns[c].clone()).collect();
        self
    }
}

/// Columns of a terminal that a text takes: one for each character, two for wide ones (CJK, emoji), none for combining
/// marks. The ranges are the large blocks of Unicode's East Asian Width data, which is what names and prompts use.
pub fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x300..=0x36f | 0x200b..=0x200f | 0x20d0..=0x20f0 | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
            0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(c, (name, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(c)).map(|cell| width(cell));
                cells.chain([width(name)]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let mut out = String::new();
            for (c, &column) in widths.iter().enumerate() {
                let cell = cells.get(c).map_or("", String::as_str);
                let pad = " ".repeat(column.saturating_sub(width(cell)));
                out.push_str(if c == 0 { "" } else { "  " });
                match self.columns[c].1 {
                    Align::Left => out.extend([cell, &pad]),
                    Align::Right => out.extend([pad.as_str(), cell]),
                }
            }
            out.trim_end().to_owned()
        };
        let header: Vec<String> = self.header().map(str::to_owned).collect();
        writeln!(f, "{}", line(&header))?;
        let rule: Vec<String> = widths.iter().map(|&w| "─".repeat(w)).collect();
        writeln!(f, "{}", rule.join("  "))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let mut table = Table::new([("name", Align::Left), ("MB", Align::Right), ("note", Align::Left)]);
        table.row(["q4_0", "12.5", ""]);
        table.row(["日本", "7", ""]);
        assert_eq!(
            table.clone().without_empty_columns().to_string(),
            "name    MB\n────  ────\nq4_0  12.5\n日本     7\n"
        );
        assert_eq!(table.without_empty_columns().header().count(), 2);
    }
}
