//! System-call filters of `linux.seccomp` and device rules of `linux.resources`, as BPF.

/// A compiled `linux.seccomp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Classic BPF.
    pub program: Vec<crate::sys::Filter>,
    /// SECCOMP_FILTER_FLAG_….
    pub flags: u64,
    /// Who answers SCMP_ACT_NOTIFY, and what it is told beside the state.
    pub listener: Option<(std::path::PathBuf, String)>,
}

/// Installs it.
///
/// # Errors
/// Of seccomp(2).
pub fn install(filter: &Filter) -> crate::Result<Option<std::os::fd::OwnedFd>> {
    unimplemented!("{filter:?}")
}
