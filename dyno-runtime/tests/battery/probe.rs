//! The attacker: one attack per call, named by its arguments. Compiled statically with rustc alone, it runs inside a test's sandbox, and
//! bare as the control that shows the attack to be real.
//!
//! It answers with one line: `did WHAT` (the attack succeeded), `nothing` (it came to nothing), or `errno N`. What kills it answers by
//! its signal. Attacks on a resource take a stated amount and no more.

#[path = "probe/kernel.rs"]
mod kernel;
#[path = "probe/resources.rs"]
mod resources;
#[path = "probe/sight.rs"]
mod sight;

use std::io;

/// What an attack that came to an end has to say; None: nothing was there.
pub(crate) type Outcome = io::Result<Option<String>>;

/// It succeeded.
pub(crate) fn did(what: impl Into<String>) -> Outcome {
    Ok(Some(what.into()))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match attack(&args) {
        Ok(Some(what)) => println!("did {}", what.replace(['\n', '\0'], " ").trim()),
        Ok(None) => println!("nothing"),
        Err(e) => println!("errno {}", e.raw_os_error().unwrap_or(-1)),
    }
}

fn attack(args: &[&str]) -> Outcome {
    let found = sight::attack(args).or_else(|| kernel::attack(args)).or_else(|| resources::attack(args));
    found.unwrap_or_else(|| panic!("no such attack: {args:?}"))
}

/// Decimal, or hexadecimal after `0x`.
pub(crate) fn number(text: &str) -> u64 {
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|_| panic!("not a number: {text}"))
}

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

/// A raw system call.
pub(crate) fn call(number: u64, args: &[u64]) -> io::Result<i64> {
    let mut all = [0u64; 6];
    all.iter_mut().zip(args).for_each(|(to, from)| *to = *from);
    let [a, b, c, d, e, f] = all;
    // SAFETY: callers pass numbers, or pointers to what outlives the call; those of the tables may be null or name nothing.
    let answer = unsafe { syscall(number as i64, a, b, c, d, e, f) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The address of something that a call reads or writes.
pub(crate) fn at<T: ?Sized>(thing: &T) -> u64 {
    std::ptr::from_ref(thing).cast::<u8>() as u64
}

/// A NUL-ended copy.
pub(crate) fn text(words: &str) -> std::ffi::CString {
    std::ffi::CString::new(words).expect("no NUL")
}
