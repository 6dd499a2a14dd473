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
struct Theirs {
    #[serde(default)]
    program: Vec<(u16, u8, u8, u32)>,
    #[serde(default)]
    newest: BTreeMap<String, i64>,
    error: Option<String>,
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
        let program: Vec<_> = self.program.iter().map(|(code, jt, jf, k)| op(*code, *jt, *jf, *k)).collect();
        run(&program, arch, nr, args)
    }
}

/// libseccomp's programs; None where it is not.
fn libseccomp(configs: &[Value]) -> Option<Vec<Theirs>> {
    let there = Command::new("python3").args(["-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: no python3 or no libseccomp.so.2");
        return None;
    }
    let mut child = Command::new("python3").args(["-c", include_str!("oracle.py")]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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

/// A configuration of at most so many entries about each call; their actions are one and the same.
fn config(dice: &mut Dice, entries: u64) -> Value {
    let (default, other) = (dice.of(&ACTIONS), dice.of(&ACTIONS));
    let all = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"];
    let architectures: Vec<&str> = all.into_iter().filter(|_| dice.roll(2) == 0).collect();
    let mut syscalls = Vec::new();
    for name in NAMES {
        for _ in 0..dice.roll(entries + 1) {
            let args = |index: u64| json!({"index": index, "op": format!("SCMP_CMP_{}", dice.of(&OPS)), "value": dice.number(), "valueTwo": dice.number()});
            let args: Vec<Value> = (0..3).map(args).collect();
            let args: Vec<Value> = args.into_iter().filter(|_| dice.roll(2) == 0).collect();
            syscalls.push(json!({"names": [name], "action": other, "args": args}));
        }
    }
    json!({"defaultAction": default, "architectures": architectures, "syscalls": syscalls})
}

/// Asks both for many calls, and returns what differs.
fn differences(dice: &mut Dice, config: &Value, theirs: &Theirs, ours: &Filter) -> Vec<String> {
    let mut out = Vec::new();
    for _ in 0..300 {
        let (arch, nr) = call(dice);
        let mut args = [(); 6].map(|()| dice.number());
        if arch == I386 {
            // The kernel has no more of them.
            args = args.map(|arg| arg & 0xffff_ffff);
        }
        let (want, got) = (theirs.answer(config, arch, nr, args), run(&ours.program, arch, nr, args));
        if want != got {
            out.push(format!("{arch:x} {nr:#x} {args:x?}: libseccomp {want:#x}, here {got:#x}"));
        }
    }
    out
}

fn call(dice: &mut Dice) -> (u32, u32) {
    let (abi, arch, bit) = dice.of(&[(Abi::X86_64, NATIVE, 0), (Abi::X32, NATIVE, X32_BIT), (Abi::X86, I386, 0), (Abi::Aarch64, 0xc000_00b7, 0)]);
    let named = table::number_in(abi, dice.of(&NAMES)).filter(|_| dice.roll(8) != 0);
    (arch, named.unwrap_or_else(|| dice.of(&[102, 117, 439, 500, u32::MAX, 0])) | bit)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn one_rule_for_each_call_as_libseccomp_has_it() {
    let mut dice = Dice(7);
    let configs: Vec<Value> = (0..400).map(|_| config(&mut dice, 1)).collect();
    let Some(theirs) = libseccomp(&configs) else { return };
    let (mut same, mut odd) = (0, Vec::new());
    for (config, theirs) in configs.iter().zip(&theirs) {
        match (compile(&seccomp(config), &mut Vec::new()), &theirs.error) {
            (Ok(ours), None) => {
                let different = differences(&mut dice, config, theirs, &ours);
                if different.is_empty() { same += 1 } else { odd.push(format!("{config}\n  {}", different.join("\n  "))) }
            }
            (ours, theirs) => odd.push(format!("{config}: {theirs:?}, here {:?}", ours.map(drop))),
        }
    }
    println!("{same} the same, {} not", odd.len());
    for odd in odd.iter().take(5) { println!("{odd}"); }
    assert!(odd.is_empty());
}
