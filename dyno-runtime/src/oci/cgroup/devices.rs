//! Which devices a container may use: `linux.resources.devices` after "none", and before those that every container has.
//!
//! v1 has a mode (all, or none) and a list of exceptions from it; `devices.allow` and `devices.deny` change them. An exception is taken back
//! only by the same numbers again: a hole in a wider one is ignored by the kernel, in silence. Where the rules come to such a hole they are
//! refused here, because nobody would notice. v2 runs the rules as a BPF program, which can do all of them.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{Cgroup, bus::Value, group::Group, place, refused};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::{
        filter,
        spec::{DeviceRule, Resources},
    },
};

/// What every container may use, whatever the rules say (runtime specification, Default Devices, and making any node, which gives no
/// access to it): type, major, minor (-1: every one), access. Not 5:1: that is the host's console, and the container's is one of its pts.
const ALWAYS: [(&str, i64, i64, &str); 10] = [
    ("c", -1, -1, "m"),
    ("b", -1, -1, "m"),
    ("c", 1, 3, "rwm"),    // null
    ("c", 1, 5, "rwm"),    // zero
    ("c", 1, 7, "rwm"),    // full
    ("c", 1, 8, "rwm"),    // random
    ("c", 1, 9, "rwm"),    // urandom
    ("c", 5, 0, "rwm"),    // tty
    ("c", 5, 2, "rwm"),    // ptmx
    ("c", 136, -1, "rwm"), // pts
];

/// All rules that hold for a container, the last that matches counting.
fn complete(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let none = DeviceRule { allow: false, ..DeviceRule::default() };
    let always = ALWAYS.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major: Some(major),
        minor: Some(minor),
        access: Some(access.to_owned()),
    });
    std::iter::once(none).chain(rules.iter().cloned()).chain(always).collect()
}

impl Cgroup {
    /// # Errors
    /// [`ErrorKind::Wall`] on a host that can forbid no devices: a container without that wall could reach every disk.
    pub(super) fn set_devices(&self, resources: &Resources) -> Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let rules = complete(&resources.devices);
        let done = match (self.part("devices"), self.tree()) {
            (Some(group), _) => group.set_devices(&rules),
            (None, Some(tree)) => filter::devices::program(&rules).and_then(|program| filter::devices::attach(tree.dir.as_fd(), &program)),
            (None, None) => Err(refused("linux.resources.devices: this host can forbid none (neither a v1 devices hierarchy nor a v2 tree)")),
        };
        match done {
            // Who has no rights here can make no device nodes either.
            Err(e) if matches!(e.errno(), Some(Errno::PERM | Errno::ACCESS)) && !place::is_privileged() => Ok(()),
            other => other,
        }
    }
}

/// v1: what systemd is told, because it would open all devices again when it looks after its groups.
pub(super) fn for_systemd(rules: &[DeviceRule]) -> Result<Vec<(&'static str, Value)>> {
    let target = Exceptions::of(&complete(rules))?;
    if target.all {
        return Ok(Vec::new());
    }
    let known = std::fs::read_to_string("/proc/devices").wall(|| "read /proc/devices".into())?;
    let allowed = target.list.iter().filter_map(|((kind, major, minor), access)| {
        let long = if *kind == 'b' { "block" } else { "char" };
        let name = match (major, minor) {
            (-1, _) => format!("{long}-*"),
            (major, -1) => format!("{long}-{}", driver(&known, long, *major)?),
            (major, minor) => format!("/dev/{long}/{major}:{minor}"),
        };
        Some((name, letters(*access)))
    });
    Ok(vec![("DevicePolicy", Value::Text("strict".into())), ("DeviceAllow", Value::Pairs(allowed.collect()))])
}

/// The name of a major number, of which systemd knows only those in use.
fn driver<'k>(known: &'k str, long: &str, major: i64) -> Option<&'k str> {
    let (_, block) = known.split_once("Block devices:").unwrap_or((known, ""));
    let section = if long == "block" { block } else { known.split("Block devices:").next().unwrap_or_default() };
    section.lines().find_map(|line| line.trim().split_once(' ').filter(|(number, _)| number.parse() == Ok(major))).map(|(_, name)| name.trim())
}

/// v1's state: mode and exceptions by type, major, minor, each with the letters of its access.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exceptions {
    all: bool,
    list: BTreeMap<(char, i64, i64), u8>,
}

const READ: u8 = 1;
const WRITE: u8 = 2;
const MAKE: u8 = 4;
const LETTERS: [(char, u8); 3] = [('r', READ), ('w', WRITE), ('m', MAKE)];

