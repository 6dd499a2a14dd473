//! The floor program, and the same without any wall: what the kernel alone charges.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::Peer;
use crate::{
    sample::Sample,
    stage::{Stage, run},
};

struct Floor {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The same with the probe, and a line for one run.
    probe: Command,
}

/// Starts it; it measures itself, as the library's agent does.
pub fn open(stage: &Stage, features: &[&str]) -> Result<Box<dyn Peer>> {
    let command = |program: &str| {
        let mut command = Command::new(stage.path("floor"));
        command.arg(stage.path("scratch")).arg(stage.root()).arg(program).args(features);
        command
    };
    let mut child = command("/true").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the floor program")?;
    let (requests, answers) = (child.stdin.take(), child.stdout.take().context("its stdout")?);
    let mut probe = Command::new("sh");
    let inner = command("/probe");
    // One run; the line of figures comes after what the probe says.
    probe.args(["-c", "echo 1 0 | \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    Ok(Box::new(Floor { child, requests, answers: BufReader::new(answers), probe }))
}

impl Peer for Floor {
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>> {
        let pipe = self.requests.as_mut().context("it was finished")?;
        writeln!(pipe, "{runs} {}", idle.as_micros())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let figures = line.split_whitespace().map(|n| Ok(n.parse::<f64>()? / 1000.0)).collect::<Result<Vec<_>>>()?;
        ensure!(figures.len() == 2 * runs, "the floor program answered {line:?}");
        Ok(figures.chunks_exact(2).map(|two| Sample { exec: Some(two[0]), end: two[1] }).collect())
    }

    fn probe(&mut self) -> Result<Option<String>> {
        run(&mut self.probe).map(Some)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.requests = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "the floor program ended with {status}");
        Ok(())
    }
}
