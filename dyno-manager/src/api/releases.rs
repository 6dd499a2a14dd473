//! `/apps/:app/releases` and `/apps/:app/slugs`

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
    json::{Body, app_ref, list, named, user},
};
use crate::{
    model::{App, Release, Slug},
    platform::{Error, ReleaseRequest},
};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/apps/{app}/releases", get(index).post(create))
        .route("/apps/{app}/releases/{release}", get(info))
        .route("/apps/{app}/slugs/{slug}", get(slug))
}

#[derive(Deserialize)]
struct Create {
    slug: Option<String>,
    /// An id, `7`, 7 or `v7`; rolls back.
    release: Option<Value>,
    description: Option<String>,
}

/// `{"slug"}` releases a slug, `{"release"}` rolls back to a release, `{}` to the one before.
async fn create(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Create>) -> Answer<(StatusCode, Json<Value>)> {
    let app = api.platform.app(&app).await?;
    let request = match (wanted.slug, wanted.release) {
        (Some(_), Some(_)) => return Err(Error::BadRequest("give either slug or release, not both".into()).into()),
        (Some(slug), None) => {
            let id = slug.parse().map_err(|_| Error::not_found("slug", slug))?;
            ReleaseRequest::Slug { id, description: wanted.description }
        }
        (None, Some(Value::String(to))) => ReleaseRequest::Rollback(Some(to)),
        (None, Some(to)) => ReleaseRequest::Rollback(Some(to.to_string())),
        (None, None) => ReleaseRequest::Rollback(None),
    };
    let release = api.platform.create_release(&app, request).await?;
    Ok((StatusCode::CREATED, Json(shape(&app, &release, Some(release.version)))))
}

async fn index(State(api): Shared, Path(app): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let app = api.platform.app(&app).await?;
    let (releases, current) = api.platform.releases(&app).await?;
    Ok(list(&headers, releases.iter().map(|release| shape(&app, release, current)).collect()))
}

async fn info(State(api): Shared, Path((app, release)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let (release, current) = api.platform.release(&app, &release).await?;
    Ok(Json(shape(&app, &release, current)))
}

async fn slug(State(api): Shared, Path((app, slug)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let slug = api.platform.slug(&app, &slug).await?;
    Ok(Json(slug_shape(&app, &slug, &api.platform.settings().stack)))
}

fn shape(app: &App, release: &Release, current: Option<u32>) -> Value {
    json!({
        "id": release.id,
        "app": app_ref(app),
        "version": release.version,
        "description": release.description,
        "status": release.status,
        "current": current == Some(release.version),
        "slug": release.slug_id.map(|id| json!({ "id": id })),
        "user": user(&release.user),
        "addon_plan_names": [],
        "output_stream_url": null,
        "created_at": release.created_at,
        "updated_at": release.created_at,
    })
}

/// Heroku's slug; its image stays on the host, so `blob` has no address.
fn slug_shape(app: &App, slug: &Slug, stack: &str) -> Value {
    json!({
        "id": slug.id,
        "app": app_ref(app),
        "blob": { "method": "get", "url": null },
        "checksum": format!("SHA256:{}", slug.sha256),
        "commit": slug.commit,
        "commit_description": null,
        "process_types": slug.process_types,
        "size": slug.size,
        "stack": named("stack", stack),
        "buildpack_provided_description": slug.buildpack,
        "created_at": slug.created_at,
        "updated_at": slug.created_at,
    })
}
