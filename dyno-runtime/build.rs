//! Compiles `init/` into a static, libc-free binary that the library carries inside itself, so that an embedder
//! ships nothing but its own program.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=init");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dyno-init");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-name", "dyno_init", "--crate-type", "bin", "init/main.rs"]);
    command.args(["--target", &target, "-o"]).arg(&out);
    for option in ["opt-level=2", "panic=abort", "relocation-model=static", "strip=symbols", "overflow-checks=off", "lto=fat"] {
        command.args(["-C", option]);
    }
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro"] {
        command.args(["-C", &format!("link-arg={argument}")]);
    }
    let status = command.status().expect("rustc runs");
    assert!(status.success(), "dyno-init did not compile; see rustc's message above");
}
