//! What one runtime makes of one configuration, as facts that can be compared: ids, devices and paths that differ from run to run are put into words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde_json::Value;

use super::bundles::{Answer, Bundle, Runtime, exit_of};

pub type Facts = BTreeMap<String, String>;

/// What links of namespaces mean.
#[derive(Debug, Clone)]
pub struct Known {
    /// Link and word: `host` and `joined`.
    pub namespaces: BTreeMap<String, &'static str>,
}

/// Facts, and the messages of what failed, which are shown and not compared.
#[derive(Debug, Default)]
pub struct Observation {
    pub facts: Facts,
    pub messages: Vec<String>,
}

impl Observation {
    fn put(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.facts.insert(key.into(), value.into());
    }

    /// A verb's outcome.
    fn verb(&mut self, verb: &str, answer: &Answer) {
        self.put(format!("verb {verb}"), if answer.ok() { "done".into() } else { format!("refused with {}", answer.status) });
        if !answer.ok() {
            self.messages.push(format!("{verb}: {}", answer.stderr.trim()));
        }
    }
}

/// Runs the configuration in the bundle, as it was reset, from `create` to `delete`.
pub fn observe(bundle: &Bundle, runtime: &Runtime, id: &str, known: &Known) -> Result<Observation> {
    let mut seen = Observation::default();
    let created = bundle.create(runtime, id)?;
    seen.verb("create", &created);
    if created.ok() {
        live(bundle, runtime, id, known, &mut seen)?;
    } else {
        seen.verb("state after a refused create", &bundle.tell(runtime, &["state", id])?);
        if fs::exists(bundle.root.join(id))? {
            bundle.tell(runtime, &["delete", "--force", id])?;
        }
    }
    marks(bundle, known, &mut seen)?;
    tree(&bundle.rootfs(), &bundle.rootfs(), &mut seen)?;
    Ok(seen)
}

fn live(bundle: &Bundle, runtime: &Runtime, id: &str, known: &Known, seen: &mut Observation) -> Result<()> {
    let pid = bundle.pid()?;
    state("created", bundle, runtime, id, pid, seen)?;
    outside(pid, id, known, seen)?;
    let started = bundle.tell(runtime, &["start", id])?;
    seen.verb("start", &started);
    if !started.ok() {
        // Some leave a process that has failed, some one that waits: a delete by force takes either.
        bundle.tell(runtime, &["delete", "--force", id])?;
        exit_of(pid)?;
        return Ok(());
    }
    let status = exit_of(pid)?;
    seen.put("exit status", status.to_string());
    state("stopped", bundle, runtime, id, pid, seen)?;
    seen.verb("start of what has stopped", &bundle.tell(runtime, &["start", id])?);
    seen.verb("kill of what has stopped", &bundle.tell(runtime, &["kill", id, "TERM"])?);
    seen.verb("delete", &bundle.tell(runtime, &["delete", id])?);
    seen.verb("delete again", &bundle.tell(runtime, &["delete", id])?);
    inside(&bundle.said()?, bundle, known, seen);
    Ok(())
}

/// The state as the specification has it; what a runtime adds is its own.
fn state(when: &str, bundle: &Bundle, runtime: &Runtime, id: &str, pid: Pid, seen: &mut Observation) -> Result<()> {
    let answer = bundle.tell(runtime, &["state", id])?;
    seen.verb(&format!("state when {when}"), &answer);
    if answer.ok() {
        let state: Value = serde_json::from_str(&answer.stdout).with_context(|| format!("{}: state: {}", runtime.name, answer.stdout))?;
        told(&format!("state {when}"), &state, bundle, pid, seen);
    }
    Ok(())
}

fn told(prefix: &str, state: &Value, bundle: &Bundle, pid: Pid, seen: &mut Observation) {
    for field in ["ociVersion", "id", "status", "bundle", "pid", "annotations"] {
        let value = match &state[field] {
            Value::Number(number) if number.as_i64() == Some(pid.as_raw_nonzero().get().into()) => "of the container".into(),
            Value::Number(number) if field == "pid" && number.as_i64().is_some_and(|n| n > 1) => "another".into(),
            Value::String(text) => text.replace(&bundle.dir.display().to_string(), "BUNDLE"),
            other => other.to_string(),
        };
        seen.put(format!("{prefix}: {field}"), value);
    }
}

