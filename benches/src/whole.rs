//! The whole benchmark: a stage, the measurements one after the other, the leak check, the report.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dyno_tests::leaks;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    control_groups,
    figures::Figures,
    machine::{self, Machine},
    measurements,
    null_device::NullDevice,
    quiet::Quiet,
    report,
    stage::Stage,
};

/// What is measured, and how thoroughly.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A minute instead of ten: to see that everything works. The figures say little.
    #[arg(long)]
    pub quick: bool,
    /// Only these measurements (see --help of a wrong name).
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these peers in the table of latencies: parts of their names.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<String>,
    /// The static dyno-runtime.
    #[arg(long)]
    pub runtime: Option<PathBuf>,
    /// The stack image, for the apps; its hash is beside it.
    #[arg(long)]
    pub stack: Option<PathBuf>,
    /// Directory with `flask` and `express`, ready to run.
    #[arg(long)]
    pub slugs: Option<PathBuf>,
    /// Directory for the report, its plots and the figures as JSON.
    #[arg(long)]
    pub out: PathBuf,
}

/// What every measurement works with.
#[derive(Debug)]
pub struct Bench {
    /// What peers get.
    pub stage: Stage,
    /// What was found.
    pub figures: Figures,
    /// What was asked for.
    pub options: Options,
    quiet: Quiet,
    bar: ProgressBar,
}

impl Bench {
    /// `full` runs, or a tenth for a quick look.
    pub fn runs(&self, full: usize) -> usize {
        if self.options.quick { (full / 10).max(3) } else { full }
    }

    /// As long as a thorough measurement takes, or a fifth.
    pub fn seconds(&self, full: u64) -> u64 {
        if self.options.quick { (full / 5).max(1) } else { full }
    }

    /// Waits until the kernel is done with what was measured before.
    pub fn settle(&mut self) {
        self.quiet.wait();
    }

    /// Tells what is going on.
    pub fn tell(&self, what: &str) {
        // Without a terminal the bar is silent; a log wants lines.
        if self.bar.is_hidden() {
            eprintln!("       {what}");
        }
        self.bar.set_message(what.to_owned());
    }

    /// Keeps going without what failed, and says so in the end.
    pub fn failed(&mut self, who: &str, why: &anyhow::Error) {
        let why = format!("{why:#}");
        self.bar.suspend(|| eprintln!("       {who}: {why}"));
        self.figures.failed.push((who.to_owned(), why));
    }
}

/// Measures and reports.
///
/// # Errors
/// When something is left on the host, or nothing could be measured.
pub fn run(options: Options) -> Result<()> {
    let chosen = measurements::chosen(&options.only)?;
    let (began, stolen) = (Instant::now(), machine::stolen());
    let before = leaks::snapshot()?;
    let null = NullDevice::remember()?;
    let figures = Figures { machine: Machine::look(), quick: options.quick, ..Figures::default() };
    let bar = ProgressBar::new(chosen.len() as u64).with_style(ProgressStyle::with_template("{spinner} [{elapsed}] {bar:20} {pos}/{len} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(250));
    let stage = Stage::set(options.runtime.as_deref())?;
    let mut bench = Bench { stage, figures, options, quiet: Quiet::default(), bar };
    for (name, measure) in chosen {
        bench.tell(name);
        if let Err(e) = measure(&mut bench) {
            bench.failed(name, &e);
        }
        bench.bar.inc(1);
    }
    let Bench { stage, mut figures, options, quiet, bar } = bench;
    figures.disturbed = quiet.complaint();
    bar.finish_and_clear();
    drop((stage, null));
    figures.seconds = began.elapsed().as_secs();
    let now = machine::stolen();
    figures.machine.stolen = (now.0 - stolen.0) as f64 * 100.0 / (now.1 - stolen.1).max(1) as f64;
    control_groups::remove_plain_directories()?;
    if let Err(e) = leaks::compare(&before, &leaks::snapshot()?) {
        figures.failed.push(("leak check".into(), format!("{e:#}")));
    }
    write(&options.out, &figures)?;
    println!("{}", report::markdown(&figures)?);
    anyhow::ensure!(!figures.failed.iter().any(|(what, _)| what == "leak check"), "something was left on the host (see the report)");
    Ok(())
}

/// Makes the report again from its figures.
///
/// # Errors
/// Of reading and writing.
pub fn report_again(json: &Path, out: &Path) -> Result<()> {
    write(out, &serde_json::from_slice(&std::fs::read(json)?)?)
}

fn write(out: &Path, figures: &Figures) -> Result<()> {
    let plots = out.join("benchmarks");
    std::fs::create_dir_all(&plots).with_context(|| format!("mkdir {}", plots.display()))?;
    std::fs::write(plots.join("figures.json"), serde_json::to_vec(figures)?)?;
    report::plots::draw(figures, &plots)?;
    let path = out.join("benchmarks.md");
    std::fs::write(&path, report::markdown(figures)?).with_context(|| format!("write {}", path.display()))
}
