//! The specification's words: actions, operators, architectures and flags.

use std::path::PathBuf;

use crate::{
    oci::spec::{Seccomp, SeccompArg},
    one_line::cut,
    seccomp::{condition::Op, table::Abi},
};

pub const KILL_THREAD: u32 = 0;
pub const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
pub const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

/// `SCMP_ACT_…` as what a filter returns.
///
/// # Errors
/// Another word; an errno for an action that has none, which the specification wants refused.
pub fn action(field: &str, word: &str, errno: Option<u32>) -> Result<u32, String> {
    let data = || {
        let errno = errno.unwrap_or(libc::EPERM as u32);
        u16::try_from(errno).map(u32::from).map_err(|_| format!("{field}: errno {errno} does not fit into 16 bits"))
    };
    let plain = match word {
        "SCMP_ACT_ERRNO" => return Ok(ERRNO | data()?),
        "SCMP_ACT_TRACE" => return Ok(TRACE | data()?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        _ => return Err(format!("{field}: string {} is not a valid action for seccomp", cut(word))),
    };
    if errno.is_some() {
        return Err(format!("{field}: errno value specified for action {word}"));
    }
    Ok(plain)
}

/// Whether calls go on under this action, so that those newer than the profile do too. A tracer answers for itself (as runc sees it).
pub fn lets_through(action: u32) -> bool {
    [ALLOW, LOG, TRACE].contains(&(action & 0xffff_0000))
}

/// `SCMP_CMP_…`.
pub fn operator(word: &str) -> Option<Op> {
    Some(match word {
        "SCMP_CMP_NE" => Op::Ne,
        "SCMP_CMP_LT" => Op::Lt,
        "SCMP_CMP_LE" => Op::Le,
        "SCMP_CMP_EQ" => Op::Eq,
        "SCMP_CMP_GE" => Op::Ge,
        "SCMP_CMP_GT" => Op::Gt,
        "SCMP_CMP_MASKED_EQ" => Op::MaskedEq,
        _ => return None,
    })
}

/// The operator of an argument whose number exists.
pub fn comparison(arg: &SeccompArg) -> Result<(u8, Op), String> {
    let op = operator(&arg.op).ok_or_else(|| format!("op: string {} is not a valid operator for seccomp", cut(&arg.op)))?;
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
    index.map(|index| (index, op)).ok_or_else(|| format!("index {} does not exist; calls have 0 to 5", arg.index))
}

/// `SCMP_ARCH_…`; None for one whose calls never come on this machine.
///
/// # Errors
/// Another word; one with another byte order than this machine, which libseccomp refuses too.
pub fn architecture(word: &str) -> Result<Option<Abi>, String> {
    Ok(Some(match word {
        "SCMP_ARCH_X86_64" => Abi::X86_64,
        "SCMP_ARCH_X32" => Abi::X32,
        "SCMP_ARCH_X86" => Abi::X86,
        "SCMP_ARCH_ARM" => Abi::Arm,
        "SCMP_ARCH_AARCH64" => Abi::Aarch64,
        "SCMP_ARCH_MIPSEL" | "SCMP_ARCH_MIPSEL64" | "SCMP_ARCH_MIPSEL64N32" | "SCMP_ARCH_PPC64LE" | "SCMP_ARCH_RISCV64" | "SCMP_ARCH_LOONGARCH64" => {
            return Ok(None);
        }
        "SCMP_ARCH_MIPS"
        | "SCMP_ARCH_MIPS64"
        | "SCMP_ARCH_MIPS64N32"
        | "SCMP_ARCH_PPC"
        | "SCMP_ARCH_PPC64"
        | "SCMP_ARCH_S390"
        | "SCMP_ARCH_S390X"
        | "SCMP_ARCH_PARISC"
        | "SCMP_ARCH_PARISC64"
        | "SCMP_ARCH_M68K"
        | "SCMP_ARCH_SHEB" => {
            return Err(format!("architectures: {word} has another byte order than this machine"));
        }
        _ => return Err(format!("architectures: string {} is not a valid arch for seccomp", cut(word))),
    }))
}

/// `SECCOMP_FILTER_FLAG_…`. Absent is SPEC_ALLOW, as other runtimes have it: mitigations of Spectre v4 slow interpreters up to two times.
pub fn flags(given: Option<&[String]>, notifies: bool, warnings: &mut Vec<String>) -> Result<u64, String> {
    const LOG: u64 = 1 << 1;
    const SPEC_ALLOW: u64 = 1 << 2;
    const NEW_LISTENER: u64 = 1 << 3;
    const WAIT_KILLABLE_RECV: u64 = 1 << 5;
    let mut bits = if notifies { NEW_LISTENER } else { 0 };
    for flag in given.unwrap_or(&["SECCOMP_FILTER_FLAG_SPEC_ALLOW".to_owned()]) {
        bits |= match flag.as_str() {
            // The process that installs it has one thread.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies => WAIT_KILLABLE_RECV,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                warnings.push(format!("seccomp flag {flag} ignored: nothing is to be notified"));
                0
            }
            _ => return Err(format!("flags: seccomp flag {} is not known", cut(flag))),
        };
    }
    Ok(bits)
}

/// Whether some call waits for an answer.
///
/// # Errors
/// Where that would be a call by which others, or we, pass the listener on: nobody could answer it yet.
pub fn notifies(config: &Seccomp) -> Result<bool, String> {
    const WORD: &str = "SCMP_ACT_NOTIFY";
    if config.default_action == WORD {
        return Err(format!("defaultAction: {WORD} cannot be used as default action"));
    }
    let mut notifying = config.syscalls.iter().filter(|calls| calls.action == WORD).peekable();
    let any = notifying.peek().is_some();
    let mut names = notifying.flat_map(|calls| calls.names.iter()).filter(|name| ["write", "sendmsg"].contains(&name.as_str()));
    names.next().map_or(Ok(any), |name| Err(format!("syscalls: {WORD} cannot be used for the {name} syscall")))
}

/// Where the listener goes.
pub fn listener(config: &Seccomp, notifies: bool) -> Result<Option<(PathBuf, String)>, String> {
    let path = config.listener_path.clone().filter(|path| !path.as_os_str().is_empty());
    match (path, &config.listener_metadata) {
        (None, Some(metadata)) if !metadata.is_empty() => Err("listenerMetadata goes with listenerPath only".to_owned()),
        (None, _) if notifies => Err("listenerPath is needed for SCMP_ACT_NOTIFY".to_owned()),
        (Some(path), metadata) if notifies => Ok(Some((path, metadata.clone().unwrap_or_default()))),
        _ => Ok(None),
    }
}
