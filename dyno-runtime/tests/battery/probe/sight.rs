//! What can be seen and reached by name: files, processes, descriptors, namespaces, sockets of others.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{linux::net::SocketAddrExt, unix::{fs::{MetadataExt, OpenOptionsExt}, net::{SocketAddr, UnixStream}}},
    process::Command,
};

use crate::{Outcome, at, call, did, number, text};

pub(crate) fn attack(args: &[&str]) -> Option<Outcome> {
    Some(match args {
        ["wait"] => wait(),
        ["read", path] => read(path),
        ["open", path] => File::open(path).and_then(|_| did("opened")),
        // Without a byte written or cut off.
        ["open-to-write", path] => OpenOptions::new().write(true).open(path).and_then(|_| did("opened for writing")),
        ["write", path, words] => write(path, words),
        ["list", path] => list(path),
        ["others"] => other_processes(),
        ["descriptors"] => descriptors(),
        ["environment", name] => Ok(std::env::var(name).ok()),
        ["namespace", kind, host] => fs::read_link(format!("/proc/self/ns/{kind}")).map(|link| (link.to_string_lossy() == *host).then(|| (*host).to_owned())),
        ["status", field, harmless] => status(field, harmless),
        ["maps-root"] => maps_root(),
        ["group-path"] => group_path(),
        ["become", program] => become_root(program),
        ["euid"] => euid(),
        ["escape", through, path] => escape(through, path),
        ["escape-and-list", through] => escape_and_list(through),
        ["mount-lacks", path, flag] => mount_lacks(path, flag),
        ["abstract", name] => SocketAddr::from_abstract_name(name).and_then(|a| UnixStream::connect_addr(&a)).and_then(|_| did("connected")),
        ["connect", port] => TcpStream::connect((Ipv4Addr::LOCALHOST, number(port) as u16)).and_then(|_| did("connected")),
        ["bind", port] => TcpListener::bind((Ipv4Addr::LOCALHOST, number(port) as u16)).and_then(|_| did("bound")),
        ["execute-in", directory] => execute_in(directory),
        _ => return None,
    })
}

/// Somebody to be seen and signalled, until the end of its input.
fn wait() -> Outcome {
    println!("waits");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(None)
}

fn read(path: &str) -> Outcome {
    let mut first = [0u8; 64];
    // A pseudo-file may answer with fewer bytes than there are.
    let n = File::open(path)?.read(&mut first)?;
    Ok((n > 0).then(|| String::from_utf8_lossy(&first[..n]).into_owned()))
}

fn write(path: &str, words: &str) -> Outcome {
    OpenOptions::new().create(true).write(true).truncate(true).open(path)?.write_all(words.as_bytes())?;
    did(format!("wrote {path}"))
}

fn list(path: &str) -> Outcome {
    let names: Vec<String> = fs::read_dir(path)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    Ok((!names.is_empty()).then(|| names.join(" ")))
}

/// Processes that are neither this one nor its pid 1.
fn other_processes() -> Outcome {
    let me = std::process::id();
    let pids = fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| *pid != me && *pid != 1).count();
    Ok((others > 0).then(|| format!("{others} others")))
}

/// Descriptors beyond the three streams. The one that lists is closed when each is looked at.
fn descriptors() -> Outcome {
    let numbers: Vec<u64> = fs::read_dir("/proc/self/fd")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    const F_GETFD: u64 = 1;
    let left: Vec<String> = numbers.into_iter().filter(|fd| *fd > 2 && call(72, &[*fd, F_GETFD]).is_ok()).map(|fd| fd.to_string()).collect();
    Ok((!left.is_empty()).then(|| left.join(" ")))
}

/// A field of this process's status that is not the harmless value.
fn status(field: &str, harmless: &str) -> Outcome {
    let all = fs::read_to_string("/proc/self/status")?;
    let is = all.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).map(str::trim).unwrap_or_default();
    let zero = |text: &str| text.trim_start_matches('0').is_empty();
    let same = is == harmless || (harmless == "0" && zero(is));
    Ok((!same).then(|| format!("{field} {is}")))
}

/// Whether the host's root is somebody in here.
fn maps_root() -> Outcome {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let starts_at_root = |line: &str| line.split_whitespace().nth(1) == Some("0");
    Ok(map.lines().any(starts_at_root).then(|| map.clone()))
}

/// A place in the host's groups that is not this one's own root.
fn group_path() -> Outcome {
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let told = table.lines().filter_map(|l| l.splitn(3, ':').nth(2)).find(|path| path.len() > 1);
    Ok(told.map(str::to_owned))
}

/// Executes what has a setuid bit, and asks whom that made.
fn become_root(program: &str) -> Outcome {
    let output = Command::new(program).arg("euid").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(said.strip_prefix("did ").map(str::to_owned))
}

fn euid() -> Outcome {
    let euid = call(107, &[])?;
    Ok((euid == 0).then(|| "effective uid 0".to_owned()))
}

/// The old way out of chroot(2): a second one leaves the working directory outside.
fn escape(through: &str, path: &str) -> Outcome {
    leave(through)?;
    read(path)
}

/// What is there beyond.
fn escape_and_list(through: &str) -> Outcome {
    let inode = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let before = inode("/")?;
    leave(through)?;
    // Where it began is no way out.
    if inode("/")? == before { Ok(None) } else { list("/") }
}

fn leave(through: &str) -> io::Result<()> {
    fs::create_dir_all(through)?;
    call(161, &[at(text(through).to_bytes_with_nul())])?;
    for _ in 0..64 {
        std::env::set_current_dir("..")?;
    }
    call(161, &[at(text(".").to_bytes_with_nul())]).map(drop)
}

/// What is mounted last at `path`, if the kernel does not say that it has `flag`.
fn mount_lacks(path: &str, flag: &str) -> Outcome {
    fs::symlink_metadata(path)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let Some(mount) = table.lines().map(fields).rfind(|fields| fields[4] == path) else { return did("no mount") };
    Ok((!mount[5].split(',').any(|has| has == flag)).then(|| mount[5].clone()))
}

fn execute_in(directory: &str) -> Outcome {
    let copy = format!("{directory}/copy");
    {
        let mut to = OpenOptions::new().create(true).write(true).truncate(true).mode(0o755).open(&copy)?;
        io::copy(&mut File::open("/proc/self/exe")?, &mut to)?;
    }
    let ran = Command::new(&copy).arg("euid").output();
    fs::remove_file(&copy)?;
    ran.and_then(|_| did("executed"))
}
