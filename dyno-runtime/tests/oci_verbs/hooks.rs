//! Hooks of a whole life: when, where, with which state; and what their failures do.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    support::{Stage, same},
    world::{World, answer_of},
};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Appends its kind, and the state, to the file.
fn tells(kind: &str, file: &Path) -> Value {
    let script = format!("{{ echo {kind}; cat; echo; }} >> {}", file.display());
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

/// The root is the host's, so that hooks find the shell inside too.
fn with_hooks(stage: &Stage, args: &[&str], file: &Path, change: impl FnOnce(&mut Value)) -> Result<World> {
    World::new(stage, args, |config| {
        for kind in KINDS {
            config["hooks"][kind] = json!([tells(kind, file)]);
        }
        // Found inside, where there is no shell.
        let inside = format!("{}:{}", crate::support::PROGRAM, "/data/hooks");
        let (program, _) = inside.split_once(':').unwrap_or_default();
        config["hooks"]["startContainer"] = json!([{"path": program, "args": [program, "write", "/data/started", "startContainer"]}]);
        change(config);
    })
}

pub fn order(stage: &Stage) -> Result<()> {
    let file = stage.work().join("told");
    let world = with_hooks(stage, &["forever"], &file, |_| {})?;
    let told = || -> Result<Vec<String>> { Ok(fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect()) };
    world.create("web")?;
    let pid = world.pid("web")?;
    let lines = told()?;
    same("at create", lines.iter().step_by(2).map(String::as_str).collect::<Vec<_>>(), vec!["prestart", "createRuntime", "createContainer"])?;
    let state: Value = serde_json::from_str(lines.get(3).context("state")?)?;
    let members = ["ociVersion", "id", "status", "pid", "annotations"].map(|name| state[name].clone());
    same("state", members, [json!("1.2.0"), json!("web"), json!("creating"), json!(pid), json!({"org.example.test": "yes"})])?;
    same("bundle", state["bundle"].clone(), json!(world.bundle))?;
    ensure!(!stage.rootfs().join("data/started").exists(), "startContainer at create");
    world.must(&["start", "web"])?;
    same("startContainer", fs::read_to_string(stage.rootfs().join("data/started"))?, "startContainer".into())?;
    fs::remove_file(stage.rootfs().join("data/started"))?;
    let lines = told()?;
    same("at start", lines[6..].iter().step_by(2).map(String::as_str).collect::<Vec<_>>(), vec!["poststart"])?;
    let state: Value = serde_json::from_str(&lines[7])?;
    same("poststart's state", (state["status"].clone(), state["pid"].clone()), (json!("running"), json!(pid)))?;
    world.must(&["delete", "--force", "web"])?;
    let lines = told()?;
    same("at delete", lines[8..].iter().step_by(2).map(String::as_str).collect::<Vec<_>>(), vec!["poststop"])?;
    let state: Value = serde_json::from_str(&lines[9])?;
    same("poststop's state", (state["status"].clone(), state["pid"].clone()), (json!("stopped"), json!(0)))?;
    fs::remove_file(&file)?;
    world.is_empty()
}

/// "The mount operations performed" (runtime-spec, config.md, prestart and createRuntime Hooks), and the root not pivoted to: each hook counts what is
/// mounted below the root where the host has it, in the mount namespace of the first process.
pub fn after_mounts(stage: &Stage) -> Result<()> {
    let file = stage.work().join("mounted");
    let script = format!(
        r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); grep -c " {}/\(proc\|data\) " /proc/$pid/mountinfo >> {}"#,
        stage.rootfs().display(),
        file.display()
    );
    let counts = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
    let kinds = ["prestart", "createRuntime"];
    for namespaces in [vec!["pid", "mount"], vec!["pid", "mount", "ipc", "uts", "network", "cgroup"]] {
        let world = World::new(stage, &["forever"], |config| {
            for kind in kinds {
                config["hooks"][kind] = counts.clone();
            }
            let mounts = [("/dev", "tmpfs"), ("/proc", "proc"), ("/data", "tmpfs")];
            config["mounts"] = json!(mounts.map(|(to, kind)| json!({"destination": to, "type": kind, "source": kind})));
            config["linux"]["namespaces"] = json!(namespaces.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>());
        })?;
        world.create("web")?;
        same("mounts seen by each hook", fs::read_to_string(&file)?, "2\n".repeat(kinds.len()))?;
        fs::remove_file(&file)?;
        world.must(&["delete", "--force", "web"])?;
        world.is_empty()?;
    }
    Ok(())
}

pub fn failures(stage: &Stage) -> Result<()> {
    let file = stage.work().join("told");
    let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
    for kind in KINDS {
        let world = with_hooks(stage, &["forever"], &file, |config| {
            config["hooks"][kind] =
                if kind == "startContainer" { json!([{"path": "/bin/program", "args": ["program", "exit", "3"]}]) } else { fails.clone() };
        })?;
        let (config, log) = (world.place("web")?.display().to_string(), world.bundle.join("log").display().to_string());
        let create = ["--log", &log, "create", "--config", &config, "web"];
        let made = answer_of(world.command(&create))?;
        let said = made.stderr;
        let words = format!("error running {kind} hook #0 /bin/");
        match kind {
            "prestart" | "createRuntime" | "createContainer" => {
                ensure!(made.status == 1 && said.contains(&words) && said.contains("because"), "{kind}: {said}");
            }
            "startContainer" | "poststart" => {
                ensure!(made.status == 0, "{kind}: {said}");
                let pid = world.pid("web")?;
                // It ends the container (runtime-spec 1.2.1, lifecycle, steps 7 and 9).
                world.fails(&["start", "web"], &words)?;
                crate::world::awaits(pid)?;
                let told = fs::read_to_string(&file)?;
                same(kind, told.lines().filter(|line| *line == "poststop").count(), 1)?;
            }
            _ => {
                ensure!(made.status == 0, "{kind}: {said}");
                let answer = world.ask(&["--log", &log, "delete", "web"])?;
                let told = fs::read_to_string(&log)?;
                // Its failure is warned of.
                ensure!(
                    answer.status == 0 && told.lines().last().is_some_and(|line| line.contains("level=warning") && line.contains(&words)),
                    "{answer:?} {told}"
                );
            }
        }
        world.fails(&["state", "web"], "container does not exist")?;
        fs::remove_file(&file).unwrap_or_default();
        fs::remove_file(stage.rootfs().join("data/started")).unwrap_or_default();
        world.is_empty()?;
    }
    Ok(())
}

/// A hook may ask about its own container: nobody waits for anybody.
pub fn calling_back(stage: &Stage) -> Result<()> {
    let file = stage.work().join("told");
    let runtime = env!("CARGO_BIN_EXE_dyno-runtime");
    let root = stage.work().join("root-of-hooks");
    let asks = |verb: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("{runtime} --root {} {verb} >> {}", root.display(), file.display())], "env": ["PATH=/usr/bin:/bin"], "timeout": 60}]);
    let mut world = World::new(stage, &["forever"], |config| {
        config["hooks"] = json!({"createRuntime": asks("state web"), "poststart": asks("state web"), "poststop": asks("list -q")});
    })?;
    world.root = root.clone();
    world.create("web")?;
    world.must(&["start", "web"])?;
    let told = fs::read_to_string(&file)?;
    same("twice", (told.matches("\"creating\"").count(), told.matches("\"running\"").count()), (1, 1))?;
    world.must(&["delete", "--force", "web"])?;
    same("gone by then", fs::read_to_string(&file)?, told)?;
    fs::remove_file(&file)?;
    world.is_empty()?;
    Ok(fs::remove_dir_all(&root)?)
}
