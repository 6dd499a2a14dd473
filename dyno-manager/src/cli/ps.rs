//! `ps`, `ps:restart`, `ps:stop`, `ps:wait`.

use std::{str::FromStr, time::Duration};

use clap::Args;
use http::Method;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{
    client::typed,
    context::Context,
    error::{CliError, Result},
    layout::{ago, header, plain, until},
    releases,
    target::AppRef,
    wire::Dyno,
};
use crate::model::{DynoName, Invalid, ProcessType};

/// Between two looks of `ps:wait`.
const LOOK: Duration = Duration::from_millis(500);

/// `web.1` or `web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// One dyno.
    Name(DynoName),
    /// All of a type.
    Type(ProcessType),
}

impl FromStr for Which {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        if s.contains('.') { s.parse().map(Self::Name) } else { s.parse().map(Self::Type) }
    }
}

/// Lists the dynos
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno ps\n  $ dyno ps worker run\n  $ dyno ps -a my-app --json")]
pub(super) struct List {
    /// Only dynos of these types
    #[arg(value_name = "TYPE")]
    types: Vec<ProcessType>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let mut answer: Value = context.get(&format!("/apps/{app}/dynos")).await?;
        let wanted = |kind: &str| self.types.is_empty() || self.types.iter().any(|t| t.as_str() == kind);
        if let Some(list) = answer.as_array_mut() {
            list.retain(|dyno| wanted(dyno["type"].as_str().unwrap_or_default()));
        }
        let dynos: Vec<Dyno> = typed(answer.clone())?;
        if let Some(missing) = self.types.iter().find(|t| dynos.iter().all(|d| d.process_type != t.as_str())) {
            return Err(CliError::new(format!("No {missing} dynos on {app}")));
        }
        if self.json {
            return context.say_json(&answer).await;
        }
        if dynos.is_empty() {
            return context.screen.say(format!("No dynos on {app}")).await;
        }
        let text = listing(dynos, context.ambient.now(), &context.ambient.zone);
        context.screen.write(text.as_bytes()).await
    }
}

/// One-offs first, then one group per type, size and command, in the order of the dynos' names.
fn listing(mut dynos: Vec<Dyno>, now: Timestamp, zone: &TimeZone) -> String {
    dynos.sort_by_key(Dyno::order);
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let (one_offs, formation): (Vec<_>, Vec<_>) = dynos.iter().partition(|dyno| dyno.process_type == "run");
    for dyno in one_offs.into_iter().chain(formation) {
        let state = format!("{} {}{}", dyno.state, ago(dyno.updated_at, now, zone), fate(dyno, now));
        let (title, line) = if dyno.process_type == "run" {
            let line = format!("{} ({}): {state}: {}", dyno.name, dyno.size, dyno.command);
            ("run: one-off processes".to_owned(), line)
        } else {
            let title = format!("{} ({}): {}", dyno.process_type, dyno.size, dyno.command);
            (title, format!("{}: {state}", dyno.name))
        };
        match groups.iter_mut().find(|(of, _)| *of == title) {
            Some((_, lines)) => lines.push(line),
            None => groups.push((title, vec![line])),
        }
    }
    let show = |(title, lines): &(String, Vec<String>)| {
        let body: String = lines.iter().map(|line| plain(line) + "\n").collect();
        format!("{}{body}\n", header(&format!("{title} ({})", lines.len())))
    };
    groups.iter().map(show).collect()
}

/// What comes next for a dyno that is not as it should be.
fn fate(dyno: &Dyno, now: Timestamp) -> String {
    match (dyno.state.as_str(), dyno.retry_at, dyno.release.as_ref().and_then(|release| release.version)) {
        ("crashed", Some(at), _) => format!(", next try {}", until(at, now)),
        ("stopping", _, Some(version)) => format!(", of v{version}"),
        _ => String::new(),
    }
}

/// Restarts all dynos, those of a type, or one
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno ps:restart\n  $ dyno ps:restart web\n  $ dyno restart web.1")]
pub(super) struct Restart {
    /// Dyno or type; all dynos when left out
    #[arg(value_name = "DYNO|TYPE")]
    which: Option<Which>,
}

