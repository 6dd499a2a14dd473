//! How words are read, and mistakes told.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    support::{Stage, same},
    world::{World, answer, answer_of},
};

const VERBS: &[&str] = &[
    "create",
    "start",
    "run",
    "exec",
    "state",
    "list",
    "ps",
    "kill",
    "delete",
    "pause",
    "resume",
    "update",
    "events",
    "checkpoint",
    "restore",
    "spec",
    "features",
];

pub fn order(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let (bundle, config) = (world.bundle.display().to_string(), world.place("web")?.display().to_string());
    let ways: &[&[&str]] = &[
        &["create", "web", "--bundle", &bundle, "--config", &config],
        &["create", "--bundle", &bundle, "web", "--config", &config, "--no-pivot=false", "--no-new-keyring"],
        &["create", &format!("--config={config}"), "-b", &bundle, "--", "web"],
        &["create", &format!("-f{config}"), "--preserve-fds=0", "web"],
        &["--debug=false", "--log-format", "text", "--rootless=auto", "--criu", "criu", "create", "-f", &config, "web"],
        &["--cgroup-manager=cgroupfs", "--rootless", "false", "create", "-f", &config, "web"],
    ];
    for way in ways {
        let status = answer_of(world.command(way))?;
        ensure!(status.status == 0, "{way:?}: {status:?}");
        world.must(&["delete", "web", "--force"])?;
    }
    world.is_empty()
}

pub fn mistakes(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let cases: &[(&[&str], &str)] = &[
        (&[], "no command"),
        (&["--debug"], "no command"),
        (&["walk"], "command \"walk\" does not exist"),
        (&["--nosuch", "list"], "option --nosuch does not exist"),
        (&["--log-format", "xml", "list"], "--log-format \"xml\" is neither"),
        (&["--rootless=maybe", "list"], "--rootless \"maybe\" is none of"),
        (&["--cgroup-manager", "magic", "list"], "--cgroup-manager \"magic\" is none of"),
        (&["--log", "/nowhere/log", "list"], "--log: open(/nowhere/log)"),
        (&["--root"], "--root needs a value"),
        (&["--root", "", "list"], "--root is empty"),
        (&["state"], "state needs the id of a container"),
        (&["state", "a", "b"], "argument \"b\" is one too many"),
        (&["state", "--all", "a"], "option --all does not exist"),
        (&["list", "a"], "argument \"a\" is one too many"),
        (&["list", "--format", "yaml"], "invalid format option \"yaml\""),
        (&["list", "-q=maybe"], "-q=\"maybe\" is neither true nor false"),
        (&["kill", "a", "9", "b"], "argument \"b\" is one too many"),
        (&["create"], "create needs the id of a container"),
        (&["create", "--preserve-fds", "-1", "a"], "--preserve-fds \"-1\" is no number"),
        (&["create", "--bundle"], "--bundle needs a value"),
        (&["create", "--bundle", "", "a"], "--bundle is empty"),
        (&["create", "--bundle", "/nowhere", "a"], "bundle /nowhere"),
        (&["events", "--interval", "5", "a"], "--interval \"5\" is no time"),
        (&["features", "a"], "argument \"a\" is one too many"),
    ];
    for (args, words) in cases {
        // The first option is ours, so that nothing here is for the commands beside the verbs.
        world.fails(args, words)?;
    }
    for (args, words) in [
        (&["exec", "a"][..], "exec failed: exec needs a program"),
        (&["exec", "--user", "root", "a", "b"], "exec failed: --user \"root\" is not UID"),
        (&["exec", "a", "b"], "exec failed: container does not exist"),
    ] {
        let answer = world.ask(args)?;
        ensure!(answer.status == 255 && answer.stderr.starts_with(&format!("dyno-runtime: {words}")), "{args:?}: {answer:?}");
    }
    ensure!(!world.root.exists(), "a mistake made {}", world.root.display());
    Ok(())
}

pub fn ids(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let (long, longer) = ("x".repeat(256), "x".repeat(100_000));
    for id in ["", ".", "..", "a/b", "../x", "/", "a b", "a\n", "\u{fc}", "a,b", "@new.1", &long, &longer] {
        for verb in ["create", "state", "start", "kill", "delete"] {
            world.fails(&[verb, "--", id], "invalid container ID format")?;
        }
    }
    let entries = fs::read_dir(&world.root).map_or(0, Iterator::count);
    same("made", entries, 0)?;
    let longest = "x".repeat(200);
    for id in ["-rf", "...", "a+b_C.9-", &longest] {
        let config = world.place(id)?;
        let status = answer_of(world.command(&["create", "--config", &config.to_string_lossy(), "--", id]))?;
        ensure!(status.status == 0, "{id}: {status:?}");
        world.must(&["delete", "--force", "--", id])?;
    }
    world.is_empty()
}

