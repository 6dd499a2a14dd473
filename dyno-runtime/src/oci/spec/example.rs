//! The configuration that `spec` writes: a shell in a read-only root, as other runtimes' `spec` has it, to begin from.

use std::path::PathBuf;

use super::{IdMapping, Linux, Mount, Namespace, Spec};
use crate::{Error, ErrorKind, Result};

/// A configuration to begin from. For a user without root: the ids that will be 0 inside.
///
/// # Errors
/// None that can happen: the text is this crate's.
pub fn example(rootless: Option<(u32, u32)>) -> Result<Spec> {
    let mut spec: Spec = super::parse(include_bytes!("example.json"))?;
    if let Some((uid, gid)) = rootless {
        for_user(&mut spec, uid, gid);
    }
    Ok(spec)
}

/// [`example`] as the text of `config.json`.
///
/// # Errors
/// None that can happen.
pub fn example_text(rootless: Option<(u32, u32)>) -> Result<String> {
    match serde_json::to_string_pretty(&example(rootless)?) {
        Ok(text) => Ok(text + "\n"),
        Err(e) => Err(Error::refused(ErrorKind::Io, format!("JSON: {e}"))),
    }
}

/// What a user without root can have: a user namespace with one id; the host's network, because nobody could give another one a link;
/// so also the host's sysfs, which belongs to the network namespace; no limits; and no `gid=` of a group that is not mapped.
fn for_user(spec: &mut Spec, uid: u32, gid: u32) {
    let linux = spec.linux.get_or_insert_with(Linux::default);
    linux.resources = None;
    linux.namespaces.retain(|namespace| namespace.kind != "network");
    linux.namespaces.push(Namespace { kind: "user".to_owned(), path: None });
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
    for mount in &mut spec.mounts {
        mount.options.retain(|option| !option.starts_with("gid="));
        if mount.kind.as_deref() == Some("sysfs") {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
            *mount = Mount { kind: Some("none".to_owned()), source: Some(PathBuf::from("/sys")), options, ..mount.clone() };
        }
    }
}
