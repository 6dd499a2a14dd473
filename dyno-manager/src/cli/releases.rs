//! `releases`, `releases:info`, `rollback`.

use std::{collections::BTreeMap, str::FromStr};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    client::typed,
    config_vars::aligned,
    context::Context,
    error::{CliError, Result},
    layout::{header, pairs, plain, table},
    target::AppRef,
    wire::{Release, who},
};

/// `v12` or `12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version(u32);

impl FromStr for Version {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let digits = s.strip_prefix('v').unwrap_or(s);
        let number = digits.parse().ok().filter(|n| *n > 0 && digits.bytes().all(|b| b.is_ascii_digit()));
        number.map(Self).ok_or_else(|| "must look like v12".to_owned())
    }
}

/// Lists the releases
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno releases\n  $ dyno releases -n 50 -a my-app\n  $ dyno releases --json")]
pub(super) struct List {
    /// Releases to show, the newest first
    #[arg(short, long, default_value = "15", value_name = "N")]
    num: usize,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let answer: Value = context.get(&format!("/apps/{app}/releases")).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let releases = newest_first(typed(answer)?);
        if releases.is_empty() {
            return context.screen.say(format!("{app} has no releases.")).await;
        }
        let now = in_force(&releases).map(|r| format!(" - Current: v{}", r.version)).unwrap_or_default();
        let row = |r: &Release| [format!("v{}", r.version), titled(r), who(r.user.as_ref()), context.ago(r.created_at)];
        let rows: Vec<_> = releases.iter().take(self.num).map(row).collect();
        context.screen.write((header(&format!("{app} Releases{now}")) + &table(&rows)).as_bytes()).await
    }
}

/// Shows one release and its config vars
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno releases:info\n  $ dyno releases:info v12 -a my-app\n  $ dyno releases:info --json")]
pub(super) struct Info {
    /// Which one; the current release when left out
    version: Option<Version>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let version = match self.version {
            Some(Version(version)) => version,
            None => current(context, &app).await?.version,
        };
        let path = format!("/apps/{app}/releases/{version}");
        let answer: Value = context.get(&path).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let release: Release = typed(answer)?;
        let vars: BTreeMap<String, String> = context.get(&format!("{path}/config-vars")).await?;
        let rows = [
            ("Change", release.description.clone()),
            ("By", who(release.user.as_ref())),
            ("When", context.ago(release.created_at)),
            ("Status", release.status.clone()),
            ("Slug", release.slug.as_ref().map(|slug| slug.id.clone()).unwrap_or_default()),
        ];
        let rows = rows.map(|(key, value)| (key, plain(&value)));
        let mut text = header(&format!("Release v{version}")) + &pairs(rows);
        if !vars.is_empty() {
            text += &format!("\n{}{}", header(&format!("v{version} Config Vars")), aligned(&vars));
        }
        context.screen.write(text.as_bytes()).await
    }
}

/// Makes a new release with the code and config vars of an earlier one
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno rollback\n  $ dyno rollback v40 -a my-app")]
pub(super) struct Rollback {
    /// Which one; the one before the current release when left out
    version: Option<Version>,
}

impl Rollback {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let releases = all(context, &app).await?;
        let now = in_force(&releases).map(|release| release.version);
        let target = target(&releases, now, self.version)?;
        context.screen.begin(format!("Rolling back {app} to v{}", target.version)).await;
        let body = json!({ "release": target.id });
        let made: Release = context.send(Method::POST, &format!("/apps/{app}/releases"), &body).await?;
        context.screen.done(format!("done, v{}", made.version)).await;
        if let Some(before) = now {
            let undo = format!("Code and config vars were rolled back. To undo, run: dyno rollback v{before}");
            context.screen.note(format!(" ›   {undo}")).await;
        }
        Ok(())
    }
}

/// The release to go back to.
fn target(releases: &[Release], now: Option<u32>, wanted: Option<Version>) -> Result<Release> {
    let found = match wanted {
        Some(Version(version)) => releases.iter().find(|release| release.version == version),
        None => {
            releases.iter().find(|release| now.is_some_and(|now| release.version < now) && release.status == "succeeded" && release.slug.is_some())
        }
    };
    match (found, wanted) {
        (Some(release), _) if release.status == "failed" => Err(CliError::new(format!("v{} failed; it was never in force.", release.version))),
        (Some(release), _) => Ok(release.clone()),
        (None, Some(Version(version))) => Err(CliError::new(format!("There is no release v{version}.")).hint("`dyno releases` lists them.")),
        (None, None) => Err(CliError::new("There is no earlier release to go back to.")),
    }
}

