//! Reading: bytes to types, with an error that names the member.

use std::{fs::File, io::Read, path::Path};

use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result, error::Context};

/// Bytes that a configuration may have. The greatest that execve(2) can make use of (6 MiB of arguments and environment) fits;
/// what is greater is taken for an attempt to use up memory.
const MOST: u64 = 16 << 20;

/// Reads a file: a [`super::Spec`] (`config.json`), a [`super::Process`] (for `exec --process`), [`super::Resources`] (for `update`).
///
/// # Errors
/// One line: the kernel's answer, or what [`parse`] says, after the file's name.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_with_text(path).map(|(value, _)| value)
}

/// [`read`], and what was read.
///
/// # Errors
/// As there.
pub fn read_with_text<T: DeserializeOwned>(path: &Path) -> Result<(T, Vec<u8>)> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).io(|| format!("open {}", path.display()))?;
    let value = parse(&bytes).map_err(|e| Error::refused(ErrorKind::Invalid, format!("{}: {e}", path.display())))?;
    Ok((value, bytes))
}

/// Reads what one of these files holds.
///
/// # Errors
/// One line of kind [`ErrorKind::Invalid`] that names the member.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let refused = |message: String| Err(Error::refused(ErrorKind::Invalid, message));
    if bytes.len() as u64 > MOST {
        return refused(format!("more than {} MiB long", MOST >> 20));
    }
    serde_json::from_slice(bytes).or_else(|e| refused(e.to_string()))
}
