//! `features`.

use super::{Outcome, say, words::Words};
use crate::oci::{Global, features};

pub(super) const HELP: &str = "\
Prints what this runtime can do, as JSON (runtime-spec, features.md).

Usage: dyno-runtime features

Examples:
  dyno-runtime features
";

pub(super) fn run(_: &Global, words: &mut Words) -> Outcome {
    if let Some(word) = words.next()? {
        return Err(words.unexpected(&word));
    }
    if words.help { Ok(0) } else { say(&features::text()) }
}
