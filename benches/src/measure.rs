//! Time and memory of commands.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// Wall times of one command.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that a share `q` of the runs did not exceed, in milliseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = ((sorted.len().saturating_sub(1)) as f64 * q).round() as usize;
        sorted.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0)
    }
}

fn command(words: &[String]) -> Result<Command> {
    let (program, args) = words.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// How long `words` runs, from before it is started until it was collected.
///
/// # Errors
/// When it cannot be started or fails.
pub fn time(words: &[String]) -> Result<Duration> {
    let mut command = command(words)?;
    let from = Instant::now();
    let output = command.stderr(Stdio::piped()).spawn().with_context(|| format!("start {}", words[0]))?.wait_with_output()?;
    let took = from.elapsed();
    ensure!(output.status.success(), "{words:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(took)
}

/// The largest resident set of `words` and of all that it waited for, in KiB, as `meter` (`programs/peak.c`) tells.
///
/// # Errors
/// As [`time`].
pub fn peak(meter: &Path, words: &[String]) -> Result<u64> {
    let output = Command::new(meter).args(words).stdin(Stdio::null()).output().with_context(|| format!("run {}", meter.display()))?;
    ensure!(output.status.success(), "{words:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.trim().parse().context("peak memory")
}
