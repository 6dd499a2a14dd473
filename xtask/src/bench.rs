//! `cargo xtask bench`: builds what is measured and its meter, installs the peers, measures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{cargo, dist, host, images};

/// Peers of the OCI runtime, by package and program.
const PEERS: [(&str, &str); 3] = [("crun", "crun"), ("runc", "runc"), ("bubblewrap", "bwrap")];

/// The others.
const MORE: [(&str, &str); 7] = [
    ("systemd-container", "systemd-nspawn"),
    ("lxc", "lxc-start"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("docker.io", "dockerd"),
    ("python3-pip", "pip3"),
    ("npm", "npm"),
];

/// What youki is built with; the library has no program that could be looked for.
const FOR_YOUKI: [(&str, &str); 2] = [("pkg-config", "pkg-config"), ("libseccomp-dev", "libseccomp-dev")];

/// Where programs from crates.io are kept; they survive a fresh clone.
const CRATES: &str = "/var/cache/dyno/peers";

/// Debian's crun refuses v1 controllers beside a v2 tree that has one too: all peers are measured without sight of that tree. Some make
/// directories in its place; they vanish with this mount namespace.
const HIDE: &str =
    "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified && mount -t tmpfs hidden /sys/fs/cgroup/unified; exec \"$@\"";

/// What is measured.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// `run` and `exec` of a do-nothing container, beside crun, runc and bubblewrap.
    Oci {
        /// Fail unless the goals are met.
        #[arg(long)]
        check: bool,
        /// Rounds.
        #[arg(long, default_value_t = 100)]
        rounds: usize,
    },
    /// A running platform: a hundred dynos, the wake of an app that sleeps, what the router adds.
    Platform {
        /// Fail unless the goals are met.
        #[arg(long)]
        check: bool,
    },
    /// Starts and ends for ten minutes, and what they leave in the process and in the kernel. Fails when something grows.
    Soak {
        /// For each tier.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Of cold, recycled, parts, parked; several with commas.
        #[arg(long, default_value = "cold,recycled")]
        tier: String,
        /// Directory for `soak.md`; `docs/benchmarks` replaces the repository's last one.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// The whole benchmark, when nothing smaller is asked for.
#[derive(clap::Args)]
pub struct Whole {
    /// A minute instead of ten: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Where report, plots and figures go; `docs` replaces the repository's last ones. Default: `bench` below cargo's target directory.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these measurements: latency, stop, surroundings, concurrent, apps, alive, sustained.
    #[arg(long)]
    only: Option<String>,
    /// Only these peers: parts of their names.
    #[arg(long)]
    peers: Option<String>,
}

/// Runs it.
pub fn run(what: Option<&Bench>, whole: &Whole) -> Result<()> {
    host::prepare()?;
    if !matches!(what, Some(Bench::Soak { .. })) {
        host::install(&PEERS)?;
    }
    match what {
        None => run_whole(whole),
        Some(Bench::Oci { check, rounds }) => run_oci(*check, *rounds),
        Some(Bench::Platform { check }) => run_platform(*check),
        Some(Bench::Soak { seconds, tier, out }) => run_soak(*seconds, tier, out.as_deref()),
    }
}

fn run_oci(check: bool, rounds: usize) -> Result<()> {
    let runtime = dist::static_runtime()?;
    let mut command = meter("oci")?;
    command.arg("--runtime").arg(&runtime).arg("--rounds").arg(rounds.to_string()).arg("--json").arg(cargo::target().join("bench-oci.json"));
    if check {
        command.arg("--check");
    }
    cargo::run(&mut command)
}

fn run_platform(check: bool) -> Result<()> {
    let images = images::make()?;
    cargo::run(Command::new("cargo").args(["build", "--release", "-p", "dyno-bench", "-p", "dyno-manager", "--bins"]))?;
    let release = cargo::target().join("release");
    let mut command = Command::new(release.join("dyno-bench"));
    command.arg("platform").arg("--json").arg(cargo::target().join("bench-platform.json"));
    command.env("DYNO_STACK", &images.stack).env("DYNO_BUILDPACKS", &images.buildpacks);
    command.env("DYNO_BIN_DYNOD", release.join("dynod")).env("DYNO_BIN_DYNO", release.join("dyno"));
    if check {
        command.arg("--check");
    }
    cargo::run(&mut command)
}

fn run_soak(seconds: u64, tier: &str, out: Option<&Path>) -> Result<()> {
    let mut command = meter("soak")?;
    command.arg("--seconds").arg(seconds.to_string()).arg("--tier").arg(tier);
    command.arg("--out").arg(out.map_or_else(|| cargo::target().join("bench"), Path::to_owned));
    cargo::run(&mut command)
}

fn run_whole(whole: &Whole) -> Result<()> {
    for peer in MORE {
        // The report names those that are not there.
        if let Err(e) = host::install_quietly(&[peer]) {
            println!("       {} could not be installed: {e:#}", peer.0);
        }
    }
    if let Err(e) = youki() {
        println!("       youki could not be built, and is not measured: {e:#}");
    }
    let (runtime, images) = (dist::static_runtime()?, images::make()?);
    let mut command = meter("all")?;
    command.arg("--runtime").arg(&runtime).arg("--stack").arg(&images.stack).arg("--slugs").arg(slugs());
    command.arg("--out").arg(whole.out.clone().unwrap_or_else(|| cargo::target().join("bench")));
    for (name, value) in [("--only", &whole.only), ("--peers", &whole.peers)] {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    if whole.quick {
        command.arg("--quick");
    }
    cargo::run(&mut command)
}

/// The meter, built, in a mount namespace of its own.
fn meter(what: &str) -> Result<Command> {
    cargo::run(Command::new("cargo").args(["build", "--release", "-p", "dyno-bench"]))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", HIDE, "sh"]).arg(cargo::target().join("release/dyno-bench")).arg(what);
    Ok(command)
}

/// Builds youki, once. Its default features leave out v1.
fn youki() -> Result<()> {
    if Path::new(CRATES).join("bin/youki").is_file() {
        return Ok(());
    }
    println!("-----> Building youki (once, some 3 minutes)");
    host::install(&FOR_YOUKI)?;
    let mut command = Command::new("cargo");
    command.args(["install", "youki", "--locked", "--no-default-features", "--features", "v1,v2,seccomp", "--root", CRATES]);
    host::quiet(command.env("CARGO_TARGET_DIR", cargo::target().join("youki")))
}

/// Without its packages an app is told to be missing.
fn slugs() -> PathBuf {
    let to = cargo::target().join("bench-slugs");
    for app in ["flask", "express"] {
        if let Err(e) = slug(app, &to) {
            println!("       {app} could not be built, and is not measured: {e:#}");
        }
    }
    to
}

/// A sample with its packages, as a build would leave it, for the stack's own Python and Node.js.
fn slug(app: &str, to: &Path) -> Result<()> {
    let (from, slug) = (cargo::root().join("rootfs/apps").join(app), to.join(app));
    let stamp = to.join(format!("{app}.{}", &images::hash_tree(&from)?[..16]));
    if stamp.is_file() {
        return Ok(());
    }
    println!("-----> Installing the packages of {app}");
    if slug.exists() {
        fs::remove_dir_all(&slug)?;
    }
    // A slug's content is at /app.
    let inside = slug.join("app");
    fs::create_dir_all(&inside)?;
    host::quiet(Command::new("cp").arg("-a").arg(from.join(".")).arg(&inside))?;
    install_packages(app, &inside).with_context(|| format!("packages of {app}"))?;
    fs::write(stamp, "").with_context(|| format!("write the stamp of {app}"))
}

fn install_packages(app: &str, dir: &Path) -> Result<()> {
    if app == "express" {
        return host::quiet(Command::new("npm").args(["ci", "--omit=dev", "--silent", "--no-audit", "--no-fund"]).current_dir(dir));
    }
    // Wheels for Debian 12's Python, whatever this host's own is.
    let mut pip = Command::new("pip3");
    pip.args([
        "install",
        "--quiet",
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--target",
        ".packages",
        "-r",
        "requirements.txt",
    ]);
    host::quiet(pip.current_dir(dir))
}
