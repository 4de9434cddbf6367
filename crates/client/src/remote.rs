//! The API over HTTPS: hyper, rustls, JSON.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use canopus_api::api::{FieldValidation, Propagation, ResourceVersionMatch};
use canopus_api::{
    Api, DeleteOptions, List, ListOptions, Object, Patch, Result, Status, Target, Value, Watch, WatchEvent,
    WriteOptions, json, value,
};
use futures::StreamExt;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;

/// No answer is longer, whatever a server says.
const MAX_ANSWER: usize = 1 << 30;
/// No watch event is longer.
const MAX_EVENT: usize = 16 << 20;
/// How long a request other than a watch may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster's API at a URL, with the credentials of one user.
pub struct RemoteApi {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: String,
    token: Option<String>,
    user_agent: String,
}

impl RemoteApi {
    /// `server` like `https://127.0.0.1:6443`. Client certificates are part of `tls`; `token` is a bearer token.
    pub fn new(server: &str, tls: rustls::ClientConfig, token: Option<String>, user_agent: &str) -> RemoteApi {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        let client = Client::builder(TokioExecutor::new()).build(connector.wrap_connector(http));
        RemoteApi { client, server: server.trim_end_matches('/').into(), token, user_agent: user_agent.into() }
    }

    /// Sends a request to a path with a query; the answer's status is not looked at.
    pub async fn raw(
        &self,
        method: Method,
        path_and_query: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path_and_query}", self.server))
            .header(header::USER_AGENT, &self.user_agent)
            .header(header::ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::from(body)).map_err(|e| Status::bad_request(e.to_string()))?;
        self.client.request(request).await.map_err(|e| unreachable(&self.server, &e))
    }

    /// A request whose answer is one JSON document.
    pub async fn call(&self, method: Method, path_and_query: &str, content_type: &str, body: Vec<u8>) -> Result<Value> {
        self.call_accepting(method, path_and_query, "application/json", content_type, body).await
    }

    pub async fn call_accepting(
        &self,
        method: Method,
        path_and_query: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value> {
        let exchange = async {
            let response = self.raw(method, path_and_query, accept, content_type, body).await?;
            answer(response).await
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| Status::timeout("the server did not answer in time"))?
    }

    async fn write(
        &self,
        method: Method,
        target: &Target,
        content_type: &str,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let collection = method == Method::POST && target.subresource.is_empty();
        let target = if collection { Target { name: "".into(), ..target.clone() } } else { target.clone() };
        let path = format!("{}{}", target.url_path(), write_query(options));
        let value = self.call(method, &path, content_type, json::to_vec(body)).await?;
        Ok(Arc::new(object(value)))
    }
}

fn unreachable(server: &str, error: &hyper_util::client::legacy::Error) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Status::unavailable(format!("failed to reach {server}: {text}"))
}

/// The document of an answer, or the Status it carries.
pub async fn answer(response: Response<Incoming>) -> Result<Value> {
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map_err(|e| Status::unavailable(format!("failed to read the answer: {e}")))?.to_bytes();
    let value = json::parse(&bytes);
    if code.is_success() {
        return value.map_err(|e| Status::internal(format!("the server's answer is not JSON: {e}")));
    }
    let status = value.ok().as_ref().and_then(Status::from_value);
    Err(status.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Status::new(code.as_u16(), "", if text.is_empty() { code.to_string() } else { text })
    }))
}

/// Selectable fields that local selectors of remote objects may need.
const FIELDS: &[&str] = &["spec.nodeName", "status.phase", "type"];

fn object(value: Value) -> Object {
    let revision = value["metadata"]["resourceVersion"].str().parse().unwrap_or(0);
    Object::from_value(value, FIELDS, revision)
}

/// Percent-encodes a query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn query(pairs: &[(&str, String)]) -> String {
    let set = pairs.iter().filter(|(_, v)| !v.is_empty());
    let text: Vec<String> = set.map(|(k, v)| format!("{k}={}", encode(v))).collect();
    if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
}

fn write_query(options: &WriteOptions) -> String {
    let validation = match options.field_validation {
        FieldValidation::Ignore => "Ignore",
        FieldValidation::Warn => "",
        FieldValidation::Strict => "Strict",
    };
    query(&[
        ("fieldManager", options.field_manager.to_string()),
        ("dryRun", if options.dry_run { "All".into() } else { String::new() }),
        ("fieldValidation", validation.into()),
        ("force", if options.force { "true".into() } else { String::new() }),
    ])
}

fn list_query(options: &ListOptions, watch: bool) -> String {
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let flag = |b: bool| if b { "true".to_string() } else { String::new() };
    let matching = match options.resource_version_match {
        None => "",
        Some(ResourceVersionMatch::Exact) => "Exact",
        Some(ResourceVersionMatch::NotOlderThan) => "NotOlderThan",
    };
    query(&[
        ("watch", flag(watch)),
        ("labelSelector", options.labels.to_string()),
        ("fieldSelector", options.fields.to_string()),
        ("resourceVersion", number(options.resource_version)),
        ("resourceVersionMatch", matching.into()),
        ("limit", if options.limit > 0 { options.limit.to_string() } else { String::new() }),
        ("continue", options.continue_token.to_string()),
        ("timeoutSeconds", number(options.timeout_seconds.map(u64::from))),
        ("allowWatchBookmarks", flag(watch && options.bookmarks)),
        ("sendInitialEvents", options.send_initial_events.map(|b| b.to_string()).unwrap_or_default()),
    ])
}

fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = value!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let Some(grace) = options.grace_period_seconds {
        body.set("gracePeriodSeconds", grace);
    }
    let policy = options.propagation_policy.map(|p| match p {
        Propagation::Orphan => "Orphan",
        Propagation::Background => "Background",
        Propagation::Foreground => "Foreground",
    });
    if let Some(policy) = policy {
        body.set("propagationPolicy", policy);
    }
    for (name, given) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)] {
        if let Some(given) = given {
            body.obj_mut("preconditions").insert(name, given);
        }
    }
    if options.dry_run {
        body.set("dryRun", value!(["All"]));
    }
    body
}

#[async_trait]
impl Api for RemoteApi {
    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        Ok(Arc::new(object(self.call(Method::GET, &target.url_path(), "", Vec::new()).await?)))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let path = format!("{}{}", target.url_path(), list_query(options, false));
        let mut value = self.call(Method::GET, &path, "", Vec::new()).await?;
        let api_version = value["apiVersion"].clone();
        let kind = value["kind"].str().strip_suffix("List").unwrap_or("").to_string();
        let items = value.remove("items").unwrap_or_default();
        let items = match items {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let typed = |mut item: Value| {
            // Items of a list leave out what the list says.
            item.set_default("apiVersion", &api_version);
            item.set_default("kind", &kind);
            Arc::new(object(item))
        };
        let meta = &value["metadata"];
        Ok(List {
            revision: meta["resourceVersion"].str().parse().unwrap_or(0),
            continue_token: meta["continue"].str().into(),
            remaining: meta["remainingItemCount"].as_i64().and_then(|n| u64::try_from(n).ok()),
            items: items.into_iter().map(typed).collect(),
        })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let path = format!("{}{}", target.url_path(), list_query(options, true));
        let response = self.raw(Method::GET, &path, "application/json", "", Vec::new()).await?;
        if !response.status().is_success() {
            return Err(answer(response)
                .await
                .err()
                .unwrap_or_else(|| Status::internal("a watch answered a document")));
        }
        let lines = Lines { body: response.into_body(), buffer: BytesMut::new() };
        let events = futures::stream::unfold(Some(lines), |lines| async move {
            let mut lines = lines?;
            match lines.next().await {
                Ok(Some(line)) => Some((event(&line), Some(lines))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(events.boxed())
    }

    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>> {
        self.write(Method::POST, target, "application/json", &body, options).await
    }

    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>> {
        self.write(Method::PUT, target, "application/json", &body, options).await
    }

    async fn patch(&self, target: &Target, patch: Patch, options: &WriteOptions) -> Result<Arc<Object>> {
        let (kind, body) = match &patch {
            Patch::Json(body) => ("application/json-patch+json", body),
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Patch::Apply(body) => ("application/apply-patch+yaml", body),
        };
        self.write(Method::PATCH, target, kind, body, options).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Arc<Object>> {
        let body = json::to_vec(&delete_body(options));
        let value = self.call(Method::DELETE, &target.url_path(), "application/json", body).await?;
        Ok(Arc::new(object(value)))
    }

    async fn delete_collection(&self, target: &Target, list: &ListOptions, options: &DeleteOptions) -> Result<()> {
        let path = format!("{}{}", target.url_path(), list_query(list, false));
        self.call(Method::DELETE, &path, "application/json", json::to_vec(&delete_body(options))).await.map(|_| ())
    }
}

/// The lines of a streamed body.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + at + 1).freeze();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_EVENT {
                return Err(Status::internal("a watch event is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Status::unavailable(format!("the watch broke: {error}"))),
            }
        }
    }
}

fn event(line: &[u8]) -> Result<WatchEvent> {
    let mut value = json::parse(line).map_err(|e| Status::internal(format!("a watch event is not JSON: {e}")))?;
    let body = value.remove("object").unwrap_or_default();
    match value["type"].str() {
        "ADDED" => Ok(WatchEvent::Added(Arc::new(object(body)))),
        "MODIFIED" => Ok(WatchEvent::Modified(Arc::new(object(body)))),
        "DELETED" => Ok(WatchEvent::Deleted(Arc::new(object(body)))),
        "BOOKMARK" => Ok(WatchEvent::Bookmark {
            revision: body["metadata"]["resourceVersion"].str().parse().unwrap_or(0),
            initial_events_end: body["metadata"]["annotations"]["k8s.io/initial-events-end"].str() == "true",
        }),
        "ERROR" => Err(Status::from_value(&body).unwrap_or_else(|| Status::internal("a watch failed"))),
        other => Err(Status::internal(format!("unknown watch event type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{LabelSelector, WatchEvent};

    #[test]
    fn queries() {
        let options = ListOptions {
            labels: LabelSelector::parse("a=b,c in (d,e)").unwrap(),
            resource_version: Some(7),
            bookmarks: true,
            ..ListOptions::default()
        };
        let text = list_query(&options, true);
        assert_eq!(
            text,
            "?watch=true&labelSelector=a%3Db%2Cc%20in%20%28d%2Ce%29&resourceVersion=7&allowWatchBookmarks=true"
        );
    }

    #[test]
    fn events() {
        let line = br#"{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"5"}}}"#;
        let Ok(WatchEvent::Added(object)) = event(line) else { panic!() };
        assert_eq!((object.name(), object.revision), ("x", 5));
        let error = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"m"}}"#;
        assert!(event(error).unwrap_err().is_expired());
        assert!(event(b"{}").is_err());
    }
}
