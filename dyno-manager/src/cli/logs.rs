//! `logs`.

use clap::{Args, ValueEnum};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use super::{
    context::Context,
    error::{CliError, Result},
    wire::LogSession,
};

/// Shows the app's log, or follows it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno logs
  $ dyno logs --tail
  $ dyno logs -n 500 -p web.1
  $ dyno logs -t -s heroku -p router
  $ dyno logs --app my-app --dyno run.13")]
pub(super) struct Logs {
    /// Keep showing lines as they come
    #[arg(short, long)]
    tail: bool,
    /// Lines to show
    #[arg(short, long, default_value = "100", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1500))]
    num: u16,
    /// Only this dyno or type (web.1, web, router)
    #[arg(short = 'p', long = "dyno", visible_alias = "ps", short_alias = 'd', value_name = "DYNO|TYPE")]
    dyno: Option<String>,
    /// Only lines of the app's own processes or of the platform
    #[arg(short, long)]
    source: Option<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    App,
    Heroku,
}

impl Logs {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let mut body = json!({ "lines": self.num, "tail": self.tail });
        if let Some(dyno) = &self.dyno {
            body["dyno"] = json!(dyno);
        }
        if let Some(source) = self.source {
            body["source"] = json!(if source == Source::App { "app" } else { "heroku" });
        }
        let session: LogSession = context.send(Method::POST, &format!("/apps/{app}/log-sessions"), &body).await?;
        let mut lines = context.client()?.stream(&session.logplex_url).await?;
        while let Some(frame) = lines.frame().await {
            let frame = frame.map_err(|e| CliError::new(format!("The log stream broke off: {e}")))?;
            if let Ok(data) = frame.into_data() {
                context.screen.write(&data).await?;
            }
        }
        if self.tail {
            return Err(CliError::new("The platform ended the log stream.").hint("Run the command again to go on."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Platform;

    const LINES: &str = "2012-10-11T03:47:20.123456+00:00 heroku[web.1]: State changed from starting to up\n";

    #[tokio::test]
    async fn lines_come_as_they_are() {
        let mut platform = Platform::start().await;
        platform.answer("POST /apps/my-app/log-sessions", json!({"id": "1", "logplex_url": "http://x/logs/1?a=b"}));
        platform.text("GET /logs/1", LINES);
        assert_eq!(platform.out("logs -a my-app -n 5 -p web.1 -s heroku").await, LINES);
        let want = json!({"lines": 5, "tail": false, "dyno": "web.1", "source": "heroku"});
        assert_eq!(platform.sent("POST /apps/my-app/log-sessions"), want);
        platform.out("logs -a my-app").await;
        assert_eq!(platform.sent("POST /apps/my-app/log-sessions"), json!({"lines": 100, "tail": false}));
    }

    #[tokio::test]
    async fn a_tail_that_ends_is_told() {
        let mut platform = Platform::start().await;
        platform.answer("POST /apps/my-app/log-sessions", json!({"id": "1", "logplex_url": "/logs/1"}));
        platform.text("GET /logs/1", LINES);
        let ran = platform.run("logs -t -a my-app").await;
        assert_eq!((ran.status, ran.out.as_str()), (1, LINES));
        platform.broken_text("GET /logs/1", LINES, 10);
        let ran = platform.run("logs -a my-app").await;
        assert!(ran.err.contains("broke off"), "{}", ran.err);
        assert_eq!((ran.status, ran.out.as_str()), (1, &LINES[..10]));
    }
}
