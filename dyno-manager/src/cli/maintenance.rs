//! `maintenance`, `maintenance:on`, `maintenance:off`: whether the router lets requests through.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{context::Context, error::Result, wire::App};

/// Shows whether maintenance mode is on
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno maintenance\n  $ dyno maintenance -a my-app")]
pub(super) struct Show {}

impl Show {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let app: App = context.get(&format!("/apps/{app}")).await?;
        context.screen.say(if app.maintenance { "on" } else { "off" }).await
    }
}

/// Answers all requests with a maintenance page; dynos keep running
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno maintenance:on\n  $ dyno maintenance:on -a my-app")]
pub(super) struct On {}

impl On {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        switch(context, true).await
    }
}

/// Lets requests through again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno maintenance:off\n  $ dyno maintenance:off -a my-app")]
pub(super) struct Off {}

impl Off {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        switch(context, false).await
    }
}

async fn switch(context: &mut Context, on: bool) -> Result<()> {
    let app = context.app()?;
    let verb = if on { "Enabling" } else { "Disabling" };
    context.screen.begin(format!("{verb} maintenance mode for ⬢ {app}")).await;
    let _after: Value = context.send(Method::PATCH, &format!("/apps/{app}"), &json!({ "maintenance": on })).await?;
    context.screen.done("done").await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Platform, app};

    #[tokio::test]
    async fn switches() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app", app("my-app", true));
        platform.answer("PATCH /apps/my-app", app("my-app", true));
        assert_eq!(platform.out("maintenance -a my-app").await, "on\n");
        for (line, verb, on) in [("maintenance:on", "Enabling", true), ("maintenance:off", "Disabling", false)] {
            let ran = platform.run(&format!("{line} -a my-app")).await;
            assert_eq!(ran.err, format!("{verb} maintenance mode for ⬢ my-app... done\n"));
            assert_eq!(platform.sent("PATCH /apps/my-app"), json!({ "maintenance": on }));
        }
    }
}
