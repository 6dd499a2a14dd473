//! `dyno logs --tail`, read line by line: what comes later in the log is found later.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::Platform;

/// A log that is being followed, from its oldest line.
pub struct Tail {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Platform {
    /// Follows the log of an app; `filter` goes to `dyno logs`.
    ///
    /// # Errors
    /// When `dyno` cannot be run.
    pub fn tail(&self, app: &str, filter: &[&str]) -> Result<Tail> {
        let mut command = self.dyno(&["logs", "--tail", "-n", "1500", "-a", app]);
        let mut child = command.args(filter).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Tail { child, lines, read: Vec::new() })
    }
}

impl Tail {
    /// The next line.
    ///
    /// # Errors
    /// After `seconds` without one.
    pub fn next(&mut self, seconds: u64) -> Result<String> {
        let line = self.lines.recv_timeout(Duration::from_secs(seconds)).context("the log is silent")?;
        self.read.push(line.clone());
        Ok(line)
    }

    /// Reads on to the next line that holds `text`.
    ///
    /// # Errors
    /// After `seconds` without it, with what was read last.
    pub fn until(&mut self, text: &str, seconds: u64) -> Result<String> {
        self.until_all(&[text], seconds).map(|mut lines| lines.remove(0))
    }

    /// Reads on until each of `texts` was seen, in whatever order; the lines, in the order of `texts`.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn until_all(&mut self, texts: &[&str], seconds: u64) -> Result<Vec<String>> {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut found = vec![None; texts.len()];
        while let Some(missing) = found.iter().position(Option::is_none) {
            let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                let last = &self.read[self.read.len().saturating_sub(40)..];
                bail!("no line with {:?} within {seconds} s:\n{}", texts[missing], last.join("\n"));
            };
            self.read.push(line.clone());
            if let Some(i) = (0..texts.len()).find(|i| found[*i].is_none() && line.contains(texts[*i])) {
                found[i] = Some(line);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// All lines so far.
    pub fn read(&self) -> &[String] {
        &self.read
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        debug_assert!(ended.is_ok(), "{ended:?}");
    }
}

/// Seconds from the time stamp of one log line to that of a later one, less than a day apart.
///
/// # Errors
/// When one of them does not begin with a time stamp like `2012-10-11T03:47:20.123456+00:00`.
pub fn seconds_between(earlier: &str, later: &str) -> Result<f64> {
    let second = |line: &str| -> Option<f64> {
        let time = line.split_once('T')?.1.get(..15)?;
        let mut fields = time.split(':').map(|field| field.parse::<f64>().ok());
        Some(fields.next()?? * 3600.0 + fields.next()?? * 60.0 + fields.next()??)
    };
    let (from, to) = (second(earlier).with_context(|| earlier.to_owned())?, second(later).with_context(|| later.to_owned())?);
    Ok((to - from).rem_euclid(86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_lines() {
        let line = |time: &str| format!("2012-10-11T{time}+00:00 app[web.1]: x");
        for (from, to, want) in [("03:47:20.000000", "03:47:21.500000", 1.5), ("23:59:59.000000", "00:00:01.000000", 2.0)] {
            let got = seconds_between(&line(from), &line(to)).unwrap();
            assert!((got - want).abs() < 1e-6, "{from} to {to}: {got}");
        }
        assert!(seconds_between("no time", &line("03:47:20.000000")).is_err());
    }
}
