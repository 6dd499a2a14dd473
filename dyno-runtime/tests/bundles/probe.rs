//! The program inside the containers of the OCI tests: says all that a process can know of itself, as lines `key<TAB>value`. It is also the
//! tests' hook. Compiled by the tests, statically, with rustc alone; without Rust's own start, which would change the signal dispositions.

#![no_main]

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_long},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut u8, size: usize) -> isize;
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, args: *const *const c_char) -> c_int {
    // SAFETY: the kernel's array of `count` strings.
    let args = (0..count as usize).map(|n| unsafe { CStr::from_ptr(*args.add(n)) }.to_string_lossy().into_owned());
    let args: Vec<String> = args.skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(status) => status,
        Err(e) => {
            eprintln!("probe {args:?}: {e}");
            99
        }
    }
}

fn run(args: &[&str]) -> io::Result<c_int> {
    match args {
        ["exit", status] => return Ok(number(status) as c_int),
        ["signal", signal] => call(SYS_KILL, &[std::process::id().into(), number(signal)]).map(drop)?,
        ["forever"] => forever()?,
        ["fifo", path] => drop(File::open(path)?),
        ["hook", name, dir, status] => {
            hook(name, dir)?;
            return Ok(number(status) as c_int);
        }
        ["steal", dir] => steal(dir)?,
        ["cat", path] => io::copy(&mut File::open(path)?, &mut io::stdout()).map(drop)?,
        ["put", path, text] => OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())?,
        ["say", words @ ..] => println!("{}", words.join(" ")),
        ["look", status, looks @ ..] => {
            look(looks)?;
            return Ok(number(status) as c_int);
        }
        other => panic!("no such command: {other:?}"),
    }
    Ok(0)
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

const SYS_KILL: c_long = 62;

