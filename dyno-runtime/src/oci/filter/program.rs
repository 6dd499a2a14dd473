//! The program: which architecture calls, then a tree over its numbers.
//!
//! The architecture of the host is always among them. Another one that is not named gets libseccomp's answer, SIGSYS for the thread: its
//! numbers mean other calls. Calls with numbers above the highest that the configuration names for an architecture answer ENOSYS, as runc has
//! it, unless the default lets calls through or is ENOSYS already: C libraries fall back on ENOSYS only.

use std::collections::BTreeMap;

use super::{rules::Rules, words};
use crate::{
    oci::spec::{Seccomp, SeccompArg},
    one_line::cut,
    seccomp::{
        compile::{ARCH, JA, JEQ, LD_ABS, MAX, NR, RET, X32_BIT, op},
        condition::{Condition, Op, Test},
        table::{self, Abi, NATIVE},
        tree::{Leaf, Ranges, from, tree},
    },
    sys::Filter,
};

/// Numbers of socketcall(2) and ipc(2) on a 32-bit PC.
const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// Calls that 32-bit programs of a PC make through those two, and what these know them by (linux/net.h, linux/ipc.h); by name.
#[rustfmt::skip]
const MULTIPLEXED: [(&str, u32, u32); 32] = [
    ("accept", SOCKETCALL, 5), ("accept4", SOCKETCALL, 18), ("bind", SOCKETCALL, 2), ("connect", SOCKETCALL, 3), ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6), ("getsockopt", SOCKETCALL, 15), ("listen", SOCKETCALL, 4), ("msgctl", IPC, 14), ("msgget", IPC, 13),
    ("msgrcv", IPC, 12), ("msgsnd", IPC, 11), ("recv", SOCKETCALL, 10), ("recvfrom", SOCKETCALL, 12), ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17), ("semctl", IPC, 3), ("semget", IPC, 2), ("semop", IPC, 1), ("semtimedop", IPC, 4), ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20), ("sendmsg", SOCKETCALL, 16), ("sendto", SOCKETCALL, 11), ("setsockopt", SOCKETCALL, 14), ("shmat", IPC, 21),
    ("shmctl", IPC, 24), ("shmdt", IPC, 22), ("shmget", IPC, 23), ("shutdown", SOCKETCALL, 13), ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

fn multiplexed(name: &str) -> Option<(u32, u32)> {
    MULTIPLEXED.binary_search_by(|(call, ..)| (*call).cmp(name)).ok().map(|at| (MULTIPLEXED[at].1, MULTIPLEXED[at].2))
}

/// An architecture of the filter.
struct Section {
    abi: Abi,
    calls: BTreeMap<u32, Rules>,
    /// The highest number that the configuration names, even where the default says the same of it.
    newest: u32,
}

/// Compiles the rules.
///
/// # Errors
/// Naming the member: words that are not the specification's, rules that contradict each other, more than the kernel takes.
pub fn compile(config: &Seccomp, warnings: &mut Vec<String>) -> Result<Vec<Filter>, String> {
    let default = words::action("defaultAction", &config.default_action, config.default_errno_ret)?;
    let mut sections = sections(&config.architectures)?;
    for (at, calls) in config.syscalls.iter().enumerate() {
        let field = format!("syscalls[{at}]");
        let value = words::action(&format!("{field}.action"), &calls.action, calls.errno_ret)?;
        let rules = alternatives(&calls.args).map_err(|e| format!("{field}.args: {e}"))?;
        if calls.names.is_empty() {
            return Err(format!("{field}.names is empty"));
        }
        for name in &calls.names {
            // send and recv have a number on architectures only that this library does not know.
            let (numbers, through) = (table::numbers(name), multiplexed(name));
            if numbers.is_none() && through.is_none() {
                warnings.push(format!("unknown seccomp syscall {:?} ignored", cut(name)));
            }
            for section in &mut sections {
                let call = (numbers.and_then(|n| n.of(section.abi)), through.filter(|_| section.abi == Abi::X86));
                section.add(call, &rules, (value != default).then_some(value)).map_err(|e| format!("{field}: {name}: {e}"))?;
            }
        }
    }
    let stub = !words::lets_through(default) && config.default_errno_ret != Some(libc::ENOSYS as u32);
    let program = assemble(&sections, default, stub)?;
    if program.len() > MAX {
        return Err(format!("syscalls: the filter has {} instructions; the kernel takes {MAX}", program.len()));
    }
    Ok(program)
}

fn sections(words: &[String]) -> Result<Vec<Section>, String> {
    let mut abis = vec![NATIVE];
    for word in words {
        abis.extend(words::architecture(word)?.filter(|abi| !abis.contains(abi)));
    }
    // Of those, the ones that this kernel could run.
    abis.retain(|abi| audit(*abi).is_some());
    Ok(abis.into_iter().map(|abi| Section { abi, calls: BTreeMap::new(), newest: 0 }).collect())
}

/// AUDIT_ARCH_… of calls that can come on this machine.
fn audit(abi: Abi) -> Option<u32> {
    match abi {
        Abi::X86_64 | Abi::X32 if cfg!(target_arch = "x86_64") => Some(0xc000_003e),
        Abi::X86 if cfg!(target_arch = "x86_64") => Some(0x4000_0003),
        Abi::Aarch64 if cfg!(target_arch = "aarch64") => Some(0xc000_00b7),
        Abi::Arm if cfg!(target_arch = "aarch64") => Some(0x4000_0028),
        _ => None,
    }
}

