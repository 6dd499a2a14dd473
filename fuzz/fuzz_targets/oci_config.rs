//! Any bytes as `config.json`: they become a container or an error of one line, and what was read is the same when it is written and
//! read again.

#![no_main]

use std::path::Path;

use dyno_runtime::oci::{
    plan::{Container, Process},
    spec::{self, Spec},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let spec = match spec::parse::<Spec>(bytes) {
        Ok(spec) => spec,
        Err(error) => return check(&error.to_string()),
    };
    let text = serde_json::to_vec(&spec).expect("what was read can be written");
    assert_eq!(spec::parse::<Spec>(&text).expect("what was written can be read"), spec);
    if let Some(Err(error)) = spec.process.as_ref().map(Process::new) {
        check(&error.to_string());
    }
    // Without a look at the host: paths of the fuzzer's are not for it.
    match Container::lower(&spec, Path::new("/srv/bundle")) {
        Ok(container) => hold(&container),
        Err(error) => check(&error.to_string()),
    }
});

/// One line, that says something, and not all that was given.
fn check(said: &str) {
    assert!(!said.is_empty() && said.len() < 2000 && !said.contains(char::is_control), "{said:?}");
}

/// What others rely on.
fn hold(container: &Container) {
    container.warnings.iter().chain(&container.notes).for_each(|warning| check(warning));
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
        let sets = process.capabilities;
        assert!(!process.args.is_empty() && process.cwd.is_absolute() && process.uid != u32::MAX && process.gid != u32::MAX);
        assert_eq!((sets.effective & !sets.permitted, sets.ambient & !(sets.permitted & sets.inheritable)), (0, 0));
    }
}
