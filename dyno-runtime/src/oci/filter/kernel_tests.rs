//! Filters in the kernel: on a thread of this process and on the programs that it starts; nobody else is under them.

use std::{
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        unix::{net::UnixListener, process::ExitStatusExt},
    },
    path::Path,
    process::{Command, Output},
    thread,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::oci::state::{State, Status};

/// What becomes of mkdir(1) under the filter.
fn mkdir(config: &serde_json::Value, no_new_privs: bool) -> Output {
    let filter = compiled(config);
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        if no_new_privs {
            sys::no_new_privileges().unwrap();
        }
        assert!(install(&filter).unwrap().is_none());
        Command::new("/bin/mkdir").arg(dir.path().join("new")).output().unwrap()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

#[test]
fn every_action() {
    let config = |action: &str, errno: Option<u32>| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action, "errnoRet": errno}]});
    for no_new_privs in [true, false] {
        if !no_new_privs && !is_root() {
            continue;
        }
        let said = |action: &str, errno: Option<u32>| {
            let output = mkdir(&config(action, errno), no_new_privs);
            (output.status.code(), output.status.signal(), String::from_utf8(output.stderr).unwrap().rsplit(": ").next().unwrap().trim().to_owned())
        };
        let fails = |text: &str| (Some(1), None, text.to_owned());
        let killed = (None, Some(libc::SIGSYS), String::new());
        assert_eq!(said("SCMP_ACT_ERRNO", None), fails("Operation not permitted"));
        assert_eq!(said("SCMP_ACT_ERRNO", Some(28)), fails("No space left on device"));
        // Nobody traces it.
        assert_eq!(said("SCMP_ACT_TRACE", Some(28)), fails("Function not implemented"));
        for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
            assert_eq!(said(action, None), killed, "{action}");
        }
        for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
            assert_eq!(said(action, None), (Some(0), None, String::new()), "{action}");
        }
    }
}

/// A 32-bit program's call, made by this one.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_a_32_bit_program() {
    let answer = |architectures: &[&str]| {
        let filter = compiled(&json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": [
            {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}));
        let ask = move || {
            sys::no_new_privileges().unwrap();
            install(&filter).unwrap();
            (sys::inject::getpid_of_32_bits(), std::process::id() as i32)
        };
        thread::spawn(ask).join().unwrap()
    };
    // Not asked: without the architecture the thread is killed.
    assert_eq!(answer(&["SCMP_ARCH_X86"]), (-77, -77));
}

#[test]
fn flags_that_the_kernel_takes() {
    let all =
        json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let config = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": all, "listenerPath": "/run/agent", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let filter = compiled(&config);
    let answer = thread::spawn(move || {
        sys::no_new_privileges().unwrap();
        let first = install(&filter);
        let second = install(&filter).map(|fd| fd.is_some()).map_err(|e| e.to_string());
        (first.map(|fd| fd.is_some()), second)
    });
    let (first, second) = answer.join().unwrap();
    match first {
        Err(e) => println!("skipped: {e} (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is of Linux 5.19)"),
        Ok(first) => {
            assert!(first);
            let second = second.unwrap_err();
            assert!(second.starts_with("seccomp(SECCOMP_SET_MODE_FILTER, 0x2e, ") && second.contains("(os error 16)"), "{second}");
        }
    }
}

/// An agent answers, by the listener that it was sent.
#[test]
fn the_listener_reaches_its_agent() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("n".repeat(120));
    std::fs::create_dir(&long).unwrap();
    for path in [dir.path().join("short"), long.join("agent")] {
        let place = std::fs::File::open(path.parent().unwrap()).unwrap();
        let agent =
            UnixListener::bind(format!("/proc/self/fd/{}/{}", std::os::fd::AsRawFd::as_raw_fd(&place), path.file_name().unwrap().display())).unwrap();
        told(&agent, &path, dir.path());
    }
}

fn told(agent: &UnixListener, path: &Path, dir: &Path) {
    let config = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "m\"1", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    let filter = compiled(&config);
    let (to, metadata) = filter.listener.clone().unwrap();
    let state = State {
        oci_version: "1.2.0".into(),
        id: "c".into(),
        status: Status::Creating,
        pid: 7,
        bundle: "/b".into(),
        annotations: [("a".repeat(300_000), "b".into())].into(),
    };
    let contained = || {
        sys::no_new_privileges().unwrap();
        let listener = install(&filter).unwrap().unwrap();
        hand_over(listener.as_fd(), &to, &metadata, &state, 7).unwrap();
        drop(listener);
        std::fs::create_dir(dir.join("new")).unwrap_err().raw_os_error()
    };
    thread::scope(|scope| {
        let contained = scope.spawn(contained);
        let (mut socket, _) = agent.accept().unwrap();
        let mut text = vec![0; 1 << 16];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let first = recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fds: Vec<OwnedFd> =
            control.drain().filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None }).flatten().collect();
        text.truncate(first.bytes);
        socket.read_to_end(&mut text).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(told["state"]["annotations"].as_object().unwrap().len(), 1);
        let rest = json!([told["ociVersion"], told["fds"], told["pid"], told["metadata"], told["state"]["status"], told["state"]["id"]]);
        assert_eq!(rest, json!(["1.2.0", ["seccompFd"], 7, "m\"1", "creating", "c"]));
        let [listener] = fds.as_slice() else { panic!("{fds:?}") };
        let call = sys::notify::receive(listener.as_fd()).unwrap();
        sys::notify::answer(listener.as_fd(), &call, Some(rustix::io::Errno::NOSPC)).unwrap();
        assert_eq!(contained.join().unwrap(), Some(28));
    });
}