fn call(number: c_long, args: &[u64]) -> io::Result<c_long> {
    let mut all = [0u64; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: callers pass numbers, or pointers to what lives until the call returns.
    let answer = unsafe { syscall(number, a, b, c, d, e, f) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Says `here` and stays.
fn forever() -> io::Result<()> {
    println!("here");
    io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// What a hook gets, as a file of its own, and its turn in the file `order`.
fn hook(name: &str, dir: &str) -> io::Result<()> {
    let mut state = String::new();
    io::stdin().read_to_string(&mut state)?;
    // For whoever comes next, with other ids.
    let open = |name: &str| {
        let file = OpenOptions::new().create(true).append(true).open(format!("{dir}/{name}"))?;
        file.set_permissions(fs::Permissions::from_mode(0o666)).or_else(|e| if e.raw_os_error() == Some(1) { Ok(()) } else { Err(e) })?;
        Ok::<_, io::Error>(file)
    };
    let mut out = open(name)?;
    writeln!(out, "state\t{}", state.replace('\n', " "))?;
    writeln!(out, "cwd\t{}", shown(std::env::current_dir()))?;
    for (key, value) in std::env::vars() {
        writeln!(out, "env.{key}\t{value}")?;
    }
    for kind in ["mnt", "pid", "net", "uts", "ipc", "user", "cgroup"] {
        writeln!(out, "ns.{kind}\t{}", shown(fs::read_link(format!("/proc/self/ns/{kind}"))))?;
    }
    writeln!(open("order")?, "{name}")
}

fn shown(path: io::Result<std::path::PathBuf>) -> String {
    path.map_or_else(|e| errno(&e), |p| p.display().to_string())
}

fn errno(e: &io::Error) -> String {
    format!("errno {}", e.raw_os_error().unwrap_or(-1))
}

/// Keeps open the executable of every process that comes by, as CVE-2019-5736 does, and tries to write to it when that has ended. Says
/// `met` with each kind of answer the first time, and everything at the end.
fn steal(dir: &str) -> io::Result<()> {
    println!("here");
    let own = fs::metadata("/proc/self/exe")?;
    let (mut met, mut kept) = (BTreeMap::new(), BTreeMap::new());
    let mut note = |what: String| {
        if *met.entry(what.clone()).and_modify(|n| *n += 1).or_insert(1) == 1 {
            println!("met {what}");
        }
    };
    while !Path::new(dir).join("enough").exists() {
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok).filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok()) {
            let path = entry.path().join("exe");
            match fs::metadata(&path) {
                Ok(meta) if (meta.dev(), meta.ino()) == (own.dev(), own.ino()) => continue,
                Err(e) if matches!(e.raw_os_error(), Some(2 | 3)) => continue,
                Err(e) => note(format!("unreadable {}", errno(&e))),
                Ok(_) => {
                    let target = shown(fs::read_link(&path));
                    let write = OpenOptions::new().write(true).open(&path).map_or_else(|e| errno(&e), |_| "opened".into());
                    // Before it is told: who hears of it may end what was met.
                    if let Ok(file) = File::open(&path) {
                        kept.insert(target.clone(), file);
                    }
                    note(format!("write {target} {write}"));
                }
            }
            for fd in fs::read_dir(entry.path().join("fd")).into_iter().flatten().filter_map(Result::ok) {
                note(format!("descriptor {}", numberless(&shown(fs::read_link(fd.path())))));
            }
        }
    }
    for (target, file) in kept {
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        note(format!("write afterwards {target} {}", OpenOptions::new().write(true).open(again).map_or_else(|e| errno(&e), |_| "opened".into())));
    }
    println!("done");
    Ok(())
}

fn numberless(link: &str) -> &str {
    link.split_once(":[").map_or(link, |(kind, _)| kind)
}

type Facts = BTreeMap<String, String>;

fn look(looks: &[&str]) -> io::Result<()> {
    let mut facts = Facts::new();
    status(&mut facts);
    for name in ["mountinfo", "cgroup", "limits", "uid_map", "gid_map", "setgroups", "oom_score_adj", "cmdline", "comm", "timens_offsets", "personality", "timerslack_ns", "loginuid"] {
        file(&mut facts, name, &format!("/proc/self/{name}"));
    }
    scheduling(&mut facts);
    around(&mut facts);
    dev(&mut facts, Path::new("/dev"), 0);
    for look in looks {
        match look.split_once(':') {
            Some(("file", path)) => file(&mut facts, &format!("file {path}"), path),
            Some(("stat", path)) => drop(facts.insert(format!("stat {path}"), stat(Path::new(path)))),
            Some(("list", path)) => list(&mut facts, path),
            Some(("write", path)) => drop(facts.insert(format!("write {path}"), write(path))),
            Some(("read", path)) => drop(facts.insert(format!("read {path}"), read(path))),
            Some(("call", call)) => drop(facts.insert(format!("call {call}"), made(call))),
            _ => panic!("no such look: {look}"),
        }
    }
    let text: String = facts.iter().map(|(key, value)| format!("{key}\t{}\n", value.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t"))).collect();
    io::stdout().write_all(text.as_bytes())
}

fn status(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_else(|e| errno(&e));
    let wanted = ["Umask", "Uid", "Gid", "Groups", "NSpid", "NStgid", "NSsid", "NSpgid", "PPid", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Speculation_Store_Bypass", "SpeculationIndirectBranch", "Cpus_allowed_list", "Mems_allowed_list", "THP_enabled", "Threads", "CoreDumping", "Kthread"];
    for (key, value) in text.lines().filter_map(|l| l.split_once(':')).filter(|(key, _)| wanted.contains(key)) {
        facts.insert(format!("status.{key}"), value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn file(facts: &mut Facts, key: &str, path: &str) {
    facts.insert(key.into(), fs::read(path).map_or_else(|e| errno(&e), |bytes| String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()));
}

fn scheduling(facts: &mut Facts) {
    let mut put = |key: &str, number: c_long, args: &[u64]| facts.insert(key.into(), call(number, args).map_or_else(|e| errno(&e), |n| n.to_string()));
    put("sched.policy", 145, &[0]);
    put("sched.nice", 140, &[0, 0]); // 20 - nice
    put("ioprio", 252, &[1, 0]);
    put("prctl.dumpable", 157, &[3]);
    put("prctl.securebits", 157, &[27]);
    put("prctl.keepcaps", 157, &[7]);
    put("prctl.subreaper", 157, &[37, 0]);
    let mut value = 0u32;
    put("prctl.pdeathsig", 157, &[2, (&raw mut value).addr() as u64]);
    facts.insert("pdeathsig".into(), value.to_string());
    let mut attr = [0u32; 14];
    let got = call(315, &[0, attr.as_mut_ptr().addr() as u64, 56, 0]);
    let number = |n: usize| u64::from(attr[n]) | u64::from(attr[n + 1]) << 32;
    facts.insert("sched.attr".into(), got.map_or_else(|e| errno(&e), |_| format!("policy {} flags {} nice {} priority {} runtime {} deadline {} period {}", attr[1], number(2), attr[4] as i32, attr[5], number(6), number(8), number(10))));
}

/// Descriptors, environment, directory, namespaces, names, keyring, network.
fn around(facts: &mut Facts) {
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok) {
        let target = shown(fs::read_link(entry.path()));
        if !(target.starts_with("/proc/") && target.ends_with("/fd")) {
            facts.insert(format!("fd {}", entry.file_name().display()), target);
        }
    }
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    facts.insert("environ".into(), String::from_utf8_lossy(&environment).replace('\0', "\n"));
    for link in ["cwd", "root", "exe"] {
        facts.insert(link.into(), shown(fs::read_link(format!("/proc/self/{link}"))));
    }
    for kind in ["mnt", "pid", "net", "uts", "ipc", "user", "cgroup", "time"] {
        facts.insert(format!("ns.{kind}"), shown(fs::read_link(format!("/proc/self/ns/{kind}"))));
    }
    for name in ["hostname", "domainname"] {
        file(facts, name, &format!("/proc/sys/kernel/{name}"));
    }
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let own = text.split(' ').next();
    for (name, field) in [("group", 2), ("session", 3)] {
        let value = fields.get(field).copied();
        facts.insert(format!("leads.{name}"), (value == own).to_string());
    }
    facts.insert("terminal".into(), fields.get(4).unwrap_or(&"?").to_string());
    let mut buffer = [0u8; 200];
    let keyring = call(250, &[6, 0xffff_fffd, buffer.as_mut_ptr().addr() as u64, 200]); // KEYCTL_DESCRIBE, the session's
    facts.insert("keyring".into(), keyring.map_or_else(|e| errno(&e), |n| String::from_utf8_lossy(&buffer[..n as usize - 1]).into_owned()));
    let loopback = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", "127.0.0.1:9"));
    facts.insert("loopback".into(), loopback.map_or_else(|e| errno(&e), |_| "up".into()));
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_else(|e| errno(&e));
    let mut names: Vec<&str> = devices.lines().filter_map(|l| Some(l.split_once(':')?.0.trim())).collect();
    names.sort_unstable();
    facts.insert("interfaces".into(), names.join(" "));
}

fn dev(facts: &mut Facts, dir: &Path, depth: u32) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        facts.insert(format!("dev {}", path.display()), stat(&path));
        if depth < 2 && fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            dev(facts, &path, depth + 1);
        }
    }
}

fn stat(path: &Path) -> String {
    let Ok(meta) = fs::symlink_metadata(path).map_err(|e| errno(&e)) else { return fs::symlink_metadata(path).map_or_else(|e| errno(&e), |_| String::new()) };
    let (kind, rdev) = (meta.file_type(), meta.rdev());
    let device = format!("{}:{}", (rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
    let what = match () {
        () if kind.is_symlink() => return format!("-> {}", shown(fs::read_link(path))),
        () if kind.is_dir() => "d".into(),
        () if kind.is_char_device() => format!("c {device}"),
        () if kind.is_block_device() => format!("b {device}"),
        () if kind.is_fifo() => "p".into(),
        () if kind.is_socket() => "s".into(),
        () => format!("- size {}", meta.len()),
    };
    let label = CString::new(path.as_os_str().as_encoded_bytes()).map_or(-1, |path| {
        // SAFETY: two NUL-ended strings; no value is written for a size of 0.
        unsafe { lgetxattr(path.as_ptr(), c"security.selinux".as_ptr(), std::ptr::null_mut(), 0) }
    });
    format!("{what} {:o} {}:{}{}", meta.mode() & 0o7777, meta.uid(), meta.gid(), if label > 0 { " labelled" } else { "" })
}

/// What is in a directory, one level.
fn list(facts: &mut Facts, path: &str) {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect();
            names.sort();
            for name in &names {
                facts.insert(format!("list {path}/{name}"), stat(&Path::new(path).join(name)));
            }
            facts.insert(format!("list {path}"), names.len().to_string());
        }
        Err(e) => drop(facts.insert(format!("list {path}"), errno(&e))),
    }
}

/// Tries to: a directory gets a file, which is taken away again; a file is opened, not changed.
fn write(path: &str) -> String {
    let dir = fs::metadata(path).is_ok_and(|m| m.is_dir());
    let result = if dir {
        let file = format!("{path}/.probe");
        OpenOptions::new().write(true).create_new(true).open(&file).and_then(|_| fs::remove_file(&file))
    } else {
        OpenOptions::new().write(true).open(path).map(drop)
    };
    result.map_or_else(|e| errno(&e), |()| "yes".into())
}

/// How much can be read, at most 64 bytes of it.
fn read(path: &str) -> String {
    if fs::metadata(path).is_ok_and(|m| m.is_dir()) {
        return fs::read_dir(path).map_or_else(|e| errno(&e), |entries| format!("{} entries", entries.count()));
    }
    let mut bytes = [0; 64];
    File::open(path).and_then(|mut f| f.read(&mut bytes)).map_or_else(|e| errno(&e), |n| if n > 0 { "something".into() } else { "nothing".into() })
}

/// A system call by numbers.
fn made(text: &str) -> String {
    let mut numbers = text.split(',').map(number);
    let (nr, args): (u64, Vec<u64>) = (numbers.next().unwrap_or(0), numbers.collect());
    call(nr as c_long, &args).map_or_else(|e| errno(&e), |_| "done".into())
}
