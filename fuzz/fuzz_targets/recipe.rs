//! Any text as a codec's spelling and as a recipe file. A spelling that is understood has a canonical form that means the
//! same; an error of a recipe file names the file.
#![no_main]

use tersor_engine::codec::{self, Recipe};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(codec) = codec::parse(text) {
        let name = codec.name();
        let again = codec::parse(&name).expect("a codec's own name is a recipe");
        assert_eq!(again.name(), name);
        assert_eq!((again.module(), again.defines()), (codec.module(), codec.defines()));
    }
    if let Err(error) = Recipe::from_toml("fuzz.toml", text) {
        assert!(error.to_string().contains("fuzz.toml"), "{error}");
    }
});
