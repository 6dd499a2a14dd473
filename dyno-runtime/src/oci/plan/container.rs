//! [`Container::new`]: the whole of `config.json` lowered, member by member.

use std::{collections::HashSet, fs::metadata, path::Path};

use rustix::process::geteuid;

use super::{
    Container, Namespace, Namespaces, Process, devices, hooks,
    member::{quoted, quoted_path, refuse, without_nul},
    mounts, namespaces, resources, schedule, sysctls, version,
};
use crate::{
    Error, ErrorKind, Result,
    error::Context,
    oci::{
        filter,
        spec::{self, IdMapping, Linux, Spec},
    },
    one_line::cut,
};

/// __NEW_UTS_LEN (linux/utsname.h).
const LONGEST_HOST_NAME: usize = 64;

impl Container {
    /// What a configuration comes to, before anything is made of it. `bundle` is the absolute directory that relative paths of it start
    /// from. Nothing is changed; of the host only the root and the namespaces to join are looked at.
    ///
    /// # Errors
    /// One line that names the member, of kind [`ErrorKind::Invalid`].
    pub fn new(spec: &Spec, bundle: &Path) -> Result<Self> {
        let container = Self::lower(spec, bundle)?;
        container.look_at_host(spec)?;
        Ok(container)
    }

    /// [`Container::new`] without a look at the host: for a container that exists, whose root and namespaces may no longer be found by
    /// the paths that they had.
    ///
    /// # Errors
    /// As [`Container::new`].
    pub fn lower(spec: &Spec, bundle: &Path) -> Result<Self> {
        version::check(&spec.oci_version)?;
        let none = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&none);
        let namespaces = namespaces::lower(&linux.namespaces)?;
        let (mut warnings, mut notes) = (Vec::new(), Vec::new());
        let (uid_map, gid_map) = namespaces::mappings(linux, &namespaces)?;
        let process = process(spec, &uid_map, &gid_map, &mut warnings)?;
        let domainname = uts_name("domainname", spec.domainname.as_deref(), &namespaces)?;
        Ok(Self {
            oci_version: spec.oci_version.clone(),
            rootfs: mounts::rootfs(spec.root.as_ref(), bundle)?,
            readonly_root: spec.root.as_ref().is_some_and(|root| root.readonly),
            root_propagation: mounts::root_propagation(linux.rootfs_propagation.as_deref())?,
            hostname: uts_name("hostname", spec.hostname.as_deref(), &namespaces)?,
            time_offsets: namespaces::time_offsets(linux, &namespaces)?,
            mounts: mounts::lower(&spec.mounts, bundle, &namespaces, &mut warnings)?,
            devices: devices::lower(&linux.devices)?,
            masked: mounts::covered("linux.maskedPaths", &linux.masked_paths, &namespaces)?,
            readonly: mounts::covered("linux.readonlyPaths", &linux.readonly_paths, &namespaces)?,
            sysctls: sysctls::lower(&linux.sysctl, &namespaces, domainname.as_deref())?,
            net_devices: net_devices(linux, &namespaces)?,
            cgroups_path: cgroups_path(linux)?,
            filter: linux.seccomp.as_ref().map(|seccomp| compile(seccomp, &mut notes)).transpose()?,
            personality: linux.personality.as_ref().map(|p| schedule::personality(p, &mut warnings)).transpose()?,
            memory_policy: linux.memory_policy.as_ref().map(schedule::memory_policy).transpose()?,
            intel_rdt: intel_rdt(linux, &mut warnings)?,
            mount_label: mount_label(linux)?,
            annotations: spec.annotations.clone(),
            domainname,
            namespaces,
            uid_map,
            gid_map,
            process,
            hooks: hooks::checked(spec.hooks.as_ref())?,
            resources: resources::checked(linux.resources.as_ref())?,
            warnings: few(warnings),
            notes: few(notes),
        })
    }

    /// What is there before anything is created: the root, and namespaces that are some.
    fn look_at_host(&self, spec: &Spec) -> Result<()> {
        if self.namespaces.user == Namespace::Host && !geteuid().is_root() {
            return refuse("linux.namespaces", "has no user namespace: who is not root needs one");
        }
        let about = |path: &Path| format!("root.path: {}", quoted_path(path));
        let root = metadata(&self.rootfs).context(ErrorKind::Invalid, || about(&self.rootfs))?;
        if !root.is_dir() {
            return Err(Error::call(ErrorKind::Invalid, about(&self.rootfs), rustix::io::Errno::NOTDIR));
        }
        for (i, one) in spec.linux.iter().flat_map(|linux| &linux.namespaces).enumerate() {
            let Some(path) = one.path.as_deref().filter(|path| *path != Path::new("")) else { continue };
            // Without opening it: a FIFO would let us wait for ever.
            let about = || format!("linux.namespaces[{i}].path: {}", quoted_path(path));
            let is = rustix::fs::statfs(path).context(ErrorKind::Invalid, about)?;
            if is.f_type != NSFS_MAGIC {
                return refuse(format!("linux.namespaces[{i}].path"), format!("{} is no namespace", quoted_path(path)));
            }
        }
        sysctls::look_at_host(&self.sysctls, &self.namespaces)
    }
}

