//! Whole builds on a host of its own kind: its dynos are shell scripts on this machine, with real
//! pipes, pidfds and sockets. What the kernel's walls add is for the end to end suites.

mod scripts;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::scripts::Scripts;
use super::{host::Host, *};
use crate::model::{BuildStatus, Egress, ExitCause};

const BUILD: &str = r#"tar -xf - -C $ROOT && echo "-----> Python app detected" && cat $ROOT/tmp/env/KEY && echo noise >&2"#;
const PACK: &str = r#"
    frame() { printf '%s %s\n' $1 ${#2}; printf %s "$2"; }
    frame PROCFILE "$(cat $ROOT/app/Procfile)"
    frame RELEASE $'default_process_types:\n  web: theirs\n  rake: r'
    image() { printf '%s %s\n' $1 $(stat -c %s $ROOT/image); cat $ROOT/image; }
    frame DETECTED Python; image SLUG; image CACHE; printf 'END 0\n'"#;

struct Fixture {
    dir: tempfile::TempDir,
    host: Arc<Scripts>,
    builder: Builder,
    app: App,
}

impl Fixture {
    fn new(build: &str, pack: &str) -> Self {
        Self::with(build, pack, |_, _| ())
    }

    fn with(build: &str, pack: &str, change: impl FnOnce(&mut Scripts, &mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("image"), superblock::sample(b"")).unwrap();
        let mut host = Scripts {
            root,
            build: build.into(),
            pack: pack.into(),
            cause: ExitCause::Exited,
            dynos: Mutex::default(),
            launches: Mutex::default(),
            freed: Mutex::default(),
            refuse_cache: false,
        };
        let image = |name: &str| Image { path: format!("/images/{name}").into(), sha256: "0".repeat(64) };
        let mut settings = Settings {
            state: dir.path().join("state"),
            stack: image("stack"),
            stack_name: "dyno-1".into(),
            buildpacks: image("buildpacks"),
            registries: vec!["registry.test".into()],
            allow_private: false,
            ca_bundle: Some("/host/ca.crt".into()),
            limits: Limits::default(),
        };
        change(&mut host, &mut settings);
        let host = Arc::new(host);
        let builder = Builder::on(settings, Arc::clone(&host) as Arc<dyn Host>).unwrap();
        Self { dir, host, builder, app: app() }
    }

    fn request(&self, app: &App, egress: Egress) -> BuildRequest {
        let source = self.dir.path().join(Uuid::new_v4().to_string());
        fs::write(&source, tarball(&[("Procfile", b"web: mine\n"), ("app.py", b"x")])).unwrap();
        self.request_of(app, egress, source)
    }

    fn request_of(&self, app: &App, egress: Egress, source: PathBuf) -> BuildRequest {
        let build = Build {
            id: Uuid::new_v4(),
            app_id: app.id,
            status: BuildStatus::Pending,
            slug_id: None,
            release_id: None,
            error: None,
            egress,
            commit: Some("abc".into()),
            source_sha256: String::new(),
            user: "me".into(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        let config = ConfigVars::default().with([("KEY".to_owned(), Some("value\n".to_owned()))]).unwrap();
        BuildRequest { build, app: app.clone(), source, config }
    }

    fn start(&self, request: BuildRequest) -> (Uuid, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        let id = request.build.id;
        let finish: Finish = Box::new(|outcome| {
            tell.send(outcome).unwrap();
            Box::pin(async { Ok(vec!["Released v5".into()]) })
        });
        self.builder.start(request, finish).unwrap();
        (id, told)
    }

    async fn text(&self, build: Uuid) -> String {
        let mut reader = self.builder.output(build).await.unwrap().unwrap();
        let mut text = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    /// One build to its end: output, outcome, and that nothing but results is left.
    async fn run(&self, egress: Egress) -> (String, Outcome) {
        let (build, told) = self.start(self.request(&self.app, egress));
        self.ended(build, told).await
    }

    async fn ended(&self, build: Uuid, told: oneshot::Receiver<Outcome>) -> (String, Outcome) {
        let text = self.text(build).await;
        let outcome = told.await.unwrap();
        assert!(self.host.dynos.lock().unwrap().is_empty(), "dynos are left");
        assert!(!self.names("builds").iter().any(|name| name == &format!("{build}.running")), "the mark is left");
        for folder in ["slugs", "cache"] {
            assert!(!self.names(folder).iter().any(|name| name.starts_with("draft-")), "drafts are left");
        }
        (text, outcome)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("state").join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A build that must fail with `error`, told once in its output.
    async fn fails(&self, error: &str) -> String {
        let (text, outcome) = self.run(Egress::None).await;
        assert_eq!(outcome, Outcome::Failed { error: error.into() }, "{text}");
        assert_eq!(text.matches("Push rejected").count(), 1, "{text}");
        assert!(self.names("slugs").is_empty());
        text
    }
}

fn app() -> App {
    App {
        id: Uuid::new_v4(),
        name: "demo".parse().unwrap(),
        maintenance: false,
        buildpack_description: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        released_at: None,
    }
}

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn a_build_makes_a_slug_a_cache_and_a_story() {
    let fixture = Fixture::new(BUILD, PACK);
    let (text, outcome) = fixture.run(Egress::None).await;
    let Outcome::Built(slug) = outcome else { panic!("{outcome:?}\n{text}") };
    let types: BTreeMap<_, _> = slug.process_types.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
    assert_eq!(types, BTreeMap::from([("web", "mine"), ("rake", "r")]));
    assert_eq!((slug.buildpack.as_str(), slug.size, slug.commit.as_deref()), ("Python", superblock::sample(b"").len() as u64, Some("abc")));
    assert_eq!(fixture.names("slugs"), [format!("{}.sqsh", slug.sha256)]);
    assert_eq!(fixture.names("cache"), [format!("{}.sha256", fixture.app.id), format!("{}.sqsh", fixture.app.id)]);
    let (head, tail) = text.split_once("-----> Compressing...\n       Done: 0K in ").unwrap();
    // Two streams, of which either may be read first.
    assert!(head.contains("noise\n") && head.replace("noise\n", "").contains("-----> Python app detected\nvalue\n"), "{text}");
    assert!(tail.ends_with("s\n-----> Launching...\n       Released v5\n"), "{text}");

    // The next one of the same app starts from the cache, under the stack's own layers.
    let (_, outcome) = fixture.run(Egress::None).await;
    assert!(matches!(outcome, Outcome::Built(_)));
    let launches = fixture.host.launches.lock().unwrap();
    let layers: Vec<_> = launches.iter().map(|launch| launch.sandbox.root.layers.len()).collect();
    assert_eq!(layers, [2, 3, 3, 4]);
    let [first, pack, ..] = &launches[..] else { panic!("{launches:?}") };
    assert_eq!(pack.lease_of, Some(first.id));
    assert_eq!(pack.sandbox.root.layers[0], dyno_runtime::Layer::UpperOf(first.id.to_string()));
    let bundle = dyno_runtime::Volume::Bind { source: "/host/ca.crt".into(), target: "/etc/ssl/certs/ca-certificates.crt".into(), writable: false };
    assert_eq!(first.sandbox.volumes[0], bundle);
    assert!(first.listen.is_empty() && !first.sandbox.env.contains_key("HTTP_PROXY"));
    assert_eq!(fixture.host.freed.lock().unwrap()[..2], [pack.id, first.id]);
}

#[tokio::test]
async fn the_network_is_the_proxy_and_is_recorded() {
    let ask = r#"cat >/dev/null; exec 3<>/dev/tcp/127.0.0.1/$PORT
        printf 'CONNECT evil.test:443 HTTP/1.1\r\n\r\n' >&3; head -n 1 <&3; env | grep -i proxy; exit 11"#;
    let fixture = Fixture::new(ask, PACK);
    let (text, outcome) = fixture.run(Egress::Registries).await;
    assert_eq!(outcome, Outcome::Failed { error: "the app failed to compile".into() });
    assert!(text.starts_with("HTTP/1.1 403 evil.test:443 is not on"), "{text}");
    assert!(text.contains("HTTPS_PROXY=http://127.0.0.1:3128\n") && text.contains("no_proxy=localhost,127.0.0.1\n"), "{text}");
    assert!(text.ends_with(" !     evil.test:443 is not on this host's list of registries (build egress: registries)\n"), "{text}");
    let record = fixture.names("builds").into_iter().find(|name| name.ends_with(".requests.jsonl")).unwrap();
    let record = fs::read_to_string(fixture.dir.path().join("state/builds").join(record)).unwrap();
    assert!(record.contains(r#""host":"evil.test","port":443,"allowed":false"#), "{record}");
}

#[tokio::test]
async fn failures_are_told_once_and_by_cause() {
    let told = "cat >/dev/null; echo ' !     Push rejected, failed to compile Python app.'; exit 11";
    Fixture::new(told, PACK).fails("the app failed to compile").await;
    Fixture::new("exit 3", PACK).fails("the build dyno ended with status 3").await;
    Fixture::new("kill -9 $$", PACK).fails("the build dyno ended with status 137").await;
    Fixture::with("exit 137", PACK, |host, _| host.cause = ExitCause::Memory).fails("the build ran out of memory (limit 4096 MB)").await;
    Fixture::with("exit 1", PACK, |host, _| host.cause = ExitCause::Lost).fails("the build was killed from outside; try again").await;
    Fixture::new(BUILD, "echo oops >&2; exit 1").fails("the pack dyno ended with status 1").await;
    Fixture::new(BUILD, "exit 0").fails("the packed app ended in the middle").await;
    Fixture::new(BUILD, "echo EVIL 1").fails("the packed app holds \"EVIL 1\" where a frame should begin").await;
    Fixture::new(BUILD, "printf 'PROCFILE 1\\nx'").fails("Procfile line 1: \"x\" has no colon; write <type>: <command>").await;
    Fixture::with(BUILD, PACK, |_, settings| settings.limits.slug_bytes = 5).fails("your compiled slug is 0K (max is 0K)").await;
}

#[tokio::test]
async fn limits_of_time_end_a_build() {
    let late = |_: &mut Scripts, settings: &mut Settings| {
        settings.limits.build_time = Duration::from_secs(1);
        settings.limits.pack_time = Duration::from_millis(300);
    };
    let text = Fixture::with("echo begun; sleep 1000", PACK, late).fails("the build took longer than 1.0 seconds").await;
    assert!(text.starts_with("begun\n"), "{text}");
    Fixture::with("cat >/dev/null", "sleep 1000", late).fails("the build took longer than 0.3 seconds").await;
}

#[tokio::test]
async fn a_refused_source_ends_the_dyno_before_it_sees_an_end() {
    // Were stdin closed first, this driver would say so.
    let fixture = Fixture::new("cat >/dev/null; echo complete; exit 13", PACK);
    let source = fixture.dir.path().join("source");
    let mut bytes = tarball(&[("good", b"x"), ("d/x", b"x")]);
    bytes.truncate(bytes.len() - 1024);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    let mut evil = tar::Builder::new(Vec::new());
    evil.append_link(&mut link, "out", "/etc/passwd").unwrap();
    fs::write(&source, [bytes, evil.into_inner().unwrap()].concat()).unwrap();
    let (build, told) = fixture.start(fixture.request_of(&fixture.app, Egress::None, source.clone()));
    assert!(!source.exists(), "the source keeps its name");
    let (text, outcome) = fixture.ended(build, told).await;
    let error = r#"the source holds "out", which is a symlink that leads outside the source ("/etc/passwd")"#;
    assert_eq!(outcome, Outcome::Failed { error: error.into() });
    assert_eq!(text, format!(" !     Push rejected, {error}.\n"));
}

#[tokio::test]
async fn one_build_per_app_and_few_per_host() {
    let fixture = Fixture::with("cat >/dev/null; echo begun; sleep 1000", PACK, |_, settings| settings.limits.at_once = 1);
    let (first, first_told) = fixture.start(fixture.request(&fixture.app, Egress::None));
    let again = fixture.request(&fixture.app, Egress::None);
    let source = again.source.clone();
    let refused = fixture.builder.start(again, Box::new(|_| unreachable!()));
    assert!(matches!(refused, Err(StartError::Busy { running }) if running == first));
    assert!(source.exists(), "a refused build took its source");
    let mut reader = fixture.builder.output(first).await.unwrap().unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), "begun\n");

    let (second, second_told) = fixture.start(fixture.request(&app(), Egress::None));
    let mut reader = fixture.builder.output(second).await.unwrap().unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), "-----> Waiting for other builds to finish...\n");
    assert!(fixture.builder.cancel(second));
    let cancelled = Outcome::Failed { error: "the build was cancelled".into() };
    assert_eq!(second_told.await.unwrap(), cancelled);
    assert!(fixture.builder.cancel(first));
    let (text, outcome) = fixture.ended(first, first_told).await;
    assert_eq!(outcome, cancelled);
    assert_eq!(text, "begun\n !     Push rejected, the build was cancelled.\n");
    assert!(!fixture.builder.cancel(first));
    // The app is free again as soon as its output has ended.
    let (third, third_told) = fixture.start(fixture.request(&fixture.app, Egress::None));
    fixture.builder.shutdown().await;
    assert_eq!(fixture.ended(third, third_told).await.1, cancelled);
}

#[tokio::test]
async fn a_cache_that_is_no_good_is_dropped() {
    let fixture = Fixture::with(BUILD, PACK, |host, _| host.refuse_cache = true);
    let sha256 = "0".repeat(64);
    let cache = fixture.dir.path().join("state/cache");
    fs::write(cache.join(format!("{}.sqsh", fixture.app.id)), "hsqs").unwrap();
    fs::write(cache.join(format!("{}.sha256", fixture.app.id)), sha256).unwrap();
    // The host of this test refuses three layers: a build with a cache, and a pack dyno without.
    let (text, outcome) = fixture.run(Egress::None).await;
    assert!(text.starts_with("-----> The build cache could not be used and is dropped.\n"), "{text}");
    let error = "the platform could not run the build: cache is corrupt";
    assert_eq!(outcome, Outcome::Failed { error: error.into() });
    assert!(fixture.names("cache").is_empty());
    fs::write(cache.join(format!("{}.sqsh", fixture.app.id)), "hsqs").unwrap();
    fixture.builder.purge_cache(fixture.app.id).await.unwrap();
    assert!(fixture.names("cache").is_empty());
}

#[tokio::test]
async fn a_finish_that_fails_or_panics_is_told() {
    let fixture = Fixture::new(BUILD, PACK);
    let finishes: [(Finish, &str); 2] = [
        (Box::new(|_| Box::pin(async { Err("the app is gone".into()) })), "the app is gone"),
        (Box::new(|_| Box::pin(async { panic!("a fault on purpose") })), "the platform met a fault of its own"),
    ];
    for (finish, want) in finishes {
        let request = fixture.request(&fixture.app, Egress::None);
        let build = request.build.id;
        fixture.builder.start(request, finish).unwrap();
        let text = fixture.text(build).await;
        assert!(text.ends_with(&format!("-----> Launching...\n !     Push rejected, {want}.\n")), "{text}");
    }
}

#[tokio::test]
async fn a_restart_frees_the_dynos_of_builds_and_ends_their_output() {
    let fixture = Fixture::new(BUILD, PACK);
    let (build, old) = (Uuid::new_v4(), Uuid::new_v4());
    for (name, text) in [(format!("{build}.log"), "half a li"), (format!("{build}.running"), ""), (format!("{old}.log"), "whole\n")] {
        fs::write(fixture.dir.path().join("state/builds").join(name), text).unwrap();
    }
    fixture.builder.recover().await.unwrap();
    assert_eq!(*fixture.host.freed.lock().unwrap(), [Uuid::max()]);
    assert_eq!(fixture.text(build).await, "half a li\n !     Push rejected, the platform restarted during the build.\n");
    assert_eq!(fixture.text(old).await, "whole\n");
    assert_eq!(fixture.names("builds").len(), 2);
    assert!(fixture.builder.output(Uuid::new_v4()).await.unwrap().is_none());
}
