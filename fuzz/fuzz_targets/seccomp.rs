//! `seccomp`: `dyno_runtime::fuzzing` says what bytes, and what must hold of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dyno_runtime::fuzzing::seccomp(bytes));
