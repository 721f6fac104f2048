//! Any bytes as a GGUF file.
#![no_main]

mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read::read("fuzz.gguf", bytes));
