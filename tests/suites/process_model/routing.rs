//! What the router answers when no dyno can.

use anyhow::{Result, ensure};
use dyno_tests::{Platform, WEB, tail::Tail, until};

use super::{app, destroy, scale};

/// H81, H14, H80 and an unknown host; each once, with its line in the log.
pub fn codes(platform: &Platform) -> Result<()> {
    platform.ok(&["apps:create", "silent", "--no-file"])?;
    refused(platform, &mut platform.tail("silent", &[])?, ("H81", "Blank app", "info"))?;
    destroy(platform, "silent")?;

    app(platform, "silent", "web: exec python3 web.py\n", &[("web.py", WEB)], &["web=1"])?;
    let mut log = platform.tail("silent", &[])?;
    ensure!(platform.page("silent", "/")? == "web.1\n");
    scale(platform, "silent", &["web=0"])?;
    refused(platform, &mut log, ("H14", "No web processes running", "error"))?;
    until(10, "no dyno is listed", || Ok((platform.ok(&["ps", "-a", "silent"])? == "No dynos on silent\n").then_some(())))?;
    scale(platform, "silent", &["web=1"])?;
    // Asked while it boots: the router waits.
    ensure!(platform.page("silent", "/")? == "web.1\n");

    platform.ok(&["maintenance:on", "-a", "silent"])?;
    refused(platform, &mut log, ("H80", "Maintenance mode", "info"))?;
    platform.ok(&["maintenance:off", "-a", "silent"])?;
    ensure!(platform.page("silent", "/")? == "web.1\n");

    let answer = platform.fetch("no-such-app", "/")?;
    ensure!(answer.status == 404 && answer.body.starts_with("No such app\n"), "{answer:?}");
    ensure!(answer.body.contains("no-such-app.localhost"), "{answer:?}");
    destroy(platform, "silent")?;
    ensure!(platform.fetch("silent", "/")?.status == 404);
    Ok(())
}

fn refused(platform: &Platform, log: &mut Tail, (code, desc, level): (&str, &str, &str)) -> Result<()> {
    let answer = platform.fetch("silent", "/some/path?x=1")?;
    ensure!(answer.status == 503 && answer.body.starts_with(&format!("{code}: {desc}\n")), "{code}: {answer:?}");
    let head = format!("heroku[router]: at={level} code={code} desc=\"{desc}\" method=GET path=\"/some/path?x=1\" host=silent.localhost");
    let line = log.until(&head, 10)?;
    ensure!(line.contains(" status=503 "), "{line}");
    Ok(())
}
