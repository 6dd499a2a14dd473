//! podman with the runtime under test: what its users do, seen by its users and by the kernel.
//!
//! It has no daemon; conmon stays with each container. Its store, its run directory and its events are in a directory of the suite.

#[path = "clients_engines/inside.rs"]
mod any_inside;
#[path = "clients_engines/life.rs"]
mod any_life;
#[path = "clients_engines/limits.rs"]
mod any_limits;
#[path = "clients_engines/terminals.rs"]
mod any_terminals;
#[path = "clients_podman/inside.rs"]
mod inside;
#[path = "clients_podman/life.rs"]
mod life;
#[path = "clients_podman/limits.rs"]
mod limits;
#[path = "clients_podman/options.rs"]
mod options;
#[path = "clients_podman/pods.rs"]
mod pods;
#[path = "clients_podman/rootless.rs"]
mod rootless;

use std::process::{Command, ExitCode};

use anyhow::Result;
use dyno_tests::clients::{Client, Desk, Engine, Sayings, path_of, run};

/// The image of all cases.
const IMAGE: &str = "localhost/bench";

/// Hosts without CAP_SYS_RESOURCE cannot raise a hard limit, and podman asks for more than they have.
const LIMITS: &str = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]";

/// podman and where it keeps everything.
struct Podman {
    desk: Desk,
    /// Above all control groups of its containers; a name without a slash would be taken as below conmon's own.
    parent: String,
}

impl Sayings for Podman {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", "60", "podman"]);
        self.finish(&mut command, arguments);
        command
    }
}

impl Podman {
    fn finish(&self, command: &mut Command, arguments: &[&str]) {
        command.env("CONTAINERS_CONF", self.desk.path("containers.conf")).env("CONTAINERS_STORAGE_CONF", self.desk.path("storage.conf"));
        command.env_remove("XDG_RUNTIME_DIR").env_remove("NOTIFY_SOCKET").env("HOME", self.desk.path("home"));
        command.arg("--root").arg(self.desk.path("root")).arg("--runroot").arg(self.desk.path("run"));
        command.arg("--tmpdir").arg(self.desk.path("tmp")).args(arguments);
    }
}

impl Engine for Podman {
    const REMOVE: &'static [&'static str] = &["rm", "--force", "--time", "0"];

    fn arguments<'a>(&'a self, verb: &'a str, options: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec![verb];
        if !options.contains(&"disabled") {
            all.extend(["--cgroup-parent", &self.parent]);
        }
        if !options.iter().any(|option| option.starts_with("--net")) {
            all.extend(["--network", "none"]);
        }
        [&all, options, &[IMAGE], program].concat()
    }

    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(path_of("podman").unwrap_or_default());
        self.finish(&mut command, arguments);
        command
    }
}

impl Client for Podman {
    const PROGRAMS: &'static [&'static str] = &["podman", "conmon", "catatonit"];

    fn start(mut desk: Desk) -> Result<Self> {
        // What podman writes outside of the directories that it is given.
        desk.will_make(&["/var/lib/containers", "/run/containers", "/run/libpod", "/run/runc", "/run/crun", "/run/dyno-runtime", "/run/netns"]);
        let (runtime, text) = (desk.runtime().display().to_string(), |name: &str| desk.text(name));
        desk.write(
            "containers.conf",
            &format!(
                "[containers]\n{LIMITS}\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
                runtime = \"tested\"\nruntime_supports_nocgroup = [\"tested\"]\n[engine.runtimes]\ntested = [\"{runtime}\"]\n"
            ),
            0o644,
        )?;
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n", text("root"), text("run"));
        desk.write("storage.conf", &storage, 0o644)?;
        desk.write("Containerfile", "FROM scratch\nCOPY rootfs/ /\nENV WHO=image\nCMD [\"sh\", \"-c\", \"echo made from scratch\"]\n", 0o644)?;
        let podman = Self { parent: format!("/{}", desk.name()), desk };
        podman.ok(&["build", "--quiet", "--tag", IMAGE, &podman.desk.text(".")])?;
        Ok(podman)
    }

    fn stop(self) -> Result<()> {
        self.ok(&["pod", "rm", "--force", "--all", "--time", "0"])?;
        self.ok(&["rm", "--force", "--all", "--time", "0"])?;
        self.desk.remove_groups(&["conmon"])?;
        self.desk.close()
    }

    fn log_tail(&self) -> String {
        "podman has none".to_owned()
    }
}

fn main() -> ExitCode {
    run::<Podman>(&[
        ("built_from_scratch", life::built),
        ("statuses", any_life::statuses),
        ("programs_that_cannot_be_run", life::cannot),
        ("detached_waited_for_and_inspected", life::detached),
        ("exec", life::exec),
        ("logs", life::logs),
        ("paused_and_resumed", any_life::paused),
        ("stopped_and_killed", any_life::stopped),
        ("restarted", any_life::restarted),
        ("health", life::health),
        ("hooks", life::hooks),
        ("an_init_that_reaps", life::init),
        ("a_container_with_nothing", any_inside::nothing),
        ("a_read_only_root", any_inside::read_only),
        ("volumes_and_tmpfs", any_inside::volumes),
        ("capabilities_and_users", any_inside::capabilities),
        ("system_call_filters", any_inside::filters),
        ("privileged", inside::privileged),
        ("devices_and_sysctls", any_inside::devices),
        ("namespaces_of_others", any_inside::namespaces),
        ("mapped_users", inside::mapped),
        ("an_ordinary_user", rootless::rootless),
        ("uncommon_options", options::uncommon),
        ("descriptors_of_the_caller", options::descriptors),
        ("without_control_groups", options::without_groups),
        ("idmapped_volumes", options::idmapped),
        ("many_at_once", options::many),
        ("memory_processes_and_time", any_limits::limits),
        ("updated", limits::updated),
        ("statistics", limits::statistics),
        ("out_of_memory", any_limits::out_of_memory),
        ("resource_limits", any_limits::rlimits),
        ("pods", pods::pods),
        ("terminals", any_terminals::terminal),
        ("a_terminal_that_is_left_and_taken_again", any_terminals::attached),
        ("exec_in_a_terminal", any_terminals::exec),
    ])
}
