//! Any text as a codec's recipe. What is understood has a canonical spelling that means the same.
#![no_main]

use tersor_engine::codec;

libfuzzer_sys::fuzz_target!(|recipe: &str| {
    if let Ok(codec) = codec::parse(recipe) {
        let name = codec.name();
        let again = codec::parse(&name).expect("a codec's own name is a recipe");
        assert_eq!(again.name(), name);
        assert_eq!((again.module(), again.defines()), (codec.module(), codec.defines()));
    }
});
