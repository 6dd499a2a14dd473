//! The rows, by what they are about. Ids are those of the acceptance battery; a row beyond it has the id of its group and no number.
//!
//! Beside each attack stands what the full sandbox answers, and what it answers with that wall taken away: success, or the errno of
//! the next wall, and then success with both away.

mod files;
mod kernel;
mod names;
mod procfs;
mod resources;

use super::row::Row;

/// All of them.
pub fn rows() -> Vec<Row> {
    [files::rows(), procfs::rows(), names::rows(), kernel::rows(), resources::rows()].concat()
}

/// Below /proc, what is made read-only.
pub fn procfs_read_only() -> impl Iterator<Item = &'static str> {
    procfs::READ_ONLY.into_iter()
}
