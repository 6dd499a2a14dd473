//! What the privileged half must not do, whoever starts it and whatever it is asked.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, source};
use serde_json::{Value, json};

fn main() -> ExitCode {
    dyno_tests::run(
        &[],
        &[
            ("a_cgroup_that_was_half_made_is_gone_after_a_restart", half_made_group),
            ("an_image_of_another_user_is_refused_and_left_as_it_is", foreign_image),
            ("a_second_instance_on_the_same_cgroups_is_refused_and_ends_nothing", same_groups),
            ("what_is_no_request_ends_its_connection_and_nothing_else", no_requests),
            ("other_users_are_turned_away", other_users),
            ("a_starter_that_ignores_sigchld_or_is_nice_gives_none_of_it_to_dynos", odd_starter),
        ],
    )
}

/// Our parent group in each hierarchy that has one.
fn groups(platform: &Platform) -> Result<Vec<PathBuf>> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup")?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()));
    Ok(roots.into_iter().map(|root| root.join(platform.cgroup())).filter(|p| p.is_dir()).collect())
}

fn kill_both(platform: &Platform) -> Result<()> {
    let warden = platform.warden()?;
    platform.kill_daemon()?;
    warden.kill()
}

fn half_made_group(platform: &Platform) -> Result<()> {
    let parents = groups(platform)?;
    ensure!(!parents.is_empty(), "the platform has no cgroup");
    let half: Vec<PathBuf> = parents.iter().enumerate().map(|(i, parent)| parent.join(format!("half-made-{i}"))).collect();
    kill_both(platform)?;
    // A warden that is killed between two hierarchies leaves the group in one of them.
    for group in &half {
        fs::create_dir(group).with_context(|| format!("mkdir {}", group.display()))?;
    }
    platform.start_daemon(&[])?;
    let left: Vec<_> = half.iter().filter(|group| group.exists()).collect();
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// What comes back on a connection of its own until the warden closes it, or answers.
fn answer_to(platform: &Platform, bytes: &[u8]) -> Result<usize> {
    let mut stream = UnixStream::connect(platform.run_dir().join("warden/sock"))?;
    // A warden that has read enough closes while we still write.
    let _all = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => Err(e.into()),
        _ => Ok(answer.len()),
    }
}

fn no_requests(platform: &Platform) -> Result<()> {
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes(), body].concat();
    let deep = "[".repeat(100_000);
    let bodies: &[&[u8]] = &[
        b"",
        b"null",
        b"\"\"",
        b"\"LIST\"",
        b"\"mount\"",
        b"{\"mount\":\"/\"}",
        b"{\"open\":\"../../x\"}",
        b"{\"open\":1}",
        b"{\"signal\":{\"id\":\"x\"}}",
        b"{\"start\":{}}",
        b"{\"start\":null}",
        b"{\"park\":{\"count\":-1}}",
        b"[\"list\"]",
        b"\"list\" \"list\"",
        b"\xff\xfe",
        b"{\"list\":",
        deep.as_bytes(),
    ];
    let mut all: Vec<Vec<u8>> = bodies.iter().map(|body| frame(body)).collect();
    // Lengths that are none: too long, and cut; and what stands after a frame's end.
    all.extend([u32::MAX.to_le_bytes().to_vec(), vec![1], vec![9, 0, 0, 0, b'"'], [frame(b"\"list\""), b"x".to_vec()].concat()]);
    let control = answer_to(platform, &frame(b"\"list\""))?;
    ensure!(control > 4, "the list is {control} bytes");
    for bytes in all {
        let answered = answer_to(platform, &bytes)?;
        ensure!(answered == 0, "{} is answered by {answered} bytes", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
        ensure!(answer_to(platform, &frame(b"\"list\""))? > 4, "no answer after {bytes:?}");
    }
    Ok(())
}

