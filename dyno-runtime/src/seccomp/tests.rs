//! Verdicts of whole profiles, asked of a BPF machine that shares no code with the compiler.

use proptest::prelude::*;

use super::{
    super::{Compiled, ProfileData, explain, machine::run, table},
    *,
};
use crate::spec::{Capability, Profile};

#[path = "oracle.rs"]
mod oracle;

const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

fn capability(name: &str) -> Capability {
    name.parse().unwrap()
}

fn filter(profile: &Profile, capabilities: &[&str]) -> Vec<Filter> {
    Compiled::new(profile, capabilities.iter().fold(0, |bits, c| bits | capability(c).bit()), Denied::Answer).unwrap().program
}

fn custom(json: &str) -> Profile {
    Profile::Custom(Box::new(ProfileData::parse(json).unwrap()))
}

/// Call, arguments, what it answers.
type Facts<'a> = &'a [(&'a str, &'a [u64], u32)];

fn facts(profile: &Profile, capabilities: &[&str], facts: Facts<'_>) {
    let program = filter(profile, capabilities);
    let held: Vec<Capability> = capabilities.iter().map(|c| capability(c)).collect();
    for (call, first, want) in facts {
        let Some(number) = table::number(call) else { continue };
        let mut args = [0; 6];
        args[..first.len()].copy_from_slice(first);
        assert_eq!(run(&program, AUDIT_ARCH, number, args), *want, "{call} {args:x?} with {capabilities:?}");
        let said = explain(profile, &held, call, args).unwrap();
        let errno = (*want & 0xffff_0000 == RET_ERRNO).then_some(*want as u16);
        assert_eq!(said.errno, errno, "{call} {args:x?}: {said:?}");
    }
}

#[test]
fn the_dyno_profile_says_what_it_should() {
    facts(
        &Profile::Dyno,
        &[],
        &[
            ("read", &[], RET_ALLOW),
            ("mount", &[], EPERM),
            ("ptrace", &[], EPERM),
            ("unshare", &[], EPERM),
            ("bpf", &[], EPERM),
            ("clone3", &[], ENOSYS),
            ("io_uring_setup", &[], ENOSYS),
            ("clone", &[0x11], RET_ALLOW),
            ("clone", &[0x1000_0000], EPERM),
            ("socket", &[2, 0o2000001], RET_ALLOW),
            ("socket", &[2, 1, 6], RET_ALLOW),
            ("socket", &[10, 2, 17], RET_ALLOW),
            ("socket", &[2, 1, 0xffff_ffff_0000_0006], RET_ALLOW), // what the kernel does not look at
            ("socket", &[2, 3], EPERM),                            // SOCK_RAW
            ("socket", &[2, 1, 17], EPERM),                        // no protocol of streams
            ("socket", &[2, 2, 6], EPERM),                         // nor of datagrams
            ("socket", &[2, 1, 132], EPERM),                       // SCTP
            ("socket", &[10, 1, 262], EPERM),                      // MPTCP
            ("socket", &[10, 1, 0x1_0000_0106], EPERM),            // the same to the kernel
            ("socket", &[2, 2, 136], EPERM),                       // UDP-Lite
            ("socket", &[2, 2, 115], EPERM),                       // L2TP
            ("socket", &[17, 2], EPERM),                           // AF_PACKET
            ("socket", &[40, 1], EPERM),                           // AF_VSOCK
            ("socket", &[16, 3, 9], EPERM),                        // NETLINK_AUDIT
            ("ioctl", &[0, 0x5413], RET_ALLOW),
            ("ioctl", &[0, 0x5412], EPERM),
            ("ioctl", &[0, 0x1_0000_5412], EPERM), // CVE-2019-10063
            ("mknodat", &[0, 0, 0o060_644], EPERM),
            ("mknodat", &[0, 0, 0o010_644], RET_ALLOW),
            ("fchmodat", &[0, 0, 0o4755], RET_ALLOW),
        ],
    );
    // What a capability is for stays out all the same.
    facts(&Profile::Dyno, &["SYS_ADMIN"], &[("mount", &[], EPERM), ("clone3", &[], ENOSYS)]);
}

#[test]
fn the_build_profile_sets_no_setuid_bits() {
    facts(&Profile::Build, &[], &[("fchmodat", &[0, 0, 0o4755], EPERM), ("fchmodat", &[0, 0, 0o755], RET_ALLOW), ("mount", &[], EPERM)]);
}

