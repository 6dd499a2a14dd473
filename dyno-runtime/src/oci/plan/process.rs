//! `process`, and the file that `exec --process` takes: [`Process::new`].

use std::{collections::HashSet, ffi::CString};

use super::{
    CapabilitySets, Process, list,
    member::{absolute, c_string, quoted, refuse, without_nul},
    schedule,
};
use crate::{Result, oci::spec, spec::Capability};

/// NGROUPS_MAX (linux/limits.h).
const MOST_GROUPS: usize = 65536;

/// What the kernel can be built for (NR_CPUS of x86 and arm64 is at most 8192).
const MOST_PROCESSORS: u32 = 8192;

impl Process {
    /// What a `process` comes to, and warnings: what was left out.
    ///
    /// # Errors
    /// One line that names the member. Nothing is changed.
    pub fn new(given: &spec::Process) -> Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        absolute("process.cwd", &given.cwd)?;
        check_ids(&given.user)?;
        check_oom(given.oom_score_adj)?;
        let labels = [("process.apparmorProfile", &given.apparmor_profile), ("process.selinuxLabel", &given.selinux_label)];
        for (member, label) in labels {
            without_nul(member, label.as_deref().unwrap_or_default())?;
        }
        let affinity = given.exec_cpu_affinity.clone().unwrap_or_default();
        let process = Self {
            terminal: given.terminal,
            console_size: given.console_size.map(|size| (size.height, size.width)).filter(|_| given.terminal),
            uid: given.user.uid,
            gid: given.user.gid,
            groups: given.user.additional_gids.clone(),
            umask: given.user.umask.unwrap_or(0o022),
            args: args(&given.args)?,
            env: env(&given.env)?,
            cwd: given.cwd.clone(),
            capabilities: capabilities(given.capabilities.as_ref(), &mut warnings)?,
            rlimits: rlimits(&given.rlimits)?,
            no_new_privileges: given.no_new_privileges,
            apparmor: given.apparmor_profile.clone().filter(|profile| !profile.is_empty()),
            selinux: given.selinux_label.clone().filter(|label| !label.is_empty()),
            oom_score_adj: given.oom_score_adj,
            scheduler: given.scheduler.as_ref().map(schedule::scheduler).transpose()?,
            io_priority: given.io_priority.as_ref().map(schedule::io_priority).transpose()?,
            affinity_initial: processors("process.execCPUAffinity.initial", affinity.initial.as_deref())?,
            affinity_final: processors("process.execCPUAffinity.final", affinity.last.as_deref())?,
        };
        Ok((process, warnings))
    }
}

fn check_ids(user: &spec::User) -> Result<()> {
    let ids = [("process.user.uid".to_owned(), user.uid), ("process.user.gid".to_owned(), user.gid)];
    let groups = user.additional_gids.iter().enumerate().map(|(i, gid)| (format!("process.user.additionalGids[{i}]"), *gid));
    for (member, id) in ids.into_iter().chain(groups) {
        // setresuid(2) takes -1 for "as it is", which would be the runtime's own.
        if id == u32::MAX {
            return refuse(member, format!("{id} is no id"));
        }
    }
    if user.additional_gids.len() > MOST_GROUPS {
        return refuse("process.user.additionalGids", format!("has {} entries: the kernel takes {MOST_GROUPS}", user.additional_gids.len()));
    }
    match user.umask {
        Some(umask) if umask > 0o777 => refuse("process.user.umask", format!("{umask:#o} is greater than 0777")),
        _ => Ok(()),
    }
}

fn check_oom(score: Option<i32>) -> Result<()> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => refuse("process.oomScoreAdj", format!("{score} is not within -1000 and 1000")),
        _ => Ok(()),
    }
}

fn args(given: &[String]) -> Result<Vec<CString>> {
    match given.first() {
        None => return refuse("process.args", "is empty: it must name a program"),
        // In the words of whoever would look for it.
        Some(program) if program.is_empty() => return refuse("process.args[0]", "executable file `` not found in $PATH"),
        Some(_) => {}
    }
    given.iter().enumerate().map(|(i, argument)| c_string(format_args!("process.args[{i}]"), argument)).collect()
}

