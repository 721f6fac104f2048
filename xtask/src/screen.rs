//! A screen to open windows on, where there is none.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::packages;
use crate::shell::{command, succeeds};

/// A screen in memory; gone when dropped. `None` inside: the machine's own.
pub struct Screen(Option<(Child, String)>);

/// The desktop's screen, or on Linux without one a screen in memory (Xvfb, installed where that is allowed).
pub fn ensure() -> Result<Screen> {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !cfg!(target_os = "linux") || has("DISPLAY") || has("WAYLAND_DISPLAY") {
        return Ok(Screen(None));
    }
    memory()
}

/// A screen in memory, whatever the machine has.
pub fn memory() -> Result<Screen> {
    if !succeeds(command("Xvfb").arg("-help")) {
        packages::install(&["xvfb", "libxkbcommon-x11-0"]).context("a screen in memory is made by Xvfb")?;
    }
    let mut server = command("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "1400x1000x24", "-nolisten", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting Xvfb")?;
    let mut number = String::new();
    if let Some(output) = server.stdout.take() {
        BufReader::new(output).read_line(&mut number).context("Xvfb did not say which screen it made")?;
    }
    Ok(Screen(Some((server, format!(":{}", number.trim())))))
}

impl Screen {
    /// Lets a command open windows on this screen.
    pub fn show_on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match &self.0 {
            Some((_, display)) => command.env("DISPLAY", display).env_remove("WAYLAND_DISPLAY"),
            None => command,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.0 {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
