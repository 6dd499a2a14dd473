//! `cargo xtask vm-test`: the programs on other kernels, in a throw-away machine with pure cgroup v2 under systemd.
//!
//! qemu emulates the processor in software, so this needs no virtualisation of the host. Per kernel: what is to be run is
//! gathered (`items`), packed as a read-only disk (`payload`), the machine is booted and its report read (`machine`) and
//! counted (`report`); all kernels at the same time. The userland and the kernels are made once (`recipes`).

mod items;
mod machine;
mod payload;
mod recipes;
mod report;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};

use self::{items::Item, payload::Payload, recipes::Machine, report::Row};
use crate::{
    cargo::{self, Programs},
    host, images,
};

/// What only this task needs, beside what all tasks need.
const PACKAGES: [(&str, &str); 5] =
    [("qemu-system-x86", "qemu-system-x86_64"), ("e2fsprogs", "mkfs.ext4"), ("kmod", "depmod"), ("cpio", "cpio"), ("xz-utils", "xz")];

/// Which machines, which programs, which suites.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Kernel to boot; repeatable [default: bookworm and unstable]
    #[arg(long = "kernel", value_name = "SUITE")]
    kernels: Vec<Kernel>,
    /// Take `dynod` and `dyno` from here instead of building them.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Run only this suite; repeatable [default: all]
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<items::Suite>,
    /// Put the battery's tables into docs/battery-VERSION.md, of each kernel on which all of it passed.
    #[arg(long)]
    write: bool,
}

/// A kernel, by the suite of the Debian archive that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Debian 12's own, 6.1.
    Bookworm,
    /// The one between, 6.12.
    BookwormBackports,
    /// The newest that Debian has.
    Unstable,
}

impl Kernel {
    /// Name of its suite.
    fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::BookwormBackports => "bookworm-backports",
            Self::Unstable => "unstable",
        }
    }
}

/// Boots each kernel, runs everything in it, prints the table; an error unless all of it passed.
pub fn run(options: &Options) -> Result<()> {
    host::prepare()?;
    host::install(&PACKAGES)?;
    let images = images::make()?;
    let programs = match &options.bin_dir {
        Some(dir) => Programs { dynod: dir.join("dynod"), dyno: dir.join("dyno"), runtime: dir.join("dyno-runtime") },
        None => cargo::build()?,
    };
    let items = items::gather(&options.suites)?;
    let kernels = if options.kernels.is_empty() { &[Kernel::Bookworm, Kernel::Unstable][..] } else { &options.kernels };
    let machines = recipes::make(kernels)?;
    let payload = payload::pack(&programs, &images, &items)?;
    let began = Instant::now();
    let rows = boot_all(&machines, &payload, &items)?;
    println!("\n{}\n{} s in the machines", report::table(&rows), began.elapsed().as_secs());
    if options.write {
        write_batteries(&rows, &payload)?;
    }
    ensure!(!rows.is_empty() && rows.iter().all(|row| row.counts.failed == 0), "not everything passed; all output is in {}", payload.logs.display());
    Ok(())
}

fn write_batteries(rows: &[Row], payload: &Payload) -> Result<()> {
    for row in rows.iter().filter(|row| row.suite == "battery" && row.counts.failed == 0) {
        let log = payload.logs.join(format!("{}.log", row.kernel));
        let tables = report::battery(&fs::read_to_string(&log)?).with_context(|| format!("no tables in {}", log.display()))?;
        let version: String = row.kernel.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let head = format!(
            "# The battery on Linux {version}\n\nThe same attacks as in [battery.md](battery.md), which says how to read this, in a throw-away machine with pure cgroup v2 under systemd, with the runs \
             that belong nowhere else. Written by `cargo xtask vm-test --suite battery --write`.\n\n"
        );
        fs::write(cargo::root().join("docs").join(format!("battery-{version}.md")), head + &tables)?;
    }
    Ok(())
}

/// All at the same time: each has moments in which it only waits, and a boot keeps one processor of two busy.
fn boot_all(machines: &[Machine], payload: &Payload, items: &[Item]) -> Result<Vec<Row>> {
    std::thread::scope(|scope| {
        let runs: Vec<_> = machines.iter().map(|machine| scope.spawn(|| machine::run(machine, payload, items))).collect();
        let mut rows = Vec::new();
        for run in runs {
            rows.extend(run.join().map_err(|_| anyhow!("a machine's thread panicked"))??);
        }
        Ok(rows)
    })
}
