//! Compiles `init/` into static, libc-free binaries that the library carries inside itself, so that an embedder
//! ships nothing but its own program: the init of a sandbox, and what an OCI container's first process waits in.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=init");
    println!("cargo:rerun-if-changed=build.rs");
    compile("dyno-init", "init/main.rs");
    if env::var_os("CARGO_FEATURE_OCI").is_some() {
        compile("dyno-launch", "init/launch.rs");
    }
}

fn compile(name: &str, source: &str) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-name", &name.replace('-', "_"), "--crate-type", "bin", source]);
    command.args(["--target", &target, "-o"]).arg(&out);
    for option in ["opt-level=2", "panic=abort", "relocation-model=static", "strip=symbols", "overflow-checks=off", "lto=fat"] {
        command.args(["-C", option]);
    }
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro"] {
        command.args(["-C", &format!("link-arg={argument}")]);
    }
    // The start-up code of a C library that rustc brings along.
    if target.ends_with("-musl") {
        command.args(["-C", "link-self-contained=no"]);
    }
    if env::var_os("CARGO_FEATURE_BREAK_WALLS").is_some() {
        command.args(["--cfg", "break_walls"]);
    }
    let status = command.status().expect("rustc runs");
    assert!(status.success(), "{name} did not compile; see rustc's message above");
}
