//! The command line where nothing is started: plans, explanations, the doctor, help, mistakes. As nobody, if the tests run as root.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

/// A copy that nobody may execute wherever the build directory is.
fn program() -> &'static PathBuf {
    static COPY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let made = COPY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("dyno-runtime");
        // Beside the directory of this test, so that both may be taken to another machine.
        let tests = std::env::current_exe().unwrap();
        fs::copy(tests.parent().unwrap().with_file_name("dyno-runtime"), &copy).unwrap();
        (dir, copy)
    });
    &made.1
}

struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

fn ask_with(args: &[&str], stdin: &str) -> Answer {
    use std::io::Write;
    let mut command = Command::new(program());
    command.args(args).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("COLOUR", "green");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().unwrap();
    // It need not read it.
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn ask(args: &[&str]) -> Answer {
    ask_with(args, "")
}

/// The plan of `--dry-run` with these options.
fn plan(options: &[&str]) -> Value {
    let args = [&["sandbox", "--dry-run", "--layer", "/srv/root"], options, &["--", "/bin/true", "--help"]].concat();
    let answer = ask(&args);
    assert_eq!((answer.status, answer.stderr.as_str()), (0, ""), "{options:?}");
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn every_option_comes_to_its_field() {
    let mebibyte = 1 << 20;
    let hash = "0123456789abcdef".repeat(4);
    let image = format!("app.sqsh@{hash}");
    let profile = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    fs::write(&profile, r#"{"extends": "docker"}"#).unwrap();
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o644)).unwrap();
    let profile = profile.path().to_str().unwrap();
    let cases: &[(&[&str], &str, Value)] = &[
        (&[], "/process/argv", json!(["/bin/true", "--help"])),
        (&[], "/layers", json!([{"directory": "/srv/root"}])),
        (&[], "/network", json!("private")),
        (&[], "/seccomp", json!("dyno")),
        (&["--layer", &image], "/layers/1/image", json!({"path": "/app.sqsh", "sha256": hash})),
        (&["--layer", "etc"], "/layers/1/directory", json!("/etc")),
        (&["--upper", "tmpfs:8M"], "/upper/tmpfs/bytes", json!(8 * mebibyte)),
        (&["--upper", "tmpfs:8M:99"], "/upper/tmpfs/inodes", json!(99)),
        (&["--upper", "disk:tmp:1G:4096"], "/upper/disk", json!({"directory": "/tmp", "bytes": 1024 * mebibyte, "inodes": 4096})),
        (&["--read-only"], "/upper", json!("read_only")),
        (&["--env", "A=b=c", "--env", "COLOUR"], "/process/env", json!({"A": "b=c", "COLOUR": "green"})),
        (&["--cwd", "/tmp"], "/process/cwd", json!("/tmp")),
        (&["--hostname", "web"], "/hostname", json!("web")),
        (
            &["--uid", "7", "--gid", "8", "--group", "9", "--group", "10", "--cap-add", "kill"],
            "/identity",
            json!({"uid": 7, "gid": 8, "groups": [9, 10], "capabilities": ["KILL"]}),
        ),
        (&["--seccomp", "docker"], "/seccomp", json!("docker")),
        (&["--seccomp", profile], "/seccomp/custom/extends", json!("docker")),
        (&["--memory", "64M"], "/limits/memory", json!(64 * mebibyte)),
        (&["--memory", "none"], "/limits/memory", Value::Null),
        (&["--memory-high", "32M"], "/limits/memory_high", json!(32 * mebibyte)),
        (&["--swap", "1M"], "/limits/swap", json!(mebibyte)),
        (&["--pids", "9"], "/limits/pids", json!(9)),
        (&["--cpus", "1.5"], "/limits/cpu_millis", json!(1500)),
        (&["--cpu-weight", "7"], "/limits/cpu_weight", json!(7)),
        (&["--cpuset", "0-1"], "/limits/cpus", json!("0-1")),
        (&["--open-files", "64"], "/limits/open_files", json!(64)),
        (&["--file-size", "1k"], "/limits/file_size", json!(1024)),
        (&["--wall", "1.5s"], "/limits/wall_ms", json!(1500)),
        (&["--cpu-time", "2m"], "/limits/cpu_ms", json!(120_000)),
        (&["--output", "1M"], "/limits/output", json!(mebibyte)),
        (&["--network", "host"], "/network", json!("host")),
        (&["--network", "join:web.1"], "/network/joined", json!("web.1")),
        (&["--network", "open"], "/network/egress/policy", json!("open")),
        (&["--network", "egress"], "/network/egress/policy", json!("nothing")),
        (
            &["--allow", "198.51.100.0/24:443/tcp"],
            "/network/egress/policy/list/0",
            json!({"net": "198.51.100.0/24", "ports": {"start": 443, "end": 443}, "protocol": "tcp"}),
        ),
        (&["--allow", "192.0.2.7", "--allow", "192.0.2.8:1-9"], "/network/egress/policy/list/1/ports", json!({"start": 1, "end": 9})),
        (&["--network", "open", "--dns", "192.0.2.1"], "/network/egress/dns", json!(["192.0.2.1"])),
        (
            &["--publish", "127.0.0.1:8080:80/udp"],
            "/network/egress/publish/0",
            json!({"address": "127.0.0.1", "host_port": 8080, "port": 80, "protocol": "udp"}),
        ),
    ];
    for (options, pointer, want) in cases {
        let plan = plan(options);
        assert_eq!(plan.pointer(pointer), Some(want), "{options:?}: {plan:#}");
    }
    let with = |options: &[&str], mount: Value| {
        let plan = plan(options);
        assert!(plan["mounts"].as_array().unwrap().contains(&mount), "{options:?}: {plan:#}");
    };
    with(&["--volume", "tmp:/work"], json!({"volume": {"bind": {"source": "/tmp", "target": "/work", "writable": false}}}));
    with(&["--volume", "/tmp:/work:rw"], json!({"volume": {"bind": {"source": "/tmp", "target": "/work", "writable": true}}}));
    with(&["--tmpfs", "/t:1M"], json!({"volume": {"tmpfs": {"target": "/t", "bytes": mebibyte, "inodes": 16384}}}));
    with(&["--mask", "/etc"], json!({"masked": "/etc"}));
    with(&["--read-only-path", "/etc"], json!({"read_only": "/etc"}));
    with(&["--device", "/dev/fuse"], json!({"dev": {"devices": ["fuse"]}}));
}

#[test]
fn a_description_as_json_and_options_on_top_of_it() {
    let spec = r#"{"root": {"layers": [{"directory": "/srv/root"}]}, "argv": ["/bin/true"], "cwd": "/tmp"}"#;
    let answer = ask_with(&["plan", "-"], spec);
    let whole: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.status, &whole["process"]["cwd"]), (0, &json!("/tmp")));
    let same = ask_with(&["sandbox", "--spec", "-", "--dry-run"], spec);
    assert_eq!(same.stdout, answer.stdout);
    let other = ask_with(&["sandbox", "--spec", "-", "--cwd", "/", "--dry-run", "/bin/false"], spec);
    let other: Value = serde_json::from_str(&other.stdout).unwrap();
    assert_eq!((&other["process"]["cwd"], &other["process"]["argv"]), (&json!("/"), &json!(["/bin/false"])));
}

