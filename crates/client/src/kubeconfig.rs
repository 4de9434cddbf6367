//! kubeconfig files: reading the current context's server and credentials, writing one for a new cluster.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Value, value, yaml};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read kubeconfig {path}")]
    Read { path: String, source: std::io::Error },
    #[error("kubeconfig: {0}")]
    Invalid(String),
    #[error("kubeconfig: TLS settings are unusable")]
    Tls(#[from] rustls::Error),
}

fn invalid(why: impl Into<String>) -> Error {
    Error::Invalid(why.into())
}

/// What the current context says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: String,
    pub namespace: String,
    pub token: Option<String>,
    pub ca: Vec<u8>,
    pub client_certificate: Vec<u8>,
    pub client_key: Vec<u8>,
}

/// Reads the file at `path`.
pub fn load(path: &str) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    parse_in(&text, Path::new(path).parent().unwrap_or(Path::new("")))
}

/// Reads the current context of a kubeconfig. Credential plugins are not supported and say so.
pub fn parse(text: &str) -> Result<Config, Error> {
    parse_in(text, Path::new(""))
}

/// The same for one in `dir`, to which the files are relative that it names.
fn parse_in(text: &str, dir: &Path) -> Result<Config, Error> {
    let file = yaml::parse(text).map_err(|e| invalid(e.to_string()))?.value;
    let named = |list: &str, name: &str, field: &str| -> Result<Value, Error> {
        let found = file[list].items().iter().find(|entry| entry["name"].str() == name);
        Ok(found.ok_or_else(|| invalid(format!("no entry {name:?} in {list}")))?[field].clone())
    };
    let context = named("contexts", file["current-context"].str(), "context")?;
    let cluster = named("clusters", context["cluster"].str(), "cluster")?;
    // Who is asked without credentials needs no user.
    let user = match context["user"].str() {
        "" => Value::Null,
        user => named("users", user, "user")?,
    };
    for unknown in ["insecure-skip-tls-verify", "tls-server-name", "proxy-url"] {
        if !cluster[unknown].is_empty() && cluster[unknown].as_bool() != Some(false) {
            return Err(invalid(format!("{unknown} is not supported")));
        }
    }
    let token = match (user["token"].as_str(), user["tokenFile"].str()) {
        (Some(token), _) => Some(token.to_string()),
        (None, "") => None,
        (None, path) => {
            let read = std::fs::read_to_string(dir.join(path));
            Some(read.map_err(|source| Error::Read { path: path.into(), source })?.trim().into())
        }
    };
    if !user["exec"].is_null() || !user["auth-provider"].is_null() {
        return Err(invalid("credential plugins are not supported"));
    }
    let namespace = context["namespace"].str();
    Ok(Config {
        server: cluster["server"].str().into(),
        namespace: if namespace.is_empty() { "default".into() } else { namespace.into() },
        token,
        ca: data(&cluster, "certificate-authority", dir)?,
        client_certificate: data(&user, "client-certificate", dir)?,
        client_key: data(&user, "client-key", dir)?,
    })
}

/// `NAME-data` in base64, or the file named by `NAME`; empty when neither is given.
fn data(entry: &Value, name: &str, dir: &Path) -> Result<Vec<u8>, Error> {
    let inline = entry[format!("{name}-data").as_str()].str();
    if !inline.is_empty() {
        return STANDARD.decode(inline).map_err(|_| invalid(format!("{name}-data is not base64")));
    }
    let path = entry[name].str();
    if path.is_empty() {
        return Ok(Vec::new());
    }
    std::fs::read(dir.join(path)).map_err(|source| Error::Read { path: path.into(), source })
}

impl Config {
    /// TLS that trusts the cluster's CA and shows the client certificate, if there is one.
    pub fn tls(&self) -> Result<rustls::ClientConfig, Error> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(certificate.map_err(|e| invalid(format!("certificate authority: {e}")))?)?;
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        if self.client_certificate.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.client_certificate).collect();
        let chain = chain.map_err(|e| invalid(format!("client certificate: {e}")))?;
        let key = PrivateKeyDer::from_pem_slice(&self.client_key).map_err(|e| invalid(format!("client key: {e}")))?;
        Ok(builder.with_client_auth_cert(chain, key)?)
    }

    pub fn to_yaml(&self, cluster: &str, user: &str) -> String {
        let mut credentials = value!({});
        if let Some(token) = &self.token {
            credentials.set("token", token);
        }
        for (name, bytes) in
            [("client-certificate-data", &self.client_certificate), ("client-key-data", &self.client_key)]
        {
            if !bytes.is_empty() {
                credentials.set(name, STANDARD.encode(bytes));
            }
        }
        yaml::to_yaml(&value!({
            "apiVersion": "v1", "kind": "Config", "current-context": cluster, "preferences": {},
            "clusters": [{"name": cluster, "cluster": {
                "server": &self.server, "certificate-authority-data": STANDARD.encode(&self.ca),
            }}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "users": [{"name": user, "user": credentials}],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let config = Config {
            server: "https://127.0.0.1:6443".into(),
            namespace: "default".into(),
            token: Some("t".into()),
            ca: b"ca".to_vec(),
            client_certificate: b"cert".to_vec(),
            client_key: b"key".to_vec(),
        };
        assert_eq!(parse(&config.to_yaml("canopus", "admin")).unwrap(), config);
        assert!(parse("a: [").is_err());
        let webhook = |more: &str| {
            let cluster = format!("{{name: c, cluster: {{server: 'https://x/hook'{more}}}}}");
            parse(&format!(
                "current-context: w\ncontexts: [{{name: w, context: {{cluster: c}}}}]\nclusters: [{cluster}]"
            ))
        };
        assert_eq!(webhook("").unwrap().server, "https://x/hook");
        assert!(webhook(", insecure-skip-tls-verify: true").is_err(), "not silently secure");
        assert!(parse("current-context: x").is_err());
    }
}