pub fn help(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for verb in VERBS {
        for flag in ["--help", "-h"] {
            let text = world.must(&[verb, flag])?;
            ensure!(text.contains("Usage: dyno-runtime") && text.contains(verb) && text.contains("Examples:\n  "), "{verb}: {text}");
            ensure!(text.lines().all(|line| line.chars().count() <= 140), "{verb}");
        }
    }
    let runtime = |args: &[&str]| -> Result<_> { answer(Command::new(env!("CARGO_BIN_EXE_dyno-runtime")).args(args).output()?) };
    for flag in ["--version", "-v"] {
        let said = runtime(&[flag])?;
        let mut lines = said.stdout.lines();
        // docker: what is around the word; containerd: what is after it, and after `spec: `.
        let (name, version) = lines.next().context("line")?.split_once(" version ").context("version")?;
        same("name", (name, version), ("dyno-runtime", env!("CARGO_PKG_VERSION")))?;
        ensure!(lines.any(|line| line.starts_with("spec: 1.")), "{said:?}");
    }
    let features: Value = serde_json::from_str(&runtime(&["features"])?.stdout)?;
    ensure!(features["ociVersionMax"].as_str().is_some_and(|version| version.starts_with("1.")), "{features}");
    for options in [&["spec"][..], &["spec", "--rootless"]] {
        let dir = world.bundle.join("new");
        fs::create_dir(&dir)?;
        let bundle = dir.display().to_string();
        world.must(&[options, &["--bundle", &bundle]].concat())?;
        let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json"))?)?;
        same("process", config["process"]["args"].clone(), serde_json::json!(["sh"]))?;
        world.fails(&[options, &["--bundle", &bundle]].concat(), "file ")?;
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

pub fn logs(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let file = world.bundle.join("log");
    let log = file.display().to_string();
    for args in [&["state", "web"][..], &["kill", "web", "NOSUCH"], &["state", "a\"\n/"], &["list", "--nosuch"], &["exec", "web", "true"]] {
        let before = fs::read_to_string(&file).unwrap_or_default().lines().count();
        let answer = world.ask(&[&["--log", &log, "--log-format", "json"], args].concat())?;
        let text = fs::read_to_string(&file)?;
        same("lines", (text.lines().count(), answer.stderr.lines().count()), (before + 1, 1))?;
        let line: Value = serde_json::from_str(text.lines().last().context("line")?)?;
        same("level", line["level"].as_str(), Some("error"))?;
        let said = line["msg"].as_str().context("msg")?.replace('\n', " ");
        same("said twice", format!("dyno-runtime: {said}\n"), answer.stderr)?;
        ensure!(line["time"].as_str().is_some_and(|time| time.len() == 30 && time.ends_with('Z')), "{line}");
    }
    fs::remove_file(&file)?;
    world.ask(&["--log", &log, "state", "web"])?;
    let text = fs::read_to_string(&file)?;
    ensure!(text.starts_with("time=\"20") && text.ends_with("level=error msg=\"container does not exist: web\"\n"), "{text}");
    // A global option that is wrong after one that is right.
    world.ask(&["--log", &log, "--nosuch", "list"])?;
    same("lines", fs::read_to_string(&file)?.lines().count(), 2)?;
    Ok(())
}

pub fn roots(stage: &Stage) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(stage, &["forever"], |_| {})?;
    world.create("web")?;
    same("mode of the root", fs::metadata(&world.root)?.permissions().mode() & 0o7777, 0o700)?;
    same("mode of the directory", fs::metadata(world.root.join("web"))?.permissions().mode() & 0o7777, 0o700)?;
    fs::set_permissions(world.root.join("web"), fs::Permissions::from_mode(0o777))?;
    world.fails(&["state", "web"], &format!("{}/web: uid 0 or others may write there", world.root.display()))?;
    fs::set_permissions(world.root.join("web"), fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(world.root.join("web"), Some(12345), None)?;
    // Root believes root.
    world.fails(&["state", "web"], &format!("{}/web: uid 12345", world.root.display()))?;
    std::os::unix::fs::chown(world.root.join("web"), Some(0), None)?;
    fs::set_permissions(&world.root, fs::Permissions::from_mode(0o777))?;
    world.fails(&["state", "web"], "--root ")?;
    fs::set_permissions(&world.root, fs::Permissions::from_mode(0o700))?;
    world.must(&["delete", "web"])?;
    // A user without a directory of his own.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_dyno-runtime"), "list"]).env_remove("XDG_RUNTIME_DIR");
    let said = answer(command.output()?)?;
    ensure!(said.status == 1 && said.stderr.contains("XDG_RUNTIME_DIR is not set") || said.stderr.contains("ermission denied"), "{said:?}");
    world.is_empty()
}
