//! `linux.seccomp`: the program that comes of it, run on every call, against what the configuration says of calls that it does not name, or
//! names without conditions.

use super::one_line;
use crate::{
    oci::{
        filter::compile,
        spec::{self, Seccomp},
    },
    seccomp::{machine::run, table},
    sys::Filter,
};

const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
/// An architecture that no kernel here runs: MIPS, big endian.
const FOREIGN: u32 = 0x0000_0008;
const KILL_THREAD: u32 = 0;
const ENOSYS: u32 = 0x0005_0026;
const ARGUMENTS: [[u64; 6]; 3] = [[0; 6], [1, 2, 3, 4, 5, 6], [u64::MAX; 6]];

pub fn check(bytes: &[u8]) {
    let config = match spec::parse::<Seccomp>(bytes) {
        Ok(config) => config,
        Err(error) => return one_line(&error.to_string()),
    };
    let mut warnings = Vec::new();
    let filter = match compile(&config, &mut warnings) {
        Ok(filter) => filter,
        Err(error) => return one_line(&error.to_string()),
    };
    warnings.iter().for_each(|warning| one_line(warning));
    if filter.program.is_empty() {
        return assert!(config.default_action.is_empty() && config.syscalls.is_empty(), "no filter for {config:?}");
    }
    assert!(filter.program.len() <= 4096);
    for args in ARGUMENTS {
        for number in [0, 1, 60, 1000, 0x4000_0000, u32::MAX] {
            assert_eq!(run(&filter.program, FOREIGN, number, args), KILL_THREAD, "{number} of an architecture that is not named");
        }
        calls(&config, &filter.program, args);
    }
}

/// Every call of this machine.
fn calls(config: &Seccomp, program: &[Filter], args: [u64; 6]) {
    let default = single(&config.default_action, config.default_errno_ret);
    for (name, number) in table::calls() {
        let mut naming = config.syscalls.iter().filter(|calls| calls.names.iter().any(|known| known == name)).peekable();
        let got = run(program, NATIVE, number, args);
        if naming.peek().is_none() {
            // Beyond the newest call that is named, C libraries are to fall back.
            assert!(got == default || got == ENOSYS, "{name}: {got:#x}, by default {default:#x}");
            continue;
        }
        let mut said: Vec<u32> = naming.clone().map(|calls| single(&calls.action, calls.errno_ret)).collect();
        let plain = naming.filter(|calls| calls.args.is_empty()).map(|calls| single(&calls.action, calls.errno_ret)).find(|said| *said != default);
        match plain {
            Some(want) => assert_eq!(got, want, "{name} is named without conditions"),
            None => {
                said.push(default);
                assert!(said.contains(&got), "{name}: {got:#x} is said nowhere: {said:x?}");
            }
        }
    }
}

/// What a filter of nothing but this action returns.
fn single(action: &str, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1) & 0xffff;
    match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        other => panic!("{other:?} was taken for an action"),
    }
}
