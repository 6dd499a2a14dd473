//! `list`.

use super::{
    Outcome, json, say,
    state::Told,
    words::{Word, Words},
};
use crate::{
    Result,
    oci::{
        Global,
        state::{Record, StateDir, Status},
    },
};

pub(super) const HELP: &str = "\
Lists the containers below --root, in the order of their ids.

Usage: dyno-runtime [GLOBAL OPTIONS] list [OPTIONS]

  -f, --format FORMAT   table (the default) or json
  -q, --quiet           ids only

Examples:
  dyno-runtime list
  dyno-runtime --root /run/mine list --format json
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut as_json, mut quiet) = (false, false);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "format" || name == "f" => as_json = is_json(words)?,
            Word::Option(name) if name == "quiet" || name == "q" => quiet = words.flag()?,
            other => return Err(words.unexpected(&other)),
        }
    }
    if words.help {
        return Ok(0);
    }
    let ids = StateDir::list(&global.root)?;
    if quiet {
        return say(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        match look(global, id) {
            Ok(Some(container)) => found.push(container),
            // It was deleted meanwhile.
            Ok(None) => {}
            Err(e) => global.log.warn(&format!("container {id}: {e}")),
        }
    }
    if as_json {
        // Go's empty list.
        return if found.is_empty() {
            say("null\n")
        } else {
            say(&json(&found.iter().map(|(record, status)| Told::new(record, *status)).collect::<Vec<_>>())?)
        };
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = found.iter().map(|(record, status)| {
        let state = record.state(*status);
        [state.id, state.pid.to_string(), status.name().into(), state.bundle.display().to_string(), record.created.clone(), name_of(record.owner)]
    });
    say(&table(std::iter::once(head).chain(rows).collect()))
}

/// The value of `--format`.
pub(super) fn is_json(words: &mut Words) -> std::result::Result<bool, super::Failure> {
    match words.text()?.as_str() {
        "json" => Ok(true),
        "table" => Ok(false),
        other => Err(words.wrong(&format!("invalid format option {other:?}: it is neither table nor json"))),
    }
}

/// What is there of a container; None if it has been deleted.
fn look(global: &Global, id: &str) -> Result<Option<(Record, Status)>> {
    let Some(dir) = StateDir::find(&global.root, id)? else { return Ok(None) };
    let Some(record) = dir.record()? else {
        // Being made, or left by a runtime that was killed: to be deleted all the same.
        return Ok(StateDir::find(&global.root, id)?.is_some().then(|| (unknown(id), Status::Stopped)));
    };
    let (status, _) = dir.status(&record)?;
    Ok(Some((record, status)))
}

fn unknown(id: &str) -> Record {
    Record { id: id.to_owned(), ..Record::default() }
}

/// Columns that are as wide as runc's: at least 12, three apart.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The user's name, or its number after `#`.
pub(super) fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
