//! `apps`, `apps:create`, `apps:destroy`, `apps:info`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    client::typed,
    context::Context,
    error::{CliError, Result},
    layout::{header, pairs, plain, size},
    target::{self, AppRef},
    wire::{App, Formation},
};
use crate::model::AppName;

/// Lists the apps
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno apps\n  $ dyno apps --json")]
pub(super) struct List {
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let answer: Value = context.get("/apps").await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let mut apps: Vec<App> = typed(answer)?;
        if apps.is_empty() {
            return context.screen.say("You have no apps.").await;
        }
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        let line = |app: &App| format!("{}{}\n", plain(&app.name), if app.maintenance { " (maintenance)" } else { "" });
        let lines: String = apps.iter().map(line).collect();
        context.screen.say(header("Apps") + &lines).await
    }
}

/// Creates an app and ties this directory to it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno apps:create\n  $ dyno apps:create my-app\n  $ dyno create my-app --no-file")]
pub(super) struct Create {
    /// Its name: 3 to 30 lowercase letters, digits and dashes; made up when left out
    name: Option<AppName>,
    /// Do not write a .dyno file
    #[arg(long)]
    no_file: bool,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let body = self.name.as_ref().map_or_else(|| json!({}), |name| json!({ "name": name.as_str() }));
        let named = self.name.map(|name| format!(" ⬢ {name}")).unwrap_or_default();
        context.screen.begin(format!("Creating{}", if named.is_empty() { " app" } else { &named })).await;
        let answer: Value = context.send(Method::POST, "/apps", &body).await?;
        let app: App = typed(answer.clone())?;
        context.screen.done(if named.is_empty() { format!("done, ⬢ {}", app.name) } else { "done".into() }).await;
        if self.json {
            context.say_json(&answer).await?;
        } else {
            context.screen.say(app.web_url.as_deref().map_or(app.name.clone(), plain)).await?;
        }
        if !self.no_file
            && let Some(note) = target::remember(&context.ambient.directory, &app.name)?
        {
            context.screen.note(note).await;
        }
        Ok(())
    }
}

/// Destroys an app with its releases, slugs and config vars, for good
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno apps:destroy my-app --confirm my-app")]
pub(super) struct Destroy {
    /// App to destroy (or -a APP)
    #[arg(value_name = "APP")]
    which: Option<AppRef>,
    /// The app's name again: what is destroyed does not come back
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

impl Destroy {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let target = self.which.map_or_else(|| context.app(), Ok)?;
        let app: App = context.get(&format!("/apps/{target}")).await?;
        match self.confirm.as_deref() {
            Some(name) if name == app.name => {}
            Some(name) => {
                return Err(CliError::new(format!("Confirmation {name} did not match {}. Nothing was done.", app.name)));
            }
            None => {
                return Err(CliError::usage(format!("Destroying {} needs its name twice.", app.name))
                    .hint(format!("dyno apps:destroy {0} --confirm {0}", app.name)));
            }
        }
        context.screen.begin(format!("Destroying ⬢ {}", app.name)).await;
        // By id: whoever takes the name in this instant keeps the app.
        context.tell(Method::DELETE, &format!("/apps/{}", target::safe(&app.id)?)).await?;
        context.screen.done("done").await;
        target::forget(&context.ambient.directory, &app.name)
    }
}

/// Shows one app
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno apps:info\n  $ dyno apps:info my-app\n  $ dyno info -a my-app --json")]
pub(super) struct Info {
    /// App to show (or -a APP)
    #[arg(value_name = "APP")]
    which: Option<AppRef>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let target = self.which.map_or_else(|| context.app(), Ok)?;
        let answer: Value = context.get(&format!("/apps/{target}")).await?;
        if self.json {
            return context.say_json(&answer).await;
        }
        let app: App = typed(answer)?;
        let formation: Vec<Formation> = context.get(&format!("/apps/{target}/formation")).await?;
        let dynos: Vec<_> = formation.iter().map(|f| format!("{}: {}", f.process_type, f.quantity)).collect();
        let rows = [
            ("Id", app.id),
            ("Web URL", app.web_url.unwrap_or_default()),
            ("Dynos", dynos.join(", ")),
            ("Buildpack", app.buildpack_provided_description.unwrap_or_default()),
            ("Slug size", app.slug_size.map(size).unwrap_or_default()),
            ("Maintenance", if app.maintenance { "on" } else { "off" }.to_owned()),
            ("Created", app.created_at.map(|at| context.ago(at)).unwrap_or_default()),
            ("Released", app.released_at.map(|at| context.ago(at)).unwrap_or_default()),
        ];
        let rows = rows.map(|(key, value)| (key, plain(&value)));
        context.screen.write((header(&app.name) + &pairs(rows)).as_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::testing::{Platform, app};

    #[tokio::test]
    async fn lists() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps", json!([]));
        assert_eq!(platform.out("apps").await, "You have no apps.\n");
        platform.answer("GET /apps", json!([app("zeta", true), app("alpha", false)]));
        assert_snapshot!(platform.out("apps").await, @r"
        === Apps

        alpha
        zeta (maintenance)
        ");
        assert!(platform.out("apps --json").await.starts_with("[\n  {\n"));
    }

    #[tokio::test]
    async fn creation_ties_the_directory() {
        let mut platform = Platform::start().await;
        platform.answer("POST /apps", app("my-app", false));
        let ran = platform.run("apps:create my-app").await;
        assert_eq!(ran.out, "http://my-app.localhost:8080/\n");
        assert!(ran.err.starts_with("Creating ⬢ my-app... done\nWrote "), "{}", ran.err);
        assert_eq!(platform.sent("POST /apps"), json!({"name": "my-app"}));
        assert_eq!(platform.file(".dyno"), "app = my-app\n");
        assert!(platform.run("create").await.err.starts_with("Creating app... done, ⬢ my-app\n"));
        assert_eq!(platform.sent("POST /apps"), json!({}));
    }

    #[tokio::test]
    async fn destruction_asks_for_the_name() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app", app("my-app", false));
        let id = "/apps/01234567-89ab-cdef-0123-456789abcdef";
        platform.answer(&format!("DELETE {id}"), app("my-app", false));
        let ran = platform.run("apps:destroy my-app").await;
        assert_eq!(ran.status, 2);
        assert!(ran.err.contains("Hint: dyno apps:destroy my-app --confirm my-app"), "{}", ran.err);
        let ran = platform.run("apps:destroy my-app --confirm other").await;
        assert_eq!(ran.err, " ›   Error: Confirmation other did not match my-app. Nothing was done.\n");
        assert!(!platform.was_asked(&format!("DELETE {id}")));
        let ran = platform.run("apps:destroy -a my-app --confirm my-app").await;
        assert_eq!((ran.status, ran.err.as_str()), (0, "Destroying ⬢ my-app... done\n"));
        assert!(platform.was_asked(&format!("DELETE {id}")));
    }

    #[tokio::test]
    async fn info() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app", app("my-app", false));
        platform.answer("GET /apps/my-app/formation", json!([{"type": "web", "quantity": 2, "size": "Standard-1X"}]));
        assert_snapshot!(platform.out("apps:info my-app").await, @r"
        === my-app

        Id:          01234567-89ab-cdef-0123-456789abcdef
        Web URL:     http://my-app.localhost:8080/
        Dynos:       web: 2
        Slug size:   13.2M
        Maintenance: off
        Created:     2026/08/04 13:53:15 -0700 (~ 5m ago)
        ");
    }
}
