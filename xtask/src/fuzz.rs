//! `cargo xtask fuzz`: the fuzzers, instrumented; each from its seeds and from what earlier runs learned.
//!
//! Without cargo-fuzz: coverage is all the instrumentation there is, and the stable compiler can do that. `fuzz/README.md` has the rest.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{cargo, host};

/// Counters of edges and comparisons, as libFuzzer reads them.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Longest input, bytes; longest time for one, seconds; most memory, MiB.
const BOUNDS: [&str; 3] = ["-max_len=65536", "-timeout=10", "-rss_limit_mb=1024"];

/// Between these lines of the page stands the last long run of each target.
const PAGE: &str = "fuzz/README.md";
const MARKS: [&str; 2] = ["<!-- last run -->\n", "<!-- end -->\n"];

/// Which, and for how long.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with status 1 if something was found; its input is below fuzz/artifacts.")]
pub struct Options {
    /// For each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Put each target's row into the table in fuzz/README.md, as soon as it has run.
    #[arg(long)]
    write: bool,
    /// Say which there are.
    #[arg(long)]
    list: bool,
    /// Only these.
    targets: Vec<String>,
}

/// What one run came to.
#[derive(Default)]
struct Outcome {
    target: String,
    executions: u64,
    seconds: u64,
    /// Edges seen, inputs kept, peak memory in MiB.
    edges: u64,
    kept: u64,
    memory: u64,
    found: Vec<PathBuf>,
    /// Ended badly without an input to show for it.
    broken: bool,
}

/// Builds and runs them.
pub fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    if options.list {
        println!("{}", all.join("\n"));
        return Ok(());
    }
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let wanted = if options.targets.is_empty() { &all } else { &options.targets };
    // libFuzzer is C++.
    host::install(&[("g++", "g++")])?;
    let programs = build(wanted)?;
    let temporary = folder().join("target/tmp");
    let outcomes = fuzz_all(options, wanted, &programs, &temporary);
    drop(fs::remove_dir_all(&temporary));
    let outcomes = outcomes?;
    println!("\n{}", table(&rows(&outcomes)?));
    for input in outcomes.iter().flat_map(|outcome| &outcome.found) {
        println!("found: {}", input.display());
    }
    let bad = outcomes.iter().filter(|outcome| outcome.broken || !outcome.found.is_empty()).count();
    ensure!(bad == 0, "{bad} of {} targets found something; their logs are below {}", outcomes.len(), folder().join("artifacts").display());
    Ok(())
}

fn folder() -> PathBuf {
    cargo::root().join("fuzz")
}

/// Every fuzzer, by name.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut names: Vec<String> = entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Where the programs are.
fn build(wanted: &[String]) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new("cargo");
    // A target, so that what runs at build time is not instrumented.
    command.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple]);
    command.args(wanted.iter().flat_map(|target| ["--bin", target]));
    // The manager takes four times as long to build as the runtime.
    if !wanted.iter().any(|target| is_of_the_manager(target)) {
        command.arg("--no-default-features");
    }
    command.env("RUSTFLAGS", INSTRUMENTED).env("CARGO_TARGET_DIR", folder().join("target"));
    cargo::run(&mut command)?;
    Ok(folder().join("target").join(triple).join("release"))
}

fn is_of_the_manager(target: &str) -> bool {
    let path = folder().join("fuzz_targets").join(target).with_extension("rs");
    fs::read_to_string(path).is_ok_and(|text| text.contains("dyno_manager::"))
}

/// As many at a time as is asked for. One that cannot be run ends the rest after those that are under way.
fn fuzz_all(options: &Options, wanted: &[String], programs: &Path, temporary: &Path) -> Result<Vec<Outcome>> {
    let bars = MultiProgress::new();
    let next = Mutex::new(wanted.iter());
    let written = Mutex::new(());
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let target = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(target) = target else {
                return Ok(outcomes);
            };
            let outcome = fuzz(programs, target, options.seconds, temporary, &bars)?;
            if options.write {
                let _one_at_a_time = written.lock().unwrap_or_else(PoisonError::into_inner);
                write(&rows(std::slice::from_ref(&outcome))?)?;
            }
            outcomes.push(outcome);
        }
    };
    let outcomes: Result<Vec<Vec<Outcome>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    Ok(outcomes?.into_iter().flatten().collect())
}

