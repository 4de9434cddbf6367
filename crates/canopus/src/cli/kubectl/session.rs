//! A connection to one cluster, with the namespace and what the cluster serves.

use super::Connection;
use super::discovery::Discovery;
use crate::cli::DATA_DIR;
use anyhow::{Context, Result, bail};
use canopus_api::{Value, json};
use canopus_client::kubeconfig::{self, Config};
use canopus_client::{RemoteApi, remote};
use http::{HeaderMap, Method, StatusCode};
use std::path::PathBuf;
use tokio::sync::OnceCell;

pub const JSON: &str = "application/json";

pub struct Session {
    pub api: RemoteApi,
    pub config: Config,
    /// The namespace to use when none is said for an object.
    pub namespace: String,
    /// Whether the user asked for that namespace.
    pub namespace_given: bool,
    discovery: OnceCell<Discovery>,
}

impl Session {
    pub fn open(connection: &Connection) -> Result<Session> {
        let path = match &connection.kubeconfig {
            Some(path) => path.clone(),
            None => default_kubeconfig(std::env::var("KUBECONFIG").ok().as_deref())?,
        };
        let path = path.to_str().context("the path of the kubeconfig must be UTF-8")?;
        let config = kubeconfig::load(path).context("failed to load the kubeconfig")?;
        if config.server.is_empty() {
            bail!("kubeconfig {path} names no server");
        }
        Session::new(config, connection.namespace.clone())
    }

    pub fn new(config: Config, namespace: Option<String>) -> Result<Session> {
        // An error means that there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = config.tls().context("failed to use the kubeconfig's credentials")?;
        let agent = concat!("canopus-kubectl/", env!("CARGO_PKG_VERSION"));
        let api = RemoteApi::new(&config.server, tls, config.token.clone(), agent);
        let namespace_given = namespace.is_some();
        let namespace = namespace.unwrap_or_else(|| config.namespace.clone());
        Ok(Session { api, config, namespace, namespace_given, discovery: OnceCell::new() })
    }

    pub async fn discovery(&self) -> Result<&Discovery> {
        self.discovery.get_or_try_init(|| Discovery::fetch(&self.api)).await
    }

    /// One request, one JSON document. The server's warnings go to standard error.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<Value> {
        Ok(self.exchange(method, path, accept, content).await?.1)
    }

    /// The same with the status code (200, 201, 202).
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Value)> {
        let (kind, body) = content.map_or(("", Vec::new()), |(kind, body)| (kind, json::to_vec(body)));
        let response = self.api.raw(method, path, accept, kind, body).await?;
        for warning in warnings(response.headers()) {
            eprintln!("Warning: {warning}");
        }
        let code = response.status();
        Ok((code, remote::answer(response).await?))
    }
}

/// The first file there is where kubectl looks; then this host's own cluster.
fn default_kubeconfig(listed: Option<&str>) -> Result<PathBuf> {
    let listed: Vec<PathBuf> = listed.map(|list| std::env::split_paths(list).collect()).unwrap_or_default();
    let listed: Vec<PathBuf> = listed.into_iter().filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        let found = listed.iter().find(|path| path.exists());
        return found.cloned().with_context(|| format!("KUBECONFIG: {} is not there", listed[0].display()));
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let own = PathBuf::from(DATA_DIR).join("kubeconfig");
    let found = home.into_iter().chain([own]).find(|path| path.exists());
    found.context("there is no kubeconfig: start a cluster with `canopus up`, or name a file with --kubeconfig")
}

/// The texts of `Warning: 299 - "text"` headers (RFC 7234, section 5.5).
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let quoted = |header: &str| -> Option<String> {
        let text = header.split_once('"')?.1.strip_suffix('"')?;
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            out.push(if c == '\\' { chars.next()? } else { c });
        }
        Some(out)
    };
    headers.get_all("warning").iter().filter_map(|h| quoted(h.to_str().ok()?)).collect()
}

/// `path?a=b&c=d` of the pairs that have a value.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let set = pairs.iter().filter(|(_, value)| !value.is_empty());
    let text: Vec<String> = set.map(|(name, value)| format!("{name}={}", remote::encode(value))).collect();
    if text.is_empty() { path.into() } else { format!("{path}?{}", text.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn warnings_are_unquoted() {
        let mut headers = HeaderMap::new();
        headers.append("warning", HeaderValue::from_static(r#"299 - "unknown field \"spec.x\"""#));
        headers.append("warning", HeaderValue::from_static("rubbish"));
        assert_eq!(warnings(&headers), [r#"unknown field "spec.x""#]);
    }

    #[test]
    fn the_first_kubeconfig_that_exists_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, "").unwrap();
        let list = format!("{}/missing:{}", dir.path().display(), file.display());
        assert_eq!(default_kubeconfig(Some(&list)).unwrap(), file);
        assert!(default_kubeconfig(Some("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn queries_leave_out_what_is_empty() {
        assert_eq!(with_query("/p", &[("a", ""), ("b", "x=y")]), "/p?b=x%3Dy");
        assert_eq!(with_query("/p", &[]), "/p");
    }
}
