//! `mounts`: what each one mounts, where, and with what attributes.

use std::path::{Path, PathBuf};

use super::{
    IdMap, Mount, Namespace, Namespaces, Source,
    member::{absolute, inside, path, quoted, quoted_path, refuse, without_nul},
    mount_options::{Attributes, Meaning, meaning},
    namespaces::check_mapping,
};
use crate::{Result, oci::spec};

/// What may be mounted on below `/proc`: what lxcfs gives, and two that cannot do harm (runc allows the same). Anything else there
/// could hide from us, or give to others, files that security modules and sysctls are set by (CVE-2019-16884, CVE-2019-19921).
const ON_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// In this order. `warnings` gets what is taken otherwise than it stands.
pub fn lower(given: &[spec::Mount], bundle: &Path, namespaces: &Namespaces, warnings: &mut Vec<String>) -> Result<Vec<Mount>> {
    given.iter().enumerate().map(|(i, one)| mount(&format!("mounts[{i}]"), one, bundle, namespaces, warnings)).collect()
}

fn mount(member: &str, given: &spec::Mount, bundle: &Path, namespaces: &Namespaces, warnings: &mut Vec<String>) -> Result<Mount> {
    let destination = destination(member, given, warnings)?;
    let options = Options::read(member, &given.options)?;
    let source = source(member, given, bundle, options.bind)?;
    on_proc(member, &destination, &source)?;
    let idmap = idmap(member, given, options.idmap, namespaces)?;
    Ok(Mount {
        copy_up: options.copy_up && matches!(&source, Source::FileSystem { kind, .. } if kind == "tmpfs"),
        destination,
        source,
        set: options.own.set,
        clear: options.own.clear,
        set_recursive: options.recursive.set,
        clear_recursive: options.recursive.clear,
        propagation: options.propagation,
        data: options.data,
        idmap,
    })
}

/// Options of one mount, sorted.
#[derive(Debug, Default)]
struct Options {
    own: Attributes,
    recursive: Attributes,
    propagation: Vec<u64>,
    bind: Option<bool>,
    copy_up: bool,
    idmap: Option<bool>,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn read(member: &str, given: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for (i, option) in given.iter().enumerate() {
            without_nul(format_args!("{member}.options[{i}]"), option)?;
            match meaning(option) {
                Some((meaning, true)) => options.recursive.apply(meaning),
                Some((Meaning::Propagation(flags), _)) => options.propagation.push(flags),
                // `bind` beside `rbind` takes nothing away from it: MS_REC stays.
                Some((Meaning::Bind(recursive), _)) => options.bind = Some(recursive || options.bind == Some(true)),
                Some((Meaning::CopyUp, _)) => options.copy_up = true,
                Some((Meaning::IdMap(recursive), _)) => options.idmap = Some(recursive),
                Some((meaning, false)) => options.own.apply(meaning),
                None if option.is_empty() => {}
                None => options.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                }),
            }
        }
        Ok(options)
    }
}

fn destination(member: &str, given: &spec::Mount, warnings: &mut Vec<String>) -> Result<PathBuf> {
    let member = format!("{member}.destination");
    let destination = inside(&member, &given.destination)?;
    if destination == Path::new("/") {
        return refuse(member, format!("{} is the root itself", quoted_path(&given.destination)));
    }
    if !given.destination.is_absolute() {
        warnings.push(format!("{member}: {} is not absolute: taken as of the root", quoted_path(&given.destination)));
    }
    Ok(destination)
}

fn source(member: &str, given: &spec::Mount, bundle: &Path, bind: Option<bool>) -> Result<Source> {
    let kind = given.kind.as_deref().unwrap_or_default();
    let source = given.source.as_deref().unwrap_or(Path::new(""));
    without_nul(format_args!("{member}.type"), kind)?;
    match (bind, kind) {
        (Some(_), _) | (None, "bind") => {
            path(format_args!("{member}.source"), source)?;
            Ok(Source::Bind { path: bundle.join(source), recursive: bind == Some(true) })
        }
        (None, "" | "none") => refuse(format!("{member}.type"), "is missing: it must be a file system, or \"bind\""),
        (None, "cgroup" | "cgroup2") => Ok(Source::Cgroup),
        (None, kind) => {
            let text = source.to_str().unwrap_or_default();
            without_nul(format_args!("{member}.source"), text)?;
            // Without a source, the kernel's lists say "none"; the type tells more.
            let source = if text.is_empty() { kind } else { text };
            Ok(Source::FileSystem { kind: kind.to_owned(), source: source.to_owned() })
        }
    }
}

fn on_proc(member: &str, destination: &Path, source: &Source) -> Result<()> {
    let Ok(below) = destination.strip_prefix("/proc") else { return Ok(()) };
    let allowed = match below.to_str() {
        // The host's /proc, where the container has the host's pid namespace.
        Some("") => matches!(source, Source::Bind { .. }) || matches!(source, Source::FileSystem { kind, .. } if kind == "proc"),
        Some(below) => ON_PROC.contains(&below),
        None => false,
    };
    if !allowed {
        return refuse(
            format!("{member}.destination"),
            format!("{} is in /proc, where only a few files can be mounted on", quoted_path(destination)),
        );
    }
    Ok(())
}

fn idmap(member: &str, given: &spec::Mount, option: Option<bool>, namespaces: &Namespaces) -> Result<Option<IdMap>> {
    let (uids, gids) = (&given.uid_mappings, &given.gid_mappings);
    if option.is_none() && uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    if uids.is_empty() != gids.is_empty() {
        return refuse(member, "has only one of uidMappings and gidMappings");
    }
    if uids.is_empty() && namespaces.user == Namespace::Host {
        return refuse(format!("{member}.options"), "idmap needs uidMappings and gidMappings, or a user namespace in linux.namespaces");
    }
    check_mapping(&format!("{member}.uidMappings"), uids)?;
    check_mapping(&format!("{member}.gidMappings"), gids)?;
    Ok(Some(IdMap { uids: uids.clone(), gids: gids.clone(), recursive: option == Some(true) }))
}

/// Paths of `maskedPaths` or `readonlyPaths`.
pub fn covered(member: &str, given: &[String], namespaces: &Namespaces) -> Result<Vec<PathBuf>> {
    if !given.is_empty() && namespaces.mount == Namespace::Host {
        return refuse(member, "needs a mount namespace of the container's own");
    }
    given.iter().enumerate().map(|(i, path)| super::member::below_root(format_args!("{member}[{i}]"), Path::new(path))).collect()
}

/// `root.path`, absolute.
pub fn rootfs(root: Option<&spec::Root>, bundle: &Path) -> Result<PathBuf> {
    let Some(root) = root else { return refuse("root", "is missing") };
    path("root.path", &root.path)?;
    let rootfs = bundle.join(&root.path);
    absolute("root.path", &rootfs)?;
    Ok(rootfs)
}

/// `linux.rootfsPropagation`.
pub fn root_propagation(given: Option<&str>) -> Result<Option<u64>> {
    match given.filter(|name| !name.is_empty()) {
        None => Ok(None),
        Some(name) => match super::mount_options::propagation(name) {
            Some(flags) => Ok(Some(flags)),
            None => refuse(
                "linux.rootfsPropagation",
                format!("{} is none of shared, slave, private, unbindable, rshared, rslave, rprivate, runbindable", quoted(name)),
            ),
        },
    }
}
