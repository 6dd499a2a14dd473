//! What a user who is not root cannot have, by name.

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Capability, Egress, ErrorKind, Layer, Network, Sandbox, StartOptions, Stdio, Upper, Volume, Wall};

use crate::{
    support::same,
    world::{Kind, World, output},
};

/// All in one error; with one of them not accepted, that one.
pub fn every_missing_wall_is_named(world: &World) -> Result<()> {
    let missing = world.kind.missing();
    let refusal = |accepted: &[Wall]| {
        let error = world.open_without(accepted).err().context("it was opened")?;
        same("kind", error.kind(), ErrorKind::Wall)?;
        Ok::<_, anyhow::Error>(error.to_string())
    };
    let all = refusal(&[])?;
    for wall in &missing {
        ensure!(names(&all, *wall), "{wall} is not named: {all}");
        let others: Vec<Wall> = missing.iter().copied().filter(|w| w != wall).collect();
        let text = refusal(&others)?;
        ensure!(names(&text, *wall) && others.iter().all(|w| !names(&text, *w)), "{wall} alone: {text}");
    }
    for remedy in ["Delegate=yes", "group"] {
        ensure!(all.contains(remedy), "{remedy} is not told of: {all}");
    }
    ensure!(all.contains("--add-subuids") || world.kind == Kind::Slices, "{all}");
    world.with_host(|host| {
        let acceptable: Vec<Wall> = host.missing().iter().map(|m| m.wall).filter(|w| w.can_be_accepted()).collect();
        same("missing", acceptable, missing.clone())?;
        let plan = host.plan(&world.sandbox(&["exit", "0"]))?;
        same("of the plan", plan.missing.iter().map(|m| m.wall).collect::<Vec<_>>(), missing.clone())?;
        same("its limits", (plan.limits.memory, plan.limits.pids, plan.limits.cpu_weight), (None, None, None))?;
        same("who owns its namespaces", plan.owned, vec!["mount", "pid", "net", "ipc", "uts", "cgroup"])?;
        let json = serde_json::to_value(host.plan(&world.sandbox(&["exit", "0"]))?)?;
        same("as JSON", json["missing"][0]["wall"].as_str(), Some("memory_limit"))
    })
}

/// A wall's name as a word of its own.
fn names(text: &str, wall: Wall) -> bool {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).any(|word| word == wall.to_string())
}

pub fn services_of_root_are_refused(world: &World) -> Result<()> {
    type Ask = fn(&mut Sandbox);
    let cases: &[(&str, Ask)] = &[
        ("images: squashfs", |s| s.root.layers = vec![Layer::Image { path: "/x".into(), sha256: "0".repeat(64) }]),
        ("disk_upper: ", |s| s.root.upper = Upper::Disk { directory: "/tmp".into(), bytes: 64 << 20, inodes: 1000 }),
        ("kept_upper: ", |s| s.root.layers.push(Layer::UpperOf("t.0".into()))),
        ("egress: ", |s| s.network = Network::Egress(Egress::default())),
        ("cpu_time: ", |s| s.limits.cpu_ms = Some(1000)),
        ("other_limits: ", |s| s.limits.cpus = Some("0".into())),
        ("locked_mounts: ", |s| s.identity.capabilities = vec![Capability::SYS_ADMIN]),
        ("identity.groups: ", |s| s.identity.groups = vec![5]),
    ];
    world.with_host(|host| {
        for (want, ask) in cases {
            let mut sandbox = world.sandbox(&["exit", "0"]);
            ask(&mut sandbox);
            let error = host.start("t.1", &sandbox, StartOptions::default()).err().context(*want)?;
            ensure!(error.kind() == ErrorKind::Wall && error.to_string().contains(want), "want {want:?}, got {error}");
        }
        let kept = host.start("t.1", &world.sandbox(&["exit", "0"]), StartOptions { keep_upper: true, ..Default::default() });
        ensure!(kept.is_err_and(|e| e.to_string().contains("kept_upper: ")));
        // All that is wrong is said at once.
        let mut sandbox = world.sandbox(&["exit", "0"]);
        (sandbox.limits.cpu_ms, sandbox.network) = (Some(1000), Network::Egress(Egress::default()));
        let text = host.plan(&sandbox).err().context("a plan")?.to_string();
        ensure!(text.contains("cpu_time: ") && text.contains("egress: "), "{text}");
        Ok(())
    })
}

