//! Verdicts of whole configurations, asked of a BPF machine; the same from libseccomp, where it is; and of the kernel.

use serde_json::json;

use super::*;
use crate::seccomp::machine::run;

#[path = "kernel_tests.rs"]
mod kernel;
#[path = "oracle.rs"]
mod oracle;
#[path = "timing.rs"]
mod timing;

const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = ERRNO | 38;

fn seccomp(config: &serde_json::Value) -> Seccomp {
    serde_json::from_value(config.clone()).unwrap()
}

fn compiled(config: &serde_json::Value) -> Filter {
    compile(&seccomp(config), &mut Vec::new()).unwrap_or_else(|e| panic!("{config}: {e}"))
}

fn nr(name: &str) -> u32 {
    crate::seccomp::table::number(name).unwrap()
}

/// What is said of native calls, with their first arguments.
fn says(config: &serde_json::Value, facts: &[(&str, &[u64], u32)]) {
    let program = compiled(config).program;
    for (name, first, want) in facts {
        let mut args = [0; 6];
        args[..first.len()].copy_from_slice(first);
        assert_eq!(run(&program, NATIVE, nr(name), args), *want, "{name} {args:x?} in {config}");
    }
}

/// Found by a fuzzer: what is no word stood in the message as it was given.
#[test]
fn refusals_and_warnings_are_one_short_line() {
    let odd = "\u{7f}\n".repeat(5000);
    for (member, value) in [
        ("defaultAction", json!(odd)),
        ("architectures", json!([odd])),
        ("flags", json!([odd])),
        ("syscalls", json!([{"names": ["read"], "action": odd}])),
        ("syscalls", json!([{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": odd}]}])),
    ] {
        let mut config = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        config[member] = value;
        let said = compile(&seccomp(&config), &mut Vec::new()).unwrap_err().to_string();
        assert!(said.contains("seccomp") && said.len() < 1000 && !said.contains(char::is_control), "{member}: {said:?}");
    }
    let mut warnings = Vec::new();
    compile(&seccomp(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [odd], "action": "SCMP_ACT_LOG"}]})), &mut warnings).unwrap();
    assert!(warnings.len() == 1 && warnings[0].len() < 1000 && !warnings[0].contains(char::is_control), "{warnings:?}");
}

