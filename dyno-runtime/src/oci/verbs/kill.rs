//! `kill`.

use std::os::fd::AsFd;

use rustix::{io::Errno, process::Signal};

use super::{
    Failure, Outcome,
    words::{Word, Words},
};
use crate::{
    error::{Context, Result},
    oci::{
        Global,
        cgroup::Cgroup,
        state::{First, Record, StateDir},
    },
    sys,
};

pub(super) const HELP: &str = "\
Sends a signal to the first process of a container: TERM unless another is named, by name (with SIG or without) or number.

Usage: dyno-runtime [GLOBAL OPTIONS] kill [OPTIONS] ID [SIGNAL]

  -a, --all     to all its processes; no error if there is none left
  -r, --regex   ID is an extended regular expression: of all containers that it fits

Examples:
  dyno-runtime kill web
  dyno-runtime kill --all web KILL
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut all, mut regex, mut id, mut signal) = (false, false, None, None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "all" || name == "a" => all = words.flag()?,
            Word::Option(name) if name == "regex" || name == "r" => regex = words.flag()?,
            Word::Option(name) if name == "signal" || name == "s" => signal = Some(words.text()?),
            Word::Value(value) if id.is_none() => id = Some(value),
            Word::Value(value) if signal.is_none() => signal = Some(value.to_string_lossy().into_owned()),
            other => return Err(words.unexpected(&other)),
        }
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let signal = number(signal.as_deref().unwrap_or("TERM"))?;
    let ids = if regex { super::delete::fitting(global, &id)? } else { vec![id] };
    for id in ids {
        kill(global, &id, signal, all)?;
    }
    Ok(0)
}

fn kill(global: &Global, id: &str, signal: i32, all: bool) -> std::result::Result<(), Failure> {
    let dir = StateDir::open(&global.root, id)?;
    let record = dir.known()?;
    let first = if dir.is_making()? { None } else { First::of(&record)? };
    match &first {
        first if all => to_all(&Cgroup::open(&record.cgroup)?, first.as_ref(), signal)?,
        Some(first) => first.signal(signal)?,
        None => return Err(Failure::new("container not running")),
    }
    if signal == libc::SIGKILL {
        let_die(&record, first.as_ref())?;
    }
    Ok(())
}

/// What a freezer of v1 holds does not die before it is let go.
pub(super) fn let_die(record: &Record, first: Option<&First>) -> Result<()> {
    let thawed = Cgroup::open(&record.cgroup).and_then(|group| if group.is_frozen()? { group.thaw() } else { Ok(()) });
    match (thawed, first) {
        // It is gone, perhaps with its groups.
        (Err(_), Some(first)) if first.ends_within(Some(0))? => Ok(()),
        (thawed, _) => thawed,
    }
}

/// Those of its groups; without groups the first one.
fn to_all(group: &Cgroup, first: Option<&First>, signal: i32) -> Result<()> {
    match Signal::from_named_raw(signal) {
        _ if group.is_gone() => first.map_or(Ok(()), |first| first.signal(signal)),
        Some(signal) => group.kill(signal),
        // Real-time ones, and 0.
        None => {
            group.pids(true)?.into_iter().try_for_each(|pid| match sys::pin(pid).map(|pin| pin.map(|pin| sys::send_signal(pin.as_fd(), signal))) {
                Ok(None | Some(Ok(()) | Err(Errno::SRCH))) => Ok(()),
                Ok(Some(Err(e))) | Err(e) => Err(e).io(|| format!("pidfd_send_signal({pid}, {signal})")),
            })
        }
    }
}

/// Names of signal(7), from number 1 on.
const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT",
    "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of some.
const SYNONYMS: &[(&str, i32)] = &[("IOT", libc::SIGABRT), ("CLD", libc::SIGCHLD), ("POLL", libc::SIGIO), ("UNUSED", libc::SIGSYS)];

/// A signal by number or name, RTMIN+N and RTMAX-N too; 0 only asks whether there is a process.
fn number(text: &str) -> std::result::Result<i32, Failure> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let last = libc::SIGRTMAX();
    let real_time = |base: &str, from: i32, sign: i32| {
        let rest = name.strip_prefix(base)?;
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(if sign > 0 { '+' } else { '-' })?.parse::<u8>().ok()? };
        Some(from + sign * i32::from(offset))
    };
    let found = text
        .parse()
        .ok()
        .or_else(|| NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok()))
        .or_else(|| SYNONYMS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number))
        .or_else(|| real_time("RTMIN", libc::SIGRTMIN(), 1).filter(|number| *number >= libc::SIGRTMIN()))
        .or_else(|| real_time("RTMAX", last, -1).filter(|number| *number >= libc::SIGRTMIN()));
    found.filter(|number| (0..=last).contains(number)).ok_or_else(|| Failure::new(format!("unknown signal {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, want) in [
            ("TERM", Some(libc::SIGTERM)),
            ("sigkill", Some(libc::SIGKILL)),
            ("9", Some(9)),
            ("0", Some(0)),
            ("SIGUSR2", Some(libc::SIGUSR2)),
            ("SYS", Some(libc::SIGSYS)),
            ("IOT", Some(libc::SIGABRT)),
            ("RTMIN", Some(libc::SIGRTMIN())),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("64", Some(64)),
            ("65", None),
            ("-1", None),
            ("RTMIN-1", None),
            ("RTMIN+99", None),
            ("", None),
            ("SIG", None),
            ("TERMINATE", None),
        ] {
            assert_eq!(number(text).ok(), want, "{text}");
        }
    }
}
