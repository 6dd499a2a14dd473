//! The mounts of OCI containers: what is mounted where, and that nothing an image holds or somebody changes meanwhile leads outside.
//!
//! Most cases look at a container that was created and not started: its mount table, and its files through `/proc/PID/root`.

#[path = "oci_rootfs/attacks.rs"]
mod attacks;
#[path = "oci_rootfs/dev.rs"]
mod dev;
#[path = "oci_rootfs/hiding.rs"]
mod hiding;
#[path = "oci_rootfs/hierarchies.rs"]
mod hierarchies;
#[path = "oci_rootfs/mounts.rs"]
mod mounts;
#[path = "oci_rootfs/namespaces.rs"]
mod namespaces;
#[path = "oci_rootfs/races.rs"]
mod races;
mod support;
#[path = "oci_rootfs/world.rs"]
mod world;

use std::process::ExitCode;

use support::Case;

const CASES: &[Case] = &[
    ("the_usual_mounts", mounts::usual),
    ("bind_mounts", mounts::binds),
    ("destinations_are_made", mounts::destinations),
    ("recursive_attributes", mounts::recursive),
    ("what_cannot_be_mounted", mounts::refused),
    ("tmpfs_takes_the_mode_below", mounts::tmpfs),
    ("tmpcopyup", mounts::copy_up),
    ("options_longer_than_fsconfig_takes", mounts::long_overlay),
    ("shifted_ids", mounts::idmapped),
    ("working_directory", mounts::working_directory),
    ("device_files", dev::files),
    ("a_dev_without_a_mount", dev::plain_directory),
    ("a_dev_of_the_host", dev::bound),
    ("masked_paths", hiding::masked),
    ("readonly_paths", hiding::readonly),
    ("sysctls", hiding::sysctls),
    ("control_groups_of_v1", hierarchies::v1_host),
    ("control_groups_of_v2", hierarchies::v2_host),
    ("user_namespace", namespaces::user),
    ("no_pivot", namespaces::no_pivot),
    ("without_a_mount_namespace", namespaces::host),
    ("propagation", namespaces::propagation),
    ("a_host_that_shares_its_mounts", namespaces::shared_host),
    ("without_privileges", namespaces::rootless),
    ("proc_and_sys_behind_symlinks", attacks::proc_symlinks),
    ("dev_behind_a_symlink", attacks::dev_symlink),
    ("null_device_of_the_image", attacks::null),
    ("destinations_behind_symlinks", attacks::destinations),
    ("over_procfs", attacks::over_procfs),
    ("sysctls_and_a_procfs_of_the_image", attacks::sysctl),
    ("a_destination_that_is_swapped", races::destination),
    ("a_parent_that_is_swapped", races::parent),
    ("a_copy_that_is_swapped", races::copy_up),
];

fn main() -> ExitCode {
    if let Ok(pid) = std::env::var("DYNO_TEST_MOUNT_IN") {
        return namespaces::enter_and_mount(&pid).map_or_else(
            |e| {
                eprintln!("{e:#}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    support::suite("oci-rootfs", &["unshare", "nsenter", "mount"], CASES)
}
