//! Against libseccomp itself, where somebody has it: runc and crun bring it.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::*;
use crate::seccomp::{
    compile::op,
    table::{self, Abi},
};

#[derive(Debug, serde::Deserialize)]
pub(super) struct Theirs {
    #[serde(default, deserialize_with = "instructions")]
    pub program: Vec<sys::Filter>,
    #[serde(default)]
    newest: BTreeMap<String, i64>,
    error: Option<String>,
}

fn instructions<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<sys::Filter>, D::Error> {
    let numbers: Vec<(u16, u8, u8, u32)> = serde::Deserialize::deserialize(from)?;
    Ok(numbers.into_iter().map(|(code, jt, jf, k)| op(code, jt, jf, k)).collect())
}

impl Theirs {
    /// Their program behind runc's stub.
    fn answer(&self, config: &Value, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let default = config["defaultAction"].as_str().unwrap().trim_start_matches("SCMP_ACT_");
        let stub = !["ALLOW", "LOG", "TRACE"].contains(&default) && config["defaultErrnoRet"] != 38;
        let name = match arch {
            I386 => "X86",
            NATIVE if nr & X32_BIT != 0 => "X32",
            NATIVE => "NATIVE",
            _ => "another",
        };
        let newer = self.newest.get(name).is_some_and(|newest| *newest > 0 && i64::from(nr) > *newest);
        if stub && newer {
            return ENOSYS;
        }
        run(&self.program, arch, nr, args)
    }
}