/// What Docker's documentation and its profile (github.com/moby/profiles, 2026-06) say of calls that tell it from others.
#[test]
fn the_docker_profile_says_what_dockers_says() {
    facts(
        &Profile::Docker,
        &[],
        &[
            ("read", &[], RET_ALLOW),
            ("ptrace", &[], RET_ALLOW), // since kernel 4.8
            ("process_vm_readv", &[], RET_ALLOW),
            ("name_to_handle_at", &[], RET_ALLOW),
            ("modify_ldt", &[], RET_ALLOW),
            ("memfd_secret", &[], RET_ALLOW),
            ("io_uring_setup", &[], EPERM),
            ("userfaultfd", &[], EPERM),
            ("keyctl", &[], EPERM),
            ("add_key", &[], EPERM),
            ("mount", &[], EPERM),
            ("pivot_root", &[], EPERM),
            ("open_by_handle_at", &[], EPERM),
            ("kcmp", &[], EPERM),
            ("clone3", &[], ENOSYS),
            ("clone", &[0x11], RET_ALLOW),
            ("clone", &[0x1000_0011], EPERM),  // CLONE_NEWUSER
            ("clone", &[0x0002_0000], EPERM),  // CLONE_NEWNS
            ("socket", &[2, 3, 1], RET_ALLOW), // SOCK_RAW: the capability decides
            ("socket", &[17, 3], RET_ALLOW),
            ("socket", &[38, 5], EPERM), // AF_ALG
            ("socket", &[40, 1], EPERM), // AF_VSOCK
            ("socket", &[0x1_0000_0026, 5], EPERM),
            ("personality", &[0], RET_ALLOW),
            ("personality", &[0x2_0008], RET_ALLOW),
            ("personality", &[0x004_0000], EPERM), // ADDR_NO_RANDOMIZE
            ("personality", &[0xffff_ffff], RET_ALLOW),
            ("ioctl", &[0, 0x5412], RET_ALLOW),
            ("mbind", &[], EPERM),
            ("syslog", &[], EPERM),
            ("settimeofday", &[], EPERM),
            ("reboot", &[], EPERM),
        ],
    );
    let all: [(&str, Facts<'_>); 14] = [
        (
            "SYS_ADMIN",
            &[
                ("mount", &[], RET_ALLOW),
                ("clone3", &[], RET_ALLOW),
                ("clone", &[0x1000_0011], RET_ALLOW),
                ("setns", &[], RET_ALLOW),
                ("bpf", &[], RET_ALLOW),
                ("kcmp", &[], EPERM),
            ],
        ),
        ("SYS_BOOT", &[("reboot", &[], RET_ALLOW), ("mount", &[], EPERM)]),
        ("SYS_CHROOT", &[("chroot", &[], RET_ALLOW)]),
        ("SYS_MODULE", &[("finit_module", &[], RET_ALLOW)]),
        ("SYS_PACCT", &[("acct", &[], RET_ALLOW)]),
        ("SYS_PTRACE", &[("kcmp", &[], RET_ALLOW), ("pidfd_getfd", &[], RET_ALLOW)]),
        ("SYS_RAWIO", &[("iopl", &[], RET_ALLOW)]),
        ("SYS_TIME", &[("settimeofday", &[], RET_ALLOW), ("clock_settime", &[], RET_ALLOW)]),
        ("SYS_TTY_CONFIG", &[("vhangup", &[], RET_ALLOW)]),
        ("SYS_NICE", &[("mbind", &[], RET_ALLOW)]),
        ("SYSLOG", &[("syslog", &[], RET_ALLOW)]),
        ("BPF", &[("bpf", &[], RET_ALLOW), ("perf_event_open", &[], EPERM)]),
        ("PERFMON", &[("perf_event_open", &[], RET_ALLOW)]),
        ("DAC_READ_SEARCH", &[("open_by_handle_at", &[], RET_ALLOW)]),
    ];
    for (name, list) in all {
        facts(&Profile::Docker, &[name], list);
    }
}

#[test]
fn foreign_abis_and_newer_calls_never_run() {
    for profile in [Profile::Dyno, Profile::Build, Profile::Docker] {
        let program = filter(&profile, &[]);
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), RET_KILL_PROCESS); // i386
        for nr in [X32_BIT, X32_BIT | 59, table::NEWEST + 1, u32::MAX] {
            assert_eq!(run(&program, AUDIT_ARCH, nr, [0; 6]), ENOSYS, "{nr}");
        }
        assert!(program.len() < 300, "{profile:?}: {} instructions", program.len());
    }
}

