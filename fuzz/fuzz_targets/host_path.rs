//! See `weir_fuzz::host_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::host_path::check(data));
