//! `events`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Failure, Outcome, as_long_as_it_lives, say,
    words::{Word, Words},
};
use crate::oci::{
    Global,
    cgroup::Cgroup,
    state::{Record, StateDir},
};

pub(super) const HELP: &str = "\
Prints what a container uses, as lines of JSON in runc's shape, until it ends.

Usage: dyno-runtime [GLOBAL OPTIONS] events [OPTIONS] ID

      --interval TIME   between two lines, such as 500ms, 5s (the default) or 1m
      --stats           one line, then end

Examples:
  dyno-runtime events --stats web
  dyno-runtime events --interval 1s web
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut once, mut interval, mut id) = (false, Duration::from_secs(5), None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "stats" => once = words.flag()?,
            Word::Option(name) if name == "interval" => {
                let text = words.text()?;
                interval = duration(&text).ok_or_else(|| words.wrong(&format!("--interval {text:?} is no time above 0: such as 500ms, 5s or 1m")))?;
            }
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let dir = StateDir::open(&global.root, &id)?;
    let record = dir.known()?;
    let Some(first) = dir.status(&record)?.1 else { return Err(Failure::new(format!("container {id} is not running"))) };
    loop {
        say(&stats(&record)?)?;
        let pause = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        if once || first.ends_within(Some(pause))? {
            return Ok(0);
        }
    }
}

fn stats(record: &Record) -> Result<String, Failure> {
    let data = as_long_as_it_lives(record, Cgroup::open(&record.cgroup).and_then(|group| group.stats()))?;
    Ok(line("stats", &record.id, &data))
}

fn line(kind: &str, id: &str, data: &Value) -> String {
    json!({"type": kind, "id": id, "data": data}).to_string() + "\n"
}

/// A time as Go writes it, of one or more parts: 1h30m, 1.5s, 200ms.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = tail;
    }
    Some(total).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [("5s", Some(5000)), ("1h30m", Some(5_400_000)), ("200ms", Some(200)), ("1.5s", Some(1500)), ("0s", None), ("5", None), ("", None), ("-1s", None), ("1d", None)] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