#[test]
fn every_action_and_reports_in_place_of_errnos() {
    let profile = custom(
        r#"{"extends": "docker", "newer": "4000",
            "answers": {"acct": "13", "reboot": "kill_process", "uname": "log", "swapon": "trap", "ptrace": "EACCES"},
            "rules": [{"call": "personality", "when": [{"arg": 0, "is": "7"}], "then": "EINVAL"}]}"#,
    );
    let want = [
        ("acct", RET_ERRNO | 13),
        ("reboot", RET_KILL_PROCESS),
        ("uname", RET_LOG),
        ("swapon", RET_TRAP),
        ("ptrace", RET_ERRNO | 13),
        ("personality", RET_ERRNO | 22),
        ("read", RET_ALLOW),
        ("chroot", EPERM),
    ];
    let answering = filter(&profile, &[]);
    let reporting = Compiled::new(&profile, 0, Denied::Report).unwrap().program;
    for (call, want) in want {
        let ask = |program: &[Filter]| run(program, AUDIT_ARCH, table::number(call).unwrap(), [7; 6]);
        assert_eq!(ask(&answering), want, "{call}");
        let reported = if want & 0xffff_0000 == RET_ERRNO { RET_USER_NOTIF } else { want };
        assert_eq!(ask(&reporting), reported, "{call}, to be reported");
    }
    assert_eq!(run(&answering, AUDIT_ARCH, table::NEWEST + 1, [0; 6]), RET_ERRNO | 4000);
    // A profile that is left open but for what it names.
    facts(
        &custom(r#"{"default": "allow", "newer": "allow", "answers": {"mount": "EPERM"}}"#),
        &[],
        &[("mount", &[], EPERM), ("keyctl", &[], RET_ALLOW)],
    );
    // What a profile names itself, no capability of its base opens.
    facts(
        &custom(r#"{"extends": "docker", "answers": {"mount": "EACCES"}}"#),
        &["SYS_ADMIN"],
        &[("mount", &[], RET_ERRNO | 13), ("setns", &[], RET_ALLOW)],
    );
}

#[test]
fn what_is_wrong_is_named() {
    let check = |json: &str, want: &str| {
        let error = super::super::check(&custom(json), &[]).expect_err(json).to_string();
        assert!(error.starts_with(&format!("seccomp.{want}")), "{json}: {error}");
    };
    check(r#"{"extends": "podman"}"#, "extends \"podman\" is not one of");
    check(r#"{"default": "maybe"}"#, "default \"maybe\" is no action");
    check(r#"{"newer": "0"}"#, "newer \"0\" is no action");
    check(r#"{"extends": "dyno", "answers": {"ptrace": "4096"}}"#, "answers.ptrace \"4096\" is no action");
    check(r#"{"allow": ["raed"]}"#, "allow \"raed\" is no system call");
    check(r#"{"with": {"KILL": ["raed"]}}"#, "with \"raed\" is no system call");
    check(r#"{"allow": ["read"], "answers": {"read": "EPERM"}}"#, "answers \"read\" is named twice");
    let rule = |when: &str| format!(r#"{{"extends": "dyno", "rules": [{{"call": "ptrace", "when": [{when}]}}]}}"#);
    check(&rule(""), "rules.ptrace.when is empty");
    check(&rule(r#"{"arg": 6, "is": "1"}"#), "rules.ptrace.when.arg 6 does not exist");
    check(&rule(r#"{"arg": 0}"#), "rules.ptrace.when needs");
    check(&rule(r#"{"arg": 0, "is": "1", "not": "2"}"#), "rules.ptrace.when needs");
    check(&rule(r#"{"arg": 0, "is": "0x100000000"}"#), "rules.ptrace.when.is \"0x100000000\" is not a 32-bit number");
    check(&rule(r#"{"arg": 0, "op": "lt", "value": "-1"}"#), "rules.ptrace.when.value \"-1\" is not a 64-bit number");
    check(&rule(r#"{"arg": 0, "op": "masked_eq", "value": "1"}"#), "rules.ptrace.when.op masked_eq needs a mask");
    check(&rule(r#"{"arg": 0, "op": "eq", "value": "1", "mask": "1"}"#), "rules.ptrace.when.mask goes with");
    check(&rule(r#"{"arg": 0, "is": "2", "mask": "1"}"#), "rules.ptrace.when: 0x2 has bits");
    check(r#"{"extends": "dyno", "answers": {"execve": "EPERM"}}"#, "profile answers EPERM to execve, without which");
    check("{}", "profile answers EPERM to execveat");
    let many = vec![r#"{"arg": 0, "op": "ne", "value": "1"}"#; 80].join(",");
    check(&rule(&many), "a rule has too many conditions");
}

#[test]
fn explanations_name_the_rule() {
    let check = |profile: Profile, capabilities: &[&str], call: &str, args: [u64; 2], action: &str, rule: &str| {
        let capabilities: Vec<Capability> = capabilities.iter().map(|c| capability(c)).collect();
        let said = explain(&profile, &capabilities, call, [args[0], args[1], 0, 0, 0, 0]).unwrap();
        assert_eq!((said.action.as_str(), said.rule.as_str()), (action, rule), "{call}");
    };
    check(Profile::Dyno, &[], "mount", [0; 2], "EPERM", "default: not in any list");
    check(Profile::Dyno, &[], "clone3", [0; 2], "ENOSYS", "answers: ENOSYS");
    check(Profile::Dyno, &[], "read", [0; 2], "allow", "allow: with any arguments");
    check(Profile::Dyno, &[], "socket", [1, 1], "allow", "rules: arg 0 is 0x1");
    check(Profile::Dyno, &[], "socket", [2, 3], "EPERM", "rules: arg 1 & 0xf is 0x3; allowed if it is 0x1, or is 0x2");
    check(Profile::Dyno, &[], "ioctl", [0, 0x5412], "EPERM", "rules: arg 1 is 0x5412; allowed if it is not 0x5412");
    check(Profile::Docker, &["SYS_ADMIN"], "mount", [0; 2], "allow", "with SYS_ADMIN: any arguments");
    check(Profile::Dyno, &[], "9999", [0; 2], "ENOSYS", "newer: not in this library's table");
    check(Profile::Dyno, &[], "1073741824", [0; 2], "ENOSYS", "a call of the x32 ABI");
    check(Profile::Unconfined, &[], "mount", [0; 2], "allow", "unconfined: no filter");
    assert!(explain(&Profile::Dyno, &[], "no_such_call", [0; 6]).is_err());
}

/// Numbers whose halves often meet those of the values compared.
fn edgy() -> impl Strategy<Value = u64> {
    let half = || prop_oneof![Just(0u32), Just(1), Just(7), Just(8), Just(u32::MAX), any::<u32>()];
    (half(), half()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

const OPS: [&str; 7] = ["eq", "ne", "lt", "le", "ge", "gt", "masked_eq"];

proptest! {
    #[test]
    fn the_program_agrees_with_the_verdicts(nr in 0..=table::NEWEST + 1, args in prop::array::uniform6(any::<u64>()), docker: bool, capabilities: u64) {
        let compiled = Compiled::new(if docker { &Profile::Docker } else { &Profile::Dyno }, capabilities, Denied::Answer).unwrap();
        let want = Denied::Answer.ret(compiled.verdicts.unwrap().action(nr, &args));
        prop_assert_eq!(run(&compiled.program, AUDIT_ARCH, nr, args), want);
    }

    /// Two rules of two conditions each, so that every way out of one is followed.
    #[test]
    fn operators(ops in prop::array::uniform4(0usize..7), values in prop::array::uniform4(edgy()), mask in edgy(), args in prop::array::uniform6(edgy())) {
        let condition = |i: usize| {
            let masked = ops[i] == 6;
            let value = if masked { values[i] & mask } else { values[i] };
            let mask = if masked { format!(r#", "mask": "{mask:#x}""#) } else { String::new() };
            format!(r#"{{"arg": {i}, "op": "{}", "value": "{value}"{mask}}}"#, OPS[ops[i]])
        };
        let rule = |a: usize, then: &str| format!(r#"{{"call": "ptrace", "when": [{}, {}], "then": "{then}"}}"#, condition(a), condition(a + 1));
        let profile = custom(&format!(r#"{{"extends": "dyno", "rules": [{}, {}]}}"#, rule(0, "7"), rule(2, "allow")));
        let holds = |i: usize| match OPS[ops[i]] {
            "eq" => args[i] == values[i],
            "ne" => args[i] != values[i],
            "lt" => args[i] < values[i],
            "le" => args[i] <= values[i],
            "ge" => args[i] >= values[i],
            "gt" => args[i] > values[i],
            _ => args[i] & mask == values[i] & mask,
        };
        let want = if holds(0) && holds(1) { RET_ERRNO | 7 } else if holds(2) && holds(3) { RET_ALLOW } else { EPERM };
        prop_assert_eq!(run(&filter(&profile, &[]), AUDIT_ARCH, table::number("ptrace").unwrap(), args), want);
    }
}
