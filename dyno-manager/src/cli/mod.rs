//! `dyno`: the platform's command line, with Heroku's names and formats.
//!
//! One file per command family holds its arguments, its help with examples, what it does and its tests.
//! Around them: [`endpoint`] and [`client`] reach the platform, [`target`] finds the app, [`screen`] and
//! [`layout`] write, [`error`] ends a command that failed. Commands are functions of a [`context::Context`],
//! so the tests run them as a user does, against a platform of their own.

mod about;
mod ambient;
mod apps;
mod archive;
mod builds;
mod client;
mod config_vars;
mod context;
mod deploy;
mod endpoint;
mod error;
mod layout;
mod logs;
mod maintenance;
mod one_off;
mod ps;
mod releases;
mod run;
mod scale;
mod screen;
mod session;
mod target;
mod terminal;
#[cfg(test)]
mod testing;
mod wire;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use ambient::Ambient;
use context::Context;
use error::{CliError, Result};
use screen::Screen;
use target::AppRef;

/// Deploys apps and runs their dynos.
#[derive(Debug, Parser)]
#[command(
    name = "dyno",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:
  $ dyno apps:create my-app
  $ dyno deploy
  $ dyno ps:scale web=2
  $ dyno run bash
  $ dyno logs --tail

The app is that of --app, else of DYNO_APP, else of the nearest .dyno file.
`dyno COMMAND --help` shows the options and examples of a command."
)]
struct Cli {
    /// App to work on (a name or an id)
    #[arg(short, long, global = true, value_name = "APP")]
    app: Option<AppRef>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(name = "apps")]
    Apps(apps::List),
    #[command(name = "apps:create", visible_alias = "create")]
    AppsCreate(apps::Create),
    #[command(name = "apps:destroy", visible_alias = "destroy")]
    AppsDestroy(apps::Destroy),
    #[command(name = "apps:info", visible_alias = "info")]
    AppsInfo(apps::Info),
    #[command(name = "deploy")]
    Deploy(deploy::Deploy),
    #[command(name = "builds")]
    Builds(builds::List),
    #[command(name = "builds:info")]
    BuildsInfo(builds::Info),
    #[command(name = "builds:output")]
    BuildsOutput(builds::Output),
    #[command(name = "builds:cancel")]
    BuildsCancel(builds::Cancel),
    #[command(name = "ps")]
    Ps(ps::List),
    #[command(name = "ps:scale", visible_alias = "scale")]
    PsScale(scale::Scale),
    #[command(name = "ps:restart", visible_alias = "restart")]
    PsRestart(ps::Restart),
    #[command(name = "ps:stop", visible_alias = "stop")]
    PsStop(ps::Stop),
    #[command(name = "ps:wait")]
    PsWait(ps::Wait),
    #[command(name = "run")]
    Run(run::Attached),
    #[command(name = "run:detached")]
    RunDetached(run::Detached),
    #[command(name = "run:wait")]
    RunWait(run::Wait),
    #[command(name = "logs")]
    Logs(logs::Logs),
    #[command(name = "config")]
    Config(config_vars::List),
    #[command(name = "config:set")]
    ConfigSet(config_vars::Set),
    #[command(name = "config:unset", visible_alias = "config:remove")]
    ConfigUnset(config_vars::Unset),
    #[command(name = "config:get")]
    ConfigGet(config_vars::Get),
    #[command(name = "releases")]
    Releases(releases::List),
    #[command(name = "releases:info")]
    ReleasesInfo(releases::Info),
    #[command(name = "rollback", visible_alias = "releases:rollback")]
    Rollback(releases::Rollback),
    #[command(name = "maintenance")]
    Maintenance(maintenance::Show),
    #[command(name = "maintenance:on")]
    MaintenanceOn(maintenance::On),
    #[command(name = "maintenance:off")]
    MaintenanceOff(maintenance::Off),
    #[command(name = "version")]
    Version(about::Version),
    #[command(name = "completions")]
    Completions(about::Completions),
}

