//! See `weir_fuzz::cookie_bucket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::cookie_bucket::check(data));
