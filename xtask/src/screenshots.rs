//! `cargo xtask screenshots`: pictures of the app, native and in a browser, into `docs/screenshots`.

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, root, run};
use crate::{screen, test, vulkan, web};

const HELP: &str = "\
usage: cargo xtask screenshots [--native]

Writes docs/screenshots/*.png: every page of the app, in a window and in a browser (not with --native).
";

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
    let mut test = cargo();
    test.args(["test", "--locked", "--workspace", "--test", "window", "--", "--ignored", "pictures_for_documents"]);
    run(screen.show_on(test.env("TERSOR_SCREENSHOTS", &folder)))?;
    if !native {
        let page = web::build(web::Profile::Quick)?;
        // The tests that keep pictures on their way.
        let keeping = ["pictures_for_documents", "tiny_writes", "smollm2_is_opened", "a_report_is_laid"];
        run(test::in_browser(&page, 1)?.args(keeping).env("TERSOR_SCREENSHOTS", &folder))?;
    }
    Ok(())
}
