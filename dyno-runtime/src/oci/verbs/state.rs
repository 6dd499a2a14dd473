//! `state`.

use serde::Serialize;

use super::{Outcome, json, say, words::Words};
use crate::oci::{
    Global,
    state::{Record, State, StateDir, Status},
};

pub(super) const HELP: &str = "\
Prints the state of a container as JSON: the specification's members, and rootfs, created and owner as runc has them.

Usage: dyno-runtime [GLOBAL OPTIONS] state ID

Examples:
  dyno-runtime state web
";

/// As runc has it.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    #[serde(flatten)]
    state: State,
    rootfs: &'a std::path::Path,
    created: &'a str,
    owner: String,
}

impl<'a> Told<'a> {
    pub fn new(record: &'a Record, status: Status) -> Self {
        Self { state: record.state(status), rootfs: &record.rootfs, created: &record.created, owner: super::list::name_of(record.owner) }
    }
}

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let id = words.only_id()?;
    if words.help {
        return Ok(0);
    }
    let dir = StateDir::open(&global.root, &id)?;
    let record = dir.known()?;
    let (status, _) = dir.status(&record)?;
    say(&json(&Told::new(&record, status))?)
}
