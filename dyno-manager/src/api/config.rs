//! `/apps/:app/config-vars` and the vars that a release froze.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use std::{collections::BTreeMap, sync::Arc};

use super::{Api, Shared, failure::Answer, json::Body};
use crate::model::ConfigVars;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/apps/{app}/config-vars", get(index).patch(update)).route("/apps/{app}/releases/{release}/config-vars", get(of_release))
}

async fn index(State(api): Shared, Path(app): Path<String>) -> Answer<Json<ConfigVars>> {
    Ok(Json(api.platform.config(&app).await?))
}

/// A flat object; null removes.
async fn update(State(api): Shared, Path(app): Path<String>, Body(changes): Body<BTreeMap<String, Option<String>>>) -> Answer<Json<ConfigVars>> {
    Ok(Json(api.platform.set_config(&app, changes.into_iter().collect()).await?))
}

async fn of_release(State(api): Shared, Path((app, release)): Path<(String, String)>) -> Answer<Json<ConfigVars>> {
    Ok(Json(api.platform.release_config(&app, &release).await?))
}
