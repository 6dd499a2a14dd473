//! `ps`.

use std::process::{Command, Stdio};

use super::{
    Failure, Outcome, as_long_as_it_lives, json, list, say,
    words::{Word, Words},
};
use crate::oci::{Global, cgroup::Cgroup, state::StateDir};

pub(super) const HELP: &str = "\
Shows the processes of a container, by their numbers on the host.

Usage: dyno-runtime [GLOBAL OPTIONS] ps [OPTIONS] ID [OPTIONS OF ps(1)]

  -f, --format FORMAT   table (the default, by ps(1), with -ef unless told otherwise) or json (the numbers)

Examples:
  dyno-runtime ps web
  dyno-runtime ps web -o pid,rss,args
  dyno-runtime ps --format json web
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut as_json, mut id, mut options) = (false, None, Vec::new());
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "format" || name == "f" => as_json = list::is_json(words)?,
            Word::Value(value) => {
                id = Some(value);
                options = words.rest()?;
                break;
            }
            other => return Err(words.unexpected(&other)),
        }
    }
    as_json |= late_format(&mut options, words)?;
    if options.iter().any(|option| option == "--help") {
        words.help = true;
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let dir = StateDir::open(&global.root, &id)?;
    let record = dir.known()?;
    let mut pids = as_long_as_it_lives(&record, Cgroup::open(&record.cgroup).and_then(|group| group.pids(true)))?;
    if pids.is_empty() {
        // Without groups there is the first one still.
        pids.extend(dir.status(&record)?.1.map(|first| first.pid));
    }
    pids.sort_unstable();
    if as_json { say(&json(&pids)?) } else { say(&shown(&pids, &options)?) }
}

/// `--format` after the id, which ps(1) has too, in another sense of ours.
fn late_format(options: &mut Vec<String>, words: &Words) -> Result<bool, Failure> {
    let value = match options.first().map(String::as_str) {
        Some("--format") if options.len() > 1 => options.drain(..2).next_back(),
        Some(first) if first.starts_with("--format=") => options.remove(0).strip_prefix("--format=").map(str::to_owned),
        _ => return Ok(false),
    };
    match value.as_deref() {
        Some("json") => Ok(true),
        Some("table") | None => Ok(false),
        Some(other) => Err(words.wrong(&format!("invalid format option {other:?}: it is neither table nor json"))),
    }
}

/// Lines of ps(1) about these processes.
fn shown(pids: &[u32], options: &[String]) -> Result<String, Failure> {
    let all = ["-ef".to_owned()];
    let output = Command::new("ps").args(if options.is_empty() { &all } else { options }).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Failure::new(format!("ps: {e}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("ps: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID").ok_or_else(|| Failure::new("ps: its output has no column PID"))?;
    let ours = |line: &&str| line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid));
    Ok(std::iter::once(head).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}
