//! `/apps/:app/dynos` and the same by process type.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{delete, get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, slice, sync::Arc};
use uuid::Uuid;

use super::{
    Api, Shared,
    failure::Answer,
    json::{Body, app_ref, list},
};
use crate::{
    model::App,
    platform::{Run, Target},
    schedule::Dyno,
};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/apps/{app}/dynos", get(index).post(create).delete(restart_all))
        .route("/apps/{app}/dynos/{dyno}", get(info).delete(restart))
        .route("/apps/{app}/dynos/{dyno}/actions/stop", post(stop))
        .route("/apps/{app}/dynos/{dyno}/wait", get(wait))
        .route("/apps/{app}/formations/{type}", delete(restart_type))
        .route("/apps/{app}/formations/{type}/actions/stop", post(stop_type))
}

#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    command: String,
    #[serde(default)]
    attach: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    size: Option<String>,
    #[serde(rename = "type")]
    process_type: Option<String>,
    #[serde(default)]
    force_no_tty: Option<bool>,
    time_to_live: Option<u64>,
    /// Ours: with a terminal of this size.
    tty: Option<Tty>,
}

#[derive(Deserialize)]
struct Tty {
    rows: u16,
    cols: u16,
}

async fn create(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Create>) -> Answer<(StatusCode, Json<Value>)> {
    let app = api.platform.app(&app).await?;
    let run = Run {
        command: wanted.command,
        attach: wanted.attach,
        env: wanted.env,
        size: wanted.size,
        process_type: wanted.process_type,
        tty: wanted.tty.filter(|_| wanted.force_no_tty != Some(true)).map(|tty| (tty.rows, tty.cols)),
        time_to_live: wanted.time_to_live,
    };
    let started = api.platform.run(&app, run).await?;
    let mut answer = one(&api, &app, started.dyno).await?.0;
    answer["attach_url"] = started.secret.map(|secret| format!("{}/attach/{secret}", api.base_url)).into();
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn index(State(api): Shared, Path(app): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let app = api.platform.app(&app).await?;
    let dynos = api.platform.dynos(&app);
    let releases = api.platform.release_ids(&app, &dynos).await?;
    Ok(list(&headers, dynos.iter().map(|dyno| shape(&app, dyno, &releases)).collect()))
}

async fn info(State(api): Shared, Path((app, dyno)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let dyno = api.platform.dyno(&app, &dyno)?;
    one(&api, &app, dyno).await
}

/// Answers once the dyno has ended.
async fn wait(State(api): Shared, Path((app, dyno)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let dyno = api.platform.wait(&app, &dyno).await?;
    one(&api, &app, dyno).await
}

type Accepted = Answer<(StatusCode, Json<Value>)>;

fn accepted() -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({})))
}

async fn restart_all(State(api): Shared, Path(app): Path<String>) -> Accepted {
    let app = api.platform.app(&app).await?;
    api.platform.restart(&app, Target::All).await?;
    Ok(accepted())
}

async fn restart(State(api): Shared, Path((app, dyno)): Path<(String, String)>) -> Accepted {
    let app = api.platform.app(&app).await?;
    api.platform.restart(&app, Target::Dyno(&dyno)).await?;
    Ok(accepted())
}

async fn restart_type(State(api): Shared, Path((app, of)): Path<(String, String)>) -> Accepted {
    let app = api.platform.app(&app).await?;
    api.platform.restart(&app, Target::Type(&of)).await?;
    Ok(accepted())
}

async fn stop(State(api): Shared, Path((app, dyno)): Path<(String, String)>) -> Accepted {
    let app = api.platform.app(&app).await?;
    api.platform.stop(&app, Target::Dyno(&dyno)).await?;
    Ok(accepted())
}

async fn stop_type(State(api): Shared, Path((app, of)): Path<(String, String)>) -> Accepted {
    let app = api.platform.app(&app).await?;
    api.platform.stop(&app, Target::Type(&of)).await?;
    Ok(accepted())
}

async fn one(api: &Api, app: &App, dyno: Dyno) -> Answer<Json<Value>> {
    let releases = api.platform.release_ids(app, slice::from_ref(&dyno)).await?;
    Ok(Json(shape(app, &dyno, &releases)))
}

/// Heroku's dyno, and ours: `retry_at` (next try of a crashed one) and `exit`.
fn shape(app: &App, dyno: &Dyno, releases: &BTreeMap<u32, Uuid>) -> Value {
    json!({
        "id": dyno.id,
        "name": dyno.name,
        "type": dyno.name.process_type,
        "command": dyno.command,
        "state": dyno.state,
        "size": dyno.size,
        "release": { "id": releases.get(&dyno.release), "version": dyno.release },
        "app": app_ref(app),
        "attach_url": null,
        "created_at": dyno.created_at,
        "updated_at": dyno.since,
        "retry_at": dyno.retry_at,
        "exit": dyno.exit,
    })
}