/// What the host sees of the container before it starts.
fn outside(pid: Pid, id: &str, known: &Known, seen: &mut Observation) -> Result<()> {
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    for file in ["oom_score_adj", "uid_map", "gid_map", "setgroups"] {
        let text = fs::read_to_string(format!("{proc}/{file}"))
            .with_context(|| format!("{file} of the container after create: {:?}", fs::read_to_string(format!("{proc}/status"))))?;
        seen.put(format!("outside {file}"), text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for kind in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        let link = fs::read_link(format!("{proc}/ns/{kind}"))
            .with_context(|| format!("ns/{kind} of the container after create: {:?}", fs::read_to_string(format!("{proc}/stat"))))?
            .display()
            .to_string();
        seen.put(format!("outside ns.{kind}"), *known.namespaces.get(&link).unwrap_or(&"new"));
    }
    let table = fs::read_to_string(format!("{proc}/cgroup"))?;
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let name = if names.is_empty() { "v2" } else { names };
        seen.put(format!("group {name}"), path.replace(id, "ID"));
        if path.contains(id) {
            group(name, path, seen)?;
        }
    }
    Ok(())
}

/// Files of a group that say what is limited: those that can be written.
fn group(name: &str, path: &str, seen: &mut Observation) -> Result<()> {
    let place = match name {
        "v2" => "unified",
        other => other.strip_prefix("name=").unwrap_or(other),
    };
    let dir = Path::new("/sys/fs/cgroup").join(place).join(&path[1..]);
    for entry in fs::read_dir(&dir)?.filter_map(Result::ok) {
        let file = entry.file_name().to_string_lossy().into_owned();
        let limit = [
            "limit_in_bytes",
            "swappiness",
            "oom_control",
            "shares",
            "cfs_quota_us",
            "cfs_period_us",
            "cfs_burst_us",
            "rt_runtime_us",
            "rt_period_us",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
            "devices.list",
            "_device",
            "weight",
            ".max",
            "cpu.idle",
            "notify_on_release",
            "clone_children",
        ];
        if limit.iter().any(|end| file.ends_with(end)) {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|e| e.to_string());
            let lines: BTreeSet<&str> = text.lines().map(str::trim).collect();
            seen.put(format!("group file {file}"), lines.into_iter().collect::<Vec<_>>().join("; "));
        }
    }
    Ok(())
}

/// What the probe told.
fn inside(text: &str, bundle: &Bundle, known: &Known, seen: &mut Observation) {
    for (n, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once('\t') else {
            seen.put(format!("said {n}"), line);
            continue;
        };
        let value = value.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\").replace(&bundle.dir.display().to_string(), "BUNDLE");
        match key {
            // Processes come and go.
            _ if key.starts_with("list ") && is_of_process(key) => {}
            _ if key.starts_with("list ") && value.parse::<u32>().is_ok_and(|n| n > 40) => {}
            "mountinfo" => mounts(&value, seen),
            "cgroup" => {
                value.lines().filter_map(|l| l.split_once(':')?.1.split_once(':')).for_each(|(name, path)| seen.put(format!("cgroup {name}"), path))
            }
            "limits" => value
                .lines()
                .skip(1)
                .for_each(|l| seen.put(format!("limit {}", l[..26].trim()), l[26..68.min(l.len())].split_whitespace().collect::<Vec<_>>().join(" "))),
            "environ" => environment(&value, seen),
            "uid_map" | "gid_map" => seen.put(key, value.split_whitespace().collect::<Vec<_>>().join(" ")),
            _ if key.starts_with("ns.") => seen.put(key, *known.namespaces.get(&value).unwrap_or(&"new")),
            _ if key.starts_with("fd ") => seen.put(key, numberless(&value)),
            // 32 and 33 are the C libraries' own, and whoever starts the tests may leave them ignored.
            "status.SigIgn" => seen.put(key, u64::from_str_radix(&value, 16).map_or(value, |set| format!("{:x}", set & !0x1_8000_0000))),
            "keyring" => seen.put(key, keyring(&value)),
            _ if key.starts_with("status.NS") || key == "status.PPid" => {
                seen.put(key, if value == "1" || value == "0" { value } else { "another".into() })
            }
            _ => seen.put(key, value),
        }
    }
}

/// `list /proc/12`, `list /proc/self`.
fn is_of_process(key: &str) -> bool {
    key.rsplit_once('/').is_some_and(|(_, name)| name.parse::<u32>().is_ok() || name == "self" || name == "thread-self")
}

