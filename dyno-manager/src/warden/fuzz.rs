//! What must hold of a frame that comes to the warden: what is permitted keeps to the operator's rules, whoever wrote it.

use std::path::PathBuf;

use dyno_runtime::{Layer, Network, Plan, Profile, Sandbox, Upper, Volume};

use super::{
    Launch, Reply, Request,
    server::{Settings, permit, permit_sandbox},
    wire,
};
use crate::fuzzing::one_line;

/// The first byte tells a request from an answer.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if *kind == b'a' {
        return drop(again::<Reply>(bytes));
    }
    let settings = Settings {
        run_dir: "/run/w".into(),
        name: "w".into(),
        socket: "/run/w.sock".into(),
        client_uid: 1,
        spares: 0,
        volumes: vec!["/srv/public".into()],
    };
    match again::<Request>(bytes) {
        Some(Request::Start(launch)) => start(&launch, &settings),
        Some(Request::Park { sandbox, .. }) if permit_sandbox(&sandbox, &settings).is_ok() => hold(&sandbox, &settings.volumes),
        _ => {}
    }
}

fn start(launch: &Launch, settings: &Settings) {
    match permit(launch, settings) {
        Ok(()) => {
            assert!(launch.listen.len() <= 8);
            hold(&launch.sandbox, &settings.volumes);
        }
        Err(error) => one_line(&error.message),
    }
}

/// What is read can be written, and is the same when it is read again.
fn again<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message: T = wire::parse(bytes).ok()?;
    let frame = wire::frame(&message).expect("what was read can be written");
    let second: T = wire::parse(&frame).expect("what was written can be read");
    assert_eq!(wire::frame(&second).expect("as before"), frame);
    Some(message)
}

/// No part of the host but images and the operator's volumes, no capability, no device, no filter of the caller's own.
fn hold(sandbox: &Sandbox, volumes: &[PathBuf]) {
    assert!(sandbox.root.layers.iter().all(|layer| !matches!(layer, Layer::Directory(_))), "{sandbox:?}");
    assert!(!matches!(sandbox.root.upper, Upper::Disk { .. }) && sandbox.network == Network::Private);
    assert!(sandbox.identity.capabilities.is_empty() && sandbox.devices.is_empty() && matches!(sandbox.seccomp, Profile::Dyno | Profile::Build));
    for volume in &sandbox.volumes {
        assert!(matches!(volume, Volume::Bind { source, writable: false, .. } if volumes.contains(source)), "{volume:?}");
    }
    if let Err(error) = Plan::new(sandbox) {
        one_line(&error.to_string());
    }
}
