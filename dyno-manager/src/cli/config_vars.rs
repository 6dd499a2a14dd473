//! `config`, `config:set`, `config:unset`, `config:get`.

use std::collections::BTreeMap;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    client::typed,
    context::Context,
    error::{CliError, Result},
    layout::{header, pairs},
    one_off::pair,
    releases,
    target::AppRef,
};

/// Shows the config vars
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno config\n  $ dyno config --shell > .env\n  $ dyno config -a my-app --json")]
pub(super) struct List {
    /// Print KEY='value' lines that a shell can read
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let answer: Value = context.get(&format!("/apps/{app}/config-vars")).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let vars: BTreeMap<String, String> = typed(answer)?;
        let text = if self.shell {
            vars.iter().map(|(key, value)| format!("{key}={}\n", shell_quoted(value))).collect()
        } else if vars.is_empty() {
            format!("{app} has no config vars.\n")
        } else {
            header(&format!("{app} Config Vars")) + &aligned(&vars)
        };
        context.screen.write(text.as_bytes()).await
    }
}

/// Sets config vars and restarts the app
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno config:set RACK_ENV=production\n  $ dyno config:set A=1 'GREETING=hello world' -a my-app")]
pub(super) struct Set {
    /// What to set
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = pair)]
    vars: Vec<(String, String)>,
}

impl Set {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let changes: Map<_, _> = self.vars.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        change(context, &app, "Setting", changes).await?;
        let set: BTreeMap<_, _> = self.vars.into_iter().collect();
        context.screen.write(aligned(&set).as_bytes()).await
    }
}

/// Removes config vars and restarts the app
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno config:unset RACK_ENV\n  $ dyno config:unset A B -a my-app")]
pub(super) struct Unset {
    /// What to remove
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

impl Unset {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let changes = self.keys.into_iter().map(|key| (key, Value::Null)).collect();
        change(context, &app, "Unsetting", changes).await
    }
}

/// Prints the value of one config var
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno config:get DATABASE_URL\n  $ dyno config:get RACK_ENV -a my-app")]
pub(super) struct Get {
    /// Which one
    key: String,
}

impl Get {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let vars: BTreeMap<String, String> = context.get(&format!("/apps/{app}/config-vars")).await?;
        match vars.get(&self.key) {
            Some(value) => context.screen.say(value).await,
            None => Err(CliError::new(format!("{} is not set on ⬢ {app}", self.key))),
        }
    }
}

async fn change(context: &mut Context, app: &AppRef, verb: &str, changes: Map<String, Value>) -> Result<()> {
    let keys: Vec<_> = changes.keys().map(String::as_str).collect();
    context.screen.begin(format!("{verb} {} and restarting ⬢ {app}", keys.join(", "))).await;
    let path = format!("/apps/{app}/config-vars");
    let _after: Value = context.send(Method::PATCH, &path, &Value::Object(changes)).await?;
    let release = releases::current(context, app).await?;
    context.screen.done(format!("done, v{}", release.version)).await;
    Ok(())
}

/// Values as they are: they are the user's own, and a certificate has lines.
pub(super) fn aligned(vars: &BTreeMap<String, String>) -> String {
    let empty = |value: &String| if value.is_empty() { "\"\"".to_owned() } else { value.clone() };
    pairs(vars.iter().map(|(key, value)| (key.as_str(), empty(value))))
}

fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::testing::{Platform, release};

    #[tokio::test]
    async fn shows() {
        let mut platform = Platform::start().await;
        let vars = json!({"RACK_ENV": "production", "LANG": "it's", "NONE": ""});
        platform.answer("GET /apps/my-app/config-vars", vars);
        assert_snapshot!(platform.out("config -a my-app").await, @r#"
        === my-app Config Vars

        LANG:     it's
        NONE:     ""
        RACK_ENV: production
        "#);
        assert_snapshot!(platform.out("config -a my-app --shell").await, @r"
        LANG='it'\''s'
        NONE=''
        RACK_ENV='production'
        ");
        assert_eq!(platform.out("config:get LANG -a my-app").await, "it's\n");
        assert_eq!(platform.out("config:get NONE -a my-app").await, "\n");
        let ran = platform.run("config:get MISSING -a my-app").await;
        assert_eq!((ran.status, ran.out.as_str()), (1, ""));
        assert_eq!(ran.err, " ›   Error: MISSING is not set on ⬢ my-app\n");
    }

    #[tokio::test]
    async fn sets_and_unsets() {
        let mut platform = Platform::start().await;
        let patch = "PATCH /apps/my-app/config-vars";
        platform.answer(patch, json!({}));
        platform.answer("GET /apps/my-app/releases", json!([release(5, "Set A config vars", true)]));
        let ran = platform.run("config:set LONG=x=y A=1 -a my-app").await;
        assert_eq!(ran.err, "Setting A, LONG and restarting ⬢ my-app... done, v5\n");
        assert_eq!(ran.out, "A:    1\nLONG: x=y\n");
        assert_eq!(platform.sent(patch), json!({"A": "1", "LONG": "x=y"}));
        let ran = platform.run("config:unset A -a my-app").await;
        assert_eq!(ran.err, "Unsetting A and restarting ⬢ my-app... done, v5\n");
        assert_eq!(platform.sent(patch), json!({"A": null}));
    }
}