/// By the credentials of a thread, which are what the kernel tells the warden.
fn other_users(platform: &Platform) -> Result<()> {
    let list = [&6u32.to_le_bytes()[..], b"\"list\""].concat();
    let as_user = |uid: u32| {
        let user = || {
            let (user, group) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(uid));
            rustix::thread::set_thread_res_gid(group, group, group)?;
            rustix::thread::set_thread_res_uid(user, user, user)?;
            answer_to(platform, &list)
        };
        std::thread::scope(|scope| scope.spawn(user).join().map_err(|_| anyhow::anyhow!("it panicked"))?)
    };
    ensure!(as_user(950)? > 4, "dynod's user gets no answer");
    for other in [951, 1000, 65534, 1 << 20] {
        ensure!(as_user(other)? == 0, "user {other} is answered");
    }
    Ok(())
}

/// One request to the warden, as dynod sends it; its answer.
fn ask(platform: &Platform, request: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(platform.run_dir().join("warden/sock"))?;
    let body = serde_json::to_vec(request)?;
    stream.write_all(&u32::try_from(body.len())?.to_le_bytes())?;
    stream.write_all(&body)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

fn foreign_image(platform: &Platform) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "somebody's")?;
    std::os::unix::fs::chown(file.path(), Some(4242), Some(4242))?;
    let layer = json!({ "image": { "path": file.path(), "sha256": "0".repeat(64) } });
    let sandbox = json!({ "root": { "layers": [layer] }, "argv": ["/x"] });
    let launch =
        json!({ "id": "00000000-0000-4000-8000-000000000001", "meta": {}, "sandbox": sandbox, "stdio": "log", "listen": [], "lease_of": null });
    let answer = ask(platform, &json!({ "start": launch }))?;
    let message = answer["failed"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("belongs to user 4242"), "{answer}");
    let meta = file.path().metadata()?;
    ensure!((meta.uid(), meta.gid(), meta.mode() & 0o7777) == (4242, 4242, 0o600), "it was changed: {meta:?}");
    Ok(())
}

fn worker(platform: &Platform, app: &str) -> Result<()> {
    platform.deploy(app, source(&[("index.html", "x"), ("Procfile", "worker: sleep 100000\n")])?.path())?;
    platform.ok(&["ps:scale", "-a", app, "worker=1"])?;
    platform.await_log(app, "heroku[worker.1]: State changed from starting to up", 30)?;
    Ok(())
}

fn same_groups(platform: &Platform) -> Result<()> {
    worker(platform, "same-groups")?;
    let before = platform.seen("same-groups")?;
    let run = platform.run_dir().with_extension("second");
    let mut second = Command::new(platform.dynod(&[]).get_program());
    second.arg("warden").arg("--run-dir").arg(&run).args(["--cgroup", platform.cgroup()]);
    let output = second.stdin(Stdio::null()).output().context("start a second warden")?;
    if run.exists() {
        fs::remove_dir_all(&run).context("remove the second instance's directory")?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("in use by another instance"), "{}: {said}", output.status);
    for (name, seen) in &before {
        ensure!(seen.init.runs(), "{name} was ended");
    }
    platform.ok(&["apps:destroy", "same-groups", "--confirm", "same-groups"])?;
    Ok(())
}

fn odd_starter(platform: &Platform) -> Result<()> {
    platform.deploy("odd-starter", source(&[("index.html", "x")])?.path())?;
    kill_both(platform)?;
    let dynod = platform.dynod(&[]);
    let mut odd = Command::new("env");
    odd.args(["--ignore-signal=CHLD,PIPE,INT", "nice", "-n", "-5"]).arg(dynod.get_program()).args(dynod.get_args());
    let mut daemon = odd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().context("stdout")?).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "dynod did not start");
    let said = platform.try_dyno(&["run", "-a", "odd-starter", "--", "nice; cat /proc/self/oom_score_adj; grep SigIgn /proc/self/status; exit 3"])?;
    platform.warden()?.kill()?;
    daemon.kill()?;
    daemon.wait()?;
    platform.start_daemon(&[])?;
    ensure!(said.status == 3, "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    ensure!(lines.first() == Some(&"0") && lines.get(1).is_some_and(|l| !l.starts_with('-')), "{said:?}");
    ensure!(lines.get(2).is_some_and(|l| l.ends_with("0000000000000000")), "{said:?}");
    Ok(())
}
