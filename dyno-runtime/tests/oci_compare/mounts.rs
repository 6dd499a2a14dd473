//! The dimension of mounts: what engines mount always, and mounts of every kind with options drawn at will.

use serde_json::json;

use super::draw::{Draft, Draw, Host};

/// The usual ones, and up to four more.
pub fn add(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    usual(draw, draft);
    for turn in 0..draw.below(5) {
        let rare = draw.one(&["/link/below", "/etc/up", "/run/../run/x", "/data"]);
        let destination = draw.one(&["/mnt", "/data", "/data/deep/er", "/tmp", "/opt/with space", "/mnt", "/srv", rare]);
        match draw.below(12) {
            0..4 => tmpfs(draw, draft, destination),
            4..8 => bind(draw, draft, host, destination),
            8 | 9 => file(draw, draft, host, turn),
            10 => overlay(draw, draft, host, destination),
            _ => over_another(draw, draft, destination),
        }
        for what in ["stat", "write", "list"] {
            draft.look(what, destination);
        }
    }
}

fn usual(draw: &mut Draw, draft: &mut Draft) {
    let user = draft.has("user");
    if draw.percent(80) {
        draft.push(
            "/mounts",
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        );
    }
    if draw.percent(70) {
        let mut options = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if draw.percent(70) {
            options.push("gid=5");
        }
        draft.push("/mounts", json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options }));
    }
    if draw.percent(50) {
        draft.push(
            "/mounts",
            json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1m"] }),
        );
    }
    if draw.percent(40) && (draft.has_new("ipc") || !user) {
        draft
            .push("/mounts", json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }));
    }
    if draw.percent(50) && (draft.has_new("network") || !user) {
        let options = draw.one(&[&["nosuid", "noexec", "nodev", "ro"][..], &["nosuid", "noexec", "nodev"][..]]);
        draft.push("/mounts", json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options }));
        if draw.percent(50) {
            let options =
                draw.one(&[&["nosuid", "noexec", "nodev", "relatime", "ro"][..], &["nosuid", "noexec", "nodev", "relatime"][..], &["ro"][..]]);
            draft.push("/mounts", json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
            draft.look("list", "/sys/fs/cgroup");
        }
    }
}

const FLAGS: &[&str] =
    &["nosuid", "noexec", "nodev", "ro", "rw", "suid", "exec", "dev", "noatime", "relatime", "strictatime", "nodiratime", "sync", "dirsync"];
/// Not in the specification's table of options that a runtime must know.
const OTHERS: &[&str] = &["defaults", "nosymfollow", "lazytime", "noiversion"];
const PROPAGATION: &[&str] = &["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];
const RECURSIVE: &[&str] = &["rro", "rnosuid", "rnoexec", "rnodev", "rnoatime", "rrelatime", "rrw"];

fn tmpfs(draw: &mut Draw, draft: &mut Draft, destination: &str) {
    let mut options = draw.some(FLAGS, 4);
    if draw.percent(5) {
        options.push(draw.one(OTHERS));
    }
    options.extend(draw.some(&["size=64k", "mode=0755", "mode=1777", "uid=1", "gid=2", "nr_inodes=50"], 3));
    if draw.percent(30) {
        options.push(draw.one(PROPAGATION));
    }
    if draw.percent(25) {
        options.push("tmpcopyup");
    }
    let options = draw.shuffled(options);
    draft
        .push("/mounts", json!({ "destination": destination, "type": "tmpfs", "source": draw.one(&["tmpfs", "none", "named"]), "options": options }));
}

fn bind(draw: &mut Draw, draft: &mut Draft, host: &Host, destination: &str) {
    let mut options = vec![draw.one(&["bind", "rbind"])];
    options.extend(draw.some(FLAGS, 4));
    if draw.percent(40) {
        options.push(draw.one(PROPAGATION));
    }
    if draw.percent(20) {
        options.push(draw.one(RECURSIVE));
    }
    let source = match draw.below(6) {
        0 => "src/dir".to_owned(), // relative to the bundle
        1 => "/sys/kernel".to_owned(),
        _ => format!("{}/src/dir", host.bundle),
    };
    let mut mount = json!({ "destination": destination, "source": source, "options": draw.shuffled(options) });
    if draw.percent(60) {
        mount["type"] = json!(draw.one(&["bind", "none"]));
    }
    draft.push("/mounts", mount);
}

fn file(draw: &mut Draw, draft: &mut Draft, host: &Host, turn: usize) {
    let destination = draw.one(&["/etc/file", "/etc/new", "/data/one", "/not/yet/there"]);
    let rare = turn == 0 && draw.percent(20);
    let source =
        draw.one(&[&format!("{}/src/file", host.bundle), "/dev/null", "src/file", "/missing/on/the/host"][..if rare { 4 } else { 3 }]).to_owned();
    let options = [vec!["bind"], draw.some(&["ro", "nosuid", "nodev", "noexec", "private"], 2)].concat();
    draft.push("/mounts", json!({ "destination": destination, "type": "bind", "source": source, "options": options }));
    for what in ["stat", "write", "read"] {
        draft.look(what, destination);
    }
}

fn overlay(draw: &mut Draw, draft: &mut Draft, host: &Host, destination: &str) {
    let lower = format!("lowerdir={0}/src/dir:{0}/marks", host.bundle);
    let options = [vec![lower], draw.some(FLAGS, 2).into_iter().map(str::to_owned).collect()].concat();
    draft.push("/mounts", json!({ "destination": destination, "type": "overlay", "source": "overlay", "options": options }));
}

/// A second proc or a mount upon a mount.
fn over_another(draw: &mut Draw, draft: &mut Draft, destination: &str) {
    if draw.percent(50) && !draft.has("user") {
        draft.push("/mounts", json!({ "destination": destination, "type": "proc", "source": "proc", "options": ["ro", "nosuid"] }));
    } else {
        draft.push("/mounts", json!({ "destination": "/tmp/a", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711"] }));
        draft.push("/mounts", json!({ "destination": "/tmp/a/b", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
        draft.look("stat", "/tmp/a/b");
    }
}
