//! `builds`, `builds:info`, `builds:output`, `builds:cancel`, and how a build is followed to its end.

use std::time::Duration;

use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{
    client::typed,
    context::Context,
    error::{CliError, Result},
    layout::{header, pairs, plain, table},
    target::{self, AppRef},
    wire::{Build, who},
};

/// How often a broken stream is taken up again.
const RETRIES: u32 = 10;
/// Between two looks at a build whose output is over but whose status is not final yet.
const PAUSE: Duration = Duration::from_millis(200);

/// Lists the builds
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno builds\n  $ dyno builds -n 50 --json")]
pub(super) struct List {
    /// Builds to show, the newest first
    #[arg(short, long, default_value = "15", value_name = "N")]
    num: usize,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let answer: Value = context.get(&format!("/apps/{app}/builds")).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let mut builds: Vec<Build> = typed(answer)?;
        if builds.is_empty() {
            return context.screen.say(format!("{app} has no builds.")).await;
        }
        newest_first(&mut builds);
        let row = |b: &Build| [b.id.clone(), b.status.clone(), version(b), who(b.user.as_ref()), context.ago(b.created_at)];
        let rows: Vec<_> = builds.iter().take(self.num).map(row).collect();
        context.screen.write((header(&format!("{app} Builds")) + &table(&rows)).as_bytes()).await
    }
}

/// Shows one build
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno builds:info\n  $ dyno builds:info 3f1c --json")]
pub(super) struct Info {
    /// Id or the beginning of one; the newest build when left out
    id: Option<String>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let build = pick(context, &app, self.id.as_deref()).await?;
        let answer: Value = context.get(&format!("/apps/{app}/builds/{}", target::safe(&build.id)?)).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let build: Build = typed(answer)?;
        let rows = [
            ("Status", build.status.clone()),
            ("Error", build.error.clone().unwrap_or_default()),
            ("Source", version(&build)),
            ("By", who(build.user.as_ref())),
            ("When", context.ago(build.created_at)),
            ("Changed", context.ago(build.updated_at)),
            ("Slug", build.slug.as_ref().map(|slug| slug.id.clone()).unwrap_or_default()),
            ("Release", build.release.as_ref().and_then(|r| r.version).map(|v| format!("v{v}")).unwrap_or_default()),
        ];
        let rows = rows.map(|(key, value)| (key, plain(&value)));
        context.screen.write((header(&format!("Build {}", build.id)) + &pairs(rows)).as_bytes()).await
    }
}

/// Prints the output of a build from its beginning, and follows it while it runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno builds:output\n  $ dyno builds:output 3f1c")]
pub(super) struct Output {
    /// Id or the beginning of one; the newest build when left out
    id: Option<String>,
}

impl Output {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let build = pick(context, &app, self.id.as_deref()).await?;
        verdict(&follow(context, &app, &build).await?)
    }
}

/// Cancels a running build
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno builds:cancel\n  $ dyno builds:cancel 3f1c -a my-app")]
pub(super) struct Cancel {
    /// Id or the beginning of one; the newest build when left out
    id: Option<String>,
}

impl Cancel {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let build = pick(context, &app, self.id.as_deref()).await?;
        if build.status != "pending" {
            return Err(CliError::new(format!("Build {} is not running: it {}.", build.id, build.status)));
        }
        context.screen.begin(format!("Cancelling build {} of ⬢ {app}", build.id)).await;
        context.tell(Method::DELETE, &format!("/apps/{app}/builds/{}", target::safe(&build.id)?)).await?;
        context.screen.done("done").await;
        Ok(())
    }
}

fn newest_first(builds: &mut [Build]) {
    builds.sort_by_key(|build| std::cmp::Reverse(build.created_at));
}

fn version(build: &Build) -> String {
    let version = build.source_blob.as_ref().and_then(|source| source.version.as_deref()).unwrap_or_default();
    // A whole commit id says no more than its beginning.
    let commit = version.len() == 40 && version.bytes().all(|b| b.is_ascii_hexdigit());
    if commit { version[..7].to_owned() } else { version.to_owned() }
}

/// The build whose id begins with `id`, or the newest.
async fn pick(context: &mut Context, app: &AppRef, id: Option<&str>) -> Result<Build> {
    let mut builds: Vec<Build> = context.get(&format!("/apps/{app}/builds")).await?;
    newest_first(&mut builds);
    let mut matching = builds.into_iter().filter(|build| id.is_none_or(|id| build.id.starts_with(id)));
    let first = matching.next().ok_or_else(|| match id {
        Some(id) => CliError::new(format!("{app} has no build {id}.")).hint("`dyno builds` lists them."),
        None => CliError::new(format!("{app} has no builds.")),
    })?;
    match (id, matching.next()) {
        (Some(id), Some(_)) if first.id != id => Err(CliError::usage(format!("More than one build begins with {id}; write more of it."))),
        _ => Ok(first),
    }
}