fn newest_first(mut releases: Vec<Release>) -> Vec<Release> {
    releases.sort_by_key(|release| std::cmp::Reverse(release.version));
    releases
}

async fn all(context: &mut Context, app: &AppRef) -> Result<Vec<Release>> {
    Ok(newest_first(context.get(&format!("/apps/{app}/releases")).await?))
}

fn in_force(releases: &[Release]) -> Option<&Release> {
    releases.iter().find(|release| release.current)
}

/// The release in force.
pub(super) async fn current(context: &mut Context, app: &AppRef) -> Result<Release> {
    let releases = all(context, app).await?;
    let found = in_force(&releases).cloned();
    found.ok_or_else(|| CliError::new(format!("{app} has no release yet.")).hint("`dyno deploy` makes one."))
}

fn titled(release: &Release) -> String {
    let suffix = match release.status.as_str() {
        "pending" => " release command executing",
        "failed" => " release command failed",
        _ => "",
    };
    format!("{}{suffix}", release.description)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{
        super::testing::{Platform, release},
        *,
    };

    fn history() -> Value {
        let mut pending = release(42, "Deploy abcdef0", false);
        pending["status"] = json!("pending");
        let mut failed = release(39, "Deploy 6933f9b", false);
        failed["status"] = json!("failed");
        let mut early = release(1, "Initial release", false);
        early["slug"] = json!(null);
        json!([early, failed, release(40, "Set A config vars", false), release(41, "Deploy 0123456", true), pending])
    }

    #[tokio::test]
    async fn lists() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/releases", history());
        assert_snapshot!(platform.out("releases -a my-app -n 4").await, @r"
        === my-app Releases - Current: v41

        v42  Deploy abcdef0 release command executing  me@example.com  2026/08/04 13:53:15 -0700 (~ 5m ago)
        v41  Deploy 0123456                            me@example.com  2026/08/04 13:53:15 -0700 (~ 5m ago)
        v40  Set A config vars                         me@example.com  2026/08/04 13:53:15 -0700 (~ 5m ago)
        v39  Deploy 6933f9b release command failed     me@example.com  2026/08/04 13:53:15 -0700 (~ 5m ago)
        ");
        platform.answer("GET /apps/new-app/releases", json!([]));
        assert_eq!(platform.out("releases -a new-app").await, "new-app has no releases.\n");
    }

    #[tokio::test]
    async fn info_of_the_current_one() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/releases", history());
        platform.answer("GET /apps/my-app/releases/41", release(41, "Deploy 0123456", true));
        platform.answer("GET /apps/my-app/releases/41/config-vars", json!({"A": "1"}));
        assert_snapshot!(platform.out("releases:info -a my-app").await, @r"
        === Release v41

        Change: Deploy 0123456
        By:     me@example.com
        When:   2026/08/04 13:53:15 -0700 (~ 5m ago)
        Status: succeeded
        Slug:   s41

        === v41 Config Vars

        A: 1
        ");
    }

    #[tokio::test]
    async fn rolls_back() {
        let mut platform = Platform::start().await;
        let post = "POST /apps/my-app/releases";
        platform.answer("GET /apps/my-app/releases", history());
        platform.answer(post, release(43, "Rollback to v40", true));
        let undo = " ›   Code and config vars were rolled back. To undo, run: dyno rollback v41\n";
        for line in ["rollback", "rollback v40", "rollback 40"] {
            let ran = platform.run(&format!("{line} -a my-app")).await;
            assert_eq!(ran.err, format!("Rolling back my-app to v40... done, v43\n{undo}"), "{line}");
            assert_eq!(platform.sent(post), json!({"release": "r40"}));
        }
        for (line, part) in [("rollback v39", "v39 failed"), ("rollback v7", "no release v7")] {
            let ran = platform.run(&format!("{line} -a my-app")).await;
            assert_eq!(ran.status, 1);
            assert!(ran.err.contains(part), "{}", ran.err);
        }
        platform.answer("GET /apps/new-app/releases", json!([release(1, "Initial release", true)]));
        assert!(platform.run("rollback -a new-app").await.err.contains("no earlier release"));
    }
}
