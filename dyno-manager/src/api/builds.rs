//! `/apps/:app/builds`

use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    Api, Shared, auth,
    failure::Answer,
    json::{Body, app_ref, list, user},
};
use crate::{
    model::{App, Build},
    platform::{Error, NewBuildRequest},
};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/apps/{app}/builds", get(index).post(create))
        .route("/apps/{app}/builds/{build}", get(info).delete(cancel))
        .route("/apps/{app}/build-cache", delete(purge))
}

pub(super) fn signed_routes() -> Router<Arc<Api>> {
    Router::new().route("/apps/{app}/builds/{build}/output", get(output))
}

#[derive(Deserialize)]
struct Create {
    source_blob: SourceBlob,
    /// Ours: `none`, `registries`, `open`.
    egress: Option<String>,
}

#[derive(Deserialize)]
struct SourceBlob {
    url: String,
    version: Option<String>,
    checksum: Option<String>,
}

async fn create(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Create>) -> Answer<(StatusCode, Json<Value>)> {
    let app = api.platform.app(&app).await?;
    let SourceBlob { url, version, checksum } = wanted.source_blob;
    let request = NewBuildRequest {
        source: source_id(&url)?,
        sha256: checksum.as_deref().map(sha256).transpose()?,
        commit: version,
        egress: wanted.egress.as_deref().map(str::parse).transpose()?,
    };
    let build = api.platform.start_build(&app, request).await?;
    Ok((StatusCode::CREATED, Json(shape(&api, &app, &build))))
}

/// Only what was uploaded here is built: this daemon fetches nothing from addresses that a client names.
fn source_id(url: &str) -> Result<String, Error> {
    let id = url.rsplit_once("/sources/").map(|(_, id)| id);
    let id = id.filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    id.map(str::to_owned).ok_or_else(|| Error::Invalid("source_blob.url must be the get_url of a POST /sources".into()))
}

/// `SHA256:<hex>`
fn sha256(checksum: &str) -> Result<String, Error> {
    let digest = checksum.split_once(':').filter(|(kind, _)| kind.eq_ignore_ascii_case("sha256")).map(|(_, digest)| digest);
    let digest = digest.filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    digest.map(str::to_ascii_lowercase).ok_or_else(|| Error::Invalid("source_blob.checksum must look like SHA256:<64 hex digits>".into()))
}

async fn index(State(api): Shared, Path(app): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let app = api.platform.app(&app).await?;
    let builds = api.platform.builds(&app).await?;
    Ok(list(&headers, builds.iter().map(|build| shape(&api, &app, build)).collect()))
}

async fn info(State(api): Shared, Path((app, build)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let build = api.platform.build(&app, &build).await?;
    Ok(Json(shape(&api, &app, &build)))
}

async fn cancel(State(api): Shared, Path((app, build)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let build = api.platform.cancel_build(&app, &build).await?;
    Ok(Json(shape(&api, &app, &build)))
}

async fn purge(State(api): Shared, Path(app): Path<String>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    api.platform.purge_cache(&app).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Key {
    key: Option<String>,
}

/// The whole output, live until the build has ended. The address in `output_stream_url` carries a key that opens
/// this output alone; the token opens it as well.
async fn output(
    State(api): Shared,
    Path((app, build)): Path<(String, String)>,
    Query(Key { key }): Query<Key>,
    request: Request,
) -> Answer<Response> {
    let id = build.parse().unwrap_or_default();
    let opened = key.is_some_and(|key| api.keys.opens_output(id, &key));
    if !opened && !auth::authorized(&api.keys, &request) {
        return Err(Error::Unauthorized.into());
    }
    let app = api.platform.app(&app).await?;
    let output = api.platform.build_output(&app, &build).await?;
    let body = HttpBody::from_stream(output.into_stream());
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Heroku's build, and ours: `egress` and `error`.
fn shape(api: &Api, app: &App, build: &Build) -> Value {
    let output = format!("{}/apps/{}/builds/{}/output?key={}", api.base_url, app.id, build.id, api.keys.output_key(build.id));
    json!({
        "id": build.id,
        "app": app_ref(app),
        "status": build.status,
        "stack": api.platform.settings().stack,
        "buildpacks": [],
        "source_blob": {
            "url": null,
            "version": build.commit,
            "version_description": null,
            "checksum": format!("SHA256:{}", build.source_sha256),
        },
        "output_stream_url": output,
        "slug": build.slug_id.map(|id| json!({ "id": id })),
        "release": build.release_id.map(|id| json!({ "id": id })),
        "user": user(&build.user),
        "created_at": build.created_at,
        "updated_at": build.updated_at,
        "egress": build.egress,
        "error": build.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_sources_and_checksums_that_can_be_checked() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(source_id(&format!("http://127.0.0.1:5080/sources/{id}")).unwrap(), id);
        for bad in ["", id, "https://example.com/x.tgz", "http://h/sources/../../etc/passwd", "http://h/sources/"] {
            assert!(source_id(bad).is_err(), "{bad:?} was accepted");
        }
        let digest = "AB".repeat(32);
        assert_eq!(sha256(&format!("SHA256:{digest}")).unwrap(), digest.to_lowercase());
        for bad in [digest.as_str(), "md5:00", "sha256:", "sha256:zz"] {
            assert!(sha256(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
