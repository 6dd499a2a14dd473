//! Builds that cannot come to a good end.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, inline, source};
use serde_json::Value;

use super::{STEADY, unharmed};

/// Deploys, which must fail: its output, which holds the rejection, and the build's record.
fn failed(platform: &Platform, source: &std::path::Path) -> Result<(String, Value)> {
    let said = platform.try_dyno(&["deploy", "-a", STEADY, &source.to_string_lossy()])?;
    let all = format!("{}{}", said.stdout, said.stderr);
    ensure!(said.status == 1, "deploy ended with {}:\n{all}", said.status);
    ensure!(said.stdout.contains("\n !     Push rejected, "), "no rejection:\n{all}");
    let builds = platform.json(&["builds", "-a", STEADY])?;
    let by_time = |b: &&Value| b["created_at"].as_str().unwrap_or_default().to_owned();
    let newest = builds.as_array().context("list")?.iter().max_by_key(by_time).context("no build")?;
    ensure!(newest["status"] == "failed" && newest["release"].is_null(), "{newest}");
    Ok((said.stdout, newest.clone()))
}

pub(super) fn fails(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        let package = "dyno-no-such-package-7b1c==1.0";
        let files = [("requirements.txt", package), ("app.py", "app = None\n")];
        let (output, record) = failed(platform, source(&files)?.path())?;
        let names = output.lines().any(|l| l.contains("dyno-no-such-package-7b1c") && l.contains("ERROR"));
        ensure!(names && output.contains(" !     Push rejected, failed to compile Python app."), "{output}");
        ensure!(record["error"] == "the app failed to compile", "{record}");
        let (output, record) = failed(platform, inline("echo on stdout; echo on stderr >&2; exit 3", &[])?.path())?;
        ensure!(output.contains("on stdout") && output.contains("on stderr"), "{output}");
        ensure!(record["error"] == "the app failed to compile", "{record}");
        Ok(())
    })
}

pub(super) fn out_of_memory(platform: &Platform) -> Result<()> {
    let compile = "python3 -c 'x = b\"x\" * (5 << 30)'";
    unharmed(platform, || {
        let (output, record) = failed(platform, inline(compile, &[])?.path())?;
        ensure!(record["error"] == "the build ran out of memory (limit 4096 MB)", "{record}\n{output}");
        ensure!(output.ends_with(" !     Push rejected, the build ran out of memory (limit 4096 MB).\n"), "{output}");
        Ok(())
    })
}

pub(super) fn fills_its_disk(platform: &Platform) -> Result<()> {
    // Reserved and not written: a full disk is a full disk.
    let compile = "fallocate -l 3G \"$1/large\" || python3 -c 'open(\"/app/large\", \"wb\").write(b\"x\" * (1 << 20))'; echo y > \"$1/small\"";
    unharmed(platform, || {
        let (output, record) = failed(platform, inline(compile, &[])?.path())?;
        ensure!(record["error"] == "the build filled its disk", "{record}\n{output}");
        ensure!(output.contains(" !     The build filled its disk (3072 MB)."), "{output}");
        Ok(())
    })
}

pub(super) fn past_its_time(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        platform.kill_daemon()?;
        platform.start_daemon(&["--build-timeout", "2"])?;
        let (output, record) = failed(platform, inline("echo begun; sleep 1000", &[])?.path())?;
        let error = record["error"].as_str().unwrap_or_default();
        ensure!(error.starts_with("the build took longer than 2"), "{record}");
        ensure!(output.contains("begun") && output.contains(" !     Push rejected, the build took longer than 2"), "{output}");
        platform.kill_daemon()?;
        platform.start_daemon(&[])
    })
}

/// Tries the proxy and then the world; says what came of it, and fails the build.
const REACH: &str = r#"
import os, socket, sys, urllib.error, urllib.request

def told(what, attempt):
    try:
        print(what, attempt(), flush=True)
    except urllib.error.HTTPError as e:
        print(what, "status", e.code, e.read().decode().strip(), flush=True)
    except OSError as e:
        print(what, "failed:", e, flush=True)

def connect(host, port):
    socket.create_connection((host, port), timeout=5).close()
    return "connected"

print("egress through", os.environ.get("http_proxy"))
told("http", lambda: urllib.request.urlopen("http://denied.example/", timeout=10).status)
told("https", lambda: urllib.request.urlopen("https://denied.example/", timeout=10).status)
told("address", lambda: urllib.request.urlopen("http://127.0.0.2/", timeout=10).status)
told("direct", lambda: connect("192.0.2.1", 80))
told("name", lambda: connect("denied.example", 80))
told("host", lambda: connect("127.0.0.1", API))
sys.exit(7)
"#;

pub(super) fn tries_the_network(platform: &Platform) -> Result<()> {
    let client = platform.client()?;
    let port = client["url"].as_str().and_then(|u| u.rsplit_once(':')).context("url")?.1.to_owned();
    let script = REACH.replace("API", &port);
    unharmed(platform, || {
        let (output, record) = failed(platform, inline("python3 \"$1/reach.py\"", &[("reach.py", &script)])?.path())?;
        for says in [
            "http status 403 ",
            "denied.example:80 is not on this host's list of registries",
            "https failed: ",
            "address status 403 ",
            "direct failed: [Errno 101] Network is unreachable",
            "name failed: ",
            "host failed: [Errno 111] Connection refused",
        ] {
            ensure!(output.contains(says), "no {says:?} in\n{output}");
        }
        let id = record["id"].as_str().context("id")?;
        let requests = fs::read_to_string(platform.state().join(format!("builds/{id}.requests.jsonl")))?;
        let requests: Vec<Value> = requests.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let refused = |host: &str, port: u16| requests.iter().any(|r| r["host"] == host && r["port"] == port && r["allowed"] == false);
        ensure!(refused("denied.example", 80) && refused("denied.example", 443) && refused("127.0.0.2", 80), "{requests:#?}");
        Ok(())
    })
}
