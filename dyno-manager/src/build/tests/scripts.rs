//! A host whose dynos are shell scripts of this machine.

use std::{
    collections::HashMap,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use futures_util::future::BoxFuture;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use uuid::Uuid;

use crate::{
    build::host::Host,
    model::{Exit, ExitCause},
    warden::{Held, Launch, Started, StdioFds, WardenError},
};

/// A dyno is a script; `$ROOT` is the folder that the builds of one app share.
pub(super) struct Scripts {
    pub root: PathBuf,
    pub build: String,
    pub pack: String,
    /// How dynos end, where the script's status does not say.
    pub cause: ExitCause,
    pub dynos: Mutex<HashMap<Uuid, Child>>,
    pub launches: Mutex<Vec<Launch>>,
    pub freed: Mutex<Vec<Uuid>>,
    pub refuse_cache: bool,
}

impl Host for Scripts {
    fn start<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Started, WardenError>> {
        Box::pin(async move {
            self.launches.lock().unwrap().push(launch.clone());
            if self.refuse_cache && launch.sandbox.root.layers.len() == 3 {
                return Err(WardenError { kind: "image".into(), message: "cache is corrupt".into() });
            }
            let mut listeners = Vec::new();
            let mut port = String::new();
            if !launch.listen.is_empty() {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                port = listener.local_addr().unwrap().port().to_string();
                listeners.push(OwnedFd::from(listener));
            }
            let script = if launch.sandbox.argv == ["/buildpacks/bin/build"] { &self.build } else { &self.pack };
            let mut command = Command::new("/bin/bash");
            command.args(["-c", script]).env_clear().envs(&launch.sandbox.env).env("ROOT", &self.root).env("PORT", port);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            let mut child = command.spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            let stdio = StdioFds::Pipes {
                stdin: child.stdin.take().unwrap().into(),
                stdout: child.stdout.take().unwrap().into(),
                stderr: child.stderr.take().unwrap().into(),
            };
            let pid = child.id();
            self.dynos.lock().unwrap().insert(launch.id, child);
            Ok(Started { pidfd, pid, stdio, listeners, socket: None })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Held>, WardenError>> {
        let held = [serde_json::json!({ "build": Uuid::max(), "app": Uuid::nil() }), serde_json::json!({ "web": 1 })];
        let held = held.into_iter().zip([Uuid::max(), Uuid::nil()]).map(|(meta, id)| Held { id, meta, pid: 1, running: true });
        let held = held.collect();
        Box::pin(async { Ok(held) })
    }

    fn signal(&self, id: Uuid, signal: i32) -> BoxFuture<'_, Result<(), WardenError>> {
        assert_eq!(signal, 9);
        kill_process_group(Pid::from_child(&self.dynos.lock().unwrap()[&id]), Signal::KILL).unwrap();
        Box::pin(async { Ok(()) })
    }

    fn exit(&self, id: Uuid) -> BoxFuture<'_, Result<Exit, WardenError>> {
        let status = self.dynos.lock().unwrap().get_mut(&id).unwrap().wait().unwrap();
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        let cause = if status == 0 { ExitCause::Exited } else { self.cause };
        Box::pin(async move { Ok(Exit { status, cause, memory_peak: None, oom_kills: 0, cpu_us: 0, wall_us: 0 }) })
    }

    fn free(&self, id: Uuid) -> BoxFuture<'_, Result<(), WardenError>> {
        self.freed.lock().unwrap().push(id);
        if let Some(mut child) = self.dynos.lock().unwrap().remove(&id) {
            // It may have ended.
            let _gone = kill_process_group(Pid::from_child(&child), Signal::KILL);
            child.wait().unwrap();
        }
        Box::pin(async { Ok(()) })
    }
}
