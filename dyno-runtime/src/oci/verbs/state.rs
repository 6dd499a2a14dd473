//! `state`.

use serde::Serialize;

use super::{Outcome, json, only, say, words::Words};
use crate::oci::{
    Global,
    state::{Record, State, Status},
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
    let Some(dir) = only(global, words)? else { return Ok(0) };
    let record = dir.known()?;
    let (status, _) = dir.status(&record)?;
    say(&json(&Told::new(&record, status))?)
}
