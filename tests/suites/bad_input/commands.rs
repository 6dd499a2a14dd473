//! What people type.

use anyhow::{Result, ensure};
use dyno_tests::{Platform, inline, source};
use serde_json::json;

use super::{STEADY, all_hold, unharmed};

/// Arguments, exit status, and what the one line of error must hold.
type Row<'a> = (&'a [&'a str], i32, &'a [&'a str]);

fn check(platform: &Platform, rows: &[Row<'_>]) -> Result<()> {
    let mut failures = Vec::new();
    for (args, status, says) in rows {
        let said = platform.try_dyno(args)?;
        // Usage errors are clap's: `error: …`; the others are in Heroku's form.
        let errors: Vec<&str> = said.stderr.lines().filter(|l| l.starts_with(" ›   Error: ") || l.starts_with("error: ")).collect();
        let told = says.iter().all(|part| said.stderr.contains(part));
        if said.status != *status || errors.len() != 1 || !told || !said.stdout.is_empty() {
            let shown: String = args.join(" ").chars().take(100).collect();
            failures.push(format!("dyno {shown}: wanted {status} and {says:?}, got {}\n{}{}", said.status, said.stdout, said.stderr));
        }
    }
    all_hold(&failures)
}

pub(super) fn command_lines(platform: &Platform) -> Result<()> {
    let rows: &[Row<'_>] = &[
        (&["ps:scale", "nonsense=1", "-a", STEADY], 1, &["process type (nonsense)", "web, worker"]),
        (&["ps:scale", "web=-1", "-a", STEADY], 2, &["'web=-1'", "must look like web=3, web+1 or web-1"]),
        (&["ps:scale", "web=101", "-a", STEADY], 2, &["'web=101'", "101 dynos are more than the 100"]),
        (&["ps:scale", "web=x", "-a", STEADY], 2, &["'web=x'", "must look like web=3"]),
        (&["ps:scale", "web=1.5", "-a", STEADY], 2, &["'web=1.5'"]),
        (&["ps:scale", "web=99999999999999999999", "-a", STEADY], 2, &["more than the 100"]),
        (&["ps:scale", "web=1:huge", "-a", STEADY], 2, &["\"huge\"", "Standard-1X"]),
        (&["ps:scale", "web=1:build", "-a", STEADY], 1, &["build"]),
        (&["ps:restart", "web.99", "-a", STEADY], 1, &["dyno (web.99)"]),
        (&["ps:stop", "nonsense", "-a", STEADY], 1, &["process type (nonsense)"]),
        (&["rollback", "v99", "-a", STEADY], 1, &["v99"]),
        (&["rollback", "nonsense", "-a", STEADY], 2, &["nonsense"]),
        (&["ps", "-a", "no-such-app"], 1, &["no-such-app"]),
        (&["run", "-a", "no-such-app", "true"], 1, &["no-such-app"]),
        (&["run", "-a", STEADY, "--size", "huge", "true"], 2, &["huge"]),
        (&["run", "-a", STEADY], 2, &["<COMMAND>"]),
        (&["deploy", "-a", STEADY, "/no/such/directory"], 2, &["/no/such/directory"]),
        (&["apps:destroy", "-a", STEADY, "--confirm", "steadx"], 1, &["steadx"]),
        (&["nonsense"], 2, &["'nonsense'"]),
    ];
    unharmed(platform, || check(platform, rows))
}

pub(super) fn names_of_apps(platform: &Platform) -> Result<()> {
    let long = "a".repeat(31);
    let rules = [
        ("a/b", "may hold only lowercase letters, digits and dashes"),
        ("../x", "may hold only lowercase letters"),
        ("Upper", "may hold only lowercase letters"),
        ("a\nb", "may hold only lowercase letters"),
        (long.as_str(), "must have 3 to 30 characters"),
        ("ab", "must have 3 to 30 characters"),
        ("1abc", "must start with a letter"),
        ("abc-", "must not end with a dash"),
    ];
    unharmed(platform, || {
        for (name, rule) in rules {
            check(platform, &[(&["apps:create", "--no-file", "--", name], 2, &["app name", rule])])?;
            // Whoever comes without the command line is told the same.
            let answer = platform.call("POST", "/apps", &json!({ "name": name }))?;
            ensure!(answer.status == 422 && answer.message().contains(rule), "{name:?}: {answer:?}");
        }
        check(platform, &[(&["apps:create", "--no-file", STEADY], 1, &[STEADY, "taken"])])
    })
}

pub(super) fn config_vars(platform: &Platform) -> Result<()> {
    let large = format!("BIG={}", "x".repeat(65 * 1024));
    let rows: &[Row<'_>] = &[
        (&["config:set", "1A=x", "-a", STEADY], 2, &["1A", "must match [A-Za-z_][A-Za-z0-9_]*"]),
        (&["config:set", "A-B=x", "-a", STEADY], 2, &["A-B", "must match"]),
        (&["config:set", "=x", "-a", STEADY], 2, &["=x"]),
        (&["config:set", "NOVALUE", "-a", STEADY], 2, &["NOVALUE"]),
        (&["config:set", "PORT=1", "-a", STEADY], 2, &["PORT", "is set by the platform"]),
        (&["config:set", "GOOD=1", "DYNO=web.7", "-a", STEADY], 2, &["DYNO", "is set by the platform"]),
        (&["config:set", &large, "-a", STEADY], 1, &["over the limit of 65536"]),
        (&["config:get", "NOTHING", "-a", STEADY], 1, &["NOTHING"]),
    ];
    unharmed(platform, || {
        check(platform, rows)?;
        for (name, value) in [("A\0B", json!("x")), ("A", json!("x\0y")), ("A", json!(5)), ("A", json!({}))] {
            let answer = platform.call("PATCH", &format!("/apps/{STEADY}/config-vars"), &json!({ name: value }))?;
            ensure!(matches!(answer.status, 400 | 422) && !answer.message().is_empty(), "{name:?}: {answer:?}");
        }
        let vars = platform.json(&["config", "-a", STEADY])?;
        ensure!(vars == json!({}), "half of a refused change was kept: {vars}");
        Ok(())
    })
}

pub(super) fn procfiles(platform: &Platform) -> Result<()> {
    let cases = [
        ("web: python3 web.py\nthis is no process type\n", "Procfile line 2: \"this is no process type\" has no colon; write <type>: <command>"),
        ("web: a\n\nweb: b\n", "Procfile line 3: process type \"web\" is declared twice"),
        ("web:\n", "Procfile line 1: process type \"web\" has no command"),
        ("web: a\n../x: b\n", "Procfile line 2: process type \"../x\""),
        ("we b: a\n", "Procfile line 1: process type \"we b\""),
        ("# nothing but a comment\n", "no process types"),
    ];
    unharmed(platform, || {
        for (procfile, says) in cases {
            let source = inline("true", &[("Procfile", procfile)])?;
            rejected(platform, source.path(), says)?;
        }
        // No Procfile, and a buildpack that has no default either.
        rejected(platform, inline("true", &[])?.path(), "no process types")?;
        // A source that no buildpack takes.
        rejected(platform, source(&[("README", "nothing to run")])?.path(), "No default language could be detected for this app")?;
        let empty = source(&[])?;
        let path = empty.path().to_string_lossy().into_owned();
        check(platform, &[(&["deploy", "-a", STEADY, &path], 1, &["There is nothing to deploy in ", &path])])
    })
}

/// A deploy that is refused: exit status 1, `says` in the output and one rejection.
fn rejected(platform: &Platform, source: &std::path::Path, says: &str) -> Result<()> {
    let said = platform.try_dyno(&["deploy", "-a", STEADY, &source.to_string_lossy()])?;
    let all = format!("{}{}", said.stdout, said.stderr);
    let rejections = said.stdout.lines().filter(|l| l.starts_with(" !     Push rejected, ")).count();
    ensure!(said.status == 1 && rejections == 1 && all.contains(says), "wanted {says:?}, got {}:\n{all}", said.status);
    Ok(())
}
