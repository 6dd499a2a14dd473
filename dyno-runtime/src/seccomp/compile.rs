//! Verdicts to classic BPF: a prologue, a balanced tree over ranges of call numbers, and a leaf per range.

use super::profile::{Condition, ProfileData, Verdict};
use crate::sys::Filter;

const LD_ABS: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JA: u16 = 0x05; // BPF_JMP | BPF_JA
const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RET: u16 = 0x06; // BPF_RET | BPF_K

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

// struct seccomp_data: nr, arch, instruction_pointer, args[6]; little endian.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Calls of the x32 ABI carry this bit; they share the architecture word with native ones.
const X32_BIT: u32 = 0x4000_0000;

/// The kernel takes at most this many instructions (BPF_MAXINSNS).
const MAX: usize = 4096;

/// Compiles a profile.
///
/// # Errors
/// What [`ProfileData::verdicts`] refuses, or a program over 4096 instructions.
pub fn compile(profile: &ProfileData) -> Result<Vec<Filter>, String> {
    let default = profile.default_errno()?;
    let verdicts = profile.verdicts()?;
    let ranges = ranges(&verdicts);
    let mut program = vec![
        op(LD_ABS, 0, 0, ARCH),
        op(JEQ, 1, 0, AUDIT_ARCH),
        op(RET, 0, 0, RET_KILL_PROCESS),
        op(LD_ABS, 0, 0, NR),
        op(JGE, 0, 1, X32_BIT),
        op(RET, 0, 0, RET_ERRNO | libc::ENOSYS as u32),
    ];
    program.extend(tree(&ranges, default)?);
    if program.len() > MAX {
        return Err(format!("the filter has {} instructions; the kernel takes {MAX}", program.len()));
    }
    Ok(program)
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> Filter {
    Filter { code, jt, jf, k }
}

/// First number of each run of equal verdicts; the last run is everything newer than the table.
fn ranges(verdicts: &[Verdict]) -> Vec<(u32, &Verdict)> {
    const NEWER: Verdict = Verdict::Errno(libc::ENOSYS as u16);
    let mut out: Vec<(u32, &Verdict)> = Vec::new();
    for (nr, verdict) in (0u32..).zip(verdicts.iter().chain([&NEWER])) {
        if out.last().is_none_or(|(_, last)| *last != verdict) {
            out.push((nr, verdict));
        }
    }
    out
}

fn tree(ranges: &[(u32, &Verdict)], default: u16) -> Result<Vec<Filter>, String> {
    let [(_, only)] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let (below, above) = (tree(low, default)?, tree(high, default)?);
        let first = high[0].0;
        let mut code = match u8::try_from(below.len()) {
            Ok(skip) => vec![op(JGE, skip, 0, first)],
            // Too far for an 8-bit jump: go by way of an unconditional one.
            Err(_) => vec![op(JGE, 0, 1, first), op(JA, 0, 0, below.len() as u32)],
        };
        code.extend(below);
        code.extend(above);
        return Ok(code);
    };
    match only {
        Verdict::Allow => Ok(vec![op(RET, 0, 0, RET_ALLOW)]),
        Verdict::Errno(errno) => Ok(vec![op(RET, 0, 0, RET_ERRNO | u32::from(*errno))]),
        Verdict::When(alternatives) => {
            let mut code = Vec::new();
            for conditions in alternatives {
                code.extend(alternative(conditions)?);
            }
            code.push(op(RET, 0, 0, RET_ERRNO | u32::from(default)));
            Ok(code)
        }
    }
}

