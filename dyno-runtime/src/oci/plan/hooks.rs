//! `hooks`: each checked, none changed.

use super::member::{absolute, refuse, without_nul};
use crate::{Result, oci::spec::Hooks};

/// As they stand.
pub fn checked(given: Option<&Hooks>) -> Result<Hooks> {
    let hooks = given.cloned().unwrap_or_default();
    check(&hooks)?;
    Ok(hooks)
}

/// Refuses hooks that cannot be run.
fn check(hooks: &Hooks) -> Result<()> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, all) in kinds {
        for (i, hook) in all.iter().enumerate() {
            let member = format!("hooks.{kind}[{i}]");
            absolute(format!("{member}.path"), &hook.path)?;
            for (n, argument) in hook.args.iter().enumerate() {
                without_nul(format_args!("{member}.args[{n}]"), argument)?;
            }
            for (n, variable) in hook.env.iter().enumerate() {
                without_nul(format_args!("{member}.env[{n}]"), variable)?;
            }
            if let Some(seconds) = hook.timeout.filter(|seconds| *seconds <= 0) {
                return refuse(format!("{member}.timeout"), format!("{seconds} is not greater than 0"));
            }
        }
    }
    Ok(())
}