/// libseccomp's programs; None where it is not.
pub(super) fn libseccomp(configs: &[Value]) -> Option<Vec<Theirs>> {
    let there = Command::new("python3").args(["-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: no python3 or no libseccomp.so.2");
        return None;
    }
    let mut child = Command::new("timeout")
        .args(["60", "python3", "-c", include_str!("oracle.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(configs).unwrap()).unwrap();
    Some(serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
}

/// A generator of numbers that gives the same ones each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len() as u64) as usize]
    }

    /// Numbers whose halves often meet.
    fn number(&mut self) -> u64 {
        let halves = [0, 1, 2, 7, 8, 0x10, 0xffff_ffff];
        self.of(&halves) << 32 | self.of(&halves)
    }
}

/// Each has a number of its own everywhere: libseccomp 2.5 forgets to load the number where the first of its list has none.
const NAMES: [&str; 12] =
    ["read", "socket", "clone", "recvfrom", "rt_sigaction", "mknod", "kexec_load", "fadvise64", "ioctl", "execve", "openat2", "no_call"];

const ACTIONS: [&str; 6] = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL"];
const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

/// A configuration of at most one entry about each call; their actions are one and the same.
fn config(dice: &mut Dice) -> Value {
    let (default, other) = (dice.of(&ACTIONS), dice.of(&ACTIONS));
    let all = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"];
    let architectures: Vec<&str> = all.into_iter().filter(|_| dice.roll(2) == 0).collect();
    let mut syscalls = Vec::new();
    for name in NAMES {
        if dice.roll(2) == 0 {
            continue;
        }
        let args =
            |index: u64| json!({"index": index, "op": format!("SCMP_CMP_{}", dice.of(&OPS)), "value": dice.number(), "valueTwo": dice.number()});
        let args: Vec<Value> = (0..3).map(args).collect();
        let args: Vec<Value> = args.into_iter().filter(|_| dice.roll(2) == 0).collect();
        syscalls.push(json!({"names": [name], "action": other, "args": args}));
    }
    json!({"defaultAction": default, "architectures": architectures, "syscalls": syscalls})
}

fn call(dice: &mut Dice) -> (u32, u32) {
    let (abi, arch, bit) = dice.of(&[(Abi::X86_64, NATIVE, 0), (Abi::X32, NATIVE, X32_BIT), (Abi::X86, I386, 0), (Abi::Aarch64, 0xc000_00b7, 0)]);
    let named = table::number_in(abi, dice.of(&NAMES)).filter(|_| dice.roll(8) != 0);
    (arch, named.unwrap_or_else(|| dice.of(&[102, 117, 439, 500, u32::MAX, 0])) | bit)
}

/// Both compile every configuration, to programs that answer the same; or both refuse it. How many they refuse.
fn agree(configs: &[Value], calls: impl FnMut() -> (u32, u32, [u64; 6]), each: usize) {
    let Some(theirs) = libseccomp(configs) else { return };
    assert_eq!(configs.len(), theirs.len());
    let (mut calls, mut refused) = (calls, 0);
    for (config, theirs) in configs.iter().zip(&theirs) {
        let ours = match (compile(&seccomp(config), &mut Vec::new()), &theirs.error) {
            (Ok(ours), None) => ours,
            (Err(_), Some(_)) => {
                refused += 1;
                continue;
            }
            (ours, theirs) => panic!("{config}: libseccomp {theirs:?}, here {:?}", ours.map(drop)),
        };
        for (arch, nr, args) in (0..each).map(|_| calls()) {
            let (want, got) = (theirs.answer(config, arch, nr, args), run(&ours.program, arch, nr, args));
            assert_eq!(want, got, "{arch:x} {nr:#x} {args:x?}: libseccomp {want:#x}, here {got:#x}, in {config}");
        }
    }
    println!("{} the same, {refused} refused by both", configs.len() - refused);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn one_rule_for_each_call() {
    let mut dice = Dice(7);
    let configs: Vec<Value> = (0..200).map(|_| config(&mut dice)).collect();
    let call = || {
        let ((arch, nr), args) = (call(&mut dice), [(); 6].map(|()| dice.number()));
        // A 32-bit program has no more of them.
        (arch, nr, if arch == I386 { args.map(|arg| arg & 0xffff_ffff) } else { args })
    };
    agree(&configs, call, 200);
}

/// Rules that may hold at once. Only of forms that libseccomp 2.5.4 gets right: others it answers by none of the rules (a rule with NE
/// on two arguments beside one with EQ), or never ends (found here).
#[cfg(target_arch = "x86_64")]
#[test]
fn several_rules_about_a_call() {
    let several = |ops: &[&str], actions: &[&str], together: u64| {
        let mut dice = Dice(11);
        let rule = |dice: &mut Dice| {
            let arg = |dice: &mut Dice, index: u64| json!({"index": index, "op": format!("SCMP_CMP_{}", dice.of(ops)), "value": 1 + dice.roll(3)});
            let which = 1 + dice.roll(together);
            let args: Vec<Value> = (0..2).filter(|index| which & 1 << index != 0).map(|index| arg(dice, index)).collect();
            json!({"names": [dice.of(&["clone", "ioctl"])], "action": dice.of(actions), "args": args})
        };
        let config = |dice: &mut Dice| {
            let rules: Vec<Value> = (0..dice.roll(6)).map(|_| rule(dice)).collect();
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
        };
        let configs: Vec<Value> = (0..150).map(|_| config(&mut dice)).collect();
        agree(&configs, || (NATIVE, dice.of(&[nr("clone"), nr("ioctl")]), [dice.roll(5), dice.roll(5), 0, 0, 0, 0]), 50);
    };
    let two = &["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"];
    several(&["EQ"], &two[..1], 3);
    several(&["EQ"], two, 3);
    several(&["EQ", "NE", "LT", "GT"], two, 1);
    several(&["EQ", "NE", "LE", "GE"], two, 1);
}

/// What an engine makes of its profile for a container with these capabilities.
pub(super) fn resolved(profile: &Value, capabilities: &[&str]) -> Value {
    let has = |rule: &Value, when: &str, what: &str, held: &[&str]| {
        let wanted = rule[when][what].as_array().filter(|list| !list.is_empty());
        wanted.map(|list| list.iter().any(|one| held.contains(&one.as_str().unwrap())))
    };
    let arches = &["amd64", "x86", "x32"];
    let applies = |rule: &&Value| {
        let included = has(rule, "includes", "caps", capabilities) != Some(false) && has(rule, "includes", "arches", arches) != Some(false);
        included && has(rule, "excludes", "caps", capabilities) != Some(true) && has(rule, "excludes", "arches", arches) != Some(true)
    };
    let entry = |rule: &Value| {
        let mut entry = json!({"names": rule["names"], "action": rule["action"], "args": rule["args"]});
        if rule["action"] == "SCMP_ACT_ERRNO" {
            entry["errnoRet"] = rule["errnoRet"].clone();
        }
        entry
    };
    let syscalls: Vec<Value> = profile["syscalls"].as_array().unwrap().iter().filter(applies).map(entry).collect();
    json!({"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": syscalls})
}

/// Of Podman where it is installed, and of Docker where DYNO_DOCKER_PROFILE is a copy of github.com/moby/profiles seccomp/default.json.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_profiles_of_engines() {
    let mut dice = Dice(3);
    let paths = [Some("/usr/share/containers/seccomp.json".into()), std::env::var_os("DYNO_DOCKER_PROFILE")];
    for path in paths.into_iter().flatten() {
        let Ok(text) = std::fs::read(&path) else {
            println!("skipped: there is no {}", path.display());
            continue;
        };
        let profile: Value = serde_json::from_slice(&text).unwrap();
        let configs = [&[][..], &["CAP_SYS_ADMIN", "CAP_AUDIT_WRITE"], &["CAP_SYS_PTRACE", "CAP_BPF"]].map(|caps| resolved(&profile, caps));
        for config in &configs {
            let mut warnings = Vec::new();
            let filter = compile(&seccomp(config), &mut warnings).unwrap();
            println!("{}: {} instructions; {warnings:?}", path.display(), filter.program.len());
        }
        let call = || {
            let (arch, bit) = dice.of(&[(NATIVE, 0), (NATIVE, 0), (NATIVE, X32_BIT), (I386, 0)]);
            let first = [0, 1, 8, 9, 16, 37, 38, 39, 40, 41, 0x11, 0x2_0000, 0x2_0008, 0x1000_0011, 0x7e02_0000, 0xffff_ffff];
            // Newer calls are not in every libseccomp's table.
            let number = dice.roll(335) as u32;
            (arch, number | bit, [dice.of(&first), dice.of(&first), dice.of(&first), 0, 0, 0])
        };
        agree(&configs, call, 6000);
    }
}
