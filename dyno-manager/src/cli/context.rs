//! What every command is given: the streams, the surroundings, the app it is about and the platform.

use std::path::Path;

use http::Method;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    ambient::Ambient,
    client::{Client, typed},
    endpoint::Endpoint,
    error::Result,
    layout,
    screen::Screen,
    target::{self, AppRef},
};

/// One command at work.
pub(super) struct Context {
    /// Where it writes.
    pub(super) screen: Screen,
    /// What is around it.
    pub(super) ambient: Ambient,
    flag: Option<AppRef>,
    client: Option<Client>,
}

impl Context {
    /// `flag` is the value of `--app`.
    pub(super) fn new(screen: Screen, ambient: Ambient, flag: Option<AppRef>) -> Self {
        Self { screen, ambient, flag, client: None }
    }

    /// The app this command is about.
    pub(super) fn app(&self) -> Result<AppRef> {
        self.app_of(&self.ambient.directory)
    }

    /// The same with another directory to look for `.dyno` from.
    pub(super) fn app_of(&self, directory: &Path) -> Result<AppRef> {
        target::resolve(self.flag.as_ref(), self.ambient.var("DYNO_APP"), directory)
    }

    /// The platform. Found at the first use: `version` and `completions` work without one.
    pub(super) fn client(&mut self) -> Result<&Client> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(Endpoint::resolve(&self.ambient)?),
        };
        Ok(self.client.insert(client))
    }

    /// `GET path` as `T`.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.client()?.get(path).await
    }

    /// A request with a JSON body, and its answer as `T`.
    pub(super) async fn send<T: DeserializeOwned>(&mut self, method: Method, path: &str, body: &Value) -> Result<T> {
        typed(self.client()?.call(method, path, Some(body)).await?)
    }

    /// A request whose answer does not matter.
    pub(super) async fn tell(&mut self, method: Method, path: &str) -> Result<()> {
        self.client()?.call(method, path, None).await.map(drop)
    }

    /// Writes JSON for scripts.
    pub(super) async fn say_json(&mut self, value: &Value) -> Result<()> {
        self.screen.say(format!("{value:#}")).await
    }

    /// How long ago, in the user's time zone.
    pub(super) fn ago(&self, at: Timestamp) -> String {
        layout::ago(at, self.ambient.now(), &self.ambient.zone)
    }
}
