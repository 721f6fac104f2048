//! Progress on standard error: a bar on a terminal, nothing elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tersor_engine::progress::{Cancel, Monitor, Progress, Unit};

/// Shows one stage at a time; a new stage replaces the last one's bar.
#[derive(Default)]
pub struct Bars(Mutex<Option<(String, ProgressBar)>>);

impl Bars {
    /// A monitor whose progress is shown, and which `cancel` stops.
    pub fn monitor(cancel: Cancel) -> Monitor {
        let bars = Self::default();
        Monitor::new(cancel, move |progress| bars.show(progress))
    }

    /// Shows a report.
    pub fn show(&self, progress: &Progress) {
        // A panic while drawing leaves a bar that can still be replaced.
        let mut current = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if current.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(progress));
            bar.set_message(progress.stage.clone());
            // Something moves although a step takes long.
            bar.enable_steady_tick(Duration::from_millis(125));
            *current = Some((progress.stage.clone(), bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            if progress.total > 0 {
                bar.set_length(progress.total);
            }
            bar.set_position(progress.done);
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        let mut current = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, bar)) = current.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Without a total, with one in bytes, with one in anything else.
const TEMPLATES: [&str; 3] = [
    "{spinner} {elapsed:>3} {wide_msg}",
    "{spinner} {elapsed:>3} {bar:20} {bytes}/{total_bytes} {wide_msg}",
    "{spinner} {elapsed:>3} {bar:20} {pos}/{len} {wide_msg}",
];

fn style(progress: &Progress) -> ProgressStyle {
    let template = match (progress.total, progress.unit) {
        (0, _) => TEMPLATES[0],
        (_, Unit::Bytes) => TEMPLATES[1],
        _ => TEMPLATES[2],
    };
    // The templates are constants: one that did not parse would show in every test of this module.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        for template in TEMPLATES {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
