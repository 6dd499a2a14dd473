//! A sandbox as JSON: it becomes a plan that keeps every wall, or an error of one line that names the field.

use std::path::Path;

use super::{one_line, written_again};
use crate::{
    plan::{Mount, NAMESPACES, Plan},
    spec::{Network, Sandbox, Volume},
};

pub fn check(bytes: &[u8]) {
    let Some(sandbox) = written_again::<Sandbox>(bytes) else { return };
    match Plan::new(&sandbox) {
        Ok(plan) => hold(&sandbox, &plan),
        Err(error) => one_line(&error.to_string()),
    }
}

/// What those who carry it out rely on, whatever was asked for.
fn hold(sandbox: &Sandbox, plan: &Plan) {
    let private = matches!(sandbox.network, Network::Private | Network::Egress(_));
    assert_eq!(plan.namespaces.len(), NAMESPACES.len() - usize::from(!private), "{:?}", plan.namespaces);
    assert!(plan.namespaces.contains(&"user") && plan.identity.uid < 65536 && plan.identity.gid < 65536);
    for path in ["/proc/kcore", "/proc/keys", "/proc/kallsyms"] {
        assert!(plan.mounts.contains(&Mount::Masked(path.to_owned())), "{path} is not masked");
    }
    for path in ["/proc/sys", "/proc/sysrq-trigger"] {
        assert!(plan.mounts.contains(&Mount::ReadOnly(path.to_owned())), "{path} is not read-only");
    }
    for mount in &plan.mounts {
        match mount {
            Mount::Masked(path) | Mount::ReadOnly(path) => inside(path),
            Mount::Volume(volume) => {
                let target = volume.target().to_str().expect("from JSON");
                inside(target);
                assert!(!Path::new(target).starts_with("/proc"), "{target:?}");
                if let Volume::Bind { source, .. } = volume {
                    assert!(source.is_absolute(), "{source:?}");
                }
            }
            Mount::Dev { devices } => devices.iter().for_each(|name| inside(&format!("/dev/{name}"))),
            _ => {}
        }
    }
    let process = &plan.process;
    assert!(process.cwd.starts_with('/') && !Path::new(&process.cwd).starts_with("/proc"), "{:?}", process.cwd);
    let (argv, env) = (plan.c_argv(), plan.c_env());
    assert_eq!((argv.len(), env.len()), (sandbox.argv.len(), sandbox.env.len()));
    for (given, made) in sandbox.argv.iter().zip(&argv) {
        assert_eq!(given.as_bytes(), made.as_bytes(), "an argument was changed on its way");
    }
    for made in env {
        let text = made.to_str().expect("from JSON");
        let (name, value) = text.split_once('=').expect("NAME=value");
        assert_eq!(sandbox.env.get(name).map(String::as_str), Some(value), "a variable came to be another");
    }
}

/// Below the sandbox's root, and not the root itself.
fn inside(path: &str) {
    assert!(path.starts_with('/') && path.len() < 8192 && !path.contains('\0') && Path::new(path).components().count() > 1, "{path:?}");
    assert!(path.split('/').all(|part| part != ".."), "{path:?}");
}