/// Allows when every condition holds; otherwise control falls off its end.
fn alternative(conditions: &[Condition]) -> Result<Vec<Filter>, String> {
    let length = |c: &Condition| if c.mask == u32::MAX { 2 } else { 3 };
    let mut left: usize = conditions.iter().map(length).sum();
    let mut code = Vec::new();
    for condition in conditions {
        left -= length(condition);
        let out = u8::try_from(left + 1).map_err(|_| "a rule has too many conditions".to_owned())?;
        code.push(op(LD_ABS, 0, 0, ARGS + 8 * u32::from(condition.arg)));
        if condition.mask != u32::MAX {
            code.push(op(AND, 0, 0, condition.mask));
        }
        let (jt, jf) = if condition.equal { (0, out) } else { (out, 0) };
        code.push(op(JEQ, jt, jf, condition.value));
    }
    code.push(op(RET, 0, 0, RET_ALLOW));
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::super::{program, table};
    use super::*;
    use crate::spec::Profile;
    use proptest::prelude::*;

    /// A classic BPF machine over `struct seccomp_data`: the oracle that shares no code with the compiler.
    fn run(program: &[Filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        args.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut pc, mut a) = (0, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            match i.code {
                LD_ABS => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
                AND => a &= i.k,
                JA => pc += i.k as usize,
                JEQ => pc += usize::from(if a == i.k { i.jt } else { i.jf }),
                JGE => pc += usize::from(if a >= i.k { i.jt } else { i.jf }),
                RET => return i.k,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn answer(profile: Profile, call: &str, args: [u64; 6]) -> u32 {
        run(&program(&profile).unwrap(), AUDIT_ARCH, table::number(call).unwrap(), args)
    }

    const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn the_dyno_profile_says_what_it_should() {
        let check = |call: &str, args: [u64; 6], want: u32| {
            assert_eq!(answer(Profile::Dyno, call, args), want, "{call} {args:x?}");
        };
        check("read", [0; 6], RET_ALLOW);
        check("mount", [0; 6], EPERM);
        check("ptrace", [0; 6], EPERM);
        check("unshare", [0; 6], EPERM);
        check("bpf", [0; 6], EPERM);
        check("clone3", [0; 6], ENOSYS);
        check("io_uring_setup", [0; 6], ENOSYS);
        check("clone", [0x11, 0, 0, 0, 0, 0], RET_ALLOW);
        check("clone", [0x1000_0000, 0, 0, 0, 0, 0], EPERM);
        check("socket", [2, 0o2000001, 0, 0, 0, 0], RET_ALLOW);
        check("socket", [2, 3, 0, 0, 0, 0], EPERM); // SOCK_RAW
        check("socket", [17, 2, 0, 0, 0, 0], EPERM); // AF_PACKET
        check("socket", [40, 1, 0, 0, 0, 0], EPERM); // AF_VSOCK
        check("socket", [16, 3, 9, 0, 0, 0], EPERM); // NETLINK_AUDIT
        check("ioctl", [0, 0x5413, 0, 0, 0, 0], RET_ALLOW);
        check("ioctl", [0, 0x5412, 0, 0, 0, 0], EPERM);
        check("ioctl", [0, 0x1_0000_5412, 0, 0, 0, 0], EPERM); // CVE-2019-10063
        check("mknodat", [0, 0, 0o060_644, 0, 0, 0], EPERM);
        check("mknodat", [0, 0, 0o010_644, 0, 0, 0], RET_ALLOW);
        check("fchmodat", [0, 0, 0o4755, 0, 0, 0], RET_ALLOW);
    }

    #[test]
    fn the_build_profile_sets_no_setuid_bits() {
        assert_eq!(answer(Profile::Build, "fchmodat", [0, 0, 0o4755, 0, 0, 0]), EPERM);
        assert_eq!(answer(Profile::Build, "fchmodat", [0, 0, 0o755, 0, 0, 0]), RET_ALLOW);
        assert_eq!(answer(Profile::Build, "mount", [0; 6]), EPERM);
    }

    #[test]
    fn foreign_abis_and_newer_calls_never_run() {
        let program = program(&Profile::Dyno).unwrap();
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), RET_KILL_PROCESS); // i386
        for nr in [X32_BIT, X32_BIT | 59, table::NEWEST + 1, u32::MAX] {
            assert_eq!(run(&program, AUDIT_ARCH, nr, [0; 6]), ENOSYS, "{nr}");
        }
        assert!(program.len() < 300, "{} instructions", program.len());
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_the_verdicts(nr in 0..=table::NEWEST, args in prop::array::uniform6(any::<u64>())) {
            let data = ProfileData::parse(include_str!("dyno.json"), None).unwrap();
            let holds = |c: &Condition| ((args[usize::from(c.arg)] as u32 & c.mask) == c.value) == c.equal;
            let want = match &data.verdicts().unwrap()[nr as usize] {
                Verdict::Allow => RET_ALLOW,
                Verdict::Errno(e) => RET_ERRNO | u32::from(*e),
                Verdict::When(any) if any.iter().any(|all| all.iter().all(holds)) => RET_ALLOW,
                Verdict::When(_) => EPERM,
            };
            prop_assert_eq!(run(&compile(&data).unwrap(), AUDIT_ARCH, nr, args), want);
        }
    }
}