impl Command {
    /// The exit status; only `run` and `run:wait` have others than 0.
    async fn run(self, context: &mut Context) -> Result<u8> {
        match self {
            Self::Run(args) => return args.run(context).await,
            Self::RunWait(args) => return args.run(context).await,
            Self::Apps(args) => args.run(context).await,
            Self::AppsCreate(args) => args.run(context).await,
            Self::AppsDestroy(args) => args.run(context).await,
            Self::AppsInfo(args) => args.run(context).await,
            Self::Deploy(args) => args.run(context).await,
            Self::Builds(args) => args.run(context).await,
            Self::BuildsInfo(args) => args.run(context).await,
            Self::BuildsOutput(args) => args.run(context).await,
            Self::BuildsCancel(args) => args.run(context).await,
            Self::Ps(args) => args.run(context).await,
            Self::PsScale(args) => args.run(context).await,
            Self::PsRestart(args) => args.run(context).await,
            Self::PsStop(args) => args.run(context).await,
            Self::PsWait(args) => args.run(context).await,
            Self::RunDetached(args) => args.run(context).await,
            Self::Logs(args) => args.run(context).await,
            Self::Config(args) => args.run(context).await,
            Self::ConfigSet(args) => args.run(context).await,
            Self::ConfigUnset(args) => args.run(context).await,
            Self::ConfigGet(args) => args.run(context).await,
            Self::Releases(args) => args.run(context).await,
            Self::ReleasesInfo(args) => args.run(context).await,
            Self::Rollback(args) => args.run(context).await,
            Self::Maintenance(args) => args.run(context).await,
            Self::MaintenanceOn(args) => args.run(context).await,
            Self::MaintenanceOff(args) => args.run(context).await,
            Self::Version(args) => args.run(context).await,
            Self::Completions(args) => args.run(context).await,
        }
        .map(|()| 0)
    }
}

/// Parses `args` (the program's name first), runs the command and returns its exit status: 0, 1 for errors,
/// 2 for usage, the app's own for `run`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    terminal::restore_on_panic();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help and version go to standard output with status 0, usage errors to standard error with 2.
        Err(e) => {
            let printed = e.print();
            return ExitCode::from(if printed.is_err() { 1 } else { u8::try_from(e.exit_code()).unwrap_or(2) });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprint!("{}", CliError::new(format!("The event loop does not start: {e}")));
            return ExitCode::from(1);
        }
    };
    let status = runtime.block_on(async {
        let mut screen = Screen::own();
        match Ambient::own() {
            Ok(ambient) => run(cli, screen, ambient).await,
            Err(e) => {
                screen.fail(&e).await;
                e.status
            }
        }
    });
    // A write to a pipe that nobody reads must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(status)
}

/// Runs one parsed command and tells its error, if any.
async fn run(cli: Cli, screen: Screen, ambient: Ambient) -> u8 {
    let mut context = Context::new(screen, ambient, cli.app);
    match cli.command.run(&mut context).await {
        Ok(status) => status,
        Err(e) => {
            context.screen.fail(&e).await;
            e.status
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{testing::words, *};

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_examples_that_parse() {
        let mut root = Cli::command();
        root.build();
        let mut seen = 0;
        for command in root.get_subcommands().chain([&root]) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says nothing about itself");
            let help = command.clone().render_long_help().to_string();
            let examples: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("$ ")).collect();
            assert!(!examples.is_empty(), "{name} --help shows no example");
            for example in examples {
                let parsed = Cli::try_parse_from(words(example));
                assert!(parsed.is_ok(), "{name}: {example}: {}", parsed.unwrap_err());
                let own = words(example).get(1).cloned().unwrap_or_default();
                let known = own == name || command.get_all_aliases().any(|alias| alias == own) || name == "dyno";
                assert!(known, "{name} --help shows an example of {own}");
                seen += 1;
            }
        }
        assert!(seen > 40, "only {seen} examples were found");
    }

    #[test]
    fn usage_errors_are_2_and_help_is_0() {
        let check = |line: &str, want: i32| {
            let error = Cli::try_parse_from(words(line)).expect_err(line);
            assert_eq!(error.exit_code(), want, "{line}: {error}");
        };
        for line in ["dyno --help", "dyno ps -h", "dyno run --help", "dyno --version"] {
            check(line, 0);
        }
        for line in [
            "dyno",
            "dyno nonsense",
            "dyno ps -a ../x",
            "dyno ps:scale web=-1",
            "dyno run",
            "dyno run -e A",
            "dyno run -e PORT=1 env",
            "dyno run -s huge env",
            "dyno config:set A",
            "dyno config:set 1A=b",
            "dyno config:get",
            "dyno ps:stop",
            "dyno ps:restart web.0",
            "dyno rollback x",
            "dyno rollback v0",
            "dyno logs -n 0",
            "dyno logs -s kernel",
            "dyno completions csh",
        ] {
            check(line, 2);
        }
    }

    #[test]
    fn the_app_may_stand_before_or_after_the_command() {
        for line in ["dyno -a my-app ps", "dyno ps -a my-app", "dyno run --app my-app -- ls -a", "dyno run -a my-app ls -a"] {
            let cli = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(cli.app.unwrap().as_str(), "my-app", "{line}");
        }
    }
}
