//! Who is called: a URL or a Service, what it is trusted by, and what it is shown.

use super::tls::Trust;
use crate::pki::Identity;
use base64::Engine;
use canopus_api::Value;
use http::Uri;
use std::sync::Arc;

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Url { https: bool, host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    pub place: Place,
    /// The path of its own, "" or with a slash in front.
    pub path: String,
    pub trust: Trust,
    /// The client certificate it is shown.
    pub identity: Option<Arc<Identity>>,
    /// Sent as `Authorization`.
    pub authorization: Option<String>,
}

impl Destination {
    /// Of a `clientConfig`, as webhooks and CustomResourceDefinitions have it: `url` or `service`, and `caBundle`.
    pub fn of_client_config(config: &Value) -> Result<Destination, String> {
        let bundle = config["caBundle"].str();
        let bundle = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| format!("caBundle: {e}"))?;
        let service = &config["service"];
        if service.is_null() {
            let url = config["url"].as_str().ok_or("webhook configuration must have either service or URL")?;
            return Destination::url(url, Trust::bundle(&bundle));
        }
        let port = if service["port"].is_null() { 443 } else { service["port"].int() };
        let port = u16::try_from(port).map_err(|_| format!("{port} is not a port"))?;
        let mut to =
            Destination::service(service["namespace"].str(), service["name"].str(), port, Trust::bundle(&bundle));
        to.path = rooted(service["path"].str());
        Ok(to)
    }

    pub fn url(url: &str, trust: Trust) -> Result<Destination, String> {
        let uri: Uri = url.parse().map_err(|e| format!("Unparsable URL: {e}"))?;
        let https = uri.scheme_str().unwrap_or("https") == "https";
        let host = uri.host().filter(|h| !h.is_empty()).ok_or("Unparsable URL: no host")?;
        let place = Place::Url {
            https,
            host: host.trim_start_matches('[').trim_end_matches(']').into(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        };
        let path = if uri.path() == "/" && !url.ends_with('/') { "" } else { uri.path() };
        Ok(Destination { place, path: path.into(), trust, identity: None, authorization: None })
    }

    pub fn service(namespace: &str, name: &str, port: u16, trust: Trust) -> Destination {
        let place = Place::Service { namespace: namespace.into(), name: name.into(), port };
        Destination { place, path: String::new(), trust, identity: None, authorization: None }
    }

    pub fn is_https(&self) -> bool {
        !matches!(self.place, Place::Url { https: false, .. })
    }

    /// The name its certificate must bear.
    pub fn server_name(&self) -> String {
        match &self.place {
            Place::Url { host, .. } => host.clone(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// `host:port`, as the Host header has it.
    pub fn authority(&self) -> String {
        let (host, port) = match &self.place {
            Place::Url { host, port, https } if *port == if *https { 443 } else { 80 } => (host.clone(), None),
            Place::Url { host, port, .. } => (host.clone(), Some(*port)),
            Place::Service { port, .. } => (self.server_name(), Some(*port)),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// `https://host:port`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_https() { "https" } else { "http" }, self.authority())
    }

    /// The path with a query.
    pub fn path_with(&self, query: &str) -> String {
        format!("{}?{query}", rooted(&self.path))
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.into() } else { format!("/{path}") }
}
