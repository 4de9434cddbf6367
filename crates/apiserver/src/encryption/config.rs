//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): which resources are encrypted by what.

use super::kms::Kms;
use super::transform::Transformer;
use super::{Around, Unreadable};
use crate::authz::chain::aggregate;
use crate::outgoing::grpc::Place;
use crate::strict::{self, Shape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Value, cron};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: Shape =
    Shape::Object(&[("keys", Shape::List(&Shape::Object(&[("name", Shape::Text), ("secret", Shape::Text)])))]);
const KMS: Shape = Shape::Object(&[
    ("apiVersion", Shape::Text),
    ("name", Shape::Text),
    ("cachesize", Shape::Number),
    ("endpoint", Shape::Text),
    ("timeout", Shape::Text),
]);
const PROVIDERS: Shape = Shape::List(&Shape::Object(&[
    ("aesgcm", KEYS),
    ("aescbc", KEYS),
    ("secretbox", KEYS),
    ("identity", Shape::Object(&[])),
    ("kms", KMS),
]));
const SHAPE: &[(&str, Shape)] = &[(
    "resources",
    Shape::List(&Shape::Object(&[("resources", Shape::List(&Shape::Text)), ("providers", PROVIDERS)])),
)];
/// How long a call to a key management service may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// One way to write a value.
enum Cipher {
    Here(Transformer),
    Kms(Arc<Kms>),
}

struct Provider {
    /// What its values begin with.
    prefix: Vec<u8>,
    /// What metrics call it.
    label: String,
    cipher: Cipher,
}

/// What encrypts and decrypts one resource: the first writes, each reads what bears its prefix.
pub struct Providers {
    all: Vec<Arc<Provider>>,
    around: Around,
}

pub struct Config {
    /// By `plural.group` (with the dot also in the core group), `*.group`, `*.*`.
    by_name: HashMap<String, Providers>,
    /// The key management services that are named, and how long each may take.
    services: Vec<(Arc<Kms>, Duration)>,
}

impl Config {
    /// Reads a file; services that it names are not asked yet.
    pub fn parse(text: &str, around: &Around) -> Result<Config, String> {
        let file = strict::parse(text, "EncryptionConfiguration", &["v1"], SHAPE)?;
        if file["resources"].items().is_empty() {
            return Err("resources: Required value: at least one resources is required".into());
        }
        let (mut by_name, mut services): (HashMap<String, Providers>, _) = (HashMap::new(), Services::default());
        for (at, entry) in file["resources"].items().iter().enumerate() {
            let path = format!("resources[{at}]");
            let names: Vec<String> = entry["resources"].items().iter().map(|r| r.str().to_string()).collect();
            for (n, name) in names.iter().enumerate() {
                check_name(name, &names[..n]).map_err(|why| format!("{path}.resources[{n}]: {why}"))?;
                if let Some(earlier) = by_name.keys().find(|earlier| masks(earlier, name)) {
                    return Err(format!("resource {name:?} is masked by earlier rule {earlier:?}"));
                }
            }
            if names.is_empty() {
                return Err(format!("{path}.resources: Required value: at least one {path}.resources is required"));
            }
            let all = parse_providers(&entry["providers"], &path, around, &mut services)?;
            for mut name in names {
                if !name.contains('.') {
                    name.push('.');
                }
                // A later rule for the same resource adds what else may be read.
                let providers = by_name.entry(name).or_insert_with(|| Providers::new(around));
                providers.all.extend(all.iter().cloned());
            }
        }
        Ok(Config { by_name, services: services.0.into_iter().map(|(_, kms, timeout)| (kms, timeout)).collect() })
    }

    /// Makes contact with the key management services.
    pub async fn begin(&self) {
        for (kms, _) in &self.services {
            kms.begin().await;
        }
    }

    pub fn has_services(&self) -> bool {
        !self.services.is_empty()
    }

    /// How long a check may take, twice over.
    pub fn patience(&self) -> Duration {
        self.services.iter().map(|(_, timeout)| *timeout * 2).sum()
    }