fn fuzz(programs: &Path, target: &str, seconds: u64, temporary: &Path, bars: &MultiProgress) -> Result<Outcome> {
    let (corpus, artifacts) = (folder().join("corpus").join(target), folder().join("artifacts").join(target));
    for folder in [&corpus, &artifacts, temporary] {
        fs::create_dir_all(folder).with_context(|| format!("mkdir {}", folder.display()))?;
    }
    let before = inputs(&artifacts)?;
    // Whatever else this host does comes first.
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(programs.join(target)).arg(&corpus).arg(folder().join("seeds").join(target)).args(BOUNDS);
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", artifacts.display()));
    let dictionary = folder().join(target).with_extension("dict");
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.env("TMPDIR", temporary).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {target}"))?;
    let mut outcome = Outcome { target: target.to_owned(), ..Outcome::default() };
    let stderr = child.stderr.take().context("its messages")?;
    let bar = bars.add(ProgressBar::new(seconds).with_style(ProgressStyle::with_template("{prefix:16} {bar:20} {pos:>4}/{len} s  {msg}")?));
    bar.set_prefix(target.to_owned());
    let log = follow(BufReader::new(stderr), &mut outcome, &bar)?;
    bar.finish_and_clear();
    bars.suspend(|| println!("{target:16} {} runs, {} edges", outcome.executions, outcome.edges));
    let status = child.wait()?;
    outcome.seconds = began.elapsed().as_secs();
    outcome.found = inputs(&artifacts)?.into_iter().filter(|path| !before.contains(path)).collect();
    outcome.broken = !status.success() && outcome.found.is_empty();
    if !status.success() {
        let path = artifacts.with_extension("log");
        fs::write(&path, log).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(outcome)
}

/// Shows how far it has come, and gives back what it said.
fn follow(stderr: impl BufRead, outcome: &mut Outcome, bar: &ProgressBar) -> Result<Vec<u8>> {
    let mut log = Vec::new();
    for line in stderr.split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        if let Some(rest) = text.strip_prefix('#') {
            outcome.executions = number(rest);
            for (name, slot) in [("cov: ", &mut outcome.edges), ("corp: ", &mut outcome.kept), ("rss: ", &mut outcome.memory)] {
                if let Some((_, value)) = text.split_once(name) {
                    *slot = number(value);
                }
            }
            bar.set_position(bar.elapsed().as_secs().min(bar.length().unwrap_or(u64::MAX)));
            bar.set_message(format!("{} runs, {} edges", outcome.executions, outcome.edges));
        }
        for (name, slot) in [("number_of_executed_units: ", &mut outcome.executions), ("peak_rss_mb: ", &mut outcome.memory)] {
            if let Some((_, value)) = text.split_once(&format!("stat::{name}")) {
                *slot = number(value.trim());
            }
        }
        log.extend(&line);
        log.push(b'\n');
    }
    Ok(log)
}

/// The digits that `text` begins with.
fn number(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

fn inputs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// Lines of the table, by target.
type Rows = BTreeMap<String, String>;

const HEAD: &str = "| target | day | executions | seconds | edges | inputs kept | peak memory | found |\n|---|---|---:|---:|---:|---:|---:|---|\n";

fn rows(outcomes: &[Outcome]) -> Result<Rows> {
    let day = Command::new("date").arg("+%F").output().context("run date")?.stdout;
    let day = String::from_utf8_lossy(&day);
    let row = |o: &Outcome| {
        let found = if o.broken { "broken".to_owned() } else { o.found.len().to_string() };
        let Outcome { target, executions, seconds, edges, kept, memory, .. } = o;
        (target.clone(), format!("| `{target}` | {} | {executions} | {seconds} | {edges} | {kept} | {memory} MB | {found} |\n", day.trim()))
    };
    Ok(outcomes.iter().map(row).collect())
}

fn table(rows: &Rows) -> String {
    rows.values().fold(HEAD.to_owned(), |text, row| text + row)
}

/// The page with these rows instead of those that these targets had.
fn merge(page: &str, rows: &Rows) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (old, after) = rest.split_once(MARKS[1])?;
    let named = |line: &str| Some((line.strip_prefix("| `")?.split_once('`')?.0.to_owned(), format!("{line}\n")));
    let mut all: Rows = old.lines().filter_map(named).collect();
    all.extend(rows.clone());
    Some([before, MARKS[0], &table(&all), MARKS[1], after].concat())
}

fn write(rows: &Rows) -> Result<()> {
    let path = cargo::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let page = merge(&page, rows).with_context(|| format!("{PAGE} has no marks for the last run"))?;
    fs::write(&path, page).with_context(|| format!("write {PAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says() {
        let said = "#2\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 30Mb\n#500\tNEW    cov: 90 ft: 99 corp: 12/340b lim: 4 exec/s: 0 rss: 31Mb\n\
                    stat::number_of_executed_units: 777\nstat::peak_rss_mb:              45\n";
        let mut outcome = Outcome::default();
        follow(said.as_bytes(), &mut outcome, &ProgressBar::hidden()).unwrap();
        assert_eq!((outcome.executions, outcome.edges, outcome.kept, outcome.memory), (777, 90, 12, 45));
    }

    #[test]
    fn a_row_replaces_its_targets_and_no_other() {
        let outcome = |target: &str, executions| Outcome { target: target.to_owned(), executions, ..Outcome::default() };
        let page = ["before\n", MARKS[0], &table(&rows(&[outcome("b", 1), outcome("c", 2)]).unwrap()), MARKS[1], "after\n"].concat();
        let page = merge(&page, &rows(&[outcome("c", 3), outcome("a", 4)]).unwrap()).unwrap();
        assert_eq!(
            page,
            ["before\n", MARKS[0], &table(&rows(&[outcome("a", 4), outcome("b", 1), outcome("c", 3)]).unwrap()), MARKS[1], "after\n"].concat()
        );
        assert_eq!(merge("without marks", &Rows::new()), None);
    }

    #[test]
    fn every_target_has_seeds_a_program_and_a_test() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let checks =
            ["dyno-runtime/src/fuzzing/mod.rs", "dyno-manager/src/fuzzing.rs"].map(|path| fs::read_to_string(cargo::root().join(path)).unwrap());
        let names = targets().unwrap();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
            assert!(checks.iter().any(|text| text.contains(&format!("    {name} = "))), "{name} checks nothing");
            assert!(fs::read_dir(folder().join("seeds").join(&name)).is_ok_and(|mut seeds| seeds.next().is_some()), "{name} has no seeds");
        }
    }
}
