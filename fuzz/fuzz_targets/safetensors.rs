//! Any bytes as a safetensors file.
#![no_main]

mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read::read("fuzz.safetensors", bytes));