    /// Whether all the key management services are well.
    pub async fn check(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        for (n, (kms, _)) in self.services.iter().enumerate() {
            if let Err(why) = kms.check().await {
                problems.push(format!("kms-provider-{n}: {why}"));
            }
        }
        aggregate(&problems).map_or(Ok(()), Err)
    }

    /// What holds for a resource. None: it is stored as it is.
    pub fn providers(&self, group: &str, resource: &str) -> Option<&Providers> {
        let named = |resource: &str| self.by_name.get(&format!("{resource}.{group}"));
        named(resource).or_else(|| named("*")).or_else(|| self.by_name.get("*.*"))
    }
}

/// Whether a rule for `earlier` leaves nothing to one for `name`.
fn masks(earlier: &str, name: &str) -> bool {
    let group = |name: &str| name.split_once('.').map(|(_, group)| group.to_string()).unwrap_or_default();
    earlier == "*.*" || earlier.starts_with("*.") && group(earlier) == group(name)
}

fn check_name(name: &str, before: &[String]) -> Result<(), String> {
    let bad = |why: &str| Err(format!("Invalid value: {name:?}: {why}"));
    if name.is_empty() || name == "*" {
        return bad("use '*.' for the core group and '*.*' for all");
    }
    if name.chars().any(char::is_uppercase) {
        return bad("resource names must be lower case");
    }
    if name.contains('/') {
        return bad("subresources are not stored by themselves");
    }
    if before.iter().any(|b| b == name || b == "*.*") || name == "*.*" && !before.is_empty() {
        return bad("overlapping resources in the same list");
    }
    Ok(())
}

/// The services of a file, by name.
#[derive(Default)]
struct Services(Vec<(String, Arc<Kms>, Duration)>);

impl Services {
    fn add(&mut self, settings: &Value, path: &str, around: &Around) -> Result<Provider, String> {
        let name = settings["name"].str();
        let invalid =
            |field: &str, value: &str, why: String| Err(format!("{path}.{field}: Invalid value: {value:?}: {why}"));
        match settings["apiVersion"].str() {
            "v2" => {}
            "" | "v1" => {
                return Err(format!(
                    "{path}: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."
                ));
            }
            other => {
                let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported".into();
                return invalid("apiVersion", other, why);
            }
        }
        if name.is_empty() {
            return Err(format!("{path}.name: Required value: name is a mandatory field for a provider"));
        }
        if name.contains(':') {
            return invalid("name", name, format!("invalid KMS provider name {name}, must not contain ':'"));
        }
        if self.0.iter().any(|(known, ..)| known == name) {
            return invalid("name", name, format!("duplicate KMS provider name {name}, names must be unique"));
        }
        if !settings["cachesize"].is_null() {
            return invalid(
                "cachesize",
                &settings["cachesize"].int().to_string(),
                "cachesize is not supported in v2".into(),
            );
        }
        let timeout = match settings["timeout"].as_str() {
            None => TIMEOUT,
            Some(text) => match cron::duration(text).filter(|timeout| !timeout.is_zero()) {
                Some(timeout) => timeout,
                None => return invalid("timeout", text, "timeout should be a positive value".into()),
            },
        };
        let endpoint = settings["endpoint"].str();
        if endpoint.is_empty() {
            return invalid("endpoint", "", "endpoint is a mandatory field for a kms".into());
        }
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        if scheme != "unix" {
            let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            return invalid("endpoint", endpoint, why);
        }
        let socket = match rest.find('/').map(|at| &rest[at..]) {
            // Of the abstract name space.
            Some(path) if path.starts_with("/@") => format!("\0{}", &path[2..]),
            path => path.unwrap_or_default().to_string(),
        };
        let kms = Kms::new(name, Place::Unix(socket.into()), timeout, around);
        self.0.push((name.into(), kms.clone(), timeout));
        let label = format!("k8s:enc:kms:v2:{name}:");
        Ok(Provider { prefix: label.clone().into_bytes(), label, cipher: Cipher::Kms(kms) })
    }
}

