//! Pods by the Container Runtime Interface, as a kubelet with a RuntimeClass asks for them: `runtime_handler` is the name of ours.
//!
//! Pods use the host's network here; one of their own is CNI's to make, which changes the host.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::{
    clients::{Message, Outcome, call, group},
    until,
};

use super::{Containerd, IMAGE};

/// States of a container (`ContainerState`).
const RUNNING: u64 = 1;
const EXITED: u64 = 2;

/// A pod of the suite.
struct Pod<'a> {
    containerd: &'a Containerd,
    config: Message,
    id: String,
}

impl<'a> Pod<'a> {
    fn begin(containerd: &'a Containerd, name: &str) -> Result<Self> {
        let metadata = Message::default().text(1, name).text(2, name).text(3, "default");
        // NamespaceOption: network of the node (2), processes of the container (1), System V IPC of the pod (0).
        let namespaces = Message::default().number(1, 2).number(2, 1);
        let linux = Message::default().text(1, &format!("/{}/pod", containerd.desk.name())).message(2, &Message::default().message(1, &namespaces));
        let logs = containerd.desk.text("pod-logs");
        fs::create_dir_all(&logs)?;
        let config = Message::default().message(1, &metadata).text(3, &logs).message(8, &linux);
        let answer = ask(containerd, "RunPodSandbox", &Message::default().message(1, &config).text(2, "tested"))?;
        Ok(Self { containerd, config, id: answer.get_text(1)? })
    }

    /// Makes a container; the memory that it may use is the limit that all of these have.
    fn create(&self, name: &str, program: &[&str]) -> Result<String> {
        let resources = Message::default().number(4, 64 << 20).number(3, 512);
        let security = Message::default().message(3, &Message::default().number(1, 2).number(2, 1)).number(7, 1).number(11, 1);
        let linux = Message::default().message(1, &resources).message(2, &security);
        let variable = Message::default().text(1, "A").text(2, "1");
        let config = Message::default()
            .message(1, &Message::default().text(1, name))
            .message(2, &Message::default().text(1, IMAGE))
            .texts(3, program)
            .text(5, "/data")
            .message(6, &variable)
            .text(11, &format!("{name}.log"))
            .message(15, &linux);
        let request = Message::default().text(1, &self.id).message(2, &config).message(3, &self.config);
        ask(self.containerd, "CreateContainer", &request)?.get_text(1)
    }

    fn end(self) -> Result<()> {
        ask(self.containerd, "StopPodSandbox", &Message::default().text(1, &self.id))?;
        ask(self.containerd, "RemovePodSandbox", &Message::default().text(1, &self.id)).map(drop)
    }
}

fn ask(containerd: &Containerd, method: &str, message: &Message) -> Result<Message> {
    call(&containerd.desk.path("containerd.sock"), &format!("/runtime.v1.RuntimeService/{method}"), message)
}

/// What a program says in a container, and its status.
fn exec(containerd: &Containerd, id: &str, program: &[&str]) -> Result<(String, u64)> {
    let answer = ask(containerd, "ExecSync", &Message::default().text(1, id).texts(2, program).number(3, 30))?;
    Ok((answer.get_text(1)?, answer.get_number(3)?))
}

fn start(containerd: &Containerd, id: &str) -> Result<()> {
    ask(containerd, "StartContainer", &Message::default().text(1, id)).map(drop)
}

/// `ContainerStatus`.
fn state(containerd: &Containerd, id: &str) -> Result<Message> {
    ask(containerd, "ContainerStatus", &Message::default().text(1, id))?.get(1)
}

/// The host's pid of a container's first process.
fn pid(containerd: &Containerd, id: &str) -> Result<u32> {
    let answer = ask(containerd, "ContainerStatus", &Message::default().text(1, id).number(2, 1))?;
    // info is a map of JSON texts; its only entry.
    let info: serde_json::Value = serde_json::from_str(&answer.get(2)?.get_text(2)?)?;
    Ok(u32::try_from(info["pid"].as_u64().unwrap_or_default())?)
}

