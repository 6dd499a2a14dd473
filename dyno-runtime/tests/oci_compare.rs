//! The same configurations run by Debian's crun, by Debian's runc and by the runtime under test: what each of them makes of them is compared fact by
//! fact. A difference is a defect unless [`meant`] has the sentence that decides it.
//!
//! `DYNO_TEST_SEED` and `DYNO_TEST_COUNT` draw other and more configurations; `DYNO_TEST_OCI_OURS`, `_CRUN` and `_RUNC` name other programs.

mod bundles;
#[path = "oci_compare/dimensions.rs"]
mod dimensions;
#[path = "oci_compare/draw.rs"]
mod draw;
#[path = "oci_compare/limits.rs"]
mod limits;
#[path = "oci_compare/meant.rs"]
mod meant;
#[path = "oci_compare/mounts.rs"]
mod mounts;
#[path = "oci_compare/observe.rs"]
mod observe;
mod support;
#[path = "oci_compare/table.rs"]
mod table;
#[path = "oci_compare/world.rs"]
mod world;

use std::process::ExitCode;

use support::Case;

const CASES: &[Case] = &[("generated_configurations", |stage| world::compare(stage)), ("page_of_differences", |_| table::is_written())];

fn main() -> ExitCode {
    support::suite("oci-compare", &["unshare", "nsenter"], CASES)
}