/// The providers of one rule.
fn parse_providers(
    providers: &Value,
    path: &str,
    around: &Around,
    services: &mut Services,
) -> Result<Vec<Arc<Provider>>, String> {
    let mut all: Vec<Provider> = Vec::new();
    for (at, provider) in providers.items().iter().enumerate() {
        let path = format!("{path}.providers[{at}]");
        let mut kinds = provider.entries();
        let (Some((kind, settings)), None) = (kinds.next(), kinds.next()) else {
            return Err(format!("{path}: exactly one provider must be specified"));
        };
        let make = match kind.as_str() {
            "identity" => {
                let cipher = Cipher::Here(Transformer::Identity);
                all.push(Provider { prefix: Vec::new(), label: "identity".into(), cipher });
                continue;
            }
            "kms" => {
                all.push(services.add(settings, &format!("{path}.kms"), around)?);
                continue;
            }
            "aesgcm" => Transformer::aes_gcm,
            "aescbc" => Transformer::aes_cbc,
            _ => Transformer::secretbox,
        };
        let keys = settings["keys"].items();
        if keys.is_empty() {
            return Err(format!("{path}.{kind}.keys: Required value: at least one keys is required"));
        }
        for (n, key) in keys.iter().enumerate() {
            let bad = |why: &str| format!("{path}.{kind}.keys[{n}]: {why}");
            let name = key["name"].str();
            if name.is_empty() || name.contains(':') {
                return Err(bad("a key needs a name, without colons"));
            }
            let secret = STANDARD.decode(key["secret"].str()).map_err(|_| bad("secret is not base64"))?;
            let transformer = make(&secret).ok_or_else(|| bad("secret is not of the expected length"))?;
            let label = format!("k8s:enc:{kind}:v1:");
            let prefix = format!("{label}{name}:").into_bytes();
            if all.iter().any(|known| known.prefix == prefix) {
                return Err(bad("another key has the same name"));
            }
            all.push(Provider { prefix, label, cipher: Cipher::Here(transformer) });
        }
    }
    if all.is_empty() {
        return Err(format!("{path}.providers: Required value: at least one {path}.providers is required"));
    }
    Ok(all.into_iter().map(Arc::new).collect())
}

impl Providers {
    fn new(around: &Around) -> Providers {
        Providers { all: Vec::new(), around: around.clone() }
    }

    /// What is stored of `data` under `key`.
    pub fn encrypt(&self, data: &[u8], key: &str) -> Result<Vec<u8>, String> {
        let Some(first) = self.all.first() else { return Ok(data.into()) };
        let begun = Instant::now();
        let sealed = match &first.cipher {
            Cipher::Here(transformer) => transformer.encrypt(data, key.as_bytes()).map_err(String::from),
            Cipher::Kms(kms) => kms.encrypt(data, key.as_bytes()),
        };
        let code = if sealed.is_ok() { "OK" } else { NO_CALL };
        self.count(key, "to_storage", &first.label, code, begun);
        Ok([&first.prefix[..], &sealed?].concat())
    }

    /// What was stored under `key` as `data`.
    pub async fn decrypt(&self, data: &[u8], key: &str) -> Result<Vec<u8>, Unreadable> {
        let begun = Instant::now();
        let mut why = None;
        for provider in &self.all {
            let Some(sealed) = data.strip_prefix(&provider.prefix[..]) else { continue };
            let open = match &provider.cipher {
                Cipher::Here(transformer) => {
                    transformer.decrypt(sealed, key.as_bytes()).map_err(|why| Unreadable::Bad(why.into()))
                }
                Cipher::Kms(kms) => kms.decrypt(sealed, key.as_bytes()).await,
            };
            // Of what is encrypted, identity's complaint says nothing.
            if open.is_err() && provider.prefix.is_empty() {
                continue;
            }
            let code = match &open {
                Ok(_) => "OK",
                Err(Unreadable::Fault { code, .. }) => code,
                Err(Unreadable::Bad(_)) => NO_CALL,
            };
            self.count(key, "from_storage", &provider.label, code, begun);
            match open {
                Ok(open) => return Ok(open),
                Err(error) => why = Some(error),
            }
        }
        Err(why.unwrap_or_else(|| {
            self.count(key, "from_storage", "unknown", NO_CALL, begun);
            Unreadable::Bad("no matching prefix found".into())
        }))
    }