/// Prints the output of a build as it comes and returns the build as it ended. A stream that breaks is taken up
/// where it broke.
pub(super) async fn follow(context: &mut Context, app: &AppRef, build: &Build) -> Result<Build> {
    let path = format!("/apps/{app}/builds/{}", target::safe(&build.id)?);
    let output = build.output_stream_url.clone().unwrap_or_else(|| format!("{path}/output"));
    let mut printed = 0;
    let mut tries = 0;
    loop {
        let streamed = print(context, &output, &mut printed).await?;
        let now: Result<Build> = context.get(&path).await;
        match (streamed, now) {
            (Ok(()), Ok(build)) if build.status != "pending" => return Ok(build),
            (Err(broken), _) | (_, Err(broken)) if tries == RETRIES => return Err(broken),
            // The output ends a moment before the record is final; this may take as long as the release does.
            (Ok(()), Ok(_)) => {}
            _ => tries += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints what comes after the first `printed` bytes. The outer error is of the screen, the inner of the stream.
async fn print(context: &mut Context, output: &str, printed: &mut usize) -> Result<Result<()>> {
    let mut body = match context.client()?.stream(output).await {
        Ok(body) => body,
        Err(e) => return Ok(Err(e)),
    };
    let mut skip = *printed;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(Err(CliError::new("The build's output broke off."))) };
        let Ok(mut data) = frame.into_data() else { continue };
        let known = skip.min(data.len());
        skip -= known;
        let fresh = data.split_off(known);
        context.screen.write(&fresh).await?;
        *printed += fresh.len();
    }
    Ok(Ok(()))
}

/// A failed build is an error.
pub(super) fn verdict(build: &Build) -> Result<()> {
    if build.status == "succeeded" {
        return Ok(());
    }
    let cause = build.error.as_deref().map(|cause| format!(": {}", plain(cause))).unwrap_or_default();
    Err(CliError::new(format!("The build {}{cause}", build.status)))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::super::testing::{Platform, build};

    fn other(id: &str, created_at: &str) -> Value {
        let mut build = build("succeeded");
        build["id"] = json!(id);
        build["created_at"] = json!(created_at);
        build
    }

    #[tokio::test]
    async fn lists_and_picks() {
        let mut platform = Platform::start().await;
        let old = other("a-1", "2026-08-03T20:53:15Z");
        platform.answer("GET /apps/my-app/builds", json!([old, build("failed"), other("a-2", "2026-08-02T20:53:15Z")]));
        platform.answer("GET /apps/my-app/builds/b1", build("failed"));
        platform.answer("GET /apps/my-app/builds/a-1", old);
        assert_snapshot!(platform.out("builds -a my-app").await, @r"
        === my-app Builds

        b1   failed     6933f9b  me@example.com  2026/08/04 13:53:15 -0700 (~ 5m ago)
        a-1  succeeded  6933f9b  me@example.com  2026/08/03 13:53:15 -0700 (~ 24h ago)
        a-2  succeeded  6933f9b  me@example.com  2026/08/02 13:53:15 -0700
        ");
        assert_snapshot!(platform.out("builds:info -a my-app").await, @r"
        === Build b1

        Status:  failed
        Error:   compile failed
        Source:  6933f9b
        By:      me@example.com
        When:    2026/08/04 13:53:15 -0700 (~ 5m ago)
        Changed: 2026/08/04 13:53:15 -0700 (~ 5m ago)
        ");
        assert!(platform.out("builds:info -a my-app a-1").await.starts_with("=== Build a-1"));
        assert_eq!(platform.run("builds:info -a my-app a-").await.status, 2);
        assert!(platform.run("builds:info -a my-app x").await.err.contains("has no build x"));
        let ran = platform.run("builds:cancel -a my-app").await;
        assert_eq!(ran.err, " ›   Error: Build b1 is not running: it failed.\n");
    }

    #[tokio::test]
    async fn output_that_breaks_off_is_taken_up_where_it_broke() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/builds", json!([build("pending")]));
        platform.broken_text("GET /apps/my-app/builds/b1/output", "one\ntwo\n", 6);
        platform.answer("GET /apps/my-app/builds/b1", build("pending"));
        platform.answer("GET /apps/my-app/builds/b1", build("succeeded"));
        let ran = platform.run("builds:output -a my-app").await;
        assert_eq!((ran.out.as_str(), ran.status), ("one\ntwo\n", 0), "{}", ran.err);
    }

    #[tokio::test]
    async fn a_running_build_is_cancelled() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/builds", json!([build("pending")]));
        platform.answer("DELETE /apps/my-app/builds/b1", build("failed"));
        let ran = platform.run("builds:cancel -a my-app").await;
        assert_eq!(ran.err, "Cancelling build b1 of ⬢ my-app... done\n");
        assert!(platform.was_asked("DELETE /apps/my-app/builds/b1"));
    }
}
