//! Verdicts to classic BPF: a prologue, a balanced tree over ranges of call numbers, and a leaf per range.

use super::{
    condition::{Condition, Op, Test},
    profile::Action,
    tree::{Leaf, Ranges, from, tree},
    verdict::{Verdict, Verdicts},
};
use crate::sys::Filter;

pub const LD_ABS: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub const JA: u16 = 0x05; // BPF_JMP | BPF_JA
pub const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub const RET: u16 = 0x06; // BPF_RET | BPF_K

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

// struct seccomp_data: nr, arch, instruction_pointer, args[6]; little endian.
pub const NR: u32 = 0;
pub const ARCH: u32 = 4;
const ARGS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Calls of the x32 ABI carry this bit; they share the architecture word with native ones.
pub const X32_BIT: u32 = 0x4000_0000;

/// The kernel takes at most this many instructions (BPF_MAXINSNS).
pub const MAX: usize = 4096;

/// What becomes of calls that answer an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denied {
    /// They answer it.
    Answer,
    /// They wait for whoever holds the filter's listener, which tells of them and then answers it (Linux 5.0).
    Report,
}

impl Denied {
    fn ret(self, action: Action) -> u32 {
        match action {
            Action::Allow => RET_ALLOW,
            Action::Log => RET_LOG,
            Action::Trap => RET_TRAP,
            Action::KillProcess => RET_KILL_PROCESS,
            Action::Errno(_) if self == Self::Report => RET_USER_NOTIF,
            Action::Errno(errno) => RET_ERRNO | u32::from(errno),
        }
    }
}

/// Compiles the verdicts. Another architecture's calls kill: nothing here could read their numbers.
///
/// # Errors
/// A rule with too many conditions, or a program over 4096 instructions.
pub(super) fn compile(verdicts: &Verdicts, denied: Denied) -> Result<Vec<Filter>, String> {
    let mut program = vec![
        op(LD_ABS, 0, 0, ARCH),
        op(JEQ, 1, 0, AUDIT_ARCH),
        op(RET, 0, 0, RET_KILL_PROCESS),
        op(LD_ABS, 0, 0, NR),
        op(JGE, 0, 1, X32_BIT),
        op(RET, 0, 0, denied.ret(Action::Errno(libc::ENOSYS as u16))),
    ];
    program.extend(tree(&ranges(verdicts, denied))?);
    if program.len() > MAX {
        return Err(format!("the filter has {} instructions; the kernel takes {MAX}", program.len()));
    }
    Ok(program)
}

/// An instruction.
pub fn op(code: u16, jt: u8, jf: u8, k: u32) -> Filter {
    Filter { code, jt, jf, k }
}

/// First number of each run of equal leaves; the last run is everything newer than the table.
fn ranges(verdicts: &Verdicts, denied: Denied) -> Ranges<'_> {
    let leaves = verdicts.calls.iter().map(|(verdict, _)| match verdict {
        Verdict::Always(action) => Leaf::Return(denied.ret(*action)),
        Verdict::When(alternatives, otherwise) => {
            let alternatives = alternatives.iter().map(|(conditions, action)| (conditions.as_slice(), denied.ret(*action)));
            Leaf::When(alternatives.collect(), denied.ret(*otherwise))
        }
    });
    let mut out = Ranges::new();
    for (nr, leaf) in (0u32..).zip(leaves.chain([Leaf::Return(denied.ret(verdicts.newer))])) {
        from(&mut out, nr, leaf);
    }
    out
}

/// A step of a comparison, its jumps by meaning.
enum Step {
    Load(u32),
    And(u32),
    If(u16, u32, To, To),
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// With the next step.
    On,
    /// The condition holds.
    Holds,
    /// It does not, and with it its alternative.
    Fails,
}

/// Returns `value` when every condition holds; otherwise control falls off its end.
pub(super) fn alternative(conditions: &[Condition], value: u32) -> Result<Vec<Filter>, String> {
    let parts: Vec<Vec<Step>> = conditions.iter().map(steps).collect();
    let total: usize = parts.iter().map(Vec::len).sum();
    let (mut code, mut end) = (Vec::with_capacity(total + 1), 0);
    for part in &parts {
        end += part.len();
        for step in part {
            let next = code.len() + 1;
            // Past the return that stands after the last condition.
            let target = |to: &To| match to {
                To::On => Ok(0),
                To::Holds => u8::try_from(end - next),
                To::Fails => u8::try_from(total + 1 - next),
            };
            code.push(match step {
                Step::Load(at) => op(LD_ABS, 0, 0, *at),
                Step::And(mask) => op(AND, 0, 0, *mask),
                Step::If(code, k, yes, no) => {
                    let far = |_| "a rule has too many conditions".to_owned();
                    op(*code, target(yes).map_err(far)?, target(no).map_err(far)?, *k)
                }
            });
        }
    }
    code.push(op(RET, 0, 0, value));
    Ok(code)
}

fn steps(condition: &Condition) -> Vec<Step> {
    use To::{Fails, Holds, On};
    let low = ARGS + 8 * u32::from(condition.arg);
    let high = low + 4;
    match condition.test {
        Test::Low { op, mask, value } => {
            let mut steps = vec![Step::Load(low)];
            if mask != u32::MAX {
                steps.push(Step::And(mask));
            }
            steps.push(match op {
                Op::Eq | Op::MaskedEq => Step::If(JEQ, value, Holds, Fails),
                Op::Ne => Step::If(JEQ, value, Fails, Holds),
                Op::Gt => Step::If(JGT, value, Holds, Fails),
                Op::Ge => Step::If(JGE, value, Holds, Fails),
                Op::Lt => Step::If(JGE, value, Fails, Holds),
                Op::Le => Step::If(JGT, value, Fails, Holds),
            });
            steps
        }
        Test::Wide { op, mask, value } => {
            let (above, below) = ((value >> 32) as u32, value as u32);
            let by_halves = |first: Vec<Step>, last: Step| first.into_iter().chain([Step::Load(low), last]).collect();
            // 64 bits in an order: the high halves decide unless they are equal.
            let ordered = |larger: To, smaller: To, last: Step| {
                by_halves(vec![Step::Load(high), Step::If(JGT, above, larger, On), Step::If(JEQ, above, On, smaller)], last)
            };
            match op {
                Op::Eq => by_halves(vec![Step::Load(high), Step::If(JEQ, above, On, Fails)], Step::If(JEQ, below, Holds, Fails)),
                Op::Ne => by_halves(vec![Step::Load(high), Step::If(JEQ, above, On, Holds)], Step::If(JEQ, below, Fails, Holds)),
                Op::Gt => ordered(Holds, Fails, Step::If(JGT, below, Holds, Fails)),
                Op::Ge => ordered(Holds, Fails, Step::If(JGE, below, Holds, Fails)),
                Op::Lt => ordered(Fails, Holds, Step::If(JGE, below, Fails, Holds)),
                Op::Le => ordered(Fails, Holds, Step::If(JGT, below, Fails, Holds)),
                Op::MaskedEq => {
                    let half = |at, mask, value, yes| [Step::Load(at), Step::And(mask), Step::If(JEQ, value, yes, Fails)];
                    half(high, (mask >> 32) as u32, above, On).into_iter().chain(half(low, mask as u32, below, Holds)).collect()
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
