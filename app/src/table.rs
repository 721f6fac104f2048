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

/// A table with a header, whose names may have several lines; columns are as wide as their longest cell.
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

    /// Adds a row; cells that are missing at its end stay empty. Control characters, which names from files may contain,
    /// become replacement characters.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let plain = |cell: S| cell.into().replace(char::is_control, "\u{fffd}");
        self.rows.push(cells.into_iter().map(plain).collect());
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

    /// The table on a terminal of `width` columns; as wide as it is when that is not known. Where it is wider, words in the
    /// last column are cut, or it is laid out as several tables below each other that repeat the first column.
    pub fn fit(&self, width: Option<usize>) -> String {
        let Some(width) = width else { return self.to_string() };
        if let Some(cut) = self.cut(width) {
            return cut.to_string();
        }
        let widths = self.widths();
        let mut blocks: Vec<Vec<usize>> = Vec::new();
        let mut end = 0;
        for c in 1..self.columns.len() {
            end += GAP + widths[c];
            match blocks.last_mut() {
                Some(block) if end <= width => block.push(c),
                _ => {
                    end = widths[0] + GAP + widths[c];
                    blocks.push(vec![0, c]);
                }
            }
        }
        let block = |columns: &Vec<usize>| {
            let table = self.select(columns);
            table.cut(width).unwrap_or(table).to_string()
        };
        blocks.iter().map(block).collect::<Vec<_>>().join("\n")
    }

    /// The table with the words in its last column cut to fit into `width`; `None` if they are numbers, or little is left.
    fn cut(&self, width: usize) -> Option<Self> {
        const LEAST: usize = 16;
        let widths = self.widths();
        let (last, before) = widths.split_last()?;
        let room = width.checked_sub(before.iter().map(|w| w + GAP).sum())?;
        if *last <= room {
            return Some(self.clone());
        }
        if room < LEAST || self.columns.last()?.1 == Align::Right {
            return None;
        }
        let mut table = self.clone();
        for cell in table.rows.iter_mut().filter_map(|row| row.get_mut(before.len())) {
            *cell = shorten(cell, room);
        }
        Some(table)
    }

    /// Some of the columns.
    fn select(&self, columns: &[usize]) -> Self {
        let cell = |row: &[String], c: usize| row.get(c).cloned().unwrap_or_default();
        Self {
            columns: columns.iter().map(|&c| self.columns[c].clone()).collect(),
            rows: self.rows.iter().map(|row| columns.iter().map(|&c| cell(row, c)).collect()).collect(),
        }
    }

    /// Width of each column.
    fn widths(&self) -> Vec<usize> {
        let column = |(c, (name, _)): (usize, &(String, Align))| {
            let cells = self.rows.iter().filter_map(|row| row.get(c)).map(|cell| width(cell));
            cells.chain(name.lines().map(width)).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    /// Leaves out columns that are empty in every row.
    pub fn without_empty_columns(self) -> Self {
        let used = |c: &usize| self.rows.iter().any(|row| row.get(*c).is_some_and(|cell| !cell.is_empty()));
        let columns: Vec<usize> = (0..self.columns.len()).filter(used).collect();
        self.select(&columns)
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

/// A text cut to some columns of a terminal, the last one an ellipsis where something is missing.
pub fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if width(&out) + width(c.encode_utf8(&mut [0; 4])) >= columns {
            break;
        }
        out.push(c);
    }
    out + "…"
}

/// A text broken into lines between words; `indent` columns are left free at the beginning of all lines but the first.
pub fn wrap(text: &str, columns: Option<usize>, indent: usize) -> String {
    let columns = columns.unwrap_or(usize::MAX);
    let (mut out, mut end) = (String::new(), indent);
    for word in text.split_whitespace() {
        let taken = width(word);
        if !out.is_empty() && end.saturating_add(1 + taken) > columns {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            end = indent;
        } else if !out.is_empty() {
            out.push(' ');
            end += 1;
        }
        out.push_str(word);
        end += taken;
    }
    out
}

/// Columns between those of a table.
const GAP: usize = 2;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &[String]| {
            let mut out = String::new();
            for (c, &column) in widths.iter().enumerate() {
                let cell = cells.get(c).map_or("", String::as_str);
                let pad = " ".repeat(column.saturating_sub(width(cell)));
                out.push_str(&" ".repeat(if c == 0 { 0 } else { GAP }));
                match self.columns[c].1 {
                    Align::Left => out.extend([cell, &pad]),
                    Align::Right => out.extend([pad.as_str(), cell]),
                }
            }
            out.trim_end().to_owned()
        };
        // Names of fewer lines stand at the bottom.
        let height = self.header().map(|name| name.lines().count()).max().unwrap_or(0);
        for i in 0..height {
            let part = |name: &str| {
                let above = height - name.lines().count();
                i.checked_sub(above).and_then(|i| name.lines().nth(i)).unwrap_or_default().to_owned()
            };
            let header: Vec<String> = self.header().map(part).collect();
            writeln!(f, "{}", line(&header))?;
        }
        let rule: Vec<String> = widths.iter().map(|&w| "─".repeat(w)).collect();
        writeln!(f, "{}", rule.join(&" ".repeat(GAP)))?;
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

    #[test]
    fn a_narrow_terminal_gets_several_tables_or_shorter_words() {
        let mut table = Table::new([("name", Align::Left), ("first\nms", Align::Right), ("MB", Align::Right)]);
        table.row(["q4_0", "12.5", "1234"]);
        assert_eq!(table.fit(None), "      first\nname     ms    MB\n────  ─────  ────\nq4_0   12.5  1234\n");
        assert_eq!(table.fit(Some(17)), table.fit(None));
        assert_eq!(
            table.fit(Some(12)),
            "      first\nname     ms\n────  ─────\nq4_0   12.5\n\nname    MB\n────  ────\nq4_0  1234\n"
        );
        let mut table = Table::new([("key", Align::Left), ("value", Align::Left)]);
        table.row(["a", "many words that say little"]);
        assert_eq!(table.fit(Some(21)), "key  value\n───  ────────────────\na    many words that…\n");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three four", Some(9), 0), "one two\nthree\nfour");
        assert_eq!(wrap("one two three", Some(11), 4), "one two\n    three");
        assert_eq!(wrap("one  two\nthree", None, 2), "one two three");
        assert_eq!(shorten("日本語", 5), "日本…");
    }
}
