//! What is left to the daemon: which files, ports and calls, should somebody who talks to it have taken it over.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dyno_runtime::confine::{Access, Confinement, confine};

use super::privileges;
use crate::supervise::PORT;

/// Raises the walls around the daemon ([`confine`]) and says in the log what this kernel lacks.
/// Before there is a second thread.
pub(super) fn raise(what: &Confinement) -> Result<()> {
    privileges::alone()?;
    let walls = confine(what).context("the daemon's own walls")?;
    for lacking in &walls.lacking {
        tracing::warn!("this kernel lacks a wall of the daemon's: {lacking}");
    }
    Ok(())
}

/// Files that the C library's resolver reads, and where it finds more of itself.
const RESOLVER: [&str; 11] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
];

/// Ports that need no mention: those of registries, the one that web dynos listen on, and DNS over TCP.
const PORTS: [u16; 4] = [80, 443, 53, PORT];

/// What the daemon needs: its two directories, and as long as it asks for names itself, what the resolver reads.
pub(super) fn confinement(state: &Path, api: &Path, registries: &[String]) -> Confinement {
    let mut files = vec![(state.to_owned(), Access::Write), (api.to_owned(), Access::Sockets)];
    let readable = RESOLVER.iter().map(PathBuf::from).chain(["/dev/null".into(), "/dev/urandom".into()]).chain(linked_resolver());
    files.extend(readable.filter(|path| path.exists()).map(|path| (path, Access::Read)));
    let named = registries.iter().filter_map(|host| host.rsplit_once(':')?.1.parse().ok());
    let mut connect: Vec<u16> = PORTS.into_iter().chain(named).collect();
    connect.sort_unstable();
    connect.dedup();
    Confinement { files, connect }
}

/// `/etc/resolv.conf` that is a link leads to a file that somebody replaces whenever the network changes, so that its directory is meant. A file in `/etc`
/// that is replaced is not seen any more until the daemon is started again.
fn linked_resolver() -> Option<PathBuf> {
    let target = std::fs::canonicalize("/etc/resolv.conf").ok()?;
    let directory = target.parent()?;
    (directory.starts_with("/run") && directory != Path::new("/run")).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_may_reach() {
        let registries = ["pypi.org".to_owned(), "mirror.test:8081".to_owned(), ".npmjs.org:443".to_owned()];
        let what = confinement(Path::new("/s"), Path::new("/r/api"), &registries);
        assert_eq!(what.connect, [53, 80, 443, 5000, 8081]);
        let writable: Vec<_> = what.files.iter().filter(|(_, access)| *access != Access::Read).collect();
        assert_eq!(writable, [&("/s".into(), Access::Write), &("/r/api".into(), Access::Sockets)]);
        // Nothing of others: no home, no log, no /proc, no directory of settings.
        let libraries = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];
        for (path, _) in what.files.iter().filter(|(_, access)| *access == Access::Read) {
            let file = !path.is_dir() || path.starts_with("/run") || libraries.iter().any(|at| path == Path::new(at));
            assert!(file, "{}", path.display());
        }
    }
}