impl Exceptions {
    fn of(rules: &[DeviceRule]) -> Result<Self> {
        let mut this = Self::default();
        for rule in rules {
            let access = access_of(rule)?;
            match rule.kind.as_deref().unwrap_or("a") {
                "" | "a" => this = Self { all: rule.allow, list: BTreeMap::new() },
                kind @ ("b" | "c") => {
                    let key = (if kind == "b" { 'b' } else { 'c' }, number(rule.major)?, number(rule.minor)?);
                    if rule.allow == this.all {
                        this.take_back(key, access)?;
                    } else {
                        *this.list.entry(key).or_default() |= access;
                    }
                }
                kind => return Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.devices: {kind:?} is no type of device (a, b, c)"))),
            }
        }
        Ok(this)
    }

    fn take_back(&mut self, key: (char, i64, i64), access: u8) -> Result<()> {
        let (kind, major, minor) = key;
        let wider = [(kind, -1, minor), (kind, major, -1), (kind, -1, -1)];
        if let Some(hole) = wider.into_iter().find(|w| *w != key && self.list.get(w).is_some_and(|a| a & access != 0)) {
            let words = "only v2 control groups can make an exception from a wider rule";
            return Err(refused(format!("linux.resources.devices: {} within {}: {words}", shown(key, access), shown(hole, self.list[&hole]))));
        }
        if let Some(left) = self.list.get_mut(&key) {
            *left &= !access;
            if *left == 0 {
                self.list.remove(&key);
            }
        }
        Ok(())
    }

    /// What `devices.list` says then: the exceptions from "none". Of those from "all" it says nothing.
    fn holds(&self, list: &str) -> bool {
        if self.all {
            return list.trim() == "a *:* rwm";
        }
        let mut lines: Vec<&str> = list.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut want: Vec<String> = self.list.iter().map(|(key, access)| shown(*key, *access)).collect();
        lines.sort_unstable();
        want.sort_unstable();
        lines == want
    }
}

/// As v1's files have it.
fn shown((kind, major, minor): (char, i64, i64), access: u8) -> String {
    let number = |n: i64| if n < 0 { "*".to_owned() } else { n.to_string() };
    format!("{kind} {}:{} {}", number(major), number(minor), letters(access))
}

fn letters(access: u8) -> String {
    LETTERS.iter().filter(|(_, bit)| access & bit != 0).map(|(letter, _)| *letter).collect()
}

fn access_of(rule: &DeviceRule) -> Result<u8> {
    let text = rule.access.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    let mut access = 0;
    for c in text.chars() {
        let bit = LETTERS.iter().find(|(letter, _)| *letter == c).map(|(_, bit)| *bit);
        access |= bit
            .ok_or_else(|| Error::refused(ErrorKind::Invalid, format!("linux.resources.devices: access {text:?} has other letters than r, w, m")))?;
    }
    Ok(access)
}

fn number(n: Option<i64>) -> Result<i64> {
    match n.unwrap_or(-1) {
        n @ -1..=0xffff_ffff => Ok(n),
        n => Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.devices: {n} is no device number"))),
    }
}

impl Group {
    /// v1: the shortest way to what the rules come to, from "all" (as a group's parent has it) or from what an earlier call has set.
    fn set_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        let target = Exceptions::of(rules)?;
        let open = |file: &'static str| {
            let opened = openat(&self.dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            opened.wall(|| format!("linux.resources.devices: open({}/{file})", self.path)).map(|fd| (fd, file))
        };
        // One rule at a time, as the kernel wants it.
        let write = |(fd, file): &(OwnedFd, &str), value: &str| {
            rustix::io::write(fd, value.as_bytes()).map(drop).wall(|| format!("linux.resources.devices: write {value:?} to {}/{file}", self.path))
        };
        let (allow, deny) = (open("devices.allow")?, open("devices.deny")?);
        let (mode, exception) = if target.all { (&allow, &deny) } else { (&deny, &allow) };
        let list = if self.fresh { String::new() } else { self.read("devices.list")? };
        if self.fresh || target.all || list.trim() == "a *:* rwm" {
            write(mode, "a")?;
            for (key, access) in &target.list {
                write(exception, &shown(*key, *access))?;
            }
        } else if !target.holds(&list) {
            target.step_over(&list, |value| write(&allow, value), |value| write(&deny, value))?;
        }
        let list = self.read("devices.list")?;
        if target.holds(&list) {
            return Ok(());
        }
        Err(refused(format!("linux.resources.devices: {}/devices.list is {list:?} after writing the rules", self.path)))
    }
}

