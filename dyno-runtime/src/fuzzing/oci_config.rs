//! Any bytes as `config.json` and as parts of it: they become a container or an error of one line, and what was read is the same when it is
//! written and read again.

use std::path::Path;

use super::one_line;
use crate::oci::{
    filter::devices,
    plan::{self, Container, Process},
    spec::{self, Resources, Spec},
};

/// What was read, if it could be.
fn read<T: Default + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value = match spec::parse::<T>(bytes) {
        Ok(value) => value,
        Err(error) => {
            one_line(&error.to_string());
            return None;
        }
    };
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(spec::parse::<T>(&text).expect("what was written can be read"), value);
    Some(value)
}

pub fn configuration(bytes: &[u8]) {
    let Some(spec) = read::<Spec>(bytes) else { return };
    if let Some(Err(error)) = spec.process.as_ref().map(Process::new) {
        one_line(&error.to_string());
    }
    // Without a look at the host: paths of the fuzzer's are not for it.
    match Container::lower(&spec, Path::new("/srv/bundle")) {
        Ok(container) => hold(&container),
        Err(error) => one_line(&error.to_string()),
    }
}

pub fn process(bytes: &[u8]) {
    let Some(process) = read::<spec::Process>(bytes) else { return };
    match Process::new(&process) {
        Ok((process, warnings)) => {
            warnings.iter().for_each(|warning| one_line(warning));
            hold_process(&process);
        }
        Err(error) => one_line(&error.to_string()),
    }
}

pub fn resources(bytes: &[u8]) {
    let Some(resources) = read::<Resources>(bytes) else { return };
    if let Err(error) = plan::resources::check(&resources) {
        return one_line(&error.to_string());
    }
    for file in resources.unified.keys() {
        assert!(!file.contains('/') && file != "..", "{file:?}");
    }
    match devices::program(&resources.devices) {
        // The kernel's verifier takes no loop: a jump leads on, and to a place that is there.
        Ok(program) => assert!(!program.is_empty()),
        Err(error) => one_line(&error.to_string()),
    }
}

/// What others rely on.
fn hold(container: &Container) {
    container.warnings.iter().chain(&container.notes).for_each(|warning| one_line(warning));
    for mount in &container.mounts {
        let path = mount.destination.to_str().expect("from JSON");
        assert!(path.len() > 1 && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
        assert_eq!(mount.set & mount.clear & !0x70, 0);
    }
    for path in container.masked.iter().chain(&container.readonly).chain(container.devices.iter().map(|device| &device.path)) {
        assert!(path.is_absolute() && path != Path::new("/"), "{path:?}");
    }
    for (path, _) in &container.sysctls {
        let namespaced = ["net/", "fs/mqueue/", "kernel/"].iter().any(|start| path.starts_with(start));
        assert!(namespaced && path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
    }
    if let Some(process) = &container.process {
        hold_process(process);
    }
}

fn hold_process(process: &Process) {
    let sets = process.capabilities;
    assert!(!process.args.is_empty() && process.cwd.is_absolute() && process.uid != u32::MAX && process.gid != u32::MAX);
    assert_eq!((sets.effective & !sets.permitted, sets.ambient & !(sets.permitted & sets.inheritable)), (0, 0));
}
