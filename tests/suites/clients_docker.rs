//! The docker engine with the runtime under test as its default: what `docker` does, seen by its users and by the kernel.
//!
//! The engine starts a containerd of its own. It touches neither packet filter nor bridge here: containers have no network but loopback.

#[path = "clients_engines/inside.rs"]
mod any_inside;
#[path = "clients_engines/life.rs"]
mod any_life;
#[path = "clients_engines/limits.rs"]
mod any_limits;
#[path = "clients_engines/terminals.rs"]
mod any_terminals;
#[path = "clients_docker/inside.rs"]
mod inside;
#[path = "clients_docker/life.rs"]
mod life;
#[path = "clients_docker/limits.rs"]
mod limits;
#[path = "clients_docker/remapped.rs"]
mod remapped;

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::Result;
use dyno_tests::clients::{Client, Daemon, Desk, Engine, Sayings, field, path_of, run, started, tail};
use serde_json::{Value, json};

/// The image of all cases.
const IMAGE: &str = "bench:latest";

/// An engine of ours.
struct Docker {
    desk: Desk,
    daemon: Daemon,
}

/// A client of the engine that listens on a socket of the desk.
struct Told<'a>(&'a Desk, &'static str);

impl Sayings for Told<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", "60"]).arg(path_of("docker").unwrap_or_default());
        self.finish(&mut command, arguments);
        command
    }
}

impl Told<'_> {
    fn finish(&self, command: &mut Command, arguments: &[&str]) {
        command.env("DOCKER_CONFIG", self.0.path("client")).env("DOCKER_BUILDKIT", "0");
        command.arg("--host").arg(format!("unix://{}", self.0.text(self.1))).args(arguments);
    }
}

impl Sayings for Docker {
    fn command(&self, arguments: &[&str]) -> Command {
        Told(&self.desk, "docker.sock").command(arguments)
    }
}

impl Engine for Docker {
    const REMOVE: &'static [&'static str] = &["rm", "--force"];

    fn arguments<'a>(&'a self, verb: &'a str, options: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
        let networked = options.iter().any(|option| option.starts_with("--net"));
        let network: &[&str] = if networked { &[] } else { &["--network", "none"] };
        [&[verb], network, options, &[IMAGE], program].concat()
    }

    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(path_of("docker").unwrap_or_default());
        Told(&self.desk, "docker.sock").finish(&mut command, arguments);
        command
    }
}

/// Whether this host's processes can have every capability of the kernel; `--privileged` asks for all of them.
fn has_all_capabilities() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    Ok(u64::from_str_radix(field(&status, "CapBnd")?, 16)? == (2 << last) - 1)
}

/// The configuration of an engine whose places are called `name` below the desk.
fn config(desk: &Desk, name: &str) -> Value {
    json!({
        "runtimes": {"tested": {"path": desk.runtime()}}, "default-runtime": "tested",
        "data-root": desk.path(&format!("{name}-data")), "exec-root": desk.path(&format!("{name}-exec")), "pidfile": desk.path(&format!("{name}.pid")),
        "hosts": [format!("unix://{}", desk.text(&format!("{name}.sock")))], "deprecated-key-path": desk.path(&format!("{name}.key")),
        "storage-driver": "overlay2", "iptables": false, "ip6tables": false, "ip-forward": false, "bridge": "none", "cgroup-parent": format!("/{}", desk.name()),
        "exec-opts": ["native.cgroupdriver=cgroupfs"], "log-level": "warn",
    })
}

/// A command that starts such an engine.
fn engine(desk: &Desk, name: &str, config: &Value) -> Result<Command> {
    let file = desk.write(&format!("{name}.json"), &config.to_string(), 0o600)?;
    let mut command = Command::new("dockerd");
    command.arg("--config-file").arg(file);
    Ok(command)
}

impl Client for Docker {
    const PROGRAMS: &'static [&'static str] = &["dockerd", "docker", "docker-init", "containerd-shim-runc-v2"];

    fn start(mut desk: Desk) -> Result<Self> {
        desk.will_make(&["/run/docker", "/run/containerd", "/run/runc", "/run/dyno-runtime", "/etc/docker", "/var/lib/docker"]);
        let mut command = engine(&desk, "docker", &config(&desk, "docker"))?;
        let daemon = started(&mut command, &desk.path("log"), || Told(&desk, "docker.sock").ok(&["version"]).is_ok())?;
        let docker = Self { desk, daemon };
        let image = docker.desk.image("bench", IMAGE, &["sh", "-c", "echo made by hand"])?.display().to_string();
        docker.ok(&["load", "--input", &image])?;
        Ok(docker)
    }

    fn stop(mut self) -> Result<()> {
        let listed = self.ok(&["ps", "--all", "--quiet"])?;
        for container in listed.lines() {
            self.ok(&["rm", "--force", container])?;
        }
        self.daemon.stop()?;
        // The engine leaves the host's network where it has mounted it for `--network host`.
        self.desk.unmount("docker-exec/netns/default")?;
        self.desk.remove_groups(&[])?;
        self.desk.close()
    }

    fn log_tail(&self) -> String {
        tail(&self.desk.path("log"))
    }
}

fn main() -> ExitCode {
    run::<Docker>(&[
        ("the_runtime_is_the_default", life::registered),
        ("built", life::built),
        ("statuses", any_life::statuses),
        ("programs_that_cannot_be_run", life::cannot),
        ("detached_waited_for_and_inspected", life::detached),
        ("exec", life::exec),
        ("paused_and_resumed", any_life::paused),
        ("stopped_and_killed", any_life::stopped),
        ("restarted", any_life::restarted),
        ("health", life::health),
        ("an_init_that_reaps", life::init),
        ("a_killed_shim", life::killed_shim),
        ("a_container_with_nothing", any_inside::nothing),
        ("a_read_only_root", any_inside::read_only),
        ("volumes_and_tmpfs", any_inside::volumes),
        ("capabilities_and_users", any_inside::capabilities),
        ("system_call_filters", any_inside::filters),
        ("privileged", inside::privileged),
        ("devices_and_sysctls", any_inside::devices),
        ("namespaces_of_others", any_inside::namespaces),
        ("memory_processes_and_time", any_limits::limits),
        ("updated", limits::updated),
        ("statistics", limits::statistics),
        ("out_of_memory", any_limits::out_of_memory),
        ("resource_limits", any_limits::rlimits),
        ("terminals", any_terminals::terminal),
        ("a_terminal_that_is_left_and_taken_again", any_terminals::attached),
        ("exec_in_a_terminal", any_terminals::exec),
        ("remapped_users", remapped::remapped),
    ])
}
