//! The container's side of `create` and `run`: what the first process does from its birth to its program. It reads top to bottom.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    ahead::Joining,
    cgroup,
    channel::{Channel, Message},
    console, hooks,
    launcher::Launcher,
    namespaces,
    namespaces::Birth,
    plan::{Container, Namespace},
    process::{self, Outfit, Program},
    rootfs::Prepared,
    state::State,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// What the runtime hands over. All descriptors are close-on-exec.
#[derive(Debug)]
pub struct Child<'a> {
    /// What is to be made.
    pub container: &'a Container,
    /// For hooks and listeners.
    pub state: State,
    /// Its control groups, for mounts of them.
    pub cgroup: &'a cgroup::Record,
    /// `tasks` of its v1 groups.
    pub tasks: Vec<OwnedFd>,
    /// Namespaces that are made ahead.
    pub ahead: Option<Joining>,
    /// Trees of the host.
    pub prepared: Option<Prepared>,
    /// To the runtime.
    pub runtime: Channel,
    /// Who gets the terminal.
    pub console: Option<OwnedFd>,
    /// Where `start` is awaited, open for reading and writing.
    pub start: OwnedFd,
    /// For the program.
    pub outfit: Outfit,
    /// What it waits in; None: it waits itself.
    pub launcher: Option<Launcher>,
    /// MS_MOVE and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// The runtime says when offsets of clocks, interfaces and so on are there.
    pub halt: bool,
    /// The runtime has hooks to run once the mounts are made.
    pub hooked: bool,
}

impl Child<'_> {
    /// Never returns: it ends as the program, or with status 1.
    pub fn run(mut self, birth: Birth) -> ! {
        let failed = match self.until_ready(birth) {
            Err(e) => Some(e),
            Ok(program) => self.wait_and_begin(program),
        };
        if let Some(e) = failed {
            self.tell(&e);
        }
        sys::exit_now(1)
    }

    /// To the runtime as long as it listens; after that to `start`, which reads what it finds in the FIFO once nobody else has it open.
    fn tell(&self, error: &Error) {
        if self.runtime.send(&Message::Failed(error.kind(), error.to_string())).is_err() {
            rustix::io::write(&self.start, error.to_string().as_bytes()).ok();
        }
    }

    fn until_ready(&mut self, birth: Birth) -> Result<Option<Program>> {
        sys::die_with_parent(libc::SIGKILL).wall(|| "prctl(PR_SET_PDEATHSIG)".into())?;
        // Ids mapped, scope of systemd made. The runtime's death shows here too.
        self.runtime.expect_go()?;
        sys::set_dumpable(0).wall(|| "prctl(PR_SET_DUMPABLE)".into())?;
        // As it is seen in here: what the record will have is for the runtime's hooks.
        self.state.pid = std::process::id();
        let c = self.container;
        if c.namespaces.user != Namespace::Host {
            become_root()?;
        }
        namespaces::enter(&c.namespaces, birth.mount.as_ref(), self.ahead.take(), &self.tasks)?;
        drop(birth);
        self.tasks.clear();
        if self.halt {
            self.runtime.send(&Message::Go)?;
            self.runtime.expect_go()?;
        }
        if c.namespaces.time == Namespace::New {
            namespaces::enter_time()?;
        }
        rustix::process::setsid().wall(|| "setsid".into())?;
        names(c)?;
        if let Some(p) = &c.process {
            self.outfit.collect(p)?;
        }
        self.root()?;
        let Some(p) = &c.process else { return self.ready().map(|()| None) };
        let program = process::finish(p, &mut self.outfit, &self.runtime)?;
        if let Some(launcher) = self.launcher.take() {
            sys::die_with_parent(0).wall(|| "prctl(PR_SET_PDEATHSIG, 0)".into())?;
            return Err(program.launch(&launcher, &self.runtime, &self.start));
        }
        self.ready()?;
        Ok(Some(program))
    }

    /// The mounts, the root, the terminal, and what nobody inside may read or write.
    fn root(&mut self) -> Result<()> {
        let c = self.container;
        let prepared = self.prepared.take().ok_or_else(|| Error::refused(ErrorKind::Io, "the root is used up"))?;
        let root = prepared.raise(c, self.cgroup)?;
        if self.hooked {
            self.runtime.send(&Message::Go)?;
            self.runtime.expect_go()?;
        }
        hooks::run("createContainer", &c.hooks.create_container, &self.state)?;
        let inside = root.enter(self.no_pivot)?;
        if let (Some(p), Some(socket)) = (&c.process, self.console.take()) {
            let (master, slave) = console::open(p)?;
            console::send(socket.as_fd(), master)?;
            console::take(slave)?;
        }
        inside.protect(c)
    }

    fn ready(&self) -> Result<()> {
        // From here on the runtime may end well; should it die before it has said so, the channel tells.
        sys::die_with_parent(0).wall(|| "prctl(PR_SET_PDEATHSIG, 0)".into())?;
        self.runtime.send(&Message::Ready)?;
        self.runtime.expect_go()
    }

    fn wait_and_begin(&self, program: Option<Program>) -> Option<Error> {
        if let Err(e) = wait(&self.start) {
            return Some(e);
        }
        if let Err(e) = hooks::run("startContainer", &self.container.hooks.start_container, &self.state) {
            return Some(e);
        }
        program.map(Program::begin)
    }
}

/// Until `start` writes a byte. It has both ends itself, so that who only looks whether it waits ends nothing.
fn wait(fifo: &OwnedFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(fifo, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).io(|| "poll(start)".into()),
        }
        let mut byte = [0];
        match rustix::io::read(fifo, &mut byte) {
            Ok(1) => return Ok(()),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(e).io(|| "read(start)".into()),
        }
    }
}

/// Id 0 of the user namespace, where that has one: capabilities over what it owns are there already, but new files should be its own.
fn become_root() -> Result<()> {
    match sys::set_groups(&[]) {
        // Denied in an unprivileged user's namespace.
        Ok(()) | Err(Errno::PERM) => {}
        Err(e) => return Err(e).wall(|| "setgroups".into()),
    }
    match sys::set_ids(0, 0, None) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(e) => Err(e).wall(|| "setresuid(0) in the user namespace".into()),
    }
}

fn names(c: &Container) -> Result<()> {
    if let Some(name) = &c.hostname {
        rustix::system::sethostname(name.as_bytes()).wall(|| format!("hostname: sethostname({name:?})"))?;
    }
    if let Some(name) = &c.domainname {
        sys::set_domain_name(name).wall(|| format!("domainname: setdomainname({name:?})"))?;
    }
    Ok(())
}
