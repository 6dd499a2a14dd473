//! `checkpoint`.

use super::{Failure, Outcome, words::Words};
use crate::oci::Global;

pub(super) const HELP: &str = "\
Usage: dyno-runtime [GLOBAL OPTIONS] checkpoint [OPTIONS] ID
";

pub(super) fn run(_: &Global, _: &mut Words) -> Outcome {
    Err(Failure::new("checkpoint: not there yet"))
}
