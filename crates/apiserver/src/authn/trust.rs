//! ConfigMap `kube-system/extension-apiserver-authentication`: how extension servers recognize clients and this server
//! (upstream `clusterauthenticationtrust`). What other servers have published stays.

use super::certificates::Authority;
use super::request_header::RequestHeader;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{Gvr, Result, Target, Value, WriteOptions, json, value};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

const NAME: &str = "extension-apiserver-authentication";
const ATTEMPTS: usize = 5;

/// The check that says that it was published.
pub const HOOK: &str = "poststarthook/start-cluster-authentication-info-controller";

/// Brings the ConfigMap up to date.
pub async fn publish(server: &Arc<Server>, clients: &Authority, proxies: Option<&RequestHeader>) -> Result<()> {
    let user = User::new("system:apiserver", &[MASTERS]);
    let target = Target::new(&Gvr::new("", "v1", "configmaps"), "kube-system", NAME);
    let options = WriteOptions { field_manager: "canopus".into(), ..WriteOptions::default() };
    for attempt in 1.. {
        let existing = match server.get(&target, None).await {
            Ok(found) => Some(found.value()),
            Err(missing) if missing.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let now = server.surroundings.now().unix();
        let data = combined(existing.as_deref().map_or(&Value::Null, |e| &e["data"]), &clients.pem(), proxies, now);
        let done = match existing {
            Some(existing) if existing["data"] == data => return Ok(()),
            Some(existing) => {
                let mut updated = (*existing).clone();
                updated.set("data", data);
                server.update(&user, &target, updated, &options).await
            }
            None => {
                let metadata = value!({"name": NAME, "namespace": "kube-system"});
                let object = value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
                server.create(&user, &target, object, &options).await
            }
        };
        match done {
            Err(raced) if attempt < ATTEMPTS && (raced.is_conflict() || raced.is_already_exists()) => {}
            done => return done.map(|_| ()),
        }
    }
    Ok(())
}

fn combined(existing: &Value, clients: &str, proxies: Option<&RequestHeader>, now: i64) -> Value {
    let mut data = value!({});
    let mut certificates = |field: &str, own: &str| {
        let all = bundle(&[existing[field].str(), own], now);
        if !all.is_empty() {
            data.set(field, all);
        }
    };
    certificates("client-ca-file", clients);
    let Some(proxies) = proxies else { return data };
    certificates("requestheader-client-ca-file", &proxies.authority().pem());
    let headers = &proxies.headers;
    for (field, own) in [
        ("requestheader-username-headers", &headers.username),
        ("requestheader-uid-headers", &headers.uid),
        ("requestheader-group-headers", &headers.group),
        ("requestheader-extra-headers-prefix", &headers.extra_prefix),
        ("requestheader-allowed-names", &headers.allowed_names),
    ] {
        let known = json::parse(existing[field].str().as_bytes()).unwrap_or_default();
        let mut all: Vec<&str> = known.items().iter().map(Value::str).collect();
        for name in own {
            if !all.iter().any(|n| n.eq_ignore_ascii_case(name)) {
                all.push(name);
            }
        }
        let list: Value = all.into_iter().collect();
        let list = if list.is_empty() { value!([]) } else { list };
        data.set(field, String::from_utf8_lossy(&json::to_vec(&list)).into_owned());
    }
    data
}

/// Certificates in PEM, each once, without those that have expired.
fn bundle(pems: &[&str], now: i64) -> String {
    let mut all: Vec<CertificateDer> = Vec::new();
    for pem in pems {
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(|c| c.ok()) {
            let lasts = X509Certificate::from_der(&der).is_ok_and(|(_, c)| c.validity().not_after.timestamp() > now);
            if lasts && !all.contains(&der) {
                all.push(der);
            }
        }
    }
    all.iter().map(|der| crate::pki::pem("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::request_header::Headers;
    use super::*;
    use crate::testing::{ca_pem, server};

    #[tokio::test]
    async fn published_and_combined() {
        let server = server().await;
        let clients = Authority::new(&ca_pem()).unwrap();
        let proxies = RequestHeader::new(Headers::default(), server.surroundings.clone(), clients.clone());
        publish(&server, &clients, Some(&proxies)).await.unwrap();
        let target = Target::new(&Gvr::new("", "v1", "configmaps"), "kube-system", NAME);
        let data = server.get(&target, None).await.unwrap().value()["data"].clone();
        assert_eq!(data["client-ca-file"].str(), ca_pem());
        assert_eq!(data["requestheader-username-headers"].str(), r#"["x-remote-user"]"#);
        assert_eq!(data["requestheader-allowed-names"].str(), r#"["front-proxy-client"]"#);
        let before = server.store.revision();
        publish(&server, &clients, Some(&proxies)).await.unwrap();
        assert_eq!(server.store.revision(), before);
        let other = value!({"requestheader-username-headers": r#"["X-Other"]"#, "client-ca-file": "junk"});
        let both = combined(&other, &clients.pem(), Some(&proxies), 0);
        assert_eq!(both["requestheader-username-headers"].str(), r#"["X-Other","x-remote-user"]"#);
    }
}