fn environment(text: &str, seen: &mut Observation) {
    for (n, variable) in text.split('\n').filter(|v| !v.is_empty()).enumerate() {
        seen.put(format!("env {variable}"), "set");
        seen.put(format!("environment {n}"), variable);
    }
}

/// `pipe:[123]` and the like.
fn numberless(link: &str) -> String {
    link.split_once(":[").map_or_else(|| link.to_owned(), |(kind, _)| kind.to_owned())
}

/// Kind, owners, rights; its name has the container's id.
fn keyring(text: &str) -> String {
    let (head, name) = text.rsplit_once(';').unwrap_or((text, ""));
    format!("{head};{}", if name.starts_with("_ses") { "_ses of its own" } else { name })
}

/// Each mount by its place and its turn there, the one that lies deepest first: the parent's place, root, options, propagation, type, source,
/// options of the file system.
fn mounts(table: &str, seen: &mut Observation) {
    let rows: BTreeMap<&str, Vec<&str>> = table.lines().filter_map(|line| Some((line.split(' ').next()?, line.split(' ').collect()))).collect();
    let depth =
        |row: &[&str]| std::iter::successors(rows.get(row[1]), |above| rows.get(above[1]).filter(|next| next[0] != above[0])).take(99).count();
    // Of the same depth, as they were made, which is the table's order: numbers are given to others again.
    let mut sorted: Vec<&Vec<&str>> = table.lines().filter_map(|line| rows.get(line.split(' ').next()?)).collect();
    sorted.sort_by_key(|row| depth(row));
    let mut turns: BTreeMap<&str, u32> = BTreeMap::new();
    for row in sorted {
        let place = row[4];
        let turn = turns.entry(place).or_default();
        *turn += 1;
        let dash = row.iter().position(|word| *word == "-").unwrap_or(row.len() - 1);
        let propagation: Vec<&str> = row[6..dash].iter().filter_map(|w| w.split(':').next()).collect();
        let sorted = |options: &str| options.split(',').collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",");
        let mut put = |what: &str, value: String| seen.put(format!("mount {place} {turn}: {what}"), value);
        put("above", rows.get(row[1]).map_or("outside", |above| above[4]).into());
        put("root", row[3].into());
        put("options", sorted(row[5]));
        put("propagation", propagation.join(" "));
        put("type", row[dash + 1].into());
        put("source", row.get(dash + 2).map_or("", |s| *s).into());
        put("file system", sorted(row.get(dash + 3).unwrap_or(&"")));
    }
}

/// What the hooks saw, and in which order they ran.
fn marks(bundle: &Bundle, known: &Known, seen: &mut Observation) -> Result<()> {
    for entry in fs::read_dir(bundle.dir.join("marks"))? {
        let entry = entry?;
        let (name, text) = (entry.file_name().display().to_string(), fs::read_to_string(entry.path())?);
        if name == "order" {
            // Two that run at a time may write their words before either ends its line.
            let apart: String = text.chars().flat_map(|c| [Some(c), c.is_ascii_digit().then_some(' ')]).flatten().collect();
            seen.put("hooks in order", apart.split_whitespace().map(|word| format!("{word} ")).collect::<String>());
            continue;
        }
        for (key, value) in text.lines().filter_map(|l| l.split_once('\t')) {
            let key = format!("hook {name} {key}");
            match value {
                _ if key.ends_with(" state") => {
                    let state: Value = serde_json::from_str(value).unwrap_or(Value::Null);
                    let pid = bundle.pid().or_else(|_| Pid::from_raw(state["pid"].as_i64().unwrap_or(1) as i32).context("no pid"))?;
                    told(&key, &state, bundle, pid, seen);
                }
                link if key.contains(" ns.") => seen.put(key, *known.namespaces.get(link).unwrap_or(&"new")),
                _ => seen.put(key, value.replace(&bundle.dir.display().to_string(), "BUNDLE")),
            }
        }
    }
    Ok(())
}

/// What was made in the image.
fn tree(dir: &Path, root: &Path, seen: &mut Observation) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let inside = entry.path().strip_prefix(root)?.display().to_string();
        seen.put(format!("image /{inside}"), format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid()));
        if meta.is_dir() {
            tree(&entry.path(), root, seen)?;
        }
    }
    Ok(())
}
