//! `run`, `run:detached`, `run:wait`: one-off dynos, attached or not.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    client::typed,
    context::Context,
    error::{CliError, Result},
    layout::{duration, size},
    one_off::{OneOff, at_terminal, failure, join, status},
    session::{Control, Ending, Local, Session},
    terminal,
    wire::Dyno,
};
use crate::model::DynoName;

/// Runs a command in a new dyno, attached to this terminal
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno run bash
  $ dyno run -a my-app -- python manage.py migrate --noinput
  $ dyno run --size Standard-2X --env DEBUG=1 console
  $ dyno run 'cat > /tmp/x && wc /tmp/x' < file
  $ dyno run --no-tty env > env.txt

The exit status is the command's own. With a terminal, Ctrl-C goes to the command;
four times within a second without an answer, it disconnects.")]
pub(super) struct Attached {
    #[command(flatten)]
    one_off: OneOff,
    /// Do not use a terminal; standard output and standard error stay apart
    #[arg(long)]
    no_tty: bool,
    /// Exit with the command's status (the default)
    #[arg(short = 'x', long, overrides_with = "no_exit_code")]
    exit_code: bool,
    /// Exit with 0 whatever the command's status
    #[arg(long, overrides_with = "exit_code")]
    no_exit_code: bool,
}

impl Attached {
    pub(super) async fn run(self, context: &mut Context) -> Result<u8> {
        let app = self.one_off.app(context)?;
        let keys = context.ambient.terminal && !self.no_tty;
        let mut body = self.one_off.body(true);
        body["force_no_tty"] = json!(!keys);
        if keys {
            at_terminal(&mut body, context.ambient.var("TERM"), terminal::size());
        }
        context.screen.begin(format!("Running {} on ⬢ {app}", join(&self.one_off.command))).await;
        let dyno: Dyno = context.send(Method::POST, &format!("/apps/{app}/dynos"), &body).await?;
        let url = dyno.attach_url.as_deref().ok_or_else(|| CliError::new("The platform gave no way to attach."))?;
        context.screen.meanwhile("connecting").await;
        let mut session = Session::new(context.client()?.attach(url).await?);
        let started = session.started(&mut context.screen).await?;
        context.screen.done(format!("{}, {}", if started { "up" } else { "failed" }, dyno.name)).await;
        let raw = keys.then(terminal::Raw::enter).transpose();
        let raw = raw.map_err(|e| CliError::new(format!("The terminal cannot be set up: {e}")).hint("Try --no-tty."))?;
        let local = Local { input: context.ambient.take_input(), controls: controls(keys)?, keys };
        let ending = session.pump(local, &mut context.screen).await;
        drop(raw);
        let status = conclude(context, &dyno.name, ending?).await?;
        Ok(if self.no_exit_code { 0 } else { status })
    }
}

/// The exit status, after a word about anything but success.
async fn conclude(context: &mut Context, name: &str, ending: Ending) -> Result<u8> {
    match ending {
        Ending::Exit(exit) => {
            if let Some(error) = failure(&exit) {
                context.screen.fail(&error).await;
            }
            Ok(status(&exit))
        }
        Ending::Lost => Err(CliError::new(format!("The connection to {name} broke before it ended."))
            .hint(format!("Its processes are sent SIGHUP; `dyno logs -p {name}` shows what became of them."))),
        Ending::Detached => {
            context.screen.note(format!("\nDisconnected from {name}; its processes are sent SIGHUP.")).await;
            Err(CliError::quiet(130))
        }
        Ending::Quit(signal) => Err(CliError::quiet(128_u8.saturating_add(signal))),
    }
}