#[test]
fn mistakes_are_told_in_one_line_with_status_125() {
    let base = ["sandbox", "--dry-run", "--layer", "/srv/root"];
    let cases: &[(&[&str], &str)] = &[
        (&["sandbox", "--dry-run", "/bin/true"], "no --layer: "),
        (&base, "no program: "),
        (&["sandbox", "--colour", "red"], "option --colour does not exist: "),
        (&["sandbox", "--layer"], "missing argument"),
        (&["sandbox", "--dry-run=yes", "--layer", "/x", "y"], "unexpected argument"),
        (&["sandbox", "-x"], "invalid option '-x'"),
        (&["sandbox", "--memory", "much"], "--memory \"much\" is no size: "),
        (&["sandbox", "--wall", "5"], "--wall \"5\" is no time: "),
        (&["sandbox", "--uid", "-1"], "--uid \"-1\" is no number"),
        (&["sandbox", "--cap-add", "FLY"], "--cap-add: capability \"FLY\" does not exist"),
        (&["sandbox", "--layer", "/etc/passwd"], "--layer \"/etc/passwd\" is an image: "),
        (&["sandbox", "--volume", "/tmp"], "--volume \"/tmp\" is not SOURCE:TARGET"),
        (&["sandbox", "--upper", "paper:1M"], "--upper \"paper:1M\" is none of "),
        (&["sandbox", "--network", "wide"], "--network \"wide\" is none of "),
        (&["sandbox", "--network", "host", "--allow", "192.0.2.1"], "--allow goes with "),
        (&["sandbox", "--publish", "80"], "--publish \"80\" is not "),
        (&["sandbox", "--seccomp", "podman"], "profile \"podman\" does not exist: "),
        (&["sandbox", "--seccomp", "/nowhere.json"], "read /nowhere.json: "),
        (&["sandbox", "--tty", "maybe"], "--tty \"maybe\" is not one of "),
        (&["sandbox", "--env", "NOT_SET_ANYWHERE"], "--env NOT_SET_ANYWHERE: "),
        (&["sandbox", "--spec", "/etc/passwd"], "/etc/passwd: "),
        (&["sandbox", "--dry-run", "--layer", "/x", "--pids", "1", "/y"], "limits.pids \"1\" must be "),
        (&["clean"], "clean what: "),
        (&["clean", "/nowhere"], "/nowhere: no instance is there"),
        (&["plan"], "plan of what: "),
        (&["plan", "/nowhere"], "read /nowhere: "),
        (&["seccomp", "explain", "dyno"], "seccomp what: "),
        (&["seccomp", "explain", "dyno", "fly"], "call \"fly\" does not exist"),
        (&["seccomp", "explain", "dyno", "read", "x"], "argument \"x\" is no number"),
        (&["doctor", "--nurse"], "invalid option '--nurse'"),
        (&["walk"], "command \"walk\" does not exist: "),
        (&[], "no command: "),
    ];
    for (args, want) in cases {
        let answer = ask(args);
        assert_eq!((answer.status, answer.stdout.as_str()), (125, ""), "{args:?}: {}", answer.stderr);
        let line = answer.stderr.strip_prefix("dyno-runtime: ").unwrap_or_else(|| panic!("{args:?}: {}", answer.stderr));
        assert!(line.starts_with(want) && line.matches('\n').count() == 1, "{args:?}: {line}");
    }
}

