//! Compiles a crate that nobody trusts: no network, capped memory and disk, nothing of the host but its toolchain.
//!
//! `cargo run --example untrusted_build -- OUTPUT [CRATE]` (as root). CRATE is a directory with a Cargo.toml and a Cargo.lock; without
//! it a small one is made whose build script tries to call home. The program is written to OUTPUT; the exit record is printed.
//!
//! In the manner of bubblewrap: the root is an almost empty directory, and what the build may see is mounted there read-only: /usr
//! with the linker, the toolchain of `rustc --print sysroot`, the source. What it writes goes to a disk that ends with it.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{ExitRecord, Host, Layer, Limits, Profile, Sandbox, StartOptions, Stdio, Streams, Upper, Volume};

/// The crate for those who bring none. 192.0.2.1 is nobody's (RFC 5737).
const CRATE: [(&str, &str); 4] = [
    ("Cargo.toml", "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2021\"\nbuild = \"build.rs\"\n"),
    ("Cargo.lock", "version = 3\n\n[[package]]\nname = \"program\"\nversion = \"0.1.0\"\n"),
    (
        "build.rs",
        r#"fn main() {
            let error = std::net::TcpStream::connect("192.0.2.1:80").expect_err("the network is reachable");
            println!("cargo:rustc-env=NETWORK={error}");
        }"#,
    ),
    ("src/main.rs", r#"fn main() { println!("the build script says of the network: {}", env!("NETWORK")); }"#),
];

/// All output of the build goes to stderr, so that stdout is the program alone.
const SCRIPT: &str = "cargo build --frozen --release >&2 && exec cat $(find $CARGO_TARGET_DIR/release -maxdepth 1 -type f -executable)";

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (output, source) = (args.next().context("usage: untrusted_build OUTPUT [CRATE]")?, args.next());
    let work = tempfile::tempdir()?;
    let source = match source {
        Some(source) => source.canonicalize()?,
        None => make_crate(&work.path().join("crate"))?,
    };
    let sandbox = sandbox(&make_root(&work.path().join("root"))?, &source, &sysroot()?, work.path());
    let name = format!("dyno-build-{}", std::process::id());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    let result = build(&host, &sandbox, &output);
    host.dismantle()?;
    let exit = result?;
    println!("{exit:?}");
    ensure!(exit.status == 0, "the build failed");
    Ok(())
}

fn make_crate(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir.join("src"))?;
    CRATE.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))?;
    Ok(dir.to_owned())
}

/// Places to mount at, and the symlinks that Debian has into /usr.
fn make_root(dir: &Path) -> Result<PathBuf> {
    ["dev", "proc", "tmp", "usr", "source", "toolchain", "etc/alternatives"].iter().try_for_each(|sub| fs::create_dir_all(dir.join(sub)))?;
    ["bin", "lib", "lib64"].iter().try_for_each(|name| symlink(format!("usr/{name}"), dir.join(name)))?;
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    Ok(dir.to_owned())
}

fn sysroot() -> Result<PathBuf> {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output().context("run rustc")?;
    Ok(String::from_utf8(said.stdout)?.trim().into())
}

fn sandbox(root: &Path, source: &Path, toolchain: &Path, disks: &Path) -> Sandbox {
    let bind = |source: &Path, target: &str| Volume::Bind { source: source.into(), target: target.into(), writable: false };
    let mut sandbox = Sandbox::new(vec![Layer::Directory(root.into())], ["/bin/sh", "-c", SCRIPT]);
    sandbox.root.upper = Upper::Disk { directory: disks.into(), bytes: 1 << 30, inodes: 100_000 };
    // Debian's `cc` is a symlink by way of /etc/alternatives.
    let host = ["/usr", "/etc/alternatives"].map(|path| bind(path.as_ref(), path));
    sandbox.volumes = host.into_iter().chain([bind(toolchain, "/toolchain"), bind(source, "/source")]).collect();
    sandbox.cwd = "/source".into();
    let env = [("PATH", "/toolchain/bin:/usr/bin"), ("HOME", "/tmp"), ("CARGO_HOME", "/tmp/cargo"), ("CARGO_TARGET_DIR", "/tmp/target")];
    sandbox.env = env.map(|(name, value)| (name.into(), value.into())).into();
    // It cannot leave a program behind that makes its caller another user.
    sandbox.seccomp = Profile::Build;
    sandbox.limits = Limits { memory: Some(1 << 30), pids: Some(128), wall_ms: Some(300_000), ..Limits::default() };
    sandbox
}

fn build(host: &Host, sandbox: &Sandbox, output: &Path) -> Result<ExitRecord> {
    let mut dyno = host.start("build", sandbox, StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
    let Streams::Pipes { stdout, stderr, .. } = dyno.take_streams() else { bail!("no pipes") };
    let log = std::thread::spawn(move || std::io::copy(&mut File::from(stderr), &mut std::io::stderr()));
    let copied = File::create(output).and_then(|mut file| std::io::copy(&mut File::from(stdout), &mut file));
    let exit = dyno.wait()?;
    dyno.free()?;
    log.join().ok().context("the log's thread panicked")??;
    copied.with_context(|| format!("write {}", output.display()))?;
    Ok(exit)
}
