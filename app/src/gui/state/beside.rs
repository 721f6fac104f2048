//! Another's report laid beside one's own measurements: read, checked, shown with what was otherwise about it, taken away again.

use tersor_engine::session::Report;
use tersor_engine::session::report::{Comparison, Variant};

use super::{Measured, Notice, Quality, State, Tab};

/// Bytes of a report at most: far more than any command writes.
pub const MOST_BYTES: usize = 64 << 20;
/// And rows.
const MOST_ROWS: usize = 512;
/// And letters of a name in it.
const MOST_LETTERS: usize = 1024;

/// A report that somebody else, or another device, made.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Its file.
    pub name: String,
    /// What is in it.
    pub found: Comparison,
}

/// A row of the table, a point of the plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown<'a> {
    /// What was measured.
    pub variant: &'a Variant,
    /// Number of the report that it is from; `None`: it was measured here.
    pub report: Option<usize>,
}

/// Reads a report.
///
/// # Errors
/// Why it cannot be laid beside measurements of quality, to go on after the file's name.
pub fn read(bytes: &[u8]) -> Result<Comparison, String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("has {} MB, and no report has more than {}", bytes.len() >> 20, MOST_BYTES >> 20));
    }
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| format!("is damaged, or no report at all: {error}"))?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        None => return Err("is JSON, but no report that tersor wrote".to_owned()),
        Some("tersor.compare/1") => {}
        Some(other) if other.starts_with("tersor.compare/") => {
            return Err(format!("was written by a newer version (as {other}, this one reads tersor.compare/1)"));
        }
        Some(other) if other.starts_with("tersor.") => {
            let what = other.trim_start_matches("tersor.").split('/').next().unwrap_or_default();
            return Err(format!("is a report of `{what}`; those of `compare` can be laid beside measurements"));
        }
        Some(_) => return Err("is a report of another program".to_owned()),
    }
    let report = serde_json::from_value(value).map_err(|error| format!("is damaged: {error}"))?;
    let Report::Compare(found) = report else { return Err("is damaged: its schema is not what is in it".to_owned()) };
    if found.variants.len() > MOST_ROWS {
        return Err(format!("has {} rows, and no report has more than {MOST_ROWS}", found.variants.len()));
    }
    let names = [&found.device.name, &found.model.name].into_iter().chain(found.text.as_ref().map(|text| &text.name));
    let names = names.chain(found.variants.iter().map(|variant| &variant.recipe));
    let letters = names.map(String::len).max().unwrap_or_default();
    if letters > MOST_LETTERS {
        return Err(format!("is damaged: it has a name of {letters} letters"));
    }
    if !found.variants.iter().any(|variant| variant.quality.is_some()) {
        return Err("does not say what a text was predicted with: nothing in it can be compared".to_owned());
    }
    Ok(found)
}

impl Beside {
    /// The file's name without its ending.
    pub fn short_name(&self) -> &str {
        self.name.strip_suffix(".json").unwrap_or(&self.name)
    }

    /// What was otherwise when `own` was measured, so that not all numbers can be compared.
    pub fn differences(&self, own: &Measured) -> Vec<&'static str> {
        let (found, mut list) = (&self.found, Vec::new());
        if (&found.model.name, found.model.parameters) != (&own.model.name, own.model.parameters) {
            list.push("another model");
        } else if found.model.rotation != own.model.rotation {
            list.push("another basis");
        }
        if found.text.as_ref() != Some(&own.text) {
            list.push("another text");
        }
        if found.device != own.device {
            list.push("another device");
        }
        list
    }
}

impl Quality {
    /// What the table and the plot show: one's own, then report by report.
    pub fn shown(&self) -> Vec<Shown<'_>> {
        let own = self.table().into_iter().map(|row| Shown { variant: &row.variant, report: None });
        let others = self.beside.iter().enumerate().flat_map(|(number, beside)| {
            let measured = beside.found.variants.iter().filter(|variant| variant.quality.is_some());
            measured.map(move |variant| Shown { variant, report: Some(number) })
        });
        own.chain(others).collect()
    }
}

impl State {
    pub(super) fn lay_beside(&mut self, name: String, bytes: &[u8]) {
        match read(bytes) {
            Ok(found) => {
                let beside = Beside { name, found };
                match self.quality.beside.iter_mut().find(|other| other.name == beside.name) {
                    Some(before) => *before = beside,
                    None => self.quality.beside.push(beside),
                }
                (self.tab, self.notice) = (Tab::Quality, None);
            }
            Err(why) => self.notice = Some(Notice { text: format!("{name} {why}."), remedy: None }),
        }
    }

    pub(super) fn take_away(&mut self, number: usize) {
        if number < self.quality.beside.len() {
            self.quality.beside.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{comparison, encoder};

    fn text(report: Report) -> String {
        serde_json::to_string(&report).unwrap()
    }

    #[test]
    fn what_the_command_line_writes_is_read() {
        let found = comparison();
        assert_eq!(read(text(Report::Compare(found.clone())).as_bytes()), Ok(found));
    }

    #[test]
    fn what_is_no_comparison_says_what_it_is() {
        let good = text(Report::Compare(comparison()));
        let newer = good.replace("tersor.compare/1", "tersor.compare/2");
        let kernels = good.replace("tersor.compare/1", "tersor.bench/1");
        let other = good.replace("tersor.compare/1", "mlperf/4");
        let lost = good.replace("\"variants\"", "\"variant\"");
        let mut nothing = comparison();
        nothing.variants.iter_mut().for_each(|variant| variant.quality = None);
        let mut endless = comparison();
        endless.variants = vec![endless.variants[1].clone(); MOST_ROWS + 1];
        let mut long = comparison();
        long.variants[1].recipe = "x".repeat(MOST_LETTERS + 1);
        for (bytes, part) in [
            ("", "no report at all"),
            ("\u{0}\u{1}", "no report at all"),
            (&good[..good.len() / 2], "is damaged, or no report at all: EOF"),
            ("{\"epochs\": 3}", "is JSON, but no report"),
            ("[1, 2]", "is JSON, but no report"),
            (&newer, "newer version (as tersor.compare/2"),
            (&kernels, "is a report of `bench`"),
            (&other, "of another program"),
            (&lost, "is damaged: missing field `variants`"),
            (&text(Report::Compare(nothing)), "nothing in it can be compared"),
            (&text(Report::Compare(encoder())), "nothing in it can be compared"),
            (&text(Report::Compare(endless)), "513 rows"),
            (&text(Report::Compare(long)), "a name of 1025 letters"),
        ] {
            let why = read(bytes.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
        assert!(read(&[0xff; 9]).is_err());
        assert!(read(&vec![b' '; MOST_BYTES + 1]).unwrap_err().contains("64"));
    }
}
