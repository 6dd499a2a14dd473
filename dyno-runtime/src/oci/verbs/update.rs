//! `update`.

use std::path::{Path, PathBuf};

use super::{
    Failure, Outcome, as_long_as_it_lives,
    words::{Word, Words},
};
use crate::oci::{
    Global,
    cgroup::Cgroup,
    plan::resources,
    spec::{self, Pids, Resources},
    state::{Record, StateDir, Status},
};

pub(super) const HELP: &str = "\
Changes the limits of a container. What is not named stays as it is.

Usage: dyno-runtime [GLOBAL OPTIONS] update [OPTIONS] ID

  -r, --resources FILE       linux.resources as config.json has it, from a file or (-) stdin; other options are ignored then
      --memory BYTES         most memory; with k, m, g or t for powers of 1024; -1: without limit
      --memory-reservation BYTES   when memory is short
      --memory-swap BYTES    memory and swap together; -1: without limit
      --kernel-memory BYTES, --kernel-memory-tcp BYTES   as far as the kernel has them
      --cpu-period US        length of a period
      --cpu-quota US         processor time within a period; -1: without limit
      --cpu-burst US         time that may be saved up
      --cpu-share N          weight, 2 to 262144
      --cpu-idle N           1: only what nobody else wants
      --cpu-rt-period US, --cpu-rt-runtime US   real time
      --cpuset-cpus LIST     processors, such as 0-3,7
      --cpuset-mems LIST     memory nodes
      --pids-limit N         most processes and threads; -1: without limit
      --blkio-weight N       10 to 1000
      --l3-cache-schema LINE, --mem-bw-schema LINE   of Resource Director Technology

Examples:
  dyno-runtime update --memory 512m --pids-limit 100 web
  echo '{\"cpu\": {\"quota\": 50000, \"period\": 100000}}' | dyno-runtime update --resources - web
";

/// What was asked for.
#[derive(Default)]
struct Request {
    file: Option<PathBuf>,
    resources: Resources,
    /// Lines of `schemata`.
    schemata: Vec<String>,
}

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut request, mut id) = (Request::default(), None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if option(&mut request, &name, words)? => {}
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let resources = match &request.file {
        Some(file) => from(file)?,
        None => request.resources,
    };
    resources::check(&resources)?;
    let held = StateDir::open(&global.root, &id)?.hold()?;
    let record = held.known()?;
    if held.status(&record)?.0 == Status::Stopped {
        return Err(Failure::new("container not running"));
    }
    as_long_as_it_lives(&record, Cgroup::open(&record.cgroup).and_then(|group| group.update(&resources)))?;
    schemata(&record, &request.schemata)?;
    Ok(0)
}

fn option(request: &mut Request, name: &str, words: &mut Words) -> Result<bool, Failure> {
    match name {
        "resources" | "r" => request.file = Some(words.path()?),
        "l3-cache-schema" | "mem-bw-schema" => request.schemata.push(words.text()?),
        _ => {
            return Ok(memory(&mut request.resources, name, words)?
                || processors(&mut request.resources, name, words)?
                || other(&mut request.resources, name, words)?);
        }
    }
    Ok(true)
}

fn memory(resources: &mut Resources, name: &str, words: &mut Words) -> Result<bool, Failure> {
    if !matches!(name, "memory" | "memory-reservation" | "memory-swap" | "kernel-memory" | "kernel-memory-tcp") {
        return Ok(false);
    }
    let text = words.text()?;
    let value = Some(bytes(&text).ok_or_else(|| words.wrong(&format!("--{name} {text:?} is no size: such as 64m, 512k, 1073741824 or -1")))?);
    let memory = resources.memory.get_or_insert_default();
    match name {
        "memory" => memory.limit = value,
        "memory-reservation" => memory.reservation = value,
        "memory-swap" => memory.swap = value,
        "kernel-memory" => memory.kernel = value,
        _ => memory.kernel_tcp = value,
    }
    Ok(true)
}

fn processors(resources: &mut Resources, name: &str, words: &mut Words) -> Result<bool, Failure> {
    if !name.starts_with("cpu") {
        return Ok(false);
    }
    let mut cpu = resources.cpu.clone().unwrap_or_default();
    match name {
        "cpu-period" => cpu.period = Some(words.number()?),
        "cpu-quota" => cpu.quota = Some(words.number()?),
        "cpu-burst" => cpu.burst = Some(words.number()?),
        "cpu-share" | "cpu-shares" => cpu.shares = Some(words.number()?),
        "cpu-idle" => cpu.idle = Some(words.number()?),
        "cpu-rt-period" => cpu.realtime_period = Some(words.number()?),
        "cpu-rt-runtime" => cpu.realtime_runtime = Some(words.number()?),
        "cpuset-cpus" => cpu.cpus = Some(words.text()?),
        "cpuset-mems" => cpu.mems = Some(words.text()?),
        _ => return Ok(false),
    }
    resources.cpu = Some(cpu);
    Ok(true)
}

fn other(resources: &mut Resources, name: &str, words: &mut Words) -> Result<bool, Failure> {
    match name {
        "pids-limit" => resources.pids = Some(Pids { limit: Some(words.number()?) }),
        "blkio-weight" => resources.block_io.get_or_insert_default().weight = Some(words.number()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Bytes as docker writes them: a number, perhaps with a fraction, and k, m, g, t or p for powers of 1024, perhaps with `b` or `ib`.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let shift = match lower[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let factor = 1_i64 << shift;
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(factor).filter(|bytes| *bytes >= 0);
    }
    let fraction = digits.parse::<f64>().ok().filter(|n| *n >= 0.0)? * factor as f64;
    (fraction < i64::MAX as f64).then_some(fraction as i64)
}

fn from(file: &Path) -> Result<Resources, Failure> {
    let read = match file == Path::new("-") {
        true => spec::read_open(std::io::stdin(), "stdin").map(|(resources, _)| resources),
        false => spec::read(file),
    };
    read.map_err(|e| Failure::new(format!("--resources: {e}")))
}

fn schemata(record: &Record, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let Some(class) = &record.intel_rdt else { return Err(Failure::new("the container has no class of service of Resource Director Technology")) };
    let file = class.join("schemata");
    // One write for each: the kernel takes all of a write or nothing.
    for line in lines {
        std::fs::write(&file, format!("{line}\n")).map_err(|e| Failure::new(format!("write {line:?} to {}: {e}", file.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("4096", Some(4096)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2 k", Some(2048)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("99999999999t", None),
            ("-2", None),
            ("m", None),
            ("", None),
            ("1x", None),
            ("nan", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