pub fn pod(containerd: &Containerd) -> Result<Outcome> {
    let pod = Pod::begin(containerd, "one")?;
    let result = in_a_pod(containerd, &pod);
    pod.end()?;
    result?;
    Ok(Outcome::Seen)
}

fn in_a_pod(containerd: &Containerd, pod: &Pod) -> Result<()> {
    let id = pod.create("main", &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"])?;
    start(containerd, &id)?;
    ensure!(state(containerd, &id)?.get_number(3)? == RUNNING);
    let groups = group(pid(containerd, &id)?)?;
    ensure!(groups.is_below(&format!("{}/pod/", containerd.desk.name())), "{groups:?}");
    ensure!(groups.read(&["memory.limit_in_bytes", "memory.max"])? == "67108864");
    let told = exec(containerd, &id, &["sh", "-c", "pwd; echo $A $WHO; echo x > /x || echo refused; grep NoNewPrivs /proc/self/status; exit 9"])?;
    ensure!(told == ("/data\n1 image\nrefused\nNoNewPrivs:\t1\n".to_owned(), 9), "{told:?}");
    let resources = Message::default().number(4, 96 << 20);
    ask(containerd, "UpdateContainerResources", &Message::default().text(1, &id).message(2, &resources))?;
    ensure!(groups.read(&["memory.limit_in_bytes", "memory.max"])? == "100663296");
    let stats = ask(containerd, "ContainerStats", &Message::default().text(1, &id))?.get(1)?;
    ensure!(stats.get(3)?.get(2)?.get_number(1)? > 0, "no memory is used: {stats:?}");
    let log = pod.containerd.desk.path("pod-logs/main.log");
    until(10, "it says that it is up", || Ok(fs::read_to_string(&log)?.contains("stdout F up\n").then_some(())))?;
    ask(containerd, "StopContainer", &Message::default().text(1, &id).number(2, 30))?;
    let ended = state(containerd, &id)?;
    ensure!(ended.get_number(3)? == EXITED && ended.get_number(7)? == 5, "{ended:?}");
    ask(containerd, "RemoveContainer", &Message::default().text(1, &id))?;
    ensure!(groups.left().is_empty(), "{groups:?}");
    Ok(())
}

pub fn two(containerd: &Containerd) -> Result<Outcome> {
    let pod = Pod::begin(containerd, "two")?;
    let look = || -> Result<()> {
        let ids = [pod.create("a", &["sleep", "1000"])?, pod.create("b", &["sleep", "1000"])?];
        let link = |id: &str, kind: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{}/ns/{kind}", pid(containerd, id)?))?);
        for id in &ids {
            start(containerd, id)?;
        }
        for (kind, shared) in [("ipc", true), ("uts", true), ("net", true), ("pid", false), ("mnt", false)] {
            ensure!((link(&ids[0], kind)? == link(&ids[1], kind)?) == shared, "two containers of a pod share {kind}: {}", !shared);
        }
        // Removed while it runs: what a kubelet does with a pod that is deleted at once.
        ask(containerd, "RemoveContainer", &Message::default().text(1, &ids[0])).map(drop)
    };
    let result = look();
    pod.end()?;
    result?;
    Ok(Outcome::Seen)
}

pub fn cannot(containerd: &Containerd) -> Result<Outcome> {
    let pod = Pod::begin(containerd, "three")?;
    let look = || -> Result<()> {
        let id = pod.create("none", &["no-such-program"])?;
        let error = start(containerd, &id).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains("executable file not found in $PATH"), "{error}");
        let ended = state(containerd, &id)?;
        ensure!(ended.get_number(3)? == EXITED && ended.get_number(7)? == 128, "{ended:?}");
        Ok(())
    };
    let result = look();
    pod.end()?;
    result?;
    Ok(Outcome::Seen)
}
