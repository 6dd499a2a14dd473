//! Name servers: which ones, and the file inside that names them.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, mkdirat, openat, openat2, statat, unlinkat},
    io::Errno,
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    mount::Lease,
    spec::{Egress, Policy},
};

/// Where programs look for it.
pub(crate) const TARGET: &str = "/etc/resolv.conf";

/// The host's own, and what systemd-resolved has instead of its stub on the loopback.
const SOURCES: [&str; 2] = [TARGET, "/run/systemd/resolve/resolv.conf"];

/// The name servers of a sandbox; none for one that may not reach any.
///
/// # Errors
/// [`ErrorKind::Invalid`] when none is given and the host has none that is reachable from another network.
pub(super) fn servers(egress: &Egress) -> Result<Vec<Ipv4Addr>> {
    match egress.policy {
        Policy::Nothing => Ok(Vec::new()),
        _ if !egress.dns.is_empty() => Ok(egress.dns.clone()),
        _ => of_host(&SOURCES.map(Path::new)),
    }
}

/// Those of the first of `sources` that has any.
fn of_host(sources: &[&Path]) -> Result<Vec<Ipv4Addr>> {
    for source in sources {
        let text = match std::fs::read_to_string(source) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.io(|| format!("read {}", source.display()))?,
        };
        let servers = parse(&text);
        if !servers.is_empty() {
            return Ok(servers);
        }
    }
    let names: Vec<_> = sources.iter().map(|s| s.display().to_string()).collect();
    let message = format!("network.egress.dns: empty, and no IPv4 name server off the loopback is in {}: give dns", names.join(" or "));
    Err(Error::refused(ErrorKind::Invalid, message))
}

/// resolv.conf(5): at most three are used.
fn parse(text: &str) -> Vec<Ipv4Addr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())??;
        match address {
            IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_unspecified() => Some(v4),
            _ => None,
        }
    };
    text.lines().filter_map(server).take(3).collect()
}

/// The file of the sandbox whose state directory is `dir`.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("resolv.conf")
}

/// Writes [`file`].
pub(super) fn write(dir: &Path, servers: &[Ipv4Addr]) -> Result<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let path = file(dir);
    std::fs::write(&path, text).wall(|| format!("write {}", path.display()))?;
    // Whatever the umask: everybody inside reads it.
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o644)).wall(|| format!("chmod({}, 0644)", path.display()))
}

/// Sees to it that `root` has a file to mount over, which images often lack, or have as a link to what is not there. It is made
/// in the writable layer.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is none and nothing can be written.
pub(super) fn place(root: BorrowedFd<'_>, writable: bool, lease: &Lease) -> Result<()> {
    let impossible = |found: &str| {
        let message =
            format!("network.egress: {TARGET} inside {found}, and the root is read-only: put an empty file there, or give the root a writable layer");
        Error::refused(ErrorKind::Invalid, message)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || openat2(root, "etc", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH);
    let etc = match open() {
        Err(Errno::NOENT) if writable => {
            mkdirat(root, "etc", Mode::from_raw_mode(0o755)).wall(|| "mkdir(/etc inside)".into())?;
            own(root, "etc", 0o755, lease)?;
            open()
        }
        other => other,
    };
    let etc = match etc {
        Err(Errno::NOENT) => return Err(impossible("does not exist")),
        other => other.wall(|| "openat2(/etc inside, RESOLVE_NO_SYMLINKS)".into())?,
    };
    match statat(&etc, "resolv.conf", AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => return Ok(()),
        Ok(_) if !writable => return Err(impossible("is no file")),
        Err(Errno::NOENT) if !writable => return Err(impossible("does not exist")),
        Ok(_) => unlinkat(&etc, "resolv.conf", AtFlags::empty()).wall(|| format!("unlink({TARGET} inside)"))?,
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e).wall(|| format!("stat({TARGET} inside)")),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&etc, "resolv.conf", flags, Mode::from_raw_mode(0o644)).wall(|| format!("create {TARGET} inside"))?;
    own(rustix::fd::AsFd::as_fd(&etc), "resolv.conf", 0o644, lease)
}

/// Makes `name` the sandbox's root's.
fn own(dir: BorrowedFd<'_>, name: &str, mode: u32, lease: &Lease) -> Result<()> {
    let id = lease.host_id(0);
    chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()).wall(|| format!("chmod({name} inside)"))?;
    chownat(dir, name, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)), AtFlags::SYMLINK_NOFOLLOW).wall(|| format!("chown({name} inside)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_host() {
        let check = |text: &str, want: &[[u8; 4]]| assert_eq!(parse(text), want.iter().map(|a| Ipv4Addr::from(*a)).collect::<Vec<_>>(), "{text}");
        check("search x\nnameserver 10.0.0.1\nnameserver 2001:db8::1\n", &[[10, 0, 0, 1]]);
        check("nameserver 127.0.0.53\noptions edns0\n", &[]);
        check("# nameserver 10.0.0.1\nnameserver\nnameserver x\nnameservers 10.0.0.2", &[]);
        check("nameserver\t10.0.0.1 \nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4", &[[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]]);
    }

    #[test]
    fn behind_a_stub_stand_the_real_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (stub, real, none) = (dir.path().join("stub"), dir.path().join("real"), dir.path().join("none"));
        std::fs::write(&stub, "nameserver 127.0.0.53\n").unwrap();
        std::fs::write(&real, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(of_host(&[&none, &stub, &real]).unwrap(), [Ipv4Addr::new(10, 0, 0, 1)]);
        let error = of_host(&[&stub, &none]).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("give dns"), "{error}");
    }

    #[test]
    fn nothing_needs_no_server() {
        assert!(servers(&Egress::default()).unwrap().is_empty());
    }
}
