//! Broken and hostile configurations and ids, given to the program: runc's exit status, one line on stderr and in the log, nothing created.
//! What each member's mistakes are called is held in the library's own tests.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::oci::spec::{example, example_text};
use serde_json::{Value, json};
use support::{Stage, suite};

fn main() -> ExitCode {
    suite(
        "oci-config",
        &[],
        &[
            ("no_configuration_at_all", no_configuration_at_all),
            ("texts_that_are_no_configuration", texts_that_are_no_configuration),
            ("members_that_contradict", members_that_contradict),
            ("ids_that_are_none", ids_that_are_none),
            ("an_update_that_is_none", an_update_that_is_none),
        ],
    )
}

/// A bundle, and where the program keeps its state and its log.
struct Place {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Place {
    fn new(stage: &Stage) -> Result<Self> {
        let dir = tempfile::tempdir_in(stage.work())?;
        fs::create_dir_all(dir.path().join("bundle/rootfs"))?;
        // Beside the directory of this test, so that both may be taken to another machine.
        let program = std::env::current_exe()?.parent().context("a directory")?.with_file_name("dyno-runtime");
        Ok(Self { dir, program })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&self, words: &[&str]) -> Result<Output> {
        fs::write(self.path("log"), "")?;
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.path("state")).arg("--log").arg(self.path("log")).args(["--log-format", "json"]).args(words);
        Ok(command.current_dir(self.path("bundle")).stdin(Stdio::null()).output()?)
    }

    /// `create` of the bundle must be refused; what is said.
    fn refuses(&self, config: impl AsRef<[u8]>) -> Result<String> {
        fs::write(self.path("bundle/config.json"), config)?;
        self.refuses_words(&["create", "a"])
    }

    fn refuses_words(&self, words: &[&str]) -> Result<String> {
        let answer = self.ask(words)?;
        let said = String::from_utf8(answer.stderr)?;
        ensure!(answer.status.code() == Some(1), "{:?}: {said}", answer.status);
        ensure!(answer.stdout.is_empty(), "stdout: {:?}", String::from_utf8_lossy(&answer.stdout));
        ensure!(said.lines().count() == 1 && said.len() < 4000 && said.ends_with('\n'), "{said:?}");
        let log = fs::read_to_string(self.path("log"))?;
        let errors: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| format!("log: {log}"))?;
        let errors: Vec<&Value> = errors.iter().filter(|line| line["level"] == "error").collect();
        ensure!(errors.len() == 1, "log: {log}");
        let told = errors[0]["msg"].as_str().context("msg")?;
        ensure!(said.trim_end().ends_with(told), "stderr {said:?} and log {told:?}");
        ensure!(left(&self.path("state"))?.is_empty(), "left: {:?}", left(&self.path("state"))?);
        Ok(said)
    }
}

/// What is in a directory, if there is one.
fn left(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(vec![]);
    }
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

fn no_configuration_at_all(stage: &Stage) -> Result<()> {
    let place = Place::new(stage)?;
    let said = place.refuses_words(&["create", "a"])?;
    ensure!(said.contains("config.json") && said.contains("no such file or directory"), "{said}");
    fs::create_dir(place.path("bundle/config.json"))?;
    place.refuses_words(&["create", "a"])?;
    place.refuses_words(&["create", "--bundle", "/nowhere", "a"])?;
    Ok(())
}

