//! `#[kernel_test]`, for a function without arguments: a `#[test]` natively; for browsers, which have no test harness, an export
//! named `test_` and the function's name, which a page finds and calls.

use proc_macro::{TokenStream, TokenTree};

/// Makes a function a test on every target.
#[proc_macro_attribute]
pub fn kernel_test(options: TokenStream, function: TokenStream) -> TokenStream {
    assert!(options.is_empty(), "#[kernel_test] takes no options");
    let is_fn = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let mut tokens = function.into_iter().peekable();
    // Attributes, comments among them.
    let attributes: TokenStream = std::iter::from_fn(|| tokens.next_if(|token| !is_fn(token))).collect();
    let declaration: TokenStream = tokens.collect();
    let name = declaration.clone().into_iter().nth(1).expect("#[kernel_test] stands before a function");
    // `#[test]` takes no `extern "C"` function, so there are two.
    let natively = "#[cfg(not(target_family = \"wasm\"))] #[test]";
    let exported = format!("#[cfg(target_family = \"wasm\")] #[unsafe(export_name = \"test_{name}\")]");
    let parse = |text: &str| text.parse::<TokenStream>().expect("these are tokens");
    let natively = [parse(natively), attributes.clone(), declaration.clone()];
    let exported = [parse(&exported), attributes, parse("extern \"C\""), declaration];
    natively.into_iter().chain(exported).collect()
}
