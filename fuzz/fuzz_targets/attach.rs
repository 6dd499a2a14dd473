//! `attach`: `dyno_manager::fuzzing` says what bytes, and what must hold of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dyno_manager::fuzzing::attach(bytes));
