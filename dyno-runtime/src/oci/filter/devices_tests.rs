//! Device programs on a machine of our own, and in the kernel where there is a v2 tree.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// An eBPF machine for what such programs consist of.
fn run(program: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let (mut registers, mut pc) = ([0u32; 11], 0usize);
    loop {
        let i = program[pc];
        pc += 1;
        let to = usize::from(i.registers & 15);
        let mut jump = |holds: bool| {
            if holds {
                pc = pc.checked_add_signed(isize::from(i.offset)).unwrap()
            }
        };
        match i.code {
            0x61 => registers[to] = context[i.offset as usize / 4],
            0x54 => registers[to] &= i.imm as u32,
            0x74 => registers[to] >>= i.imm,
            0xb7 => registers[to] = i.imm as u32,
            0x56 => jump(registers[to] != i.imm as u32),
            0x46 => jump(registers[to] & i.imm as u32 != 0),
            0x05 => jump(true),
            0x95 => return registers[0] != 0,
            other => panic!("{other:#x}"),
        }
    }
}

fn rules(json: serde_json::Value) -> Vec<DeviceRule> {
    serde_json::from_value(json).unwrap()
}

/// The sentence at the top of the module, said once more.
fn model(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let is = |want: Option<i64>, number: u32| want.is_none_or(|want| want == -1 || want == i64::from(number));
    let matches = |rule: &DeviceRule, bit: u32| {
        let letters = rule.access.as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
        let letter = [(1, 'm'), (2, 'r'), (4, 'w')].iter().any(|(b, letter)| *b == bit && letters.contains(*letter));
        let of_kind = match rule.kind.as_deref() {
            Some("b") => kind == 1,
            Some("c") => kind == 2,
            _ => true,
        };
        letter && of_kind && is(rule.major, major) && is(rule.minor, minor)
    };
    let lets = |bit: u32| rules.iter().rev().find(|rule| matches(rule, bit)).is_some_and(|rule| rule.allow);
    [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(lets)
}

fn rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
    let number = || prop::sample::select(vec![None, Some(-1), Some(1), Some(2), Some(i64::from(u32::MAX))]);
    let access = prop::sample::select(vec![None, Some(""), Some("r"), Some("w"), Some("m"), Some("rw"), Some("wm"), Some("mr"), Some("rwm")]);
    (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| DeviceRule {
        allow,
        kind: kind.map(str::to_owned),
        major,
        minor,
        access: access.map(str::to_owned),
    })
}

proptest! {
    #[test]
    fn the_program_says_what_the_rules_say(rules in prop::collection::vec(rule(), 0..6)) {
        let program = program(&rules).unwrap();
        for (kind, access) in [1, 2].into_iter().flat_map(|kind| (1..8).map(move |access| (kind, access))) {
            for (major, minor) in [(0, 0), (1, 1), (1, 2), (2, 1), (2, 3), (u32::MAX, 1)] {
                prop_assert_eq!(run(&program, kind, access, major, minor), model(&rules, kind, access, major, minor), "{} {} {}:{}", kind, access, major, minor);
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let check = |rule: serde_json::Value, want: &str| {
        let error = program(&rules(json!([{"allow": false}, rule]))).unwrap_err();
        assert_eq!(error.to_string(), format!("linux.resources.devices[1].{want}"));
    };
    check(json!({"type": "p"}), "type \"p\" is not one of a, b, c, u");
    check(json!({"major": -2}), "major -2 is no device number");
    check(json!({"minor": 4_294_967_296u64}), "minor 4294967296 is no device number");
    check(json!({"access": "rx"}), "access 'x' is not one of r, w, m");
}

/// A group of a v2 tree, removed again.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let tree =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2").map(|fields| fields[1].to_owned());
        let (Some(tree), true) = (tree, rustix::process::getuid().is_root()) else {
            println!("skipped: no v2 tree, or not root");
            return None;
        };
        let path = Path::new(&tree).join(format!("dyno-devices-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    fn attach(&self, list: serde_json::Value) {
        attach(fs::File::open(&self.0).unwrap().as_fd(), &program(&rules(list)).unwrap()).unwrap();
    }

    fn programs(&self) -> usize {
        bpf::device_programs(fs::File::open(&self.0).unwrap().as_fd()).unwrap().len()
    }

    /// Which of these a shell in the group can do.
    fn can(&self, things: &[&str]) -> Vec<bool> {
        let can = |thing: &&str| {
            let script = format!("echo 0 > {}/cgroup.procs && {{ {thing}; }} 2>&1", self.0.display());
            Command::new("bash").args(["-c", &script]).output().unwrap().status.success()
        };
        things.iter().map(can).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn the_kernel_asks_the_program() {
    let Some(group) = Group::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = format!("rm -f {0}/n; mknod {0}/n c 1 3", dir.path().display());
    let things = [": < /dev/zero", ": > /dev/null", ": <> /dev/null", ": < /dev/urandom", &node];
    let check = |want: [bool; 5]| assert_eq!(group.can(&things), want);
    check([true; 5]);
    assert_eq!(group.programs(), 0);
    // The devices that the shell needs to start are none; null is 1:3, zero 1:5, urandom 1:9.
    group.attach(json!([{"allow": false}]));
    check([false; 5]);
    group.attach(json!([{"allow": false}, {"allow": true, "type": "c", "major": 1, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "r"}]));
    check([true, true, false, true, true]);
    assert_eq!(group.programs(), 1, "the former one is gone");
    group.attach(
        json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}, {"allow": true, "type": "c", "minor": 3, "access": "w"}]),
    );
    check([false, true, true, false, false]);
    // Somebody else's beside it: all are replaced.
    let other = bpf::load_device_program(&program(&rules(json!([{"allow": false}]))).unwrap()).unwrap();
    bpf::attach(fs::File::open(&group.0).unwrap().as_fd(), other.as_fd(), None).unwrap();
    assert_eq!(group.programs(), 2);
    check([false; 5]);
    group.attach(json!([{"allow": true}]));
    check([true; 5]);
    assert_eq!(group.programs(), 1);
}
