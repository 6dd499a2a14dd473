//! Profiles of our own: the compiled program says of every call what the profile says, worked out a second way, and denies what is not named.

use super::one_line;
use crate::{
    seccomp::{Compiled, Denied, ProfileData, machine::run, table},
    spec::{Capability, Profile},
};

const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
const OTHERS: [u32; 3] = [0x4000_0003, 0x4000_0028, 0x0000_0008];
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0026;
const X32_BIT: u32 = 0x4000_0000;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let data = match ProfileData::parse(text) {
        Ok(data) => data,
        Err(error) => return assert!(!error.is_empty()),
    };
    let again = serde_json::to_string(&data).expect("what was read can be written");
    assert_eq!(ProfileData::parse(&again).as_ref(), Ok(&data), "{again}");
    for capabilities in [0, Capability::all().fold(0, |bits, c| bits | c.bit())] {
        match Compiled::new(&Profile::Custom(Box::new(data.clone())), capabilities, Denied::Answer) {
            Ok(compiled) => hold(&data, &compiled, capabilities),
            Err(error) => one_line(&error.to_string()),
        }
    }
}

fn hold(data: &ProfileData, compiled: &Compiled, capabilities: u64) {
    let program = &compiled.program;
    assert!(program.len() <= 4096);
    for arch in OTHERS {
        assert_eq!(run(program, arch, 1, [0; 6]), KILL_PROCESS, "architecture {arch:#x}");
    }
    for number in [X32_BIT, X32_BIT | 59, u32::MAX] {
        assert_eq!(run(program, NATIVE, number, [0; 6]), ENOSYS, "x32 {number:#x}");
    }
    let values = values(data);
    for (name, number) in table::calls() {
        for value in &values {
            let args = [*value; 6];
            let (got, said) = (run(program, NATIVE, number, args), compiled.explain(number, &args));
            assert_eq!(got, word(&said.action, said.errno), "{name}({value:#x}): {said:?}");
        }
        let named = data.extends.is_some()
            || data.allow.iter().any(|call| call == name)
            || data.answers.contains_key(name)
            || data.rules.iter().any(|rule| rule.call == name)
            || data.with.iter().any(|(c, calls)| capabilities & c.bit() != 0 && calls.iter().any(|call| call == name));
        let open = matches!(data.default.as_deref(), Some("allow" | "log"));
        let runs = run(program, NATIVE, number, [0; 6]) >= 0x7ffc_0000 && run(program, NATIVE, number, [0; 6]) < KILL_PROCESS;
        assert!(named || open || !runs, "{name} is named nowhere and runs");
    }
}

/// Numbers that conditions compare with, and their neighbours; the first few, for the sake of speed.
fn values(data: &ProfileData) -> Vec<u64> {
    let texts = data.rules.iter().flat_map(|rule| &rule.when).flat_map(|c| [&c.is, &c.not, &c.value, &c.mask]).flatten();
    let number = |text: &String| text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
    let near = texts.filter_map(number).take(4).flat_map(|n: u64| [n, n.wrapping_add(1), n.wrapping_sub(1), n | 1 << 32]);
    [0, u64::MAX].into_iter().chain(near).collect()
}

/// What a filter returns for an action in words.
fn word(action: &str, errno: Option<u16>) -> u32 {
    match (action, errno) {
        (_, Some(errno)) => 0x0005_0000 | u32::from(errno),
        ("allow", _) => 0x7fff_0000,
        ("log", _) => 0x7ffc_0000,
        ("trap", _) => 0x0003_0000,
        ("kill_process", _) => KILL_PROCESS,
        (other, _) => panic!("{other:?} is no action"),
    }
}
