//! See `weir_fuzz::toml_loader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::toml_loader::check(data));
