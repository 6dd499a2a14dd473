//! containerd with the runtime under test: `ctr`, and pods as a kubelet asks for them.
//!
//! Its shim is the one that Kubernetes and the docker engine use. It learns what went wrong from the runtime's JSON log, and of the end of a
//! process by being its reaper.

#[path = "clients_containerd/inside.rs"]
mod inside;
#[path = "clients_containerd/pods.rs"]
mod pods;
#[path = "clients_containerd/tasks.rs"]
mod tasks;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Said,
    clients::{Client, Daemon, Desk, Sayings, path_of, run, started, tail},
};

/// The image of all cases.
const IMAGE: &str = "localhost/bench:latest";

/// Who holds a pod's namespaces; its command does not end.
const PAUSE: &str = "localhost/pause:latest";

/// A containerd of ours.
struct Containerd {
    desk: Desk,
    daemon: Daemon,
}

impl Sayings for Containerd {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", "60", "ctr"]);
        self.finish(&mut command, arguments);
        command
    }
}

impl Containerd {
    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(path_of("ctr").unwrap_or_default());
        self.finish(&mut command, arguments);
        command
    }

    fn finish(&self, command: &mut Command, arguments: &[&str]) {
        // The name of the namespace is that of the control group above its containers.
        command.arg("--address").arg(self.desk.path("containerd.sock")).args(["--namespace", self.desk.name()]).args(arguments);
    }

    fn arguments<'a>(&'a self, runtime: &'a str, options: &[&'a str], name: &'a str, program: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--runc-binary", runtime], options, &[IMAGE, name], program].concat()
    }

    /// Runs a container to its end and removes it.
    fn run(&self, options: &[&str], program: &[&str]) -> Result<Said> {
        let runtime = self.desk.runtime().display().to_string();
        let said = self.say(&self.arguments(&runtime, &[&["--rm"], options].concat(), "once", program))?;
        if said.status != 0 {
            // One that could not be started is left behind by ctr.
            self.say(&["containers", "rm", "once"])?;
        }
        Ok(said)
    }

    /// What a shell says in a container with these options, which must succeed.
    fn shell(&self, options: &[&str], script: &str) -> Result<String> {
        let said = self.run(options, &["sh", "-c", script])?;
        ensure!(said.status == 0, "{options:?} {script:?}: status {}\n{}{}", said.status, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// Runs a container in the background until the case is done with it.
    fn with<T>(&self, name: &str, options: &[&str], program: &[&str], look: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        let runtime = self.desk.runtime().display().to_string();
        let begun = self.ok(&self.arguments(&runtime, &[&["--detach"], options].concat(), name, program));
        let result = begun.and_then(|_| self.pid(name)).and_then(look);
        self.say(&["tasks", "rm", "--force", name])?;
        let removed = self.ok(&["containers", "rm", name]);
        let result = result?;
        removed?;
        Ok(result)
    }

    /// A line of `ctr tasks ls`: pid and status.
    fn task(&self, name: &str) -> Result<(u32, String)> {
        let listed = self.ok(&["tasks", "ls"])?;
        let line = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words[0] == name);
        let words = line.filter(|words| words.len() == 3).with_context(|| format!("no task {name}: {listed}"))?;
        Ok((words[1].parse()?, words[2].to_owned()))
    }

    fn pid(&self, name: &str) -> Result<u32> {
        Ok(self.task(name)?.0)
    }
}

/// The configuration: nothing outside of the suite's directory but the sockets of the shims, which are at a place of their own choice.
fn config(desk: &Desk) -> String {
    let (text, runtime) = (|name: &str| desk.text(name), desk.runtime().display());
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\n[grpc]\naddress = \"{}\"\n[debug]\nlevel = \"warn\"\n\
        [{cri}]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\ndisable_tcp_service = true\n\
        [{cri}.cni]\nconf_dir = \"{}\"\nbin_dir = \"{}\"\n\
        [{cri}.containerd]\ndefault_runtime_name = \"tested\"\n[{cri}.containerd.runtimes.tested]\nruntime_type = \"io.containerd.runc.v2\"\n\
        [{cri}.containerd.runtimes.tested.options]\nBinaryName = \"{runtime}\"\n",
        text("root"),
        text("state"),
        text("containerd.sock"),
        text("no-cni"),
        text("no-cni"),
    )
}

impl Client for Containerd {
    const PROGRAMS: &'static [&'static str] = &["containerd", "ctr", "containerd-shim-runc-v2", "curl"];

    fn start(mut desk: Desk) -> Result<Self> {
        desk.will_make(&["/run/containerd", "/run/runc", "/run/dyno-runtime"]);
        let file = desk.write("config.toml", &config(&desk), 0o600)?;
        let ask = || {
            let mut command = Command::new("ctr");
            command.arg("--address").arg(desk.path("containerd.sock")).arg("version").output().is_ok_and(|output| output.status.success())
        };
        let daemon = started(Command::new("containerd").arg("--config").arg(file), &desk.path("log"), ask)?;
        let containerd = Self { desk, daemon };
        for (name, reference, command) in [("bench", IMAGE, &["sh", "-c", "echo made by hand"][..]), ("pause", PAUSE, &["sleep", "1000000"])] {
            let image = containerd.desk.image(name, reference, command)?.display().to_string();
            containerd.ok(&["images", "import", &image])?;
            containerd.ok(&["--namespace", "k8s.io", "images", "import", &image])?;
        }
        Ok(containerd)
    }

    fn stop(mut self) -> Result<()> {
        let listed = self.ok(&["tasks", "ls", "--quiet"])?;
        for task in listed.lines() {
            self.ok(&["tasks", "rm", "--force", task])?;
        }
        self.daemon.stop()?;
        // Of pods a kubelet makes the group above, and takes it away.
        self.desk.remove_groups(&["pod"])?;
        self.desk.close()
    }

    fn log_tail(&self) -> String {
        tail(&self.desk.path("log"))
    }
}

fn main() -> ExitCode {
    run::<Containerd>(&[
        ("run_to_the_end", tasks::statuses),
        ("programs_that_cannot_be_run", tasks::cannot),
        ("tasks", tasks::tasks),
        ("exec", tasks::exec),
        ("signals", tasks::signals),
        ("paused_and_resumed", tasks::paused),
        ("metrics", tasks::metrics),
        ("terminals", tasks::terminals),
        ("a_killed_shim", tasks::killed_shim),
        ("options", inside::options),
        ("rights", inside::rights),
        ("limits", inside::limits),
        ("namespaces_of_others", inside::namespaces),
        ("mapped_users", inside::mapped),
        ("a_directory_as_root", inside::directory),
        ("a_pod", pods::pod),
        ("two_containers_of_a_pod", pods::two),
        ("a_container_of_a_pod_that_cannot_be_run", pods::cannot),
    ])
}