/// Of a name that comes twice the later value holds, as with runc; a program would see both, and choose as its library does.
fn env(given: &[String]) -> Result<Vec<CString>> {
    let mut seen = HashSet::new();
    let mut env = Vec::with_capacity(given.len());
    for (i, variable) in given.iter().enumerate().rev() {
        let member = format!("process.env[{i}]");
        let text = c_string(&member, variable)?;
        match variable.split_once('=') {
            None => return refuse(member, format!("{} is not NAME=value", quoted(variable))),
            Some(("", _)) => return refuse(member, format!("{} has no name before its =", quoted(variable))),
            Some((name, _)) if seen.insert(name) => env.push(text),
            Some(_) => {}
        }
    }
    env.reverse();
    Ok(env)
}

/// The specification wants a warning of what cannot be granted, and no failure.
fn capabilities(given: Option<&spec::Capabilities>, warnings: &mut Vec<String>) -> Result<CapabilitySets> {
    let Some(given) = given else { return Ok(CapabilitySets::default()) };
    let mut set = |name: &str, names: &[String]| {
        let (mut bits, mut unknown) = (0, Vec::new());
        for one in names {
            match capability(one) {
                Some(capability) => bits |= capability.bit(),
                None => unknown.push(quoted(one)),
            }
        }
        if !unknown.is_empty() {
            warnings.push(format!("process.capabilities.{name}: unknown, so left out: {}", some_of(&unknown)));
        }
        bits
    };
    let mut sets = CapabilitySets {
        bounding: set("bounding", &given.bounding),
        effective: set("effective", &given.effective),
        inheritable: set("inheritable", &given.inheritable),
        permitted: set("permitted", &given.permitted),
        ambient: set("ambient", &given.ambient),
    };
    // capset(2) would refuse these.
    let beyond: Vec<String> = Capability::all().filter(|c| sets.effective & !sets.permitted & c.bit() != 0).map(|c| format!("CAP_{c}")).collect();
    if !beyond.is_empty() {
        warnings.push(format!("process.capabilities.effective: not permitted, so left out: {}", beyond.join(", ")));
    }
    sets.effective &= sets.permitted;
    // prctl(2), PR_CAP_AMBIENT_RAISE, would refuse the others. `spec` of runc and crun asks for such, so this is not worth a warning.
    sets.ambient &= sets.permitted & sets.inheritable;
    Ok(sets)
}

/// The first few.
fn some_of(words: &[String]) -> String {
    const FEW: usize = 10;
    match words.len().saturating_sub(FEW) {
        0 => words.join(", "),
        more => format!("{} and {more} more", words[..FEW].join(", ")),
    }
}

fn capability(name: &str) -> Option<Capability> {
    name.get(..4).filter(|prefix| prefix.eq_ignore_ascii_case("CAP_")).and_then(|_| name.parse().ok())
}

/// By name (getrlimit(2)), in the order of their numbers.
pub const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

fn rlimits(given: &[spec::Rlimit]) -> Result<Vec<(u32, u64, u64)>> {
    let mut limits: Vec<(u32, u64, u64)> = Vec::new();
    for (i, one) in given.iter().enumerate() {
        let member = format!("process.rlimits[{i}]");
        let Some(number) = RLIMITS.iter().position(|name| *name == one.kind) else {
            return refuse(format!("{member}.type"), format!("{} is no limit of setrlimit(2)", quoted(&one.kind)));
        };
        let number = number as u32;
        if limits.iter().any(|(other, ..)| *other == number) {
            return refuse(format!("{member}.type"), format!("{} is given twice", one.kind));
        }
        if one.soft > one.hard {
            return refuse(format!("{member}.soft"), format!("{} is greater than the hard limit, {}", one.soft, one.hard));
        }
        limits.push((number, one.soft, one.hard));
    }
    Ok(limits)
}

fn processors(member: &str, given: Option<&str>) -> Result<Option<Vec<u64>>> {
    let Some(given) = given.filter(|list| !list.is_empty()) else { return Ok(None) };
    match list::bits(given, MOST_PROCESSORS) {
        Ok(bits) if bits.is_empty() => refuse(member, format!("{} names no processor", quoted(given))),
        Ok(bits) => Ok(Some(bits)),
        Err(why) => refuse(member, why),
    }
}
