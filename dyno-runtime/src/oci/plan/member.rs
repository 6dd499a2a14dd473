//! Refusals that name the member of the configuration they are about, and the checks of text and paths that many members share.

use std::{
    ffi::CString,
    fmt::Display,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use crate::{Error, ErrorKind, Result};

/// PATH_MAX without its NUL (limits.h).
const LONGEST_PATH: usize = 4095;

/// An error of one line: `linux.namespaces[2].type: "x" …`.
pub fn refused(member: impl Display, why: impl Display) -> Error {
    Error::refused(ErrorKind::Invalid, format!("{member}: {why}"))
}

/// [`refused`], as a result.
pub fn refuse<T>(member: impl Display, why: impl Display) -> Result<T> {
    Err(refused(member, why))
}

/// A value for a message: in quotes, without control characters, and not at its full length if that is great.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// [`quoted`] of a path.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Text for the kernel: without NUL.
pub fn c_string(member: impl Display, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| refused(member, format!("{} contains a NUL byte", quoted(text))))
}

/// Refuses text that contains NUL.
pub fn without_nul(member: impl Display, text: &str) -> Result<()> {
    c_string(member, text).map(drop)
}

/// A path for the kernel: not empty, without NUL, not too long.
pub fn path(member: impl Display, path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return refuse(member, "is empty: it must be a path");
    }
    if bytes.contains(&0) {
        return refuse(member, format!("{} contains a NUL byte", quoted_path(path)));
    }
    if bytes.len() > LONGEST_PATH {
        return refuse(member, format!("is {} bytes long: a path has at most {LONGEST_PATH}", bytes.len()));
    }
    Ok(())
}

/// An absolute path for the kernel.
pub fn absolute(member: impl Display, of: &Path) -> Result<()> {
    path(&member, of)?;
    if !of.is_absolute() {
        return refuse(member, format!("{} is not absolute", quoted_path(of)));
    }
    Ok(())
}

/// A path inside the container, without `.` and `..`, as of the root; nothing climbs above that. Relative ones are taken from there too.
pub fn inside(member: impl Display, of: &Path) -> Result<PathBuf> {
    path(&member, of)?;
    let mut clean = PathBuf::from("/");
    for part in of.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    Ok(clean)
}

/// [`inside`] for what stands below the root: absolute, and not the root itself.
pub fn below_root(member: impl Display, of: &Path) -> Result<PathBuf> {
    absolute(&member, of)?;
    let clean = inside(&member, of)?;
    if clean == Path::new("/") {
        return refuse(member, format!("{} is the root itself", quoted_path(of)));
    }
    Ok(clean)
}