impl Exceptions {
    /// From one list of exceptions to another, so that what is allowed by both never fails meanwhile.
    fn step_over(&self, list: &str, allow: impl Fn(&str) -> Result<()>, deny: impl Fn(&str) -> Result<()>) -> Result<()> {
        let want: Vec<String> = self.list.iter().map(|(key, access)| shown(*key, *access)).collect();
        want.iter().try_for_each(|rule| allow(rule))?;
        for line in list.lines().map(str::trim).filter(|line| !want.iter().any(|rule| rule == line)) {
            deny(line)?;
        }
        // A line with more access than is wanted took the wanted part with it.
        want.iter().try_for_each(|rule| allow(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: Some(kind.into()), major: Some(major), minor: Some(minor), access: Some(access.into()) }
    }

    fn lines(rules: &[DeviceRule]) -> Vec<String> {
        Exceptions::of(rules).unwrap().list.iter().map(|(key, access)| shown(*key, *access)).collect()
    }

    #[test]
    fn rules_in_their_order() {
        assert_eq!(lines(&[rule(true, "c", 1, 3, "r"), rule(true, "c", 1, 3, "mw"), rule(true, "b", 8, -1, "r")]), ["b 8:* r", "c 1:3 rwm"]);
        assert_eq!(lines(&[rule(true, "c", 1, 3, "rw"), rule(false, "c", 1, 3, "w")]), ["c 1:3 r"]);
        assert_eq!(lines(&[rule(true, "c", 1, 3, "rw"), rule(false, "a", 9, 9, "r")]), [""; 0]);
        // Taking back what was not given.
        assert_eq!(lines(&[rule(false, "c", 10, 229, "rwm")]), [""; 0]);
        let all = Exceptions::of(&[rule(true, "a", -1, -1, "rwm"), rule(false, "b", 8, 0, "w"), rule(true, "c", 1, 3, "rwm")]).unwrap();
        assert!(all.all && all.list.len() == 1 && all.holds("a *:* rwm\n") && !all.holds(""));
    }

    #[test]
    fn holes_are_refused() {
        let wide = [rule(true, "c", 1, -1, "rw")];
        let with = |more: DeviceRule| Exceptions::of(&[wide.to_vec(), vec![more]].concat());
        for hole in [rule(false, "c", 1, 3, "w"), rule(false, "c", 1, 3, "rwm")] {
            assert!(with(hole).unwrap_err().to_string().contains("within c 1:* rw"));
        }
        for other in [rule(false, "c", 1, 3, "m"), rule(false, "b", 1, 3, "w"), rule(false, "c", 2, 3, "w"), rule(false, "c", 1, -1, "w")] {
            assert!(with(other).is_ok());
        }
    }

    #[test]
    fn what_every_container_has_comes_last() {
        let rules = complete(&[rule(false, "c", 1, 3, "rwm"), rule(true, "b", 8, 0, "r")]);
        let state = Exceptions::of(&rules).unwrap();
        assert!(!state.all && state.list.len() == 11);
        assert_eq!((state.list[&('c', 1, 3)], state.list[&('b', 8, 0)]), (READ | WRITE | MAKE, READ));
        assert!(Exceptions::of(&complete(&[rule(true, "", -1, -1, "")])).unwrap().all);
        assert!(state.holds(&state.list.iter().rev().map(|(k, a)| shown(*k, *a) + "\n").collect::<String>()));
    }

    #[test]
    fn as_systemd_has_it() {
        let known = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 other\n";
        assert_eq!(
            [driver(known, "char", 136), driver(known, "block", 8), driver(known, "block", 136), driver(known, "char", 8)],
            [Some("pts"), Some("sd"), Some("other"), None]
        );
        let told = for_systemd(&[rule(true, "b", 8, 1, "r")]).unwrap();
        let Value::Pairs(pairs) = &told[1].1 else { panic!("{told:?}") };
        assert!(
            [("/dev/block/8:1", "r"), ("/dev/char/1:3", "rwm"), ("char-*", "m")]
                .iter()
                .all(|(name, access)| pairs.contains(&((*name).to_owned(), (*access).to_owned()))),
            "{pairs:?}"
        );
        assert_eq!(for_systemd(&[rule(true, "a", -1, -1, "rwm")]).unwrap(), []);
    }

    #[test]
    fn bad_rules_are_refused() {
        for bad in [
            rule(true, "p", 1, 1, "r"),
            rule(true, "c", 1, 1, "rx"),
            rule(true, "c", -2, 1, "r"),
            rule(true, "c", 1, 1 << 33, "r"),
            rule(true, "a", 1, 1, "q"),
        ] {
            assert!(Exceptions::of(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }
}