/// Signals of this process. With a raw terminal Ctrl-C is a byte, so SIGINT comes from elsewhere and ends us.
fn controls(keys: bool) -> Result<mpsc::Receiver<Control>> {
    let listen = |kind: SignalKind| signal(kind).map_err(|e| CliError::new(format!("Signals cannot be handled: {e}")));
    let mut interrupts = listen(SignalKind::interrupt())?;
    let mut terminations = listen(SignalKind::terminate())?;
    let mut hangups = listen(SignalKind::hangup())?;
    let mut windows = listen(SignalKind::window_change())?;
    let (sender, receiver) = mpsc::channel(16);
    let resize = || {
        let (rows, cols) = terminal::size();
        Control::Resize(rows, cols)
    };
    tokio::spawn(async move {
        // The window may have changed since the dyno was asked for.
        let mut next = keys.then(resize);
        loop {
            if let Some(control) = next.take()
                && sender.send(control).await.is_err()
            {
                return;
            }
            next = Some(tokio::select! {
                () = heard(&mut interrupts) => if keys { Control::Quit(2) } else { Control::Signal(2) },
                () = heard(&mut terminations) => Control::Quit(15),
                () = heard(&mut hangups) => Control::Quit(1),
                () = heard(&mut windows), if keys => resize(),
            });
        }
    });
    Ok(receiver)
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

/// Starts a command in a new dyno and leaves it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno run:detached -a my-app python import.py
  $ dyno run:detached --json --size Standard-2X -- rake db:seed
  $ dyno run:detached --time-to-live 3600 worker")]
pub(super) struct Detached {
    /// End it after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time_to_live: Option<u64>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    one_off: OneOff,
}

impl Detached {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = self.one_off.app(context)?;
        let mut body = self.one_off.body(false);
        if let Some(seconds) = self.time_to_live {
            body["time_to_live"] = json!(seconds);
        }
        context.screen.begin(format!("Running {} on ⬢ {app}", join(&self.one_off.command))).await;
        let answer: Value = context.send(Method::POST, &format!("/apps/{app}/dynos"), &body).await?;
        let dyno: Dyno = typed(answer.clone())?;
        context.screen.done(format!("done, {}", dyno.name)).await;
        if self.json {
            return context.say_json(&answer).await;
        }
        context.screen.say(format!("Run dyno logs --app {app} --dyno {} to view the output.", dyno.name)).await
    }
}

