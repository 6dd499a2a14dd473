//! The agent's own side: one instance, and requests until its input ends.

use std::{
    fs,
    io::{BufRead, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use dyno_runtime::{Dyno, Host, Layer, Sandbox, StartOptions, Stdio, Streams, Upper};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount, mount_bind},
    net::SocketAddrV4,
};

use super::{Answer, App, Phases, Request, Run, Setup, Tier, tier};
use crate::sample::{Sample, micros};

/// How long an app may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers requests until stdin ends, then takes everything down.
///
/// # Errors
/// When the instance cannot be opened or taken down.
pub fn serve(setup: &Setup, mounts: usize) -> Result<()> {
    let server = match open(setup, mounts) {
        Ok(server) => server,
        Err(e) => return say(&Answer::Failed(format!("{e:#}"))),
    };
    say(&Answer::Done)?;
    let (mut server, _ballast) = server;
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|request| server.answer(&request));
        say(&answer.unwrap_or_else(|e| Answer::Failed(format!("{e:#}"))))?;
    }
    server.keep(0)?;
    Ok(server.host.dismantle()?)
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn open(setup: &Setup, mounts: usize) -> Result<(Server, super::ballast::Carried)> {
    if mounts > 0 {
        crowd(&setup.dir.with_extension("mounts"), mounts)?;
    }
    // As a daemon does: before it holds thousands of files (`HostOptions` says why).
    let host = tier::open(setup)?;
    let ballast = setup.ballast.take()?;
    let mut sandbox = Sandbox::new(vec![Layer::Image { path: setup.image.clone(), sha256: setup.sha256.clone() }], ["/true"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 64 << 20, inodes: 10_000 };
    sandbox.limits.memory = Some(256 << 20);
    sandbox.limits.pids = Some(64);
    sandbox.limits.cpu_millis = Some(1000);
    let server = Server { setup: setup.clone(), host, sandbox, next: AtomicUsize::new(0), alive: Vec::new() };
    // The first start reads files, and begins what makes things ready.
    server.once(Duration::ZERO)?;
    Ok((server, ballast))
}

/// Mounts in this process's own mount namespace, which vanish with it.
fn crowd(dir: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    mount("crowd", dir, "tmpfs", MountFlags::empty(), None).with_context(|| format!("mount a tmpfs on {}", dir.display()))?;
    for n in 1..count {
        let point = dir.join(n.to_string());
        fs::create_dir(&point)?;
        mount_bind(&point, &point).with_context(|| format!("bind {}", point.display()))?;
    }
    Ok(())
}

struct Server {
    setup: Setup,
    host: Host,
    sandbox: Sandbox,
    next: AtomicUsize,
    alive: Vec<Dyno>,
}

impl Server {
    fn answer(&mut self, request: &Request) -> Result<Answer> {
        Ok(match request {
            Request::Run { runs, idle_us, threads } => Answer::Samples(self.run(*runs, Duration::from_micros(*idle_us), *threads)?),
            Request::Sustain { threads, seconds } => Answer::Number(self.sustain(*threads, Duration::from_secs(*seconds))?),
            Request::Alive { count } => self.keep(*count).map(|()| Answer::Done)?,
            Request::Stop { runs, idle_us } => Answer::Samples(self.stop(*runs, Duration::from_micros(*idle_us))?),
            Request::Probe => Answer::Text(self.probe()?),
            Request::Charged => Answer::Number(self.charged()?),
            Request::App { app, runs } => Answer::Samples(self.app(app, *runs)?),
        })
    }

    fn id(&self) -> String {
        format!("b{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn with(&self, program: &str) -> Sandbox {
        Sandbox { argv: vec![program.to_owned()], ..self.sandbox.clone() }
    }

    fn run(&self, runs: usize, idle: Duration, threads: usize) -> Result<Vec<Run>> {
        tier::fill(&self.host, &self.setup, &self.sandbox)?;
        let some = || (0..runs).map(|_| self.once(idle)).collect::<Result<Vec<_>>>();
        if threads == 1 {
            return some();
        }
        let all = scope(|s| {
            let workers: Vec<_> = (0..threads).map(|_| s.spawn(some)).collect();
            workers.into_iter().map(|w| w.join().map_err(|_| anyhow!("a thread panicked"))?).collect::<Result<Vec<_>>>()
        })?;
        Ok(all.concat())
    }

    fn once(&self, idle: Duration) -> Result<Run> {
        rest(idle);
        let id = self.id();
        let from = Instant::now();
        let dyno = self.host.start(&id, &self.sandbox, StartOptions { tenant: tier::tenant(&self.setup), ..StartOptions::default() })?;
        let exec = micros(from.elapsed());
        let status = dyno.wait()?.status;
        let end = micros(from.elapsed());
        ensure!(status == 0, "the payload ended with status {status}");
        let (timing, ready) = (dyno.timing(), self.setup.tier.was_ready(&dyno));
        dyno.free()?;
        let free = micros(from.elapsed()) - end;
        // A parked one was prepared and walled before anybody asked.
        let made = if self.setup.tier == Tier::Parked { (0.0, 0.0) } else { (timing.prepare_us as f64, timing.walls_us as f64) };
        let phases = Phases { prepare: made.0, walls: made.1, exec: exec - made.0 - made.1, end: end - exec, free };
        Ok(Run { sample: Sample { exec: Some(exec), end }, phases, ready })
    }

    /// Per second.
    fn sustain(&self, threads: usize, time: Duration) -> Result<f64> {
        tier::fill(&self.host, &self.setup, &self.sandbox)?;
        let from = Instant::now();
        let work = || {
            let mut done = 0;
            while from.elapsed() < time {
                self.once(Duration::ZERO)?;
                done += 1;
            }
            anyhow::Ok(done)
        };
        let done: usize = scope(|s| {
            let workers: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
            workers.into_iter().map(|w| w.join().map_err(|_| anyhow!("a thread panicked"))?).sum::<Result<_>>()
        })?;
        Ok(done as f64 / from.elapsed().as_secs_f64())
    }

    fn keep(&mut self, count: usize) -> Result<()> {
        let stay = self.with("/stay");
        while self.alive.len() < count {
            self.alive.push(self.host.start(&self.id(), &stay, StartOptions::default())?);
        }
        for dyno in self.alive.drain(count..) {
            dyno.free()?;
        }
        Ok(())
    }

    fn stop(&self, runs: usize, idle: Duration) -> Result<Vec<Run>> {
        tier::fill(&self.host, &self.setup, &self.sandbox)?;
        let stay = self.with("/stay");
        let once = || {
            let dyno = self.host.start(&self.id(), &stay, StartOptions::default())?;
            rest(idle);
            let from = Instant::now();
            dyno.kill()?;
            dyno.wait()?;
            let exec = micros(from.elapsed());
            dyno.free()?;
            Ok(Run { sample: Sample { exec: Some(exec), end: micros(from.elapsed()) }, phases: Phases::default(), ready: true })
        };
        (0..runs).map(|_| once()).collect()
    }

    fn probe(&self) -> Result<String> {
        tier::fill(&self.host, &self.setup, &self.sandbox)?;
        let mut dyno = self.host.start(&self.id(), &self.with("/probe"), StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
        let Streams::Pipes { stdout, .. } = dyno.take_streams() else { return Err(anyhow!("no pipes")) };
        let mut text = String::new();
        std::fs::File::from(stdout).read_to_string(&mut text)?;
        dyno.wait()?;
        dyno.free()?;
        Ok(text)
    }

    fn charged(&self) -> Result<f64> {
        let all = self.alive.iter().map(|dyno| Ok(dyno.stats()?.memory.now.unwrap_or(0) as f64)).collect::<Result<Vec<_>>>()?;
        Ok(all.iter().sum::<f64>() / all.len().max(1) as f64)
    }

    fn app(&self, app: &App, runs: usize) -> Result<Vec<Run>> {
        let image = Layer::Image { path: app.stack.0.clone(), sha256: app.stack.1.clone() };
        let mut sandbox = Sandbox { argv: app.argv.clone(), env: app.env.iter().cloned().collect(), cwd: "/app".into(), ..self.sandbox.clone() };
        sandbox.root.layers = vec![Layer::Directory(app.slug.clone()), image];
        sandbox.limits.memory = Some(512 << 20);
        sandbox.limits.pids = Some(256);
        let once = || {
            tier::fill(&self.host, &self.setup, &sandbox)?;
            let from = Instant::now();
            let dyno = self.host.start(&self.id(), &sandbox, StartOptions::default())?;
            let exec = micros(from.elapsed());
            let answered = first_byte(&dyno, app.port, from);
            let end = micros(from.elapsed());
            let ready = self.setup.tier.was_ready(&dyno);
            dyno.free()?;
            answered.map(|()| Run { sample: Sample { exec: Some(exec), end }, phases: Phases::default(), ready })
        };
        (0..runs).map(|_| once()).collect()
    }
}

fn rest(idle: Duration) {
    if !idle.is_zero() {
        sleep(idle);
    }
}

/// Asks until somebody answers: when an app listens, only asking tells.
fn first_byte(dyno: &Dyno, port: u16, from: Instant) -> Result<()> {
    let to = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    loop {
        ensure!(!dyno.has_ended(), "the app ended with {:?}", dyno.wait()?.status);
        ensure!(from.elapsed() < PATIENCE, "the app does not answer");
        let socket = dyno.socket()?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) => return answer(socket),
            Err(Errno::CONNREFUSED) => sleep(Duration::from_micros(500)),
            Err(e) => return Err(e.into()),
        }
    }
}

fn answer(socket: OwnedFd) -> Result<()> {
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")?;
    let mut first = [0];
    stream.read_exact(&mut first).context("the first answer")?;
    Ok(())
}
