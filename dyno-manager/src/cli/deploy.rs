//! `deploy`: packs a directory, uploads it, follows the build.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    archive::{Tree, Upload},
    builds,
    client::Payload,
    context::Context,
    error::{CliError, Result},
    layout::size,
    target::{self, AppRef},
    wire::{Build, Source},
};
use crate::model::Egress;

/// Uploads a directory, builds it and releases the result
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno deploy
  $ dyno deploy ./shop -a my-app
  $ dyno deploy --source-version v1.2.0
  $ dyno deploy --egress none

Everything in the directory is sent but .git and .dyno; the build applies .slugignore.
The exit status is 1 if the build failed; what ran before keeps running.")]
pub(super) struct Deploy {
    /// Directory to deploy
    #[arg(default_value = ".")]
    path: PathBuf,
    /// What this source is called in releases and logs; the commit checked out, if any, when left out
    #[arg(long, value_name = "VERSION")]
    source_version: Option<String>,
    /// What the build reaches: none, registries (the package registries; the default), or open (any public host)
    #[arg(long, value_name = "POLICY")]
    egress: Option<Egress>,
}

impl Deploy {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let root = context.ambient.directory.join(&self.path);
        let root = root.canonicalize().map_err(|e| CliError::usage(format!("{}: {e}", self.path.display())))?;
        if !root.is_dir() {
            return Err(CliError::usage(format!("{} is not a directory.", self.path.display())));
        }
        let app = context.app_of(&root)?;
        let (source_url, sha256) = send(context, &root, &app).await?;
        let version = self.source_version.or_else(|| checked_out(&root));
        let blob = json!({ "url": source_url, "version": version, "checksum": format!("SHA256:{sha256}") });
        let path = format!("/apps/{app}/builds");
        let mut wanted = json!({ "source_blob": blob });
        if let Some(egress) = self.egress {
            wanted["egress"] = json!(egress);
        }
        let build: Build = context.send(Method::POST, &path, &wanted).await?;
        if let Some(note) = target::remember(&root, app.as_str())? {
            context.screen.note(note).await;
        }
        tokio::select! {
            ended = builds::follow(context, &app, &build) => builds::verdict(&ended?),
            _ = tokio::signal::ctrl_c() => {
                Err(CliError { status: 130, ..CliError::new("The build goes on without you.") }
                    .hint(format!("dyno builds:output -a {app} {}", build.id))
                    .hint(format!("dyno builds:cancel -a {app} {}", build.id)))
            }
        }
    }
}

/// Packs and uploads at the same time; the source's address and its sha256.
async fn send(context: &mut Context, root: &Path, app: &AppRef) -> Result<(String, String)> {
    let tree = Tree::scan(root)?;
    for path in &tree.skipped {
        context.screen.note(format!("Left out {}: neither a file, a directory nor a link.", path.display())).await;
    }
    let source: Source = context.send(Method::POST, "/sources", &json!({})).await?;
    context.screen.begin(format!("Uploading source of ⬢ {app}")).await;
    let bar = progress_bar(tree.bytes, context.screen.live);
    let (queue, pieces) = mpsc::channel::<io::Result<Bytes>>(8);
    let packing = tokio::task::spawn_blocking({
        let (root, bar) = (root.to_owned(), bar.clone());
        move || pack(&tree, &root, queue, &bar)
    });
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
    let body: Payload = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
    let uploaded = context.client()?.upload(&source.source_blob.put_url, body).await;
    let packed = packing.await.map_err(|e| CliError::new(format!("The packing ended early: {e}")))?;
    bar.finish_and_clear();
    // A failure to pack breaks the upload, and a refused upload breaks the packing: tell the cause, not the echo.
    let (sha256, sent) = match (packed, uploaded) {
        (Err(Some(unpacked)), _) => return Err(unpacked),
        (_, Err(refused)) => return Err(refused),
        (Ok(packed), Ok(())) => packed,
        (Err(None), Ok(())) => return Err(CliError::new("The platform took only a part of the source.")),
    };
    context.screen.done(format!("done, {}", size(sent))).await;
    Ok((source.source_blob.get_url, sha256))
}