/// Waits for a dyno to end and exits with its status
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno run:wait run.13\n  $ dyno run:wait run.13 -a my-app --json")]
pub(super) struct Wait {
    /// Dyno to wait for
    dyno: DynoName,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl Wait {
    pub(super) async fn run(self, context: &mut Context) -> Result<u8> {
        let app = context.app()?;
        context.screen.begin(format!("Waiting for {} on ⬢ {app}", self.dyno)).await;
        let answer = context.client()?.wait(&format!("/apps/{app}/dynos/{}/wait", self.dyno)).await?;
        let dyno: Dyno = typed(answer.clone())?;
        let exit = dyno.exit.ok_or_else(|| CliError::new(format!("{} has not ended: it is {}.", dyno.name, dyno.state)))?;
        let memory = exit.memory_peak.map(|bytes| format!(", memory peak {}", size(bytes))).unwrap_or_default();
        let times = format!("{} (cpu {}{memory})", duration(exit.wall_us), duration(exit.cpu_us));
        context.screen.done(format!("{} after {times}", dyno.state)).await;
        if self.json {
            context.say_json(&answer).await?;
        }
        conclude(context, &dyno.name, Ending::Exit(exit)).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        super::testing::{NOW, Platform, dyno, exit},
        *,
    };
    use crate::attach::Frame;

    const POST: &str = "POST /apps/my-app/dynos";

    async fn platform() -> Platform {
        let mut platform = Platform::start().await;
        let mut run = dyno("run.13", "starting", NOW, "bash");
        run["attach_url"] = json!("http://127.0.0.1:5080/attach/secret");
        platform.answer(POST, run);
        platform
    }

    #[tokio::test]
    async fn input_output_and_status_go_through_apart() {
        let mut platform = platform().await;
        platform.input(&[b"one\n", b"two\n"]);
        let heard = platform.attach(async |mut dyno| {
            dyno.say(Frame::State("starting".into())).await;
            dyno.say(Frame::State("up".into())).await;
            let mut input = Vec::new();
            while let Some(Frame::Stdin(data)) = dyno.hear().await {
                input.extend_from_slice(&data);
            }
            // The loop ended at Eof; the way back is still open.
            dyno.say(Frame::Stdout(Bytes::from_static(b"out\n"))).await;
            dyno.say(Frame::Stderr(Bytes::from_static(b"err\n"))).await;
            dyno.say(Frame::Exit(exit(42))).await;
            input
        });
        let ran = platform.run("run -a my-app -e A=1 -- cat -n 'a b'").await;
        assert_eq!(heard.await.unwrap(), b"one\ntwo\n");
        assert_eq!((ran.status, ran.out.as_str()), (42, "out\n"));
        let told = "Running cat -n \"a b\" on ⬢ my-app... up, run.13\nerr\n ›   Error: Process exited with code 42\n";
        assert_eq!(ran.err, told);
        let want = json!({"command": "cat -n \"a b\"", "attach": true, "force_no_tty": true, "env": {"A": "1"}});
        assert_eq!(platform.sent(POST), want);
    }

    #[tokio::test]
    async fn the_end_of_input_is_told_once_and_ends_nothing() {
        let mut platform = platform().await;
        let heard = platform.attach(async |mut dyno| {
            dyno.say(Frame::State("up".into())).await;
            let first = dyno.hear().await;
            dyno.say(Frame::Exit(exit(0))).await;
            (first, dyno.hear().await)
        });
        let ran = platform.run("run -a my-app env").await;
        assert_eq!((ran.status, ran.err.as_str()), (0, "Running env on ⬢ my-app... up, run.13\n"));
        assert_eq!(heard.await.unwrap(), (Some(Frame::Eof), None));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_an_error() {
        let mut platform = platform().await;
        let heard = platform.attach(async |mut dyno| dyno.say(Frame::State("up".into())).await);
        let ran = platform.run("run -a my-app env").await;
        heard.await.unwrap();
        assert_eq!(ran.status, 1);
        assert!(ran.err.contains("The connection to run.13 broke before it ended."), "{}", ran.err);
    }

    #[tokio::test]
    async fn a_dyno_that_never_came_up_is_told() {
        let mut platform = platform().await;
        let _heard = platform.attach(async |mut dyno| dyno.say(Frame::Exit(exit(127))).await);
        let ran = platform.run("run -a my-app nonsense").await;
        assert_eq!(ran.status, 127);
        assert!(ran.err.starts_with("Running nonsense on ⬢ my-app... failed, run.13\n"), "{}", ran.err);
    }

    #[tokio::test]
    async fn the_status_can_be_left_out() {
        let mut platform = platform().await;
        let _heard = platform.attach(async |mut dyno| dyno.say(Frame::Exit(exit(3))).await);
        assert_eq!(platform.run("run -a my-app --no-exit-code env").await.status, 0);
    }

    #[tokio::test]
    async fn a_refused_session_or_dyno_is_told() {
        let mut platform = platform().await;
        platform.refuse(POST, 422, "The app has no release.");
        let ran = platform.run("run -a my-app env").await;
        let told = "Running env on ⬢ my-app... !\n ›   Error: The app has no release.\n";
        assert_eq!((ran.status, ran.err.as_str()), (1, told));
        let mut run = dyno("run.13", "starting", NOW, "bash");
        run["attach_url"] = json!("/attach/stale");
        platform.answer(POST, run);
        let ran = platform.run("run -a my-app env").await;
        assert!(ran.err.contains("Error: no answer to GET /attach/stale"), "{}", ran.err);
    }

    #[tokio::test]
    async fn options_behind_the_command_are_pointed_out() {
        let ran = platform().await.run("run bash -a my-app").await;
        assert_eq!(ran.status, 2);
        assert!(ran.err.contains("Hint: Options go before the command"), "{}", ran.err);
    }

    #[tokio::test]
    async fn detached_and_waited_for() {
        let mut platform = platform().await;
        let ran = platform.run("run:detached -a my-app --time-to-live 60 -s basic -- rake db:seed").await;
        assert_eq!(ran.err, "Running rake db:seed on ⬢ my-app... done, run.13\n");
        assert_eq!(ran.out, "Run dyno logs --app my-app --dyno run.13 to view the output.\n");
        let want = json!({"command": "rake db:seed", "attach": false, "env": {}, "size": "basic", "time_to_live": 60});
        assert_eq!(platform.sent(POST), want);
        let mut ended = dyno("run.13", "complete", NOW, "rake db:seed");
        let get = "GET /apps/my-app/dynos/run.13/wait";
        for (status, told) in [(0, ""), (5, " ›   Error: Process exited with code 5\n")] {
            ended["exit"] = serde_json::to_value(exit(status)).unwrap();
            platform.answer(get, ended.clone());
            let ran = platform.run("run:wait run.13 -a my-app").await;
            let line = "Waiting for run.13 on ⬢ my-app... complete after 2.1s (cpu 0.4s, memory peak 13.2M)\n";
            assert_eq!((i32::from(ran.status), ran.err), (status, format!("{line}{told}")));
        }
    }
}