#[test]
fn every_action() {
    let check = |action: &str, errno: Option<u32>, want: u32| {
        let config = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": action, "errnoRet": errno}]});
        says(&config, &[("mkdirat", &[], want), ("read", &[], ALLOW), ("getrandom", &[], ALLOW)]);
    };
    check("SCMP_ACT_KILL", None, 0);
    check("SCMP_ACT_KILL_THREAD", None, 0);
    check("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000);
    check("SCMP_ACT_TRAP", None, 0x0003_0000);
    check("SCMP_ACT_ERRNO", None, ERRNO | 1);
    check("SCMP_ACT_ERRNO", Some(0), ERRNO);
    check("SCMP_ACT_ERRNO", Some(38), ENOSYS);
    check("SCMP_ACT_NOTIFY", None, 0x7fc0_0000);
    check("SCMP_ACT_TRACE", None, 0x7ff0_0001);
    check("SCMP_ACT_TRACE", Some(0xabcd), 0x7ff0_abcd);
    check("SCMP_ACT_LOG", None, 0x7ffc_0000);
    check("SCMP_ACT_ALLOW", None, ALLOW);
}

#[test]
fn which_rule_counts() {
    let rules = |rules: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules});
    let rule = |action: &str, args: serde_json::Value| json!({"names": ["ptrace"], "action": action, "args": args});
    let eq = |index: u32, value: u64| json!({"index": index, "op": "SCMP_CMP_EQ", "value": value});
    let masked = |index: u32, mask: u64, value: u64| json!({"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value});
    const LOG: u32 = 0x7ffc_0000;
    // Conditions of a rule are one and all, but for those about the same argument.
    says(
        &rules(json!([rule("SCMP_ACT_ALLOW", json!([eq(1, 5), eq(0, 4)]))])),
        &[("ptrace", &[4, 5], ALLOW), ("ptrace", &[4, 4], ENOSYS), ("ptrace", &[5, 5], ENOSYS)],
    );
    says(
        &rules(json!([rule("SCMP_ACT_ALLOW", json!([eq(0, 5), eq(0, 4), eq(1, 1)]))])),
        &[("ptrace", &[4, 9], ALLOW), ("ptrace", &[5, 9], ALLOW), ("ptrace", &[9, 1], ALLOW), ("ptrace", &[9, 9], ENOSYS)],
    );
    // The one without conditions, and of several the first.
    for order in [[0, 1, 2], [2, 0, 1], [0, 2, 1], [1, 0, 2]] {
        let all = [rule("SCMP_ACT_LOG", json!([])), rule("SCMP_ACT_KILL", json!([eq(0, 1)])), rule("SCMP_ACT_LOG", json!([eq(1, 1)]))];
        let picked: Vec<_> = order.iter().map(|n| all[*n].clone()).collect();
        says(&rules(json!(picked)), &[("ptrace", &[1, 1], LOG), ("ptrace", &[0], LOG)]);
    }
    says(&rules(json!([rule("SCMP_ACT_ALLOW", json!(null)), rule("SCMP_ACT_LOG", json!([]))])), &[("ptrace", &[], ALLOW)]);
    // What the default says already is no rule at all.
    says(
        &rules(json!([{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}, rule("SCMP_ACT_LOG", json!([eq(0, 1)]))])),
        &[("ptrace", &[1], LOG)],
    );
    // The one that asks for less, of the same action in either order.
    let (short, long) = (rule("SCMP_ACT_LOG", json!([eq(0, 1)])), rule("SCMP_ACT_LOG", json!([eq(0, 1), eq(1, 1)])));
    for picked in [[&short, &long], [&long, &short]] {
        says(&rules(json!(picked)), &[("ptrace", &[1, 0], LOG), ("ptrace", &[0, 1], ENOSYS)]);
    }
    says(&rules(json!([rule("SCMP_ACT_ALLOW", json!([eq(0, 1)])), long])), &[("ptrace", &[1, 1], ALLOW)]);
    // Bits beyond a mask do not count, and a mask of none always holds.
    says(
        &rules(json!([rule("SCMP_ACT_LOG", json!([masked(0, 0xf, 0x13)]))])),
        &[("ptrace", &[3], LOG), ("ptrace", &[0x23], LOG), ("ptrace", &[4], ENOSYS)],
    );
    says(&rules(json!([rule("SCMP_ACT_LOG", json!([masked(0, 0, 7), eq(1, 1)]))])), &[("ptrace", &[5, 1], LOG), ("ptrace", &[5, 2], ENOSYS)]);
}

#[test]
fn calls_newer_than_the_profile() {
    let newest = |config: serde_json::Value| {
        let program = compiled(&config).program;
        [nr("openat2"), nr("openat2") + 1, 600, X32_BIT, u32::MAX].map(|nr| run(&program, NATIVE, nr, [0; 6]))
    };
    let config = |default: &str, errno: Option<u32>, named: &str| json!({"defaultAction": default, "defaultErrnoRet": errno, "syscalls": [{"names": ["openat2"], "action": named}]});
    // x32 is not named: killed where it exists. ARM has no such bit.
    let x32 = if cfg!(target_arch = "x86_64") { 0 } else { ENOSYS };
    let last = if cfg!(target_arch = "x86_64") { ERRNO | 1 } else { ENOSYS };
    assert_eq!(newest(config("SCMP_ACT_ERRNO", None, "SCMP_ACT_ALLOW")), [ALLOW, ENOSYS, ENOSYS, x32, last]);
    assert_eq!(newest(config("SCMP_ACT_ERRNO", None, "SCMP_ACT_ERRNO")), [ERRNO | 1, ENOSYS, ENOSYS, x32, last]);
    assert_eq!(newest(config("SCMP_ACT_KILL_PROCESS", None, "SCMP_ACT_ALLOW"))[..3], [ALLOW, ENOSYS, ENOSYS]);
    assert_eq!(newest(config("SCMP_ACT_ALLOW", None, "SCMP_ACT_KILL"))[..3], [0, ALLOW, ALLOW]);
    assert_eq!(newest(config("SCMP_ACT_TRACE", Some(7), "SCMP_ACT_ALLOW"))[..3], [ALLOW, 0x7ff0_0007, 0x7ff0_0007]);
    assert_eq!(newest(config("SCMP_ACT_LOG", None, "SCMP_ACT_ALLOW"))[..3], [ALLOW, 0x7ffc_0000, 0x7ffc_0000]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn several_architectures() {
    let config = |arches: &[&str]| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": arches, "syscalls": [
            {"names": ["read", "socketcall", "execve", "fchmodat2"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket", "semop", "stat64"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "SCMP_CMP_GT", "value": 0x1_0000_0001u64}]}]})
    };
    const LOG: u32 = 0x7ffc_0000;
    const EPERM: u32 = ERRNO | 1;
    let ask = |arches: &[&str], arch: u32, nr: u32, first: u64| run(&compiled(&config(arches)).program, arch, nr, [first, 0, 0, 0, 0, 0]);
    for arches in [&[][..], &["SCMP_ARCH_X86_64"], &["SCMP_ARCH_AARCH64", "SCMP_ARCH_RISCV64"]] {
        assert_eq!((ask(arches, NATIVE, 0, 0), ask(arches, I386, 3, 0), ask(arches, 0xc000_00b7, 63, 0)), (ALLOW, 0, 0));
        assert_eq!(ask(arches, NATIVE, X32_BIT, 0), 0);
    }
    let both = &["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
    assert_eq!((ask(both, I386, 3, 0), ask(both, I386, 102, 9), ask(both, I386, 4, 0), ask(both, I386, 453, 0)), (ALLOW, ALLOW, EPERM, ENOSYS));
    // Direct and through ipc(2); a 32-bit program's argument has 32 bits, and a value is cut to that.
    assert_eq!((ask(both, I386, 359, 1), ask(both, I386, 359, 2), ask(both, NATIVE, 41, 2)), (EPERM, LOG, EPERM));
    assert_eq!((ask(both, I386, 117, 1), ask(both, I386, 117, 2), ask(both, I386, 195, 2)), (LOG, EPERM, LOG));
    assert_eq!((ask(both, NATIVE, 41, 0x1_0000_0002), ask(both, NATIVE, X32_BIT | 520, 0)), (LOG, 0));
    let x32 = &["SCMP_ARCH_X32"];
    assert_eq!((ask(x32, NATIVE, 59, 0), ask(x32, NATIVE, X32_BIT | 59, 0), ask(x32, NATIVE, X32_BIT | 520, 0)), (ALLOW, EPERM, ALLOW));
    assert_eq!(
        (ask(x32, NATIVE, X32_BIT | 41, 2), ask(x32, NATIVE, 1 << 29, 2), ask(x32, NATIVE, u32::MAX, 0), ask(x32, I386, 3, 0)),
        (LOG, ENOSYS, ENOSYS, 0)
    );
}

#[test]
fn what_is_wrong_is_named() {
    let check = |config: serde_json::Value, want: &str| {
        let error = compile(&seccomp(&config), &mut Vec::new()).expect_err(&config.to_string());
        assert_eq!((error.to_string().as_str(), error.kind()), (format!("linux.seccomp.{want}").as_str(), ErrorKind::Invalid));
    };
    let calls = |calls: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [calls]});
    check(json!({"defaultAction": "ALLOW"}), "defaultAction: string ALLOW is not a valid action for seccomp");
    check(
        json!({"defaultAction": "", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}]}),
        "defaultAction: string  is not a valid action for seccomp",
    );
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "defaultAction: errno value specified for action SCMP_ACT_ALLOW");
    check(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}), "defaultAction: errno 65536 does not fit into 16 bits");
    check(json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "defaultAction: SCMP_ACT_NOTIFY cannot be used as default action");
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X86"]}), "architectures: string X86 is not a valid arch for seccomp");
    check(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}),
        "architectures: SCMP_ARCH_S390X has another byte order than this machine",
    );
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}), "flags: seccomp flag SECCOMP_FILTER_FLAG_X is not known");
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}), "listenerMetadata goes with listenerPath only");
    check(calls(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})), "listenerPath is needed for SCMP_ACT_NOTIFY");
    for name in ["write", "sendmsg"] {
        check(
            calls(json!({"names": ["mkdir", name], "action": "SCMP_ACT_NOTIFY"})),
            &format!("syscalls: SCMP_ACT_NOTIFY cannot be used for the {name} syscall"),
        );
    }
    check(calls(json!({"names": [], "action": "SCMP_ACT_KILL"})), "syscalls[0].names is empty");
    check(calls(json!({"names": ["read"], "action": "kill"})), "syscalls[0].action: string kill is not a valid action for seccomp");
    check(
        calls(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 5})),
        "syscalls[0].action: errno value specified for action SCMP_ACT_KILL",
    );
    let arg = |index: u32, op: &str| calls(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": index, "value": 0, "op": op}]}));
    check(arg(6, "SCMP_CMP_EQ"), "syscalls[0].args: index 6 does not exist; calls have 0 to 5");
    check(arg(0, "=="), "syscalls[0].args: op: string == is not a valid operator for seccomp");
    let eq = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let twice = json!([{"names": ["read"], "action": "SCMP_ACT_LOG", "args": eq}, {"names": ["read"], "action": "SCMP_ACT_KILL", "args": eq}]);
    check(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": twice}),
        "syscalls[1]: read: another rule has the same conditions and another action",
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_call_that_is_multiplexed() {
    let names = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    let ipc = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let all = names.into_iter().zip(1..).map(|(name, which)| (name, 102, which)).chain(ipc.map(|(name, which)| (name, 117, which)));
    for (name, multiplexer, which) in all {
        let program = compiled(&json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": [name], "action": "SCMP_ACT_ERRNO"}]}))
        .program;
        let denied: Vec<u64> = (0..26).filter(|first| run(&program, I386, multiplexer, [*first, 0, 0, 0, 0, 0]) == ERRNO | 1).collect();
        assert_eq!(denied, [which], "{name}");
    }
}

#[test]
fn flags_listener_and_warnings() {
    let of = |config: serde_json::Value| {
        let mut warnings = Vec::new();
        let filter = compile(&seccomp(&config), &mut warnings).unwrap();
        (filter.flags, filter.listener, warnings)
    };
    let flags = |flags: serde_json::Value| of(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).0;
    assert_eq!([flags(json!(null)), flags(json!([])), flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]))], [4, 0, 0]);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 6);
    let asks = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "listenerPath": "/run/a", "listenerMetadata": "m",
        "syscalls": [{"names": ["mkdir", "no_such_call", "s390_runtime_instr"], "action": "SCMP_ACT_NOTIFY"}]});
    let warnings = ["no_such_call", "s390_runtime_instr"].map(|name| format!("unknown seccomp syscall {name:?} ignored"));
    assert_eq!(of(asks), (0x28, Some(("/run/a".into(), "m".into())), warnings.to_vec()));
    assert_eq!(of(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/a"})).1, None);
    assert_eq!(compiled(&json!({"defaultAction": ""})).program, []);
    assert_eq!(install(&compiled(&json!({"defaultAction": ""}))).unwrap().map(drop), None);
}
