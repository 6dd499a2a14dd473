//! One error type: what was being done, with which call and arguments, and the kernel's answer.

use rustix::io::Errno;

/// What kind of failure it was, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A field of the description is out of range or contradicts another. Nothing was created.
    Invalid,
    /// An image is missing, unreadable or not the one it should be (Heroku's R17).
    Image,
    /// A wall could not be raised; the sandbox did not start.
    Wall,
    /// The command could not be executed (126, 127).
    Exec,
    /// Anything else that the kernel refused.
    Io,
}

/// A failure, printed like `squashfs image /x.sqsh: fsmount(squashfs): EINVAL …`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}{}", self.errno.map(answer).unwrap_or_default())]
pub struct Error {
    kind: ErrorKind,
    message: String,
    errno: Option<Errno>,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed call: `what` names purpose, call and arguments.
    pub(crate) fn call(kind: ErrorKind, what: impl Into<String>, errno: Errno) -> Self {
        Self { kind, message: what.into(), errno: Some(errno) }
    }

    /// A refusal of ours.
    pub(crate) fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: None }
    }

    /// For programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The kernel's answer, where there was one.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

/// The kernel's answer in words.
fn answer(errno: Errno) -> String {
    // Everything used here is in every kernel that this crate supports (`docs/kernels.md`).
    let hint = if errno == Errno::NOSYS { "; the kernel is too old, or a system-call filter around this process hides the call" } else { "" };
    format!(": {errno}{hint}")
}

/// Names a call that failed.
pub(crate) trait Context<T> {
    /// `what`: purpose, call, arguments; evaluated only on failure.
    fn context(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T>;

    /// [`Context::context`] for plain IO.
    fn io(self, what: impl FnOnce() -> String) -> Result<T>
    where
        Self: Sized,
    {
        self.context(ErrorKind::Io, what)
    }

    /// [`Context::context`] for a wall that could not be raised.
    fn wall(self, what: impl FnOnce() -> String) -> Result<T>
    where
        Self: Sized,
    {
        self.context(ErrorKind::Wall, what)
    }
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::call(kind, what(), e))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| match Errno::from_io_error(&e) {
            Some(errno) => Error::call(kind, what(), errno),
            None => Error::refused(kind, format!("{}: {e}", what())),
        })
    }
}
