//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): which resources are encrypted by what.

use super::transform::Transformer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Value, yaml};

/// What encrypts and decrypts one resource: the first writes, each reads what bears its prefix.
pub struct Providers(Vec<(Vec<u8>, Transformer)>);

pub struct Config {
    rules: Vec<(Vec<String>, Providers)>,
}

impl Config {
    pub fn parse(text: &str) -> Result<Config, String> {
        let file = yaml::parse(text).map_err(|e| e.to_string())?.value;
        let version = file["apiVersion"].str();
        if version != "apiserver.config.k8s.io/v1" || file["kind"].str() != "EncryptionConfiguration" {
            return Err("it is not an EncryptionConfiguration of apiserver.config.k8s.io/v1".into());
        }
        if file["resources"].items().is_empty() {
            return Err("resources: Required value: at least one resource must be specified".into());
        }
        let mut rules: Vec<(Vec<String>, Providers)> = Vec::new();
        for (at, entry) in file["resources"].items().iter().enumerate() {
            let path = format!("resources[{at}]");
            let names: Vec<String> = entry["resources"].items().iter().map(|r| r.str().to_string()).collect();
            for (n, name) in names.iter().enumerate() {
                check_name(name, &names[..n]).map_err(|why| format!("{path}.resources[{n}]: {why}"))?;
                if name.starts_with('*') && rules.iter().any(|(earlier, _)| earlier.contains(name)) {
                    return Err(format!("{path}.resources[{n}]: Invalid value: {name:?}: overlapping resources"));
                }
            }
            if names.is_empty() {
                return Err(format!("{path}.resources: Required value: at least one resource must be specified"));
            }
            rules.push((names, Providers::parse(&entry["providers"], &path)?));
        }
        Ok(Config { rules })
    }

    /// What holds for `resource.group`, `resource` in the core group; the first rule that names it. None: it is stored as it is.
    pub fn providers(&self, group: &str, resource: &str) -> Option<&Providers> {
        let fits = |name: &String| match name.split_once('.') {
            _ if name == "*.*" => true,
            Some(("*", named)) => named == group,
            Some((plural, named)) => plural == resource && named == group,
            None => name == resource && group.is_empty(),
        };
        self.rules.iter().find(|(names, _)| names.iter().any(fits)).map(|(_, providers)| providers)
    }
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

impl Providers {
    fn parse(providers: &Value, path: &str) -> Result<Providers, String> {
        let mut all = Vec::new();
        for (at, provider) in providers.items().iter().enumerate() {
            let path = format!("{path}.providers[{at}]");
            let mut kinds = provider.entries();
            let (Some((kind, settings)), None) = (kinds.next(), kinds.next()) else {
                return Err(format!("{path}: exactly one provider must be specified"));
            };
            let make = match kind.as_str() {
                "identity" => {
                    all.push((Vec::new(), Transformer::Identity));
                    continue;
                }
                "aesgcm" => Transformer::aes_gcm,
                "aescbc" => Transformer::aes_cbc,
                "secretbox" => Transformer::secretbox,
                other => return Err(format!("{path}.{other}: this provider is not supported")),
            };
            let keys = settings["keys"].items();
            if keys.is_empty() {
                return Err(format!("{path}.{kind}.keys: Required value: at least one key must be provided"));
            }
            for (n, key) in keys.iter().enumerate() {
                let bad = |why: &str| format!("{path}.{kind}.keys[{n}]: {why}");
                let name = key["name"].str();
                if name.is_empty() || name.contains(':') {
                    return Err(bad("a key needs a name, without colons"));
                }
                let secret = STANDARD.decode(key["secret"].str()).map_err(|_| bad("secret is not base64"))?;
                let transformer = make(&secret).ok_or_else(|| bad("secret is not of the expected length"))?;
                let prefix = format!("k8s:enc:{kind}:v1:{name}:").into_bytes();
                if all.iter().any(|(known, _)| *known == prefix) {
                    return Err(bad("another key has the same name"));
                }
                all.push((prefix, transformer));
            }
        }
        if all.is_empty() {
            return Err(format!("{path}.providers: Required value: at least one provider must be specified"));
        }
        Ok(Providers(all))
    }

    pub fn encrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        let Some((prefix, transformer)) = self.0.first() else { return Ok(data.into()) };
        Ok([&prefix[..], &transformer.encrypt(data, context)?].concat())
    }

    pub fn decrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        let mut why = "the provided value does not match any of the supported transformers".to_string();
        for (prefix, transformer) in &self.0 {
            let Some(sealed) = data.strip_prefix(&prefix[..]) else { continue };
            match transformer.decrypt(sealed, context) {
                Ok(open) => return Ok(open),
                // Of what is encrypted, identity's complaint says nothing.
                Err(_) if prefix.is_empty() => {}
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }

    /// Whether the first provider would have written it otherwise.
    pub fn is_stale(&self, data: &[u8]) -> bool {
        match self.0.first() {
            None => false,
            Some((prefix, _)) if prefix.is_empty() => data.starts_with(super::PREFIX),
            Some((prefix, _)) => !data.starts_with(prefix),
        }
    }

    /// Nothing is encrypted and nothing was.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|(prefix, _)| prefix.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(resources: &str) -> Result<Config, String> {
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}");
        Config::parse(&text)
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
            let sealed = config.providers(group, plural).unwrap().encrypt(b"{}", b"k").unwrap();
            String::from_utf8_lossy(&sealed[..sealed.len().min(18)]).into_owned()
        };
        assert_eq!(prefix("", "events"), "{}");
        assert_eq!(prefix("", "secrets"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("apps", "deployments"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("awesome.example", "pandas"), "k8s:enc:aescbc:v1:");
        assert_eq!(prefix("other.example", "secrets"), "k8s:enc:aesgcm:v1:");
        assert!(config.providers("", "events").unwrap().is_plain());
    }

    #[test]
    fn keys_take_turns() {
        let with = |providers: &str| config(&format!("[{{resources: [secrets], providers: {providers}}}]")).unwrap();
        let providers = |c: &Config, data: &[u8]| c.providers("", "secrets").unwrap().decrypt(data, b"k");
        let old = with(&format!("[aescbc: {{keys: [{A}]}}, identity: {{}}]"));
        let both = with(&format!("[aescbc: {{keys: [{B}, {A}]}}]"));
        let new = with(&format!("[aescbc: {{keys: [{B}]}}]"));
        let sealed = old.providers("", "secrets").unwrap().encrypt(b"x", b"k").unwrap();
        assert_eq!(providers(&both, &sealed), Ok(b"x".to_vec()));
        assert!(providers(&new, &sealed).is_err());
        assert_eq!(providers(&old, b"{}"), Ok(b"{}".to_vec()), "what was there before is read");
        assert!(providers(&both, b"{}").is_err());
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
            "[{resources: [secrets], providers: [kms: {name: x}]}]".into(),
            "[{resources: [secrets], providers: [aescbc: {keys: []}]}]".into(),
            "[{resources: [secrets], providers: [aescbc: {keys: [{name: a, secret: YQ==}]}]}]".into(),
            "[{resources: [secrets], providers: [secretbox: {keys: [{name: a, secret: '***'}]}]}]".into(),
        ] {
            assert!(config(&bad).is_err(), "{bad}");
        }
        assert!(Config::parse("kind: EncryptionConfiguration").is_err());
    }
}
