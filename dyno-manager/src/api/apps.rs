//! `/apps`

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    Api, Shared,
    failure::Answer,
    json::{Body, list, named, user},
};
use crate::model::App;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/apps", get(index).post(create)).route("/apps/{app}", get(info).patch(update).delete(destroy))
}

#[derive(Deserialize)]
struct Create {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    maintenance: Option<bool>,
}

async fn create(State(api): Shared, Body(wanted): Body<Create>) -> Answer<(StatusCode, Json<Value>)> {
    let app = api.platform.create_app(wanted.name.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(shape(&api, &app, None))))
}

async fn index(State(api): Shared, headers: HeaderMap) -> Answer<Response> {
    let apps = api.platform.apps().await?;
    Ok(list(&headers, apps.iter().map(|app| shape(&api, app, None)).collect()))
}

async fn info(State(api): Shared, Path(app): Path<String>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let size = api.platform.slug_size(&app).await?;
    Ok(Json(shape(&api, &app, size)))
}

async fn update(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Update>) -> Answer<Json<Value>> {
    let app = api.platform.change_app(&app, wanted.name.as_deref(), wanted.maintenance).await?;
    let size = api.platform.slug_size(&app).await?;
    Ok(Json(shape(&api, &app, size)))
}

async fn destroy(State(api): Shared, Path(app): Path<String>) -> Answer<Json<Value>> {
    let app = api.platform.destroy_app(&app).await?;
    Ok(Json(shape(&api, &app, None)))
}

/// Heroku's app. What this platform has no notion of is null.
fn shape(api: &Api, app: &App, slug_size: Option<u64>) -> Value {
    let settings = api.platform.settings();
    let stack = named("stack", &settings.stack);
    json!({
        "id": app.id,
        "name": app.name,
        "maintenance": app.maintenance,
        "web_url": api.platform.web_url(app),
        "git_url": null,
        "owner": user(&settings.user),
        "region": named("region", "local"),
        "stack": stack,
        "build_stack": stack,
        "buildpack_provided_description": app.buildpack_description,
        "slug_size": slug_size,
        "repo_size": null,
        "team": null,
        "organization": null,
        "space": null,
        "acm": false,
        "internal_routing": null,
        "created_at": app.created_at,
        "updated_at": app.updated_at,
        "released_at": app.released_at,
        "archived_at": null,
    })
}
