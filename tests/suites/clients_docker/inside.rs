//! What a container finds inside: its root, mounts, rights, filters, devices, names.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::clients::{Engine, Outcome, field, mount_options, skip};

use super::{Docker, has_all_capabilities};

pub fn privileged(docker: &Docker) -> Result<Outcome> {
    let script =
        "grep -E 'CapEff|Seccomp:' /proc/self/status; mkdir /mnt && mount -t tmpfs none /mnt; grep -c ' /mnt ' /proc/mounts; cat /proc/mounts";
    if !has_all_capabilities()? {
        // The engine asks for all that the kernel knows. A runtime that gave fewer would not do what it is told.
        let said = docker.run(&["--privileged"], &["true"])?;
        ensure!(said.status == 125 && said.stderr.contains("operation not permitted"), "{said:?}");
        let told =
            docker.shell(&["--cap-add", "sys_admin", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"], script)?;
        ensure!(told.contains("\n1\n") && mount_options(&told, "/proc/sys").is_err(), "{told}");
        return skip("--privileged: this host has not all capabilities of its kernel");
    }
    let told = docker.shell(&["--privileged"], script)?;
    let own = fs::read_to_string("/proc/self/status")?;
    ensure!(field(&told, "CapEff")? == field(&own, "CapBnd")? && field(&told, "Seccomp")? == "0", "{told}");
    ensure!(told.contains("\n1\n") && mount_options(&told, "/sys")?.contains(&"rw"), "{told}");
    Ok(Outcome::Seen)
}
