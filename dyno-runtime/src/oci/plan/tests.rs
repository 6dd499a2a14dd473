//! Whole configurations: those that other programs write, lowered; and hostile ones, refused.

mod refused;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::{
    ErrorKind, Result,
    oci::spec::{Spec, example, parse},
};

fn lower(spec: &Spec) -> Result<Container> {
    Container::lower(spec, Path::new("/srv/bundle"))
}

/// Configurations that the programs of these names write, and one with every member; the seeds of the fuzzer.
fn seed(name: &str) -> Spec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/oci_config").join(name).with_extension("json");
    crate::oci::spec::read(&path).unwrap()
}

#[test]
fn what_others_write_is_lowered() {
    for name in ["runc", "runc-rootless", "crun", "containerd", "podman", "podman-userns"] {
        let container = lower(&seed(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(container.mounts.iter().any(|m| m.destination == Path::new("/proc")), "{name}");
        assert_eq!(container.devices[0].path, Path::new("/dev/null"), "{name}");
        assert_eq!(container.namespaces.mount, Namespace::New, "{name}");
        assert!(container.notes.iter().all(|note| note.contains("seccomp syscall")), "{name}: {:?}", container.notes);
        assert_eq!(container.warnings, [""; 0], "{name}");
    }
}

#[test]
fn the_examples_are_lowered() {
    lower(&example(None).unwrap()).unwrap();
    let rootless = lower(&example(Some((1000, 1001))).unwrap()).unwrap();
    assert_eq!((rootless.uid_map[0].host_id, rootless.gid_map[0].host_id), (1000, 1001));
    assert_eq!(rootless.namespaces.network, Namespace::Host);
    let sys = rootless.mounts.iter().find(|m| m.destination == Path::new("/sys")).unwrap();
    assert_eq!(sys.source, Source::Bind { path: "/sys".into(), recursive: true });
    assert!(rootless.mounts.iter().all(|m| m.data.iter().all(|(key, _)| key != "gid")));
}

#[test]
fn every_member_arrives() {
    let c = lower(&seed("full")).unwrap();
    let p = c.process.as_ref().unwrap();
    assert_eq!((p.uid, p.gid, &p.groups[..], p.umask, p.console_size), (1, 2, &[3, 4][..], 0o77, Some((24, 80))));
    assert_eq!(p.args, [c"/bin/true".to_owned(), c"a b".to_owned(), c"ä".to_owned()]);
    assert_eq!(p.env, [c"PATH=/bin".to_owned(), c"B==".to_owned(), c"A=2".to_owned()]);
    assert_eq!(p.capabilities, CapabilitySets { bounding: 0x21, effective: 0x21, inheritable: 0x21, permitted: 0x21, ambient: 0x21 });
    assert_eq!(p.rlimits, [(libc::RLIMIT_NOFILE, 1024, u64::MAX), (libc::RLIMIT_CORE, 0, 0)]);
    assert_eq!(
        p.scheduler,
        Some(Scheduler { policy: 6, flags: 1, runtime: 10_000_000, deadline: 20_000_000, period: 30_000_000, ..Default::default() })
    );
    assert_eq!((p.io_priority, p.affinity_initial.as_deref(), p.affinity_final.as_deref()), (Some(2 << 13 | 4), Some(&[3][..]), Some(&[9][..])));
    assert_eq!((c.hostname.as_deref(), c.domainname.as_deref(), c.root_propagation), (Some("h"), Some("d"), Some(libc::MS_SLAVE | libc::MS_REC)));
    assert_eq!((c.rootfs, c.readonly_root), (PathBuf::from("/srv/bundle/rootfs"), true));
    assert_eq!(
        c.sysctls,
        [("fs/mqueue/msg_max", "10"), ("kernel/shmmax", "65536"), ("net/ipv4/ip_forward", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
    assert_eq!(c.time_offsets, [("boottime", -1, 0), ("monotonic", 172_800, 1)]);
    assert_eq!(c.net_devices, [("eth1", "inside"), ("eth2", "eth2")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!((c.personality, c.memory_policy), (Some(8), Some(MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![0b1011] })));
    assert_eq!((c.masked, c.readonly), (vec![PathBuf::from("/proc/kcore")], vec![PathBuf::from("/proc/sys")]));
    let devices: Vec<_> = c.devices.iter().map(|d| (d.path.to_str().unwrap(), d.kind, d.major, d.minor, d.mode)).collect();
    assert_eq!(devices[4], ("/dev/tty", libc::S_IFCHR, 5, 0, 0o666));
    assert_eq!(
        &devices[5..],
        [("/dev/fuse", libc::S_IFCHR, 10, 229, 0o666), ("/dev/pipe", libc::S_IFIFO, 0, 0, 0o666), ("/dev/null", libc::S_IFBLK, 8, 0, 0o666)]
    );
}

#[test]
fn mounts_arrive() {
    use super::mount_options::attr;
    let c = lower(&seed("full")).unwrap();
    let at = |path: &str| c.mounts.iter().find(|m| m.destination == Path::new(path)).unwrap();
    let data = |m: &Mount| m.data.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap_or("-"))).collect::<Vec<_>>();
    assert_eq!(
        (at("/dev").set, at("/dev").clear, data(at("/dev"))),
        (attr::NOSUID | attr::STRICTATIME, attr::ATIME, vec!["mode=755".to_owned(), "size=65536k".to_owned()])
    );
    assert!(at("/run").copy_up && at("/run").source == Source::FileSystem { kind: "tmpfs".into(), source: "tmpfs".into() });
    assert_eq!(at("/run").propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    let x = at("/x");
    assert_eq!(x.source, Source::Bind { path: "/srv/bundle/data".into(), recursive: true });
    assert_eq!((x.set, x.set_recursive), (0, attr::RDONLY | attr::NOSUID));
    assert_eq!(x.idmap, Some(IdMap { uids: vec![], gids: vec![], recursive: false }));
    assert!(at("/y").idmap.as_ref().is_some_and(|m| m.recursive && m.uids[0].host_id == 5000));
    assert_eq!((at("/y").set, at("/y").clear), (attr::NOATIME, attr::RDONLY | attr::ATIME));
    assert_eq!(data(at("/o")), ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "sync=-"]);
    assert_eq!(at("/sys/fs/cgroup").source, Source::Cgroup);
    assert_eq!(c.warnings.iter().filter(|w| w.starts_with("mounts[3].destination: ")).count(), 1);
}

#[test]
fn capabilities_that_cannot_be_are_warned_of() {
    let mut spec = example(None).unwrap();
    let capabilities = spec.process.as_mut().unwrap().capabilities.as_mut().unwrap();
    capabilities.bounding = vec!["CAP_CHOWN".into(), "TEST_CAP".into(), "cap_kill".into(), "CHOWN".into(), "CAP_CHOWN".into()];
    capabilities.effective = vec!["CAP_BPF".into(), "CAP_KILL".into()];
    capabilities.ambient = vec!["CAP_KILL".into()];
    let container = lower(&spec).unwrap();
    let sets = container.process.unwrap().capabilities;
    assert_eq!((sets.bounding, sets.effective, sets.ambient), (0x21, 0x20, 0));
    let of = |name: &str| container.warnings.iter().filter(|w| w.starts_with(&format!("process.capabilities.{name}: "))).count();
    assert_eq!((of("bounding"), of("effective"), of("ambient"), container.warnings.len()), (1, 1, 0, 2));
    assert_eq!(container.warnings[0], r#"process.capabilities.bounding: unknown, so left out: "TEST_CAP", "CHOWN""#);
    spec.process.as_mut().unwrap().capabilities.as_mut().unwrap().bounding = vec!["X".into(); 1000];
    assert!(lower(&spec).unwrap().warnings[0].ends_with(r#""X" and 990 more"#));
}

/// As many as a file can hold: each is looked at once.
#[test]
fn many_of_each() {
    let mut spec = example(None).unwrap();
    let linux = spec.linux.as_mut().unwrap();
    let device = |i: i64| crate::oci::spec::Device { kind: "c".into(), path: format!("/dev/{i}").into(), major: 1, minor: 3, ..Default::default() };
    linux.devices = (0..100_000).map(device).collect();
    linux.net_devices = (0..100_000).map(|i| (format!("e{i}"), Default::default())).collect();
    linux.masked_paths = (0..100_000).map(|i| format!("/{i}")).collect();
    spec.mounts = (0..100_000)
        .map(|i| crate::oci::spec::Mount { destination: format!("x{i}").into(), kind: Some("tmpfs".into()), ..Default::default() })
        .collect();
    let process = spec.process.as_mut().unwrap();
    process.env = (0..100_000).map(|i| format!("A{i}=1")).collect();
    let container = lower(&spec).unwrap();
    assert_eq!((container.devices.len(), container.net_devices.len(), container.mounts.len()), (100_006, 100_000, 100_000));
    assert_eq!((container.warnings.len(), container.warnings[32].as_str()), (33, "and 99968 more warnings"));
}

#[test]
fn a_look_at_the_host() {
    let bundle = tempfile::tempdir().unwrap();
    let mut spec = example(None).unwrap();
    let said = |spec: &Spec| Container::new(spec, bundle.path()).unwrap_err();
    let missing = said(&spec);
    assert!(missing.to_string().starts_with("root.path: ") && missing.errno() == Some(rustix::io::Errno::NOENT), "{missing}");
    std::fs::write(bundle.path().join("rootfs"), "").unwrap();
    assert_eq!(said(&spec).errno(), Some(rustix::io::Errno::NOTDIR));
    std::fs::remove_file(bundle.path().join("rootfs")).unwrap();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    Container::new(&spec, bundle.path()).unwrap();
    let mut join = |path: PathBuf| {
        spec.linux.as_mut().unwrap().namespaces[2].path = Some(path);
        Container::new(&spec, bundle.path()).map(|c| c.namespaces.ipc)
    };
    assert_eq!(join("/proc/self/ns/ipc".into()).unwrap(), Namespace::Join("/proc/self/ns/ipc".into()));
    let mut ours = example(None).unwrap();
    let linux = ours.linux.as_mut().unwrap();
    linux.sysctl = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
    linux.namespaces[1].path = Some("/proc/self/ns/net".into());
    assert!(said(&ours).to_string().starts_with("linux.sysctl[\"net/ipv4/ip_forward\"]: the network namespace to join"));
    // A FIFO is refused without being opened: nobody will ever write to it.
    rustix::fs::mknodat(rustix::fs::CWD, bundle.path().join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for path in [bundle.path().join("fifo"), bundle.path().join("rootfs"), bundle.path().join("missing")] {
        assert!(join(path).unwrap_err().to_string().starts_with("linux.namespaces[2].path: "));
    }
}
