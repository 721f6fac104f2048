//! `tersor-bindgen MODULE.wasm FOLDER`: writes FOLDER/tersor.js and FOLDER/tersor_bg.wasm, an ES module for browsers.

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let module = args.next().context("usage: tersor-bindgen MODULE.wasm FOLDER")?;
    let folder = args.next().context("usage: tersor-bindgen MODULE.wasm FOLDER")?;
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(&module)
        .out_name("tersor")
        .web(true)?
        .typescript(false)
        .remove_name_section(std::env::var_os("TERSOR_KEEP_NAMES").is_none())
        .omit_default_module_path(false)
        .generate(&folder)
}
