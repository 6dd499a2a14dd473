//! Device rules of a v2 group, where there is no `devices.allow`: an eBPF program that the kernel asks at every mknod(2) and open(2) of a
//! device.
//!
//! For each kind of access the last rule that matches decides, and what none matches is denied. An access in several ways at once
//! (O_RDWR) is let through when each of them is. Other runtimes are coarser: runc refuses to deny something out of a wildcard that was
//! allowed before, and crun lets O_RDWR past a rule that denies writing.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::spec::DeviceRule,
    sys::bpf::{self, Insn},
};

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const IF_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const IF_ANY: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const EXIT: u8 = 0x95;

const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// Kinds of access on which no rule has decided yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const ALL: i32 = 7; // mknod 1, read 2, write 4

/// A rule that was found sound.
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

/// The program for these rules.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a rule that is not the specification's.
pub fn program(rules: &[DeviceRule]) -> Result<Vec<Insn>> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
    let mut code = vec![
        insn(LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(LOAD_WORD, OPEN, CONTEXT, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, OPEN, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let mut decided = false;
    for (at, rule) in rules.iter().enumerate().rev() {
        let rule = Rule::new(rule).map_err(|e| Error::refused(ErrorKind::Invalid, format!("linux.resources.devices[{at}].{e}")))?;
        // The verifier refuses what nothing can reach.
        if !decided {
            decided = rule.append(&mut code);
        }
    }
    if !decided {
        code.extend(answer(false));
    }
    Ok(code)
}

fn insn(code: u8, to: u8, from: u8, offset: i16, imm: i32) -> Insn {
    Insn { code, registers: from << 4 | to, offset, imm }
}

fn answer(allow: bool) -> [Insn; 2] {
    [insn(MOVE, ANSWER, 0, 0, i32::from(allow)), insn(EXIT, 0, 0, 0, 0)]
}

impl Rule {
    fn new(rule: &DeviceRule) -> std::result::Result<Self, String> {
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => None,
            Some("b") => Some(1),
            Some("c" | "u") => Some(2),
            Some(other) => return Err(format!("type {other:?} is not one of a, b, c, u")),
        };
        let number = |field: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some).map_err(|_| format!("{field} {number} is no device number")),
        };
        let mut access = 0;
        for letter in rule.access.as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => return Err(format!("access {letter:?} is not one of r, w, m")),
            };
        }
        let access = if access == 0 { ALL } else { access };
        Ok(Self { allow: rule.allow, kind, major: number("major", rule.major)?, minor: number("minor", rule.minor)?, access })
    }

    /// Adds the rule; true if it decides in any case.
    fn append(&self, code: &mut Vec<Insn>) -> bool {
        let mut tests: Vec<(u8, i32)> = Vec::new();
        tests.extend(self.kind.map(|kind| (KIND, kind)));
        tests.extend(self.major.map(|number| (MAJOR, number as i32)));
        tests.extend(self.minor.map(|number| (MINOR, number as i32)));
        let body = self.body();
        for (n, (register, value)) in tests.iter().enumerate() {
            let past = tests.len() - n - 1 + body.len();
            code.push(insn(IF_NOT_EQUAL, *register, 0, past as i16, *value));
        }
        code.extend(body);
        tests.is_empty() && self.access == ALL
    }

    /// What is done about a device that matches.
    fn body(&self) -> Vec<Insn> {
        let mut body = match (self.access, self.allow) {
            (ALL, _) => Vec::new(),
            (access, true) => vec![insn(AND, OPEN, 0, 0, ALL & !access), insn(IF_NOT_EQUAL, OPEN, 0, 2, 0)],
            (access, false) => vec![insn(IF_ANY, OPEN, 0, 1, access), insn(JUMP, 0, 0, 2, 0)],
        };
        body.extend(answer(self.allow));
        body
    }
}

/// Attaches the program to a v2 group, in place of the one that is there.
///
/// # Errors
/// [`ErrorKind::Wall`]: EPERM in a user namespace, where the kernel lets nobody load such programs.
pub fn attach(group: BorrowedFd<'_>, program: &[Insn]) -> Result<()> {
    let new =
        bpf::load_device_program(program).wall(|| format!("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, {} instructions)", program.len()))?;
    loop {
        let query = || "bpf(BPF_PROG_QUERY, BPF_CGROUP_DEVICE)".to_owned();
        let ids = bpf::device_programs(group).wall(query)?;
        let old = ids.iter().map(|id| bpf::program(*id)).collect::<std::result::Result<Vec<_>, _>>();
        let old = match old {
            // Somebody else has just replaced it.
            Err(Errno::NOENT) => continue,
            old => old.wall(|| "bpf(BPF_PROG_GET_FD_BY_ID)".to_owned())?,
        };
        let replaced = if let [only] = old.as_slice() { Some(only.as_fd()) } else { None };
        match bpf::attach(group, new.as_fd(), replaced) {
            Err(Errno::NOENT) if replaced.is_some() => continue,
            attached => attached.wall(|| "bpf(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE)".to_owned())?,
        }
        // The new one holds already, so there is no moment without.
        for program in old.iter().filter(|_| replaced.is_none()) {
            match bpf::detach(group, program.as_fd()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).wall(|| "bpf(BPF_PROG_DETACH, BPF_CGROUP_DEVICE)".to_owned()),
            }
        }
        return Ok(());
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