#[test]
fn help_has_examples() {
    for args in
        [&["--help"][..], &["help"], &["sandbox", "--help"], &["plan", "-h"], &["seccomp", "--help"], &["clean", "--help"], &["doctor", "--help"]]
    {
        let answer = ask(args);
        assert_eq!(answer.status, 0, "{args:?}");
        assert!(answer.stdout.contains("Examples:\n  ") && answer.stdout.contains("Usage: dyno-runtime"), "{args:?}");
        assert!(answer.stdout.lines().all(|line| line.chars().count() <= 132), "{args:?}");
    }
}

#[test]
fn explanations() {
    let check = |args: &[&str], status: i32, want: &str| {
        let answer = ask(&[&["seccomp"], args].concat());
        assert_eq!((answer.status, answer.stdout.as_str()), (status, want), "{args:?}: {}", answer.stderr);
    };
    check(&["explain", "dyno", "mount"], 1, "mount: EPERM (default: not in any list)\n");
    check(&["explain", "dyno", "socket", "2", "0x3"], 1, "socket: EPERM (rules: arg 1 & 0xf is 0x3; allowed if it is 0x1, or is 0x2)\n");
    check(&["explain", "docker", "mount", "--cap-add", "SYS_ADMIN"], 0, "mount: allow (with SYS_ADMIN: any arguments)\n");
    check(&["explain", "unconfined", "mount"], 0, "mount: allow (unconfined: no filter)\n");
    let answer = ask(&["seccomp", "explain", "--json", "dyno", "clone3"]);
    let said: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&said["call"], &said["errno"]), (&json!("clone3"), &json!(38)));
    let list = ask(&["seccomp", "list", "dyno"]).stdout;
    assert!(list.lines().count() > 300 && list.contains("\nmount: EPERM ("), "{list}");
}

#[test]
fn the_doctor_looks_without_privileges() {
    let answer = ask(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&answer.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() > 40, "{report:#}");
    let missing = findings.iter().any(|f| f["state"] == "missing" && f["severity"] == "needed");
    assert_eq!((answer.status, answer.stderr.as_str()), (i32::from(missing), ""));
    for finding in findings {
        let told = finding["state"] == "ok" || (finding["costs"] != "" && finding["fix"] != "");
        assert!(told, "{finding:#}");
    }
    let text = ask(&["doctor"]).stdout;
    assert!(text.contains("\nkernel\n  ") && text.trim_end().ends_with(if missing { "is missing." } else { "can start here." }), "{text}");
}
