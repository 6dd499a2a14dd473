//! Source archives that no honest tar writes.

use anyhow::{Result, ensure};
use dyno_tests::Platform;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{STEADY, all_hold, unharmed};

/// One member as it stands in the archive, past every check of the tar library.
fn member(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
        ustar.linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    header
}

fn archive(members: &[(Header, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    builder.append(&member(EntryType::Regular, "Procfile", "", 10), &b"web: true\n"[..])?;
    for (header, data) in members {
        builder.append(header, *data)?;
    }
    Ok(builder.into_inner()?)
}

fn device(kind: EntryType) -> Header {
    let mut header = member(kind, "node", "", 0);
    if let Some(ustar) = header.as_ustar_mut() {
        // 1:3, the host's /dev/null: harmless even if it came to be.
        ustar.set_device_major(1);
        ustar.set_device_minor(3);
    }
    header.set_cksum();
    header
}

/// What is wrong, the archive, and what its refusal must hold.
type Row<'a> = (&'a str, Vec<u8>, Vec<&'a str>);

/// `up` and `absolute` are names outside the source.
fn rows<'a>(up: &'a str, absolute: &'a str) -> Result<Vec<Row<'a>>> {
    let file = |name: &str| member(EntryType::Regular, name, "", 2);
    let link = |kind, target: &str| member(kind, "link", target, 0);
    let whole = archive(&[])?;
    Ok(vec![
        ("..", archive(&[(file(up), b"x\n")])?, vec![up, "has `..` in its name"]),
        (".. inside", archive(&[(file("a/../../b"), b"x\n")])?, vec!["a/../../b"]),
        ("absolute", archive(&[(file(absolute), b"x\n")])?, vec![absolute, "absolute"]),
        ("character device", archive(&[(device(EntryType::Char), b"")])?, vec!["node", "device"]),
        ("block device", archive(&[(device(EntryType::Block), b"")])?, vec!["node", "device"]),
        ("fifo", archive(&[(member(EntryType::Fifo, "pipe", "", 0), b"")])?, vec!["pipe"]),
        ("symlink up", archive(&[(link(EntryType::Symlink, "../../etc/passwd"), b"")])?, vec!["link", "../../etc/passwd"]),
        ("symlink absolute", archive(&[(link(EntryType::Symlink, "/etc/passwd"), b"")])?, vec!["link", "/etc/passwd"]),
        ("hard link out", archive(&[(link(EntryType::Link, "../../etc/passwd"), b"")])?, vec!["link"]),
        ("hard link to nothing", archive(&[(link(EntryType::Link, "nothing"), b"")])?, vec!["link", "a file that the source does not hold"]),
        ("through a symlink", archive(&[(link(EntryType::Symlink, "sub"), b""), (file("link/x"), b"x\n")])?, vec!["link/x"]),
        ("too large", archive(&[(member(EntryType::Regular, "big", "", 2 << 30), b"")])?, vec!["1024 MB"]),
        ("no archive", b"this is no archive, whatever it is called".repeat(40), vec!["the source archive"]),
        ("cut off", whole[..whole.len() / 4].to_vec(), vec!["the source archive"]),
        ("half a gzip", vec![0x1f, 0x8b, 8, 0, 0, 0], vec!["the source archive"]),
    ])
}

pub(super) fn archives(platform: &Platform) -> Result<()> {
    let canary = format!("dyno-test-{}-canary", std::process::id());
    let (up, absolute) = (format!("../../../../../../tmp/{canary}"), format!("/tmp/{canary}"));
    let rows = rows(&up, &absolute)?;
    unharmed(platform, || {
        let mut failures = Vec::new();
        for (what, archive, says) in &rows {
            let built = platform.build(STEADY, archive)?;
            let error = built.record["error"].as_str().unwrap_or_default();
            let rejection = format!(" !     Push rejected, {error}.");
            let once = built.output.lines().filter(|l| l.starts_with(" !     Push rejected")).count() == 1;
            let told = built.output.contains(&rejection) && says.iter().all(|part| error.contains(part));
            if built.record["status"] != "failed" || !once || !told {
                failures.push(format!("{what}: wanted {says:?}, got {}\n{}", built.record, built.output));
            }
        }
        for path in [format!("/tmp/{canary}"), format!("/{canary}")] {
            ensure!(!std::path::Path::new(&path).exists(), "{path} came to be");
        }
        all_hold(&failures)
    })
}

/// Nothing uploaded, nothing there, another archive than announced.
pub(super) fn checksum(platform: &Platform) -> Result<()> {
    let builds = format!("/apps/{STEADY}/builds");
    let archive = archive(&[])?;
    unharmed(platform, || {
        let source = platform.call("POST", "/sources", &Value::Null)?.json();
        let url = source["source_blob"]["put_url"].as_str().unwrap_or_default().to_owned();
        let answer = platform.call("POST", &builds, &json!({ "source_blob": { "url": url } }))?;
        ensure!((400..500).contains(&answer.status) && answer.message().contains("upload"), "nothing uploaded: {answer:?}");
        let path = url.rsplit_once("/sources/").map(|(_, id)| format!("/sources/{id}")).unwrap_or_default();
        let empty = platform.request(None, "PUT", &path, b"")?;
        ensure!(empty.status == 400 && empty.message() == "the source archive is empty", "{empty:?}");
        let uploaded = platform.request(None, "PUT", &path, &archive)?;
        ensure!(uploaded.status == 200, "{uploaded:?}");
        let checksum = format!("SHA256:{}", "0".repeat(64));
        let answer = platform.call("POST", &builds, &json!({ "source_blob": { "url": url, "checksum": checksum } }))?;
        ensure!(answer.status == 422 && answer.message().contains("sha256"), "{answer:?}");
        // It is still there, and can be used with the right one; a build of it that fails takes it away.
        let answer = platform.call("POST", &builds, &json!({ "source_blob": { "url": url } }))?;
        ensure!(answer.status == 201, "{answer:?}");
        let id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
        let output = platform.call("GET", &format!("{builds}/{id}/output"), &Value::Null)?.body;
        ensure!(output.contains("No default language could be detected"), "{output}");
        Ok(())
    })
}
