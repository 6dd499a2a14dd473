//! Records of the state directory. They are root's own, but a process may have been killed while it wrote one, and an init shares its sandbox
//! with its tenant: half a record, or one from elsewhere, must come to nothing or to a record.
//!
//! The first byte tells which.

use super::written_again;
use crate::{dyno::Record, exit, spec::Sandbox};

pub fn check(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'r' => drop(written_again::<Record>(bytes)),
        b's' => drop(written_again::<Sandbox>(bytes)),
        #[cfg(feature = "oci")]
        b'o' => drop(written_again::<crate::oci::state::Record>(bytes)),
        b'x' => drop(written_again::<crate::ExitRecord>(bytes)),
        _ => exit::fuzz(bytes),
    }
}
