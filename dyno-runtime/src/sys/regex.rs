//! Extended regular expressions of the C library (regex(3)).

use std::{ffi::CString, mem::MaybeUninit};

/// A compiled expression.
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// Compiles it.
    ///
    /// # Errors
    /// The C library's words about it.
    pub fn new(expression: &str) -> Result<Self, String> {
        let text = CString::new(expression).map_err(|_| "it has a NUL".to_owned())?;
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: a place for the result and a NUL-ended string.
        let answer = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        // SAFETY: zero is valid for its integers and pointers; regcomp has filled it, or failed.
        let compiled = unsafe { compiled.assume_init() };
        if answer == 0 {
            return Ok(Self(compiled));
        }
        let mut words = [0u8; 256];
        // SAFETY: the buffer is as long as said; the expression is the one that failed.
        unsafe { libc::regerror(answer, &raw const *compiled, words.as_mut_ptr().cast(), words.len()) };
        Err(String::from_utf8_lossy(&words).trim_end_matches('\0').to_owned())
    }

    /// Whether it fits some part of `text`.
    pub fn is_in(&self, text: &str) -> bool {
        // SAFETY: compiled by `new`; a NUL-ended string; no matches are asked for.
        CString::new(text).is_ok_and(|text| unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) } == 0)
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by `new`, freed once.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        let regex = Regex::new("^web-[0-9]+$").unwrap();
        assert!(regex.is_in("web-12") && !regex.is_in("web-") && !regex.is_in("a-web-1"));
        assert!(Regex::new("(").is_err_and(|e| !e.is_empty()));
    }
}
