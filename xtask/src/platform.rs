//! A running platform: its directories, its daemon, its command line.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo::Programs, images::Images};

/// Where the demo's platform lives.
pub struct Platform {
    programs: Programs,
    images: Images,
    /// State directory.
    pub state: PathBuf,
    /// Run directory.
    pub run: PathBuf,
    /// Log of the daemon.
    pub log: PathBuf,
}

impl Platform {
    /// The demo's platform.
    pub fn new(programs: Programs, images: Images) -> Self {
        let state = PathBuf::from("/var/lib/dyno-demo");
        Self { programs, images, log: PathBuf::from("/var/log/dyno-demo.log"), state, run: PathBuf::from("/run/dyno") }
    }

    fn dynod(&self) -> Command {
        let mut command = Command::new(&self.programs.dynod);
        command.arg("--state-dir").arg(&self.state).arg("--run-dir").arg(&self.run);
        command.arg("--stack").arg(&self.images.stack).arg("--buildpacks").arg(&self.images.buildpacks);
        // A machine may get its packages through a mirror inside the house.
        command.arg("--private-registries");
        command
    }

    /// Starts the daemon in the background and waits until it says that it is ready.
    pub fn start(&self) -> Result<Child> {
        std::fs::create_dir_all("/var/log").context("mkdir /var/log")?;
        let log = std::fs::File::create(&self.log).with_context(|| format!("create {}", self.log.display()))?;
        let mut command = self.dynod();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().context("start dynod")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("dynod's stdout")?).read_line(&mut line)?;
        if line.trim() != "ready" {
            let status = child.wait()?;
            bail!("dynod did not start ({status}):\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        Ok(child)
    }

    /// Ends everything.
    pub fn stop(&self) -> Result<()> {
        let output = self.dynod().arg("stop").output().context("run dynod stop")?;
        ensure!(output.status.success(), "dynod stop: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The command line, with its own program's path for people.
    pub fn dyno(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.dyno);
        command.args(args).env("DYNO_CLIENT", self.run.join("api/client.json")).env_remove("DYNO_APP");
        command
    }

    /// Runs a command that changes something and returns what it said: such commands print that on stderr.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.dyno(args).stdin(Stdio::null()).output().context("run dyno")?;
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        ensure!(status.success(), "dyno {} failed ({status}):\n{text}", args.join(" "));
        Ok(text)
    }

    /// Runs the command line and returns what it printed on stdout.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.dyno(args).stdin(Stdio::null()).output().context("run dyno")?;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        ensure!(status.success(), "dyno {} failed ({status}):\n{text}{}", args.join(" "), String::from_utf8_lossy(&stderr));
        Ok(text)
    }

    /// Path of the command line's program.
    pub fn program(&self) -> &std::path::Path {
        &self.programs.dyno
    }
}