/// NSFS_MAGIC (linux/magic.h).
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

fn process(spec: &Spec, uid_map: &[IdMapping], gid_map: &[IdMapping], warnings: &mut Vec<String>) -> Result<Option<Process>> {
    let Some(given) = &spec.process else { return Ok(None) };
    let (process, more) = Process::new(given)?;
    warnings.extend(more);
    let groups = process.groups.iter().enumerate().map(|(i, gid)| (format!("process.user.additionalGids[{i}]"), *gid, gid_map));
    let ids = [("process.user.uid".to_owned(), process.uid, uid_map), ("process.user.gid".to_owned(), process.gid, gid_map)];
    for (member, id, map) in ids.into_iter().chain(groups) {
        if !namespaces::is_mapped(map, id) {
            return refuse(member, format!("{id} is not mapped in the user namespace"));
        }
    }
    Ok(Some(process))
}

fn uts_name(member: &str, given: Option<&str>, namespaces: &Namespaces) -> Result<Option<String>> {
    let Some(name) = given.filter(|name| !name.is_empty()) else { return Ok(None) };
    without_nul(member, name)?;
    if name.len() > LONGEST_HOST_NAME {
        return refuse(member, format!("{} is longer than {LONGEST_HOST_NAME} bytes", quoted(name)));
    }
    if namespaces.uts == Namespace::Host {
        return refuse(member, "needs a UTS namespace of the container's own: linux.namespaces has none");
    }
    Ok(Some(name.to_owned()))
}

fn net_devices(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>> {
    let (mut devices, mut taken) = (Vec::new(), HashSet::new());
    for (outside, device) in &linux.net_devices {
        let member = format!("linux.netDevices[{}]", quoted(outside));
        let name = device.name.as_deref().filter(|name| !name.is_empty());
        resources::interface(&member, outside)?;
        resources::interface(&format!("{member}.name"), name.unwrap_or(outside))?;
        if !taken.insert(name.unwrap_or(outside)) {
            return refuse(format!("{member}.name"), format!("{} is given twice", quoted(name.unwrap_or(outside))));
        }
        devices.push((outside.clone(), name.unwrap_or(outside).to_owned()));
    }
    if !devices.is_empty() && namespaces.network == Namespace::Host {
        return refuse("linux.netDevices", "needs a network namespace of the container's own: linux.namespaces has none");
    }
    Ok(devices)
}

fn cgroups_path(linux: &Linux) -> Result<Option<String>> {
    let Some(path) = linux.cgroups_path.as_deref().filter(|path| !path.is_empty()) else { return Ok(None) };
    super::member::path("linux.cgroupsPath", Path::new(path))?;
    // A line of /proc/PID/cgroup could not be read back.
    if path.contains('\n') {
        return refuse("linux.cgroupsPath", format!("{} contains a newline", quoted(path)));
    }
    Ok(Some(path.to_owned()))
}

fn intel_rdt(linux: &Linux, warnings: &mut Vec<String>) -> Result<Option<spec::IntelRdt>> {
    let Some(given) = &linux.intel_rdt else { return Ok(None) };
    if given.enable_monitoring {
        warnings.push("linux.intelRdt.enableMonitoring: no monitoring group is made".to_owned());
    }
    if let Some(class) = given.clos_id.as_deref().filter(|class| matches!(*class, "." | "..") || class.contains(['/', '\0', '\n'])) {
        return refuse("linux.intelRdt.closID", format!("{} is no name of a directory", quoted(class)));
    }
    for line in given.schemata.iter().chain(&given.l3_cache_schema).chain(&given.mem_bw_schema) {
        without_nul("linux.intelRdt", line)?;
    }
    Ok(Some(given.clone()))
}

fn mount_label(linux: &Linux) -> Result<Option<String>> {
    let Some(label) = linux.mount_label.as_deref().filter(|label| !label.is_empty()) else { return Ok(None) };
    without_nul("linux.mountLabel", label)?;
    Ok(Some(label.to_owned()))
}

/// The filter; words of the configuration that are in its refusal and its warnings are cut, like everywhere here.
fn compile(given: &spec::Seccomp, warnings: &mut Vec<String>) -> Result<filter::Filter> {
    let mut told = Vec::new();
    let filter = filter::compile(given, &mut told).map_err(|e| Error::refused(e.kind(), cut(&e.to_string())))?;
    warnings.extend(told.iter().map(|warning| cut(warning)));
    Ok(filter)
}

/// A configuration with a hundred thousand mistakes is told of some.
fn few(mut warnings: Vec<String>) -> Vec<String> {
    const MOST: usize = 32;
    if let Some(more) = warnings.len().checked_sub(MOST).filter(|more| *more > 0) {
        warnings.truncate(MOST);
        warnings.push(format!("and {more} more warnings"));
    }
    warnings
}
