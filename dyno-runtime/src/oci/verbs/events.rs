//! `events`.

use std::time::{Duration, Instant};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde_json::{Value, json};

use super::{
    Failure, Outcome, as_long_as_it_lives, say,
    words::{Word, Words},
};
use crate::{
    error::Context,
    oci::{
        Global,
        cgroup::{Cgroup, Oom, Seen},
        state::{First, Record, StateDir},
    },
};

pub(super) const HELP: &str = "\
Prints what a container uses, and when its memory runs out, as lines of JSON in runc's shape, until it ends.

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
    // Where nothing limits memory there is none to run out of.
    let mut oom = if once { None } else { Cgroup::open(&record.cgroup)?.events().ok() };
    loop {
        say(&stats(&record)?)?;
        if once || pause(&first, &mut oom, &record.id, interval)? {
            return Ok(0);
        }
    }
}

/// Until the next figures are due, or (true) the container has ended. Tells when memory runs out meanwhile.
fn pause(first: &First, oom: &mut Option<Oom>, id: &str, interval: Duration) -> Result<bool, Failure> {
    let end = Instant::now() + interval;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut watched = vec![PollFd::from_borrowed_fd(first.pidfd(), PollFlags::IN)];
        watched.extend(oom.as_ref().map(|oom| PollFd::new(oom, PollFlags::IN)));
        match poll(&mut watched, Timespec::try_from(left).ok().as_ref()) {
            Err(Errno::INTR) => continue,
            other => other.io(|| "poll(pidfd, memory events)".into())?,
        };
        let ended = !watched[0].revents().is_empty();
        drop(watched);
        match oom.as_mut().map(Oom::look) {
            Some(Seen::OutOfMemory) => {
                say(&(json!({"type": "oom", "id": id}).to_string() + "\n"))?;
            }
            Some(Seen::Gone) => *oom = None,
            Some(Seen::Nothing) | None => {}
        }
        if ended || left.is_zero() {
            return Ok(ended);
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
        for (text, want) in [
            ("5s", Some(5000)),
            ("1h30m", Some(5_400_000)),
            ("200ms", Some(200)),
            ("1.5s", Some(1500)),
            ("0s", None),
            ("5", None),
            ("", None),
            ("-1s", None),
            ("1d", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