/// The rules that an entry stands for: one with all its conditions, or one for each if two are about the same argument.
fn alternatives(args: &[SeccompArg]) -> Result<Vec<Vec<&SeccompArg>>, String> {
    let mut seen = [0u8; 6];
    for arg in args {
        seen[usize::from(words::comparison(arg)?.0)] += 1;
    }
    if seen.iter().any(|count| *count > 1) {
        return Ok(args.iter().map(|arg| vec![arg]).collect());
    }
    let mut all: Vec<&SeccompArg> = args.iter().collect();
    all.sort_by_key(|arg| arg.index);
    Ok(vec![all])
}

impl Section {
    /// Adds what an entry says of a call, which has a number of its own, or goes through another one, or both; None where the default says
    /// it already.
    fn add(&mut self, (number, through): (Option<u32>, Option<(u32, u32)>), rules: &[Vec<&SeccompArg>], value: Option<u32>) -> Result<(), String> {
        let number = number.map(|number| if self.abi == Abi::X32 { number | X32_BIT } else { number });
        self.newest = self.newest.max(number.unwrap_or(0));
        let Some(value) = value else { return Ok(()) };
        if number.is_none() && through.is_none() {
            return Ok(());
        }
        for rule in rules {
            let conditions = rule.iter().map(|arg| self.condition(arg)).collect::<Result<Vec<_>, _>>()?;
            let conditions: Vec<Condition> = conditions.into_iter().flatten().collect();
            if let Some((multiplexer, which)) = through {
                let is = Condition { arg: 0, test: Test::Low { op: Op::Eq, mask: u32::MAX, value: which } };
                // libseccomp's way: the arguments behind the first are compared where they are not, in the pointer to the real ones.
                let behind = conditions.iter().copied().filter(|condition| condition.arg != 0);
                self.calls.entry(multiplexer).or_default().add([is].into_iter().chain(behind).collect(), value)?;
            }
            if let Some(number) = number {
                self.calls.entry(number).or_default().add(conditions, value)?;
            }
        }
        Ok(())
    }

    /// A condition; None for one that always holds. Programs with 32-bit registers or pointers are compared by the low half.
    fn condition(&self, arg: &SeccompArg) -> Result<Option<Condition>, String> {
        let (index, op) = words::comparison(arg)?;
        let (mask, value) = if op == Op::MaskedEq { (arg.value, arg.value_two) } else { (u64::MAX, arg.value) };
        let test = match self.abi {
            Abi::X86_64 | Abi::Aarch64 if mask == 0 => return Ok(None),
            Abi::X86_64 | Abi::Aarch64 => Test::Wide { op, mask, value: value & mask },
            _ if mask as u32 == 0 => return Ok(None),
            _ => Test::Low { op, mask: mask as u32, value: (value & mask) as u32 },
        };
        Ok(Some(Condition { arg: index, test }))
    }

    /// Its calls, into `ranges`.
    fn fill<'a>(&'a self, ranges: &mut Ranges<'a>, default: u32, stub: bool) {
        // runc's: of an architecture none of whose calls is named (or only the one numbered 0), nothing is known.
        let stub = stub && self.newest != 0;
        let last = if stub { self.newest } else { u32::MAX };
        for (number, rules) in self.calls.range(..=last) {
            from(ranges, *number, rules.leaf(default));
            from(ranges, *number + 1, Leaf::Return(default));
        }
        if stub {
            from(ranges, self.newest + 1, Leaf::Return(words::ENOSYS));
        }
    }
}

/// One section for each architecture word, the native first: most calls are its.
fn assemble(sections: &[Section], default: u32, stub: bool) -> Result<Vec<Filter>, String> {
    let mut program = vec![op(LD_ABS, 0, 0, ARCH)];
    for section in sections.iter().filter(|section| section.abi != Abi::X32) {
        let mut ranges: Ranges<'_> = vec![(0, Leaf::Return(default))];
        section.fill(&mut ranges, default, stub);
        if section.abi == Abi::X86_64 {
            above_the_bit(&mut ranges, sections, default, stub);
        }
        let mut code = vec![op(LD_ABS, 0, 0, NR)];
        code.extend(tree(&ranges)?);
        let word = audit(section.abi).unwrap_or_default();
        match u8::try_from(code.len()) {
            Ok(skip) => program.push(op(JEQ, 0, skip, word)),
            Err(_) => program.extend([op(JEQ, 1, 0, word), op(JA, 0, 0, code.len() as u32)]),
        }
        program.extend(code);
    }
    program.push(op(RET, 0, 0, words::KILL_THREAD));
    Ok(program)
}

/// Numbers of programs with 32-bit pointers, which share the architecture word with the others.
fn above_the_bit<'a>(ranges: &mut Ranges<'a>, sections: &'a [Section], default: u32, stub: bool) {
    if let Some(section) = sections.iter().find(|section| section.abi == Abi::X32) {
        from(ranges, X32_BIT, Leaf::Return(default));
        section.fill(ranges, default, stub);
    } else {
        from(ranges, X32_BIT, Leaf::Return(words::KILL_THREAD));
        // -1 is what a tracer sets to skip a call (seccomp(2)).
        from(ranges, u32::MAX, Leaf::Return(default));
    }
}
