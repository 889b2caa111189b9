//! One property of `properties.rs` under libFuzzer.

#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::control(bytes));