impl Restart {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let (what, path) = match &self.which {
            None => ("all dynos".to_owned(), format!("/apps/{app}/dynos")),
            Some(Which::Type(of)) => (format!("all {of} dynos"), format!("/apps/{app}/formations/{of}")),
            Some(Which::Name(name)) => (format!("dyno {name}"), format!("/apps/{app}/dynos/{name}")),
        };
        context.screen.begin(format!("Restarting {what} on ⬢ {app}")).await;
        context.tell(Method::DELETE, &path).await?;
        context.screen.done("done").await;
        Ok(())
    }
}

/// Stops a dyno or those of a type; formation dynos start again, one-offs end
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno ps:stop run.1828\n  $ dyno ps:stop run")]
pub(super) struct Stop {
    /// Dyno or type
    #[arg(value_name = "DYNO|TYPE")]
    which: Which,
}

impl Stop {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let (what, path) = match &self.which {
            Which::Type(of) => (format!("all {of} dynos"), format!("/apps/{app}/formations/{of}/actions/stop")),
            Which::Name(name) => (format!("dyno {name}"), format!("/apps/{app}/dynos/{name}/actions/stop")),
        };
        context.screen.begin(format!("Stopping {what} on ⬢ {app}")).await;
        context.tell(Method::POST, &path).await?;
        context.screen.done("done").await;
        Ok(())
    }
}