/// Id 0 inside is the caller.
pub fn who_would_be_the_caller_is_refused(world: &World) -> Result<()> {
    type Ask = fn(&mut Sandbox);
    let cases: &[Ask] = &[
        |s| s.identity.uid = 0,
        |s| s.identity.gid = 0,
        |s| s.identity.groups = vec![0],
        |s| s.identity.capabilities = vec!["SETUID".parse().expect("a capability")],
    ];
    world.with_host(|host| {
        for ask in cases {
            let mut sandbox = world.sandbox(&["exit", "0"]);
            ask(&mut sandbox);
            let error = host.start("t.1", &sandbox, StartOptions::default()).err().context("it was started")?;
            ensure!(error.to_string().contains("id_range: id 0 inside is the caller outside"), "{error}");
        }
        let mut sandbox = world.sandbox(&["exit", "0"]);
        sandbox.identity.capabilities = vec![Capability::NET_BIND_SERVICE];
        sandbox.identity.groups = vec![5, 100];
        same("with other rights", output(host, &sandbox)?.0.status, 0)
    })?;
    let walls = [world.kind.missing(), vec![Wall::IdRange]].concat();
    let host = world.open_without(&walls)?;
    let mut sandbox = world.sandbox(&["write", "/etc/name", "x"]);
    sandbox.identity.uid = 0;
    let (exit, text) = output(&host, &sandbox)?;
    same("accepted, it may", (exit.status, text), (0, String::new()))?;
    Ok(host.dismantle()?)
}

/// What only the kernel can find wrong.
pub fn the_caller_gets_no_field_wrong(world: &World) -> Result<()> {
    type Break = fn(&mut Sandbox, &World);
    let cases: &[(&str, Break)] = &[
        ("layer directory /nowhere: open: ", |s, _| s.root.layers = vec![Layer::Directory("/nowhere".into())]),
        ("layer directory /root: open: ", |s, _| s.root.layers = vec![Layer::Directory("/root".into()), s.root.layers[0].clone()]),
        ("layer directory /: open_tree", |s, _| s.root.layers = vec![Layer::Directory("/".into())]),
        ("volume /nowhere: open: ", |s, _| s.volumes = vec![Volume::Bind { source: "/nowhere".into(), target: "/data".into(), writable: false }]),
        ("the sandbox did not start: mount at /nowhere ", |s, world| {
            s.volumes = vec![Volume::Bind { source: world.rootfs(), target: "/nowhere".into(), writable: false }];
        }),
        ("the sandbox did not start: chdir to the working directory: ", |s, _| s.cwd = "/nowhere".into()),
        ("execve(\"/bin/nothing\"): ", |s, _| s.argv = vec!["/bin/nothing".into()]),
        ("bind the host's /dev/nothing: ", |s, _| s.devices = vec!["nothing".into()]),
    ];
    world.with_host(|host| {
        for (want, damage) in cases {
            let mut sandbox = world.sandbox(&["exit", "0"]);
            damage(&mut sandbox, world);
            let result = host.start("t.1", &sandbox, StartOptions { stdio: Stdio::Tty { rows: 24, cols: 80 }, ..Default::default() });
            let error = result.err().context(*want)?;
            ensure!(error.to_string().starts_with(want), "want {want:?}, got {error}");
            ensure!(std::fs::read_dir(world.run().join("dynos"))?.next().is_none(), "{want}: its directory is left");
        }
        Ok(())
    })
}

pub fn without_user_namespaces(world: &World) -> Result<()> {
    let error = world.open_without(&world.kind.missing()).err().context("it was opened")?;
    let text = error.to_string();
    ensure!(error.errno() == Some(rustix::io::Errno::NOSPC) && text.contains("user.max_user_namespaces=0"), "{text}");
    ensure!(!world.run().exists(), "its directory is left");
    Ok(())
}

/// The kernel grants a new procfs only to who sees all of an old one.
pub fn behind_a_hidden_procfs(world: &World) -> Result<()> {
    world.with_host(|host| {
        let error = host.start("t.1", &world.sandbox(&["exit", "0"]), StartOptions::default()).err().context("it was started")?;
        ensure!(error.to_string().contains("mount proc (refused where other mounts hide"), "{error}");
        Ok(())
    })
}
