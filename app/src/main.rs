//! The `tersor` program.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    tersor::cli::main()
}

#[cfg(target_arch = "wasm32")]
fn main() {
    // In a browser this runs in the page and again in its worker.
    if let Err(error) = tersor::gui::web::run() {
        wasm_bindgen::throw_val(error);
    }
}
