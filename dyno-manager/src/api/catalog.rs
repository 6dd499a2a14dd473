//! What does not change while the daemon runs: `/account`, `/stacks`, `/dyno-sizes`.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    Api, Shared,
    json::{id_of, user},
};
use crate::model::{DynoSize, SIZES};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/account", get(account)).route("/stacks", get(stacks)).route("/dyno-sizes", get(sizes))
}

async fn account(State(api): Shared) -> Json<Value> {
    let mut account = user(&api.platform.settings().user);
    account["name"] = api.platform.settings().user.clone().into();
    Json(account)
}

async fn stacks(State(api): Shared) -> Json<Value> {
    let name = &api.platform.settings().stack;
    Json(json!([{ "id": id_of("stack", name), "name": name, "state": "public", "default": true }]))
}

/// The sizes that apps can have. `memory` in GB as on Heroku; the other limits in bytes and counts.
async fn sizes() -> Json<Value> {
    let sizes = SIZES.iter().filter(|size| size.name != DynoSize::BUILD.spec().name).map(|size| {
        let shares = size.cpu_weight.div_ceil(100);
        json!({
            "id": id_of("dyno size", size.name),
            "name": size.shown,
            "memory": mebibytes(size.memory) / 1024.0,
            "compute": shares,
            "dyno_units": shares,
            "dedicated": false,
            "private_space_only": false,
            "cost": null,
            "pids": size.pids,
            "cpu_weight": size.cpu_weight,
            "disk_bytes": size.disk,
            "memory_bytes": size.memory,
        })
    });
    Json(sizes.collect())
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}
