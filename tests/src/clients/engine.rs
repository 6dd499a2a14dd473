//! What podman and the docker engine have in common: the same words for the same things.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Client, Desk, Sayings};
use crate::Said;

/// A client with docker's command line.
pub trait Engine: Client + Sayings {
    /// Takes a container away, whatever it does.
    const REMOVE: &'static [&'static str];

    /// Arguments of `VERB OPTIONS IMAGE PROGRAM…`, with what this host needs.
    fn arguments<'a>(&'a self, verb: &'a str, options: &[&'a str], program: &[&'a str]) -> Vec<&'a str>;

    /// Where it keeps everything.
    fn desk(&self) -> &Desk;

    /// A command without a time limit, for a terminal.
    fn bare(&self, arguments: &[&str]) -> Command;

    /// Runs a container to its end and removes it.
    ///
    /// # Errors
    /// As of [`Sayings::say`].
    fn run(&self, options: &[&str], program: &[&str]) -> Result<Said> {
        self.say(&self.arguments("run", &[&["--rm"], options].concat(), program))
    }

    /// What a shell says in a container with these options.
    ///
    /// # Errors
    /// When it fails.
    fn shell(&self, options: &[&str], script: &str) -> Result<String> {
        let said = self.run(options, &["sh", "-c", script])?;
        ensure!(said.status == 0, "{options:?} {script:?}: status {}\n{}{}", said.status, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// Runs a container in the background until `look`, which gets the host's pid of its first process, is done with it.
    ///
    /// # Errors
    /// Of `look`; when the container cannot be made or removed.
    fn with<T>(&self, name: &str, options: &[&str], program: &[&str], look: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        let begun = self.ok(&self.arguments("run", &[&["--detach", "--name", name], options].concat(), program));
        let result = begun.and_then(|_| self.pid(name)).and_then(look);
        // What the runtime could not make is removed as well; its own complaint is the one to show.
        let removed = self.ok(&[Self::REMOVE, &[name]].concat());
        let result = result?;
        removed?;
        Ok(result)
    }

    /// The host's pid of a container's first process.
    ///
    /// # Errors
    /// When there is no such container.
    fn pid(&self, name: &str) -> Result<u32> {
        let pid = self.inspect(name)?["State"]["Pid"].as_u64().context("a pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// All that is known of a container.
    ///
    /// # Errors
    /// When there is none of that name.
    fn inspect(&self, name: &str) -> Result<Value> {
        let text = self.ok(&["container", "inspect", name])?;
        let mut all: Vec<Value> = serde_json::from_str(&text)?;
        all.pop().with_context(|| format!("no container {name}"))
    }
}
