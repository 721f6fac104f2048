//! Saving what a page shows: the reports that the command line writes, and plots.

use tersor_engine::session::Report;

use super::{Client, Notice, State, Tab};
use crate::report::{self, roofline};

/// What a report is saved as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A page.
    Html,
    /// Data.
    Json,
    /// The plot alone.
    Svg,
    /// The same as a picture.
    Png,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Html, Self::Json, Self::Svg, Self::Png];

    /// Ending of the file's name.
    fn ending(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Json => "json",
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
}

impl State {
    pub(super) fn export(&mut self, form: Form, client: &mut dyn Client) {
        let made = match self.tab {
            Tab::Quality => self.quality_as(form),
            Tab::Kernels => self.kernels_as(form),
            _ => return,
        };
        match made {
            Some((name, text)) => {
                let name = format!("{}.{}", file_name(&name), form.ending());
                match form {
                    Form::Png => client.save_picture(&name, text),
                    _ => client.save(&name, text.into_bytes()),
                }
            }
            None => {
                let text = "There is nothing to save yet: measure first.".to_owned();
                self.notice = Some(Notice { text, remedy: None });
            }
        }
    }

    /// A name, and the text of the file; of a picture, that of the drawing it is made of. The plot is saved as it is shown, with what is
    /// laid beside; a report is what was measured here.
    fn quality_as(&self, form: Form) -> Option<(String, String)> {
        let own = self.quality.comparison();
        let text = match form {
            Form::Html => report::html::page(own.as_ref()?, &self.quality.command()?),
            Form::Json => json(&Report::Compare(own.clone()?)),
            Form::Svg | Form::Png => self.quality.svg()?,
        };
        let others = self.quality.beside.first().map(|beside| &beside.found.model.name);
        let name = own.as_ref().map(|found| &found.model.name).or(others)?;
        Some((format!("{name} compressed"), text))
    }

    fn kernels_as(&self, form: Form) -> Option<(String, String)> {
        let found = self.kernels.found.as_ref()?;
        let name = format!("kernels {}", found.device.name);
        let text = match form {
            Form::Html => {
                let filters = found.plan.filter.iter().flat_map(|pattern| ["--filter", pattern]);
                let quick = found.plan.quick.then_some("--quick");
                let words = ["tersor", "bench"].into_iter().chain(quick).chain(filters);
                report::bench::page(found, &report::shell(words))
            }
            Form::Json => json(&Report::Bench(Box::new(found.clone()))),
            Form::Svg | Form::Png => roofline::drawing(&found.findings)?,
        };
        Some((name, text))
    }
}

/// A report as the command line's `--json` writes it.
fn json(report: &Report) -> String {
    // Reports are made of numbers, texts and lists, all of which JSON has.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

/// A name that every file system takes: letters, digits, points and hyphens.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert_eq!(file_name("kernels Example GPU 4000 (Vulkan)"), "kernels-example-gpu-4000-vulkan");
        assert_eq!(file_name("../m_1.5.gguf compressed"), "..-m-1.5.gguf-compressed");
    }
}
