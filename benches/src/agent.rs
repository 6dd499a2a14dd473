//! A process that starts dynos by the library when it is asked to: its size, its mounts and its tier are chosen, and the meter's own
//! threads and figures are not in it. Requests and answers are lines of JSON.

pub mod ballast;
mod serve;
mod tier;

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

pub use self::{ballast::Ballast, serve::serve, tier::Tier};
use crate::sample::Sample;

/// Starts in a burst, and what a tier keeps ready for them.
pub const TURN: usize = 24;
/// More than a turn: what is made beside a turn must not decide.
pub const READY: usize = 32;

/// What an agent is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// State directory of its instance.
    pub dir: PathBuf,
    /// Name of its control groups.
    pub name: String,
    /// The image with the payload.
    pub image: PathBuf,
    /// Its hash.
    pub sha256: String,
    /// What stands ready.
    pub tier: Tier,
    /// How much stands ready.
    pub ready: usize,
    /// What makes its process large.
    pub ballast: Ballast,
}

/// What it is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Runs the payload `runs` times in each of `threads` threads, with a rest before each.
    Run { runs: usize, idle_us: u64, threads: usize },
    /// As long as `seconds`, as many as possible by `threads` threads, each freed before the next.
    Sustain { threads: usize, seconds: u64 },
    /// Lets `count` dynos be alive.
    Alive { count: usize },
    /// Starts and kills: exec is the request to the observed exit, end is that and the clean-up.
    Stop { runs: usize, idle_us: u64 },
    /// What the probe says inside.
    Probe,
    /// Memory charged to the living dynos' groups, bytes, on average.
    Charged,
    /// An app, from the request to the first byte of its first answer.
    App { app: App, runs: usize },
}

/// An app that answers HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct App {
    /// Stack image and its hash.
    pub stack: (PathBuf, String),
    /// The slug: its content is at `/app`.
    pub slug: PathBuf,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Where it listens.
    pub port: u16,
}

/// Where the time of a run went, microseconds: the library's own clock.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Layers, root, cgroup, streams.
    pub prepare: f64,
    /// Namespaces and walls.
    pub walls: f64,
    /// The rest up to the program's exec.
    pub exec: f64,
    /// Exec to the collected exit.
    pub end: f64,
    /// Everything given back.
    pub free: f64,
}

/// One run of an agent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Run {
    /// Its times.
    pub sample: Sample,
    /// Where they went; none of a stop.
    pub phases: Phases,
    /// What its tier promises stood ready.
    pub ready: bool,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Request::Run`] and [`Request::Stop`]; phases for the former only.
    Samples(Vec<Run>),
    /// Of [`Request::Sustain`] and [`Request::Charged`].
    Number(f64),
    /// Of [`Request::Probe`].
    Text(String),
    /// Of [`Request::Alive`].
    Done,
    /// It failed.
    Failed(String),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts it; with `mounts` in a mount namespace of its own that has as many more.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(setup: &Setup, mounts: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = if mounts > 0 { Command::new("unshare") } else { Command::new(&own) };
        if mounts > 0 {
            command.args(["--mount", "--propagation", "private"]).arg(&own);
        }
        command.arg("agent").arg("--mounts").arg(mounts.to_string()).arg(serde_json::to_string(setup)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start an agent")?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take().context("its stdout")?);
        let mut agent = Self { child, requests, answers: BufReader::new(answers) };
        match agent.answer()? {
            Answer::Done => Ok(agent),
            other => Err(anyhow!("an agent of tier {:?} begins with {other:?}", setup.tier)),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks.
    ///
    /// # Errors
    /// What the agent says.
    pub fn ask(&mut self, request: &Request) -> Result<Answer> {
        let pipe = self.requests.as_mut().context("the agent was finished")?;
        serde_json::to_writer(&mut *pipe, request)?;
        pipe.write_all(b"\n")?;
        pipe.flush()?;
        self.answer()
    }

    /// [`Self::ask`] for samples.
    ///
    /// # Errors
    /// As there.
    pub fn samples(&mut self, request: &Request) -> Result<Vec<Run>> {
        match self.ask(request)? {
            Answer::Samples(samples) => Ok(samples),
            other => Err(anyhow!("{request:?} was answered by {other:?}")),
        }
    }

    /// Runs the payload `runs` times by each of `threads` threads, with a rest before each; in turns that are no longer than what stands ready,
    /// because a pool that was drained shows the tier below.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn run(&mut self, runs: usize, rest: Duration, threads: usize) -> Result<Vec<Run>> {
        let (turn, mut all) = ((TURN / threads).max(1), Vec::new());
        for from in (0..runs).step_by(turn) {
            all.extend(self.samples(&Request::Run { runs: turn.min(runs - from), idle_us: rest.as_micros() as u64, threads })?);
        }
        Ok(all)
    }

    /// [`Self::ask`] for a number.
    ///
    /// # Errors
    /// As there.
    pub fn number(&mut self, request: &Request) -> Result<f64> {
        match self.ask(request)? {
            Answer::Number(number) => Ok(number),
            other => Err(anyhow!("{request:?} was answered by {other:?}")),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the agent ended ({})", self.child.wait()?);
        match serde_json::from_str(&line)? {
            Answer::Failed(why) => Err(anyhow!(why)),
            answer => Ok(answer),
        }
    }

    /// Lets it end its dynos and take down its instance.
    ///
    /// # Errors
    /// When it cannot.
    pub fn finish(mut self) -> Result<()> {
        self.requests = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "an agent left something behind ({status})");
        Ok(())
    }
}

/// For one whose measurement failed: its input ends, and it takes everything down.
impl Drop for Agent {
    fn drop(&mut self) {
        if self.requests.take().is_some()
            && let Err(e) = self.child.wait()
        {
            eprintln!("dyno-bench: an agent: {e}");
        }
    }
}