fn texts_that_are_no_configuration(stage: &Stage) -> Result<()> {
    let place = Place::new(stage)?;
    let good = example_text(None)?;
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let texts: Vec<Vec<u8>> = vec![
        vec![],
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\0".to_vec(),
        format!("\u{feff}{good}").into_bytes(),
        utf16,
        format!("{good}x").into_bytes(),
        good.as_bytes()[..good.len() / 2].to_vec(),
        "[".repeat(100_000).into_bytes(),
        format!(r#"{{"a":{}"#, "[".repeat(100_000)).into_bytes(),
        format!(r#"{{"ociVersion":"{}"}}"#, "1".repeat(20 << 20)).into_bytes(),
        good.replacen("\"args\"", "\"args\": [\"a\"], \"args\"", 1).into_bytes(),
        good.replacen("\"root\"", "\"root\": {\"path\": \"/\"}, \"root\"", 1).into_bytes(),
        good.replacen("1024", "1e309", 1).into_bytes(),
        good.replacen("1024", "18446744073709551616", 1).into_bytes(),
        good.replacen("1024", "1.5", 1).into_bytes(),
        good.replacen("\"sh\"", "\"\\ud800\"", 1).into_bytes(),
        good.replacen("\"sh\"", "\"a\nb\"", 1).into_bytes(),
        [&b"\xff\xfe"[..], good.as_bytes()].concat(),
    ];
    for text in texts {
        let start = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        place.refuses(text).with_context(|| format!("{start:?}"))?;
    }
    Ok(())
}

fn members_that_contradict(stage: &Stage) -> Result<()> {
    let place = Place::new(stage)?;
    let cases = [
        ("/ociVersion", json!("9.9.9")),
        ("/ociVersion", json!("1.2.0\n")),
        ("/root/path", json!("missing\nand more")),
        ("/root/path", json!("/proc/self/fd/3/x")),
        ("/root/path", json!("../config.json")),
        ("/process/args", json!(["a\nb\0"])),
        ("/process/cwd", json!("x".repeat(1 << 20))),
        ("/process/user/uid", json!(u32::MAX)),
        ("/process/rlimits/0/type", json!("RLIMIT_\u{7}\nX")),
        ("/mounts/0/destination", json!("/\n\u{1b}[31m\0")),
        ("/mounts/0/options", json!(["ro", "\0"])),
        ("/linux/namespaces/0/type", json!("p\nid")),
        ("/linux/namespaces/0/path", json!("/dev/null")),
        ("/linux/maskedPaths/0", json!("relative")),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/bin/sh"})),
        ("/linux/resources/devices/0/access", json!("rwz")),
        ("/linux/cgroupsPath", json!("x".repeat(5000))),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_\nX"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x".repeat(100_000)]})),
        ("/hooks", json!({"prestart": [{"path": "relative"}]})),
        ("/hooks", json!({"poststop": [{"path": "/bin/true", "timeout": 0}]})),
    ];
    for (pointer, value) in cases {
        let mut config = serde_json::to_value(example(None)?)?;
        let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
        match config.pointer_mut(parent).with_context(|| format!("no {parent}"))? {
            Value::Array(all) => all[key.parse::<usize>()?] = value.clone(),
            other => other[key] = value.clone(),
        }
        let member = pointer.split('/').nth(1).unwrap_or_default();
        let said = place.refuses(config.to_string()).with_context(|| pointer.to_owned())?;
        ensure!(said.contains(member), "{pointer}: {said}");
    }
    Ok(())
}

fn ids_that_are_none(stage: &Stage) -> Result<()> {
    let place = Place::new(stage)?;
    fs::write(place.path("bundle/config.json"), example_text(None)?)?;
    let long = "x".repeat(2000);
    for id in ["", ".", "..", "a/b", "../x", "/x", "a\nb", "ä", "-rf", "a b", &long] {
        place.refuses_words(&["create", id]).with_context(|| format!("{id:?}"))?;
    }
    ensure!(left(place.dir.path())?.len() <= 3, "{:?}", left(place.dir.path())?);
    Ok(())
}

fn an_update_that_is_none(stage: &Stage) -> Result<()> {
    let place = Place::new(stage)?;
    for resources in ["", "[]", r#"{"memory": {"limit": "1"}}"#, r#"{"memory": {"limit": 1, "limit": 2}}"#] {
        fs::write(place.path("bundle/resources.json"), resources)?;
        let said = place.refuses_words(&["update", "--resources", "resources.json", "a"])?;
        ensure!(said.contains("resources.json"), "{said}");
    }
    Ok(())
}
