//! One platform under test: its own directories, cgroup name and ports.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A running platform.
pub struct Platform {
    name: String,
    options: Vec<String>,
    daemon: Mutex<Option<Child>>,
    log: Arc<Mutex<Vec<String>>>,
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit status; 128 + n for signal n.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_file())
}

impl Platform {
    /// Why suites cannot run here, if they cannot.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        let needed = ["DYNO_BIN_DYNOD", "DYNO_BIN_DYNO", "DYNO_STACK", "DYNO_BUILDPACKS"];
        needed.iter().find(|v| program(v).is_none()).map(|v| format!("{v} does not name a file; run `cargo xtask test`"))
    }

    /// Starts both processes and waits until the daemon is ready.
    ///
    /// # Errors
    /// What dynod said when it did not start.
    pub fn start(options: &[&str]) -> Result<Self> {
        let platform = Self {
            name: format!("dyno-test-{}", std::process::id()),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            daemon: Mutex::default(),
            log: Arc::default(),
        };
        platform.start_daemon(&[])?;
        Ok(platform)
    }

    /// State directory.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib").join(&self.name)
    }

    /// Run directory.
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.name)
    }

    /// Name of its cgroups.
    pub fn cgroup(&self) -> &str {
        &self.name
    }

    /// A dynod command for this platform.
    pub fn dynod(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("DYNO_BIN_DYNOD").unwrap_or_default());
        command.args(args).arg("--state-dir").arg(self.state()).arg("--run-dir").arg(self.run_dir());
        command.args(["--cgroup", &self.name, "--api", "127.0.0.1:0", "--router", "127.0.0.1:0", "--private-registries"]);
        command.args(&self.options);
        command
    }

    /// Starts (or restarts) the daemon; `args` come first on its command line. The warden is started if none answers.
    ///
    /// # Errors
    /// What dynod said when it did not start.
    pub fn start_daemon(&self, args: &[&str]) -> Result<()> {
        let mut command = self.dynod(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("start dynod")?;
        let (stdout, stderr) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(mut log) = log.lock() {
                    log.push(line);
                }
            }
        });
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            let status = child.wait()?;
            bail!("dynod did not start ({status}):\n{}", self.log_tail());
        }
        *self.daemon.lock().map_err(|e| anyhow::anyhow!("{e}"))? = Some(child);
        Ok(())
    }

    /// Kills the daemon (SIGKILL) and waits until it is gone. Its dynos go on.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_daemon(&self) -> Result<()> {
        let mut child = self.daemon.lock().map_err(|e| anyhow::anyhow!("{e}"))?.take().context("no daemon runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops everything and removes the state directory.
    ///
    /// # Errors
    /// What `dynod stop` said.
    pub fn stop(self) -> Result<()> {
        let output = self.dynod(&["stop"]).output().context("run dynod stop")?;
        ensure!(output.status.success(), "dynod stop: {}", String::from_utf8_lossy(&output.stderr));
        if let Some(mut child) = self.daemon.lock().map_err(|e| anyhow::anyhow!("{e}"))?.take() {
            child.wait()?;
        }
        fs::remove_dir_all(self.state()).context("remove the state directory")
    }

    /// Last lines that the daemon and the warden logged.
    pub fn log_tail(&self) -> String {
        let log = self.log.lock().map(|l| l.clone()).unwrap_or_default();
        log[log.len().saturating_sub(30)..].join("\n")
    }

    /// What command lines read: url, token, router, pid.
    ///
    /// # Errors
    /// When the daemon does not run.
    pub fn client(&self) -> Result<Value> {
        let path = self.run_dir().join("api/client.json");
        Ok(serde_json::from_slice(&fs::read(&path).with_context(|| format!("read {}", path.display()))?)?)
    }

    /// A `dyno` command for this platform.
    pub fn dyno(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("DYNO_BIN_DYNO").unwrap_or_default());
        command.args(args).env("DYNO_CLIENT", self.run_dir().join("api/client.json"));
        command.env_remove("DYNO_APP").env_remove("DYNO_URL").env_remove("DYNO_TOKEN").stdin(Stdio::null());
        command
    }

    /// Runs `dyno` and returns whatever came of it.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn try_dyno(&self, args: &[&str]) -> Result<Said> {
        Said::of(self.dyno(args).output().context("run dyno")?)
    }

    /// Runs `dyno`, which must succeed; what it printed.
    ///
    /// # Errors
    /// Its output, when it failed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let said = self.try_dyno(args)?;
        ensure!(said.status == 0, "dyno {} ended with {}:\n{}{}", args.join(" "), said.status, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// `dyno ARGS --json`, parsed.
    ///
    /// # Errors
    /// As [`Self::ok`].
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut with: Vec<&str> = args.to_vec();
        with.push("--json");
        serde_json::from_str(&self.ok(&with)?).with_context(|| format!("{args:?}"))
    }

    /// Creates an app and deploys a directory into it, without leaving a file there.
    ///
    /// # Errors
    /// The build's output, when it failed.
    pub fn deploy(&self, app: &str, source: &Path) -> Result<String> {
        self.ok(&["apps:create", app, "--no-file"])?;
        self.redeploy(app, source)
    }

    /// Deploys a directory into an existing app.
    ///
    /// # Errors
    /// The build's output, when it failed.
    pub fn redeploy(&self, app: &str, source: &Path) -> Result<String> {
        let text = source.to_string_lossy();
        let said = self.try_dyno(&["deploy", "-a", app, &text])?;
        ensure!(said.status == 0, "deploy of {text} ended with {}:\n{}{}", said.status, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// One request through the router; the whole response as text.
    ///
    /// # Errors
    /// When the router cannot be reached.
    pub fn get(&self, app: &str, path: &str) -> Result<String> {
        let client = self.client()?;
        let router = client["router"].as_str().unwrap_or_default().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&router).with_context(|| format!("connect to the router at {router}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(90)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Follows the app's log until a line holds `text`; the line. An event is awaited, not polled for: this is `dyno logs --tail`.
    ///
    /// # Errors
    /// After `seconds` without it.
    pub fn await_log(&self, app: &str, text: &str, seconds: u64) -> Result<String> {
        self.tail(app, &[])?.until(text, seconds)
    }

    /// Waits until every dyno of the app is up.
    ///
    /// # Errors
    /// After two minutes, or of `ps:wait`.
    pub fn wait_up(&self, app: &str) -> Result<()> {
        let began = Instant::now();
        self.ok(&["ps:wait", "-a", app]).with_context(|| format!("after {:?}", began.elapsed())).map(drop)
    }
}

impl Said {
    /// What a finished command has said.
    ///
    /// # Errors
    /// When it neither ended nor was ended.
    pub fn of(output: Output) -> Result<Self> {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status.code().or_else(|| output.status.signal().map(|s| 128 + s)).context("no status")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self { status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}