/// `Err(None)`: nobody takes the pieces any more.
fn pack(tree: &Tree, root: &Path, queue: mpsc::Sender<io::Result<Bytes>>, bar: &ProgressBar) -> Result<(String, u64), Option<CliError>> {
    let packed = tree.write(root, Upload::new(queue.clone()), &mut |bytes| bar.inc(bytes));
    match packed.map(Upload::finish) {
        Ok(Ok(sent)) => Ok(sent),
        _ if queue.is_closed() => Err(None),
        Ok(Err(e)) => Err(Some(CliError::output(&e))),
        Err(e) => {
            // The body must not end like a whole one.
            drop(queue.blocking_send(Err(io::Error::other("the source could not be packed"))));
            Err(Some(e))
        }
    }
}

fn progress_bar(bytes: u64, live: bool) -> ProgressBar {
    let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    match ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")).with_message("Uploading source..."),
        Err(_) => bar,
    }
}

/// The commit checked out in `root`, as git tells it.
fn checked_out(root: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["rev-parse", "--verify", "--quiet", "HEAD"]).stdin(Stdio::null()).stderr(Stdio::null());
    let answer = git.output().ok().filter(|answer| answer.status.success())?;
    let commit = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Platform, build};

    async fn platform(status: &str) -> Platform {
        let mut platform = Platform::start().await;
        platform.answer(
            "POST /sources",
            json!({"source_blob": {
            "get_url": "http://127.0.0.1:5080/sources/1", "put_url": "http://127.0.0.1:5080/sources/1"}}),
        );
        platform.answer("PUT /sources/1", json!({}));
        platform.answer("POST /apps/my-app/builds", build("pending"));
        platform.answer("GET /apps/my-app/builds/b1", build(status));
        platform.text("GET /apps/my-app/builds/b1/output", "-----> Python app detected\n       Released v5\n");
        platform.plant("shop/Procfile", "web: python app.py\n");
        platform.plant("shop/.slugignore", "*.md\n");
        platform.plant("shop/README.md", "hello\n");
        platform
    }

    #[tokio::test]
    async fn a_directory_is_packed_built_and_followed() {
        let mut platform = platform("succeeded").await;
        let ran = platform.run("deploy shop -a my-app --source-version v7").await;
        assert_eq!(ran.out, "-----> Python app detected\n       Released v5\n", "{}", ran.err);
        assert!(ran.err.starts_with("Uploading source of ⬢ my-app... done, "), "{}", ran.err);
        assert_eq!(ran.status, 0);
        let archive = platform.sent_bytes("PUT /sources/1");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let names: Vec<_> = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, [".slugignore", "Procfile", "README.md"]);
        let hex: String = <sha2::Sha256 as sha2::Digest>::digest(&archive).iter().map(|b| format!("{b:02x}")).collect();
        let want = json!({"source_blob": {"url": "http://127.0.0.1:5080/sources/1", "version": "v7", "checksum": format!("SHA256:{hex}")}});
        assert_eq!(platform.sent("POST /apps/my-app/builds"), want);
        assert_eq!(platform.file("shop/.dyno"), "app = my-app\n");
    }

    #[tokio::test]
    async fn the_network_of_a_build_is_asked_for() {
        let mut platform = platform("succeeded").await;
        assert_eq!(platform.run("deploy shop -a my-app --egress none").await.status, 0);
        assert_eq!(platform.sent("POST /apps/my-app/builds")["egress"], "none");
        assert!("some".parse::<crate::model::Egress>().is_err(), "clap takes what the model takes, and refuses the rest with status 2");
    }

    #[tokio::test]
    async fn a_failed_build_is_exit_status_1() {
        let mut platform = platform("failed").await;
        let ran = platform.run("deploy shop -a my-app").await;
        assert_eq!(ran.status, 1);
        assert!(ran.err.ends_with(" ›   Error: The build failed: compile failed\n"), "{}", ran.err);
    }

    #[tokio::test]
    async fn a_refused_upload_is_told_by_the_platform_s_words() {
        let mut platform = platform("succeeded").await;
        platform.refuse("PUT /sources/1", 413, "The source has more than 1G.");
        let ran = platform.run("deploy shop -a my-app").await;
        assert_eq!(ran.status, 1);
        assert!(ran.err.ends_with("... !\n ›   Error: The source has more than 1G.\n"), "{}", ran.err);
        assert!(!platform.was_asked("POST /apps/my-app/builds"));
    }

    #[tokio::test]
    async fn a_path_that_is_no_directory_is_usage() {
        let mut platform = platform("succeeded").await;
        assert_eq!(platform.run("deploy nowhere -a my-app").await.status, 2);
        assert_eq!(platform.run("deploy shop/Procfile -a my-app").await.status, 2);
        assert_eq!(platform.run("deploy shop").await.status, 2);
    }
}
