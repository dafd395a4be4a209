//! See `weir_fuzz::http1_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::http1_path::check(data));
