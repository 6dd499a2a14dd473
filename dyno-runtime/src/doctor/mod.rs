//! What this host offers to sandboxes and what it lacks, what that costs, and how to mend it.
//!
//! It only looks: files below /proc and /sys, programs in PATH, and system calls with arguments that the kernel must refuse. A link
//! with its rules is tried out in a network namespace made for that. Nothing on the host is changed, and it needs no privileges;
//! what only root can see is told as such.

mod cgroups;
mod ground;
mod hardening;
mod kernel;
mod storage;
mod sysctls;
mod user;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::ground::Ground;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// There, but not as it should be, or not all of it.
    Limited,
    /// Not there.
    Missing,
}

/// What hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Speed, or the number of sandboxes.
    Note,
    /// Something that can be asked of a sandbox is refused here.
    Wanted,
    /// No sandbox starts without it.
    Needed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it belongs to: `kernel`, `namespaces`, `cgroups`, `storage`, `network`, `user`, `sysctls`, `hardening`.
    pub area: String,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What hangs on it.
    pub severity: Severity,
    /// What was seen.
    pub found: String,
    /// What that costs; empty if it is as it should be.
    pub costs: String,
    /// A command or a kernel configuration; empty if it is as it should be.
    pub fix: String,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Whether it was root who looked.
    pub root: bool,
    /// In the order in which they are told.
    pub findings: Vec<Finding>,
}

/// Looks at this host.
pub fn examine() -> Report {
    report(&Ground::here())
}

fn report(ground: &Ground) -> Report {
    let parts = [
        kernel::calls,
        kernel::versions,
        kernel::namespaces,
        cgroups::cgroups,
        storage::storage,
        storage::network,
        user::user,
        sysctls::sysctls,
        hardening::hardening,
    ];
    Report { kernel: ground.release.clone(), root: ground.root_user, findings: parts.iter().flat_map(|look| look(ground)).collect() }
}

impl Report {
    /// Whether sandboxes can start here: nothing that is needed is missing.
    pub fn is_usable(&self) -> bool {
        !self.findings.iter().any(|f| f.state == State::Missing && f.severity == Severity::Needed)
    }
}

impl Finding {
    /// As it should be, so far.
    fn new(area: &str, name: impl Into<String>, found: impl Into<String>) -> Self {
        let (name, found) = (name.into(), found.into());
        Self { area: area.to_owned(), name, state: State::Ok, severity: Severity::Needed, found, costs: String::new(), fix: String::new() }
    }

    fn weighs(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Unless `ok`: not there.
    fn missing_unless(self, ok: bool, costs: impl Into<String>, fix: impl Into<String>) -> Self {
        self.unless(ok, State::Missing, costs, fix)
    }

    /// Unless `ok`: not as it should be.
    fn limited_unless(self, ok: bool, costs: impl Into<String>, fix: impl Into<String>) -> Self {
        self.unless(ok, State::Limited, costs, fix)
    }

    /// The first fault counts.
    fn unless(mut self, ok: bool, state: State, costs: impl Into<String>, fix: impl Into<String>) -> Self {
        if !ok && self.state == State::Ok {
            (self.state, self.costs, self.fix) = (state, costs.into(), fix.into());
        }
        self
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        })
    }
}

/// A table, then what to do, the weightiest first.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}, seen by {}", self.kernel, if self.root { "root" } else { "an ordinary user" })?;
        let width = self.findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
        let mut area = "";
        for finding in &self.findings {
            if finding.area != area {
                area = &finding.area;
                writeln!(f, "\n{area}")?;
            }
            writeln!(f, "  {:8} {:width$}  {}", finding.state, finding.name, finding.found)?;
        }
        let mut faults: Vec<&Finding> = self.findings.iter().filter(|f| f.state != State::Ok).collect();
        faults.sort_by_key(|f| std::cmp::Reverse((f.severity, f.state)));
        if !faults.is_empty() {
            writeln!(f, "\nWhat to do")?;
        }
        for fault in faults {
            let weight = match fault.severity {
                Severity::Needed => "needed",
                Severity::Wanted => "wanted",
                Severity::Note => "note",
            };
            writeln!(f, "  {} ({weight}): {}", fault.name, fault.costs)?;
            writeln!(f, "      {}", fault.fix)?;
        }
        let verdict = if self.is_usable() { "Sandboxes can start here." } else { "Something that every sandbox needs is missing." };
        writeln!(f, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests;