    fn count(&self, key: &str, way: &str, label: &str, code: &str, begun: Instant) {
        let resource = match super::resource(key) {
            Some((group, plural)) if !group.is_empty() => format!("{plural}.{group}"),
            Some((_, plural)) => plural.into(),
            None => String::new(),
        };
        self.around.metrics.transformed(&resource, way, label, code, begun.elapsed());
    }

    /// Whether the first provider would have written it otherwise.
    pub fn is_stale(&self, data: &[u8]) -> bool {
        let Some(first) = self.all.first() else { return false };
        match (&first.cipher, data.strip_prefix(&first.prefix[..])) {
            (_, Some(_)) if first.prefix.is_empty() => data.starts_with(super::PREFIX),
            (Cipher::Kms(kms), Some(sealed)) => kms.is_stale(sealed),
            (_, sealed) => sealed.is_none(),
        }
    }

    /// Nothing is encrypted and nothing was.
    pub fn is_plain(&self) -> bool {
        self.all.iter().all(|provider| provider.prefix.is_empty())
    }
}

/// What upstream's metrics call failures that are none of gRPC's.
const NO_CALL: &str = "unknown-non-grpc";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::System;

    fn config(resources: &str) -> Result<Config, String> {
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}");
        Config::parse(&text, &Around::new(Arc::new(System)))
    }

    const A: &str = "{name: a, secret: YWFhYWFhYWFhYWFhYWFhYQ==}";
    const B: &str = "{name: b, secret: YmJiYmJiYmJiYmJiYmJiYg==}";

    #[test]
    fn which_resources() {
        let text = format!(
            "[{{resources: [events], providers: [identity: {{}}]}}, \
              {{resources: [secrets, '*.apps', pandas.awesome.example], providers: [aescbc: {{keys: [{A}]}}]}}, \
              {{resources: ['*.*'], providers: [aesgcm: {{keys: [{B}]}}]}}]"
        );
        let config = config(&text).unwrap();
        let prefix = |group, plural| {
            let sealed = config.providers(group, plural).unwrap().encrypt(b"{}", "k").unwrap();
            String::from_utf8_lossy(&sealed[..sealed.len().min(18)]).into_owned()
        };
        assert_eq!(prefix("", "events"), "{}");
        assert_eq!(prefix("", "secrets"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("apps", "deployments"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("awesome.example", "pandas"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("other.example", "secrets"), "k8s:enc:aesgcm:v1:");
        assert!(config.providers("", "events").unwrap().is_plain());
    }

    #[tokio::test]
    async fn keys_take_turns() {
        let with = |providers: &str| config(&format!("[{{resources: [secrets], providers: {providers}}}]")).unwrap();
        let providers = async |c: &Config, data: &[u8]| c.providers("", "secrets").unwrap().decrypt(data, "k").await;
        let old = with(&format!("[aescbc: {{keys: [{A}]}}, identity: {{}}]"));
        let both = with(&format!("[aescbc: {{keys: [{B}, {A}]}}]"));
        let new = with(&format!("[aescbc: {{keys: [{B}]}}]"));
        let sealed = old.providers("", "secrets").unwrap().encrypt(b"x", "k").unwrap();
        assert_eq!(providers(&both, &sealed).await, Ok(b"x".to_vec()));
        assert!(providers(&new, &sealed).await.is_err());
        assert_eq!(providers(&old, b"{}").await, Ok(b"{}".to_vec()), "what was there before is read");
        assert!(providers(&both, b"{}").await.is_err());
    }

    #[tokio::test]
    async fn a_later_rule_adds_what_may_be_read() {
        let (a, b) = (format!("aescbc: {{keys: [{A}]}}"), format!("aescbc: {{keys: [{B}]}}"));
        let both = format!(
            "[{{resources: [secrets], providers: [{a}]}}, {{resources: [secrets., events], providers: [{b}]}}]"
        );
        let old = format!("[{{resources: [secrets], providers: [{b}]}}]");
        let (both, old) = (config(&both).unwrap(), config(&old).unwrap());
        let (both, old) = (both.providers("", "secrets").unwrap(), old.providers("", "secrets").unwrap());
        assert!(both.encrypt(b"{}", "k").unwrap().starts_with(b"k8s:enc:aescbc:v1:a:"));
        assert_eq!(both.decrypt(&old.encrypt(b"{}", "k").unwrap(), "k").await, Ok(b"{}".to_vec()));
    }

    #[test]
    fn what_makes_no_sense() {
        let key = format!("aescbc: {{keys: [{A}]}}");
        for bad in [
            "[]".to_string(),
            "[{resources: [], providers: [identity: {}]}]".into(),
            "[{resources: [secrets], providers: []}]".into(),
            format!("[{{resources: ['*'], providers: [{key}]}}]"),
            format!("[{{resources: [secrets, secrets], providers: [{key}]}}]"),
            format!("[{{resources: [secrets, '*.*'], providers: [{key}]}}]"),
            "[{resources: [secrets], providers: [aescbc: {keys: []}]}]".into(),
            "[{resources: [secrets], providers: [aescbc: {keys: [{name: a, secret: YQ==}]}]}]".into(),
            "[{resources: [secrets], providers: [secretbox: {keys: [{name: a, secret: '***'}]}]}]".into(),
        ] {
            assert!(config(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn services() {
        let with = |settings: &str| config(&format!("[{{resources: [secrets], providers: [kms: {{{settings}}}]}}]"));
        let good = with("apiVersion: v2, name: foo, endpoint: 'unix:///tmp/kms.sock', timeout: 5s").unwrap();
        assert!(good.has_services());
        assert_eq!(good.patience(), Duration::from_secs(10));
        for (settings, why) in [
            ("name: foo, endpoint: 'unix:///s'", "KMSv1 is deprecated"),
            ("apiVersion: v3, name: foo, endpoint: 'unix:///s'", "only v1 and v2 are supported"),
            ("apiVersion: v2, endpoint: 'unix:///s'", "name is a mandatory field for a provider"),
            ("apiVersion: v2, name: 'a:b', endpoint: 'unix:///s'", "must not contain ':'"),
            ("apiVersion: v2, name: foo", "endpoint is a mandatory field for a kms"),
            ("apiVersion: v2, name: foo, endpoint: 'http:///s'", r#"unsupported scheme "http" for KMS provider"#),
            ("apiVersion: v2, name: foo, endpoint: 'unix:///s', timeout: 0s", "timeout should be a positive value"),
            ("apiVersion: v2, name: foo, endpoint: 'unix:///s', timeout: -1s", "timeout should be a positive value"),
            ("apiVersion: v2, name: foo, endpoint: 'unix:///s', cachesize: 3", "cachesize is not supported in v2"),
            ("apiVersion: v2, name: foo, socket: x", r#"unknown field "resources[0].providers[0].kms.socket""#),
        ] {
            let error = with(settings).map(drop).unwrap_err();
            assert!(error.contains(why), "{settings}: {error}");
        }
        let one = "kms: {apiVersion: v2, name: foo, endpoint: 'unix:///s'}";
        let twice = config(&format!("[{{resources: [secrets], providers: [{one}, {one}]}}]"));
        assert!(twice.map(drop).unwrap_err().contains("names must be unique"));
    }

    #[test]
    fn masked() {
        for (names, bad) in [
            (["'*.*'", "secrets"], true),
            (["'*.apps'", "deployments.apps"], true),
            (["'*.'", "secrets"], true),
            (["'*.apps'", "secrets"], false),
            (["secrets", "'*.'"], false),
        ] {
            let rule = |name: &str| format!("{{resources: [{name}], providers: [identity: {{}}]}}");
            let found = config(&format!("[{}, {}]", rule(names[0]), rule(names[1])));
            assert_eq!(found.is_err(), bad, "{names:?}");
        }
    }
}
