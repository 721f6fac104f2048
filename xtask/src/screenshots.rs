//! `cargo xtask screenshots`: pictures of the app, native and in a browser, into `docs/screenshots`.

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, command, root, run};
use crate::{screen, test, vulkan, web};

const HELP: &str = "\
usage: cargo xtask screenshots [--native]

Writes docs/screenshots/*.png: every page of the app in a window, and the Compare page in a browser (not with --native).
";

/// Pages with the arguments that fill them.
const PAGES: [(&str, &[&str]); 4] = [
    ("models", &["--tab", "models"]),
    ("compare", &["--tab", "compare", "--with", "q4_k", "uniform:bits=2", "--tokens", "160", "--run"]),
    ("quality", &["--tab", "quality", "--with", "q8_0", "q4_k", "q2_k", "--run"]),
    ("tensors", &["--tab", "tensors"]),
];

/// A desk in dark, a phone in light: each page once in either.
const LOOKS: [(&str, &str, &str); 2] = [("desk", "1280x800", "dark"), ("phone", "390x844", "light")];

/// Reads the arguments.
pub fn main(args: Vec<String>) -> Result<()> {
    let native = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--native"] => true,
        ["--help" | "-h"] => {
            print!("{HELP}");
            return Ok(());
        }
        _ => bail!("{HELP}"),
    };
    let folder = root().join("docs/screenshots");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    vulkan::ensure_driver()?;
    // A screen in memory even on a desktop: a window that is drawn over would be in the pictures.
    let screen = screen::memory()?;
    run(cargo().args(["build", "--locked", "-p", "tersor"]))?;
    let tersor = root().join("target/debug").join(format!("tersor{}", std::env::consts::EXE_SUFFIX));
    for (page, args) in PAGES {
        for (place, size, theme) in LOOKS {
            let picture = folder.join(format!("{page}_{place}.png"));
            let mut app = command(&tersor);
            app.args(["app", "tiny", "--size", size, "--theme", theme, "--picture"]).arg(picture).args(args);
            run(screen.show_on(&mut app))?;
        }
    }
    if !native {
        let page = web::build(web::Profile::Quick)?;
        run(test::in_browser(&page)?.env("TERSOR_SCREENSHOTS", &folder))?;
    }
    Ok(())
}