/// Waits until every dyno runs the current release
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno ps:wait\n  $ dyno ps:wait --type web --timeout 120")]
pub(super) struct Wait {
    /// Only dynos of this type
    #[arg(long = "type", value_name = "TYPE")]
    process_type: Option<ProcessType>,
    /// Give up after so many seconds (exit status 1)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl Wait {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let release = releases::current(context, &app).await?;
        let limit = self.timeout.map_or(Duration::MAX, Duration::from_secs);
        context.screen.begin(format!("Waiting for every dyno to be running v{}", release.version)).await;
        let mut last = Vec::new();
        let waited = tokio::time::timeout(limit, self.watch(context, &app, release.version, &mut last)).await;
        match waited {
            Ok(total) => {
                let total = total?;
                context.screen.done(format!("{total} / {total}, done")).await;
                Ok(())
            }
            Err(_) => Err(CliError::new(format!("Not yet up on v{}: {}", release.version, last.join(", ")))),
        }
    }

    /// Returns the number of dynos once all are up; `late` holds those that are not.
    async fn watch(&self, context: &mut Context, app: &AppRef, version: u32, late: &mut Vec<String>) -> Result<usize> {
        loop {
            let mut dynos: Vec<Dyno> = context.get(&format!("/apps/{app}/dynos")).await?;
            dynos.retain(|dyno| dyno.process_type != "run" && !dyno.leaving());
            if let Some(only) = &self.process_type {
                dynos.retain(|dyno| dyno.process_type == only.as_str());
            }
            dynos.sort_by_key(Dyno::order);
            *late = dynos.iter().filter(|dyno| !running(dyno, version)).map(|dyno| dyno.name.clone()).collect();
            if late.is_empty() {
                return Ok(dynos.len());
            }
            context.screen.meanwhile(&format!("{} / {}", dynos.len() - late.len(), dynos.len())).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Up on this release or on a later one: a deploy in the meantime ends the wait, too. One that sleeps is up when it is asked for.
fn running(dyno: &Dyno, version: u32) -> bool {
    matches!(dyno.state.as_str(), "up" | "idle") && dyno.release.as_ref().and_then(|release| release.version).is_some_and(|v| v >= version)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::{
        super::testing::{NOW, Platform, dyno, release, zone},
        *,
    };

    fn show(dynos: Value) -> String {
        listing(serde_json::from_value(dynos).unwrap(), NOW.parse().unwrap(), &zone())
    }

    #[test]
    fn dynos_are_grouped_one_offs_first() {
        let mut crashed = dyno("web.2", "crashed", "2026-08-04T20:58:12Z", "npm start");
        crashed["retry_at"] = json!("2026-08-04T20:58:19Z");
        assert_snapshot!(show(json!([
            dyno("web.10", "up", "2026-08-04T20:53:15Z", "npm start"),
            crashed,
            dyno("worker.1", "starting", "2026-08-04T20:58:15Z", "npm run work"),
            dyno("web.1", "stopping", "2026-08-04T20:58:10Z", "npm start"),
            dyno("web.1", "up", "2026-08-04T20:58:14Z", "npm start"),
            dyno("run.13", "up", "2026-08-03T19:53:14Z", "bash"),
            dyno("run.2", "complete", "2026-08-04T12:53:15Z", "ls \x1b[2J"),
        ])), @r"
        === run: one-off processes (2)

        run.2 (Standard-1X): complete 2026/08/04 05:53:15 -0700 (~ 8h ago): ls \u{1b}[2J
        run.13 (Standard-1X): up 2026/08/03 12:53:14 -0700: bash

        === web (Standard-1X): npm start (4)

        web.1: stopping 2026/08/04 13:58:10 -0700 (~ 5s ago), of v23
        web.1: up 2026/08/04 13:58:14 -0700 (~ 1s ago)
        web.2: crashed 2026/08/04 13:58:12 -0700 (~ 3s ago), next try in 4s
        web.10: up 2026/08/04 13:53:15 -0700 (~ 5m ago)

        === worker (Standard-1X): npm run work (1)

        worker.1: starting 2026/08/04 13:58:15 -0700 (~ 0s ago)
        ");
    }

    #[tokio::test]
    async fn empty_and_unknown() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/dynos", json!([]));
        assert_eq!(platform.out("ps -a my-app").await, "No dynos on my-app\n");
        let ran = platform.run("ps worker -a my-app").await;
        assert_eq!((ran.status, ran.err.as_str()), (1, " ›   Error: No worker dynos on my-app\n"));
        platform.answer("GET /apps/my-app/dynos", json!([dyno("web.1", "up", NOW, "x"), dyno("run.1", "up", NOW, "x")]));
        let shown: Value = serde_json::from_str(&platform.out("ps web -a my-app --json").await).unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn restart_and_stop_reach_the_endpoint_of_their_scope() {
        let mut platform = Platform::start().await;
        for (line, request, told) in [
            ("ps:restart", "DELETE /apps/my-app/dynos", "Restarting all dynos on ⬢ my-app... done\n"),
            ("restart web", "DELETE /apps/my-app/formations/web", "Restarting all web dynos on ⬢ my-app... done\n"),
            ("ps:restart web.1", "DELETE /apps/my-app/dynos/web.1", "Restarting dyno web.1 on ⬢ my-app... done\n"),
            ("ps:stop run.18", "POST /apps/my-app/dynos/run.18/actions/stop", "Stopping dyno run.18 on ⬢ my-app... done\n"),
            ("stop run", "POST /apps/my-app/formations/run/actions/stop", "Stopping all run dynos on ⬢ my-app... done\n"),
        ] {
            platform.answer(request, json!({}));
            let ran = platform.run(&format!("{line} -a my-app")).await;
            assert_eq!((ran.status, ran.err.as_str()), (0, told), "{line}");
            assert!(platform.was_asked(request), "{line}");
        }
    }

    #[tokio::test]
    async fn waiting_ends_when_all_are_up_on_the_release() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/releases", json!([release(22, "a", false), release(23, "b", true)]));
        let request = "GET /apps/my-app/dynos";
        let web = |name, state| dyno(name, state, NOW, "x");
        platform.answer(request, json!([web("web.1", "up"), web("web.2", "starting"), web("run.1", "starting")]));
        platform.answer(request, json!([web("web.1", "up"), web("web.2", "up"), web("web.2", "stopping")]));
        let ran = platform.run("ps:wait -a my-app").await;
        assert_eq!(ran.err, "Waiting for every dyno to be running v23... 2 / 2, done\n");
        platform.answer(request, json!([web("web.1", "up"), web("web.2", "crashed")]));
        let ran = platform.run("ps:wait -a my-app --timeout 1").await;
        assert_eq!(ran.status, 1);
        assert!(ran.err.ends_with("... !\n ›   Error: Not yet up on v23: web.2\n"), "{}", ran.err);
    }
}
