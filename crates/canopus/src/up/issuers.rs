//! Whose JSON Web Tokens are taken: as a file says, which may change, or as flags say.

use crate::cli::auth::{AuthArgs, OidcArgs};
use anyhow::{Context, Result, anyhow, bail};
use canopus_api::{Value, value};
use canopus_apiserver::authn::config::Configuration;
use canopus_apiserver::authn::{Anonymous, TokenAuthenticator, oidc};
use canopus_apiserver::surroundings::{Surroundings, System};
use canopus_apiserver::{Server, reload};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// New issuers get this long to publish their keys; until then the old ones stay (as upstream).
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Issuers {
    all: Option<Arc<oidc::Issuers>>,
    pub anonymous: Anonymous,
    /// What the file says about it, which must not change.
    filed: Option<Anonymous>,
    /// The file as it was.
    text: String,
}

impl Issuers {
    pub fn read(auth: &AuthArgs) -> Result<Issuers> {
        let enabled = auth.anonymous_auth.unwrap_or(true);
        let (mut anonymous, mut filed) = (Anonymous { enabled, paths: Vec::new() }, None);
        let mut text = String::new();
        let mut configuration = None;
        if let Some(path) = &auth.authentication_config {
            let read;
            (read, text) = parse(path, &auth.service_account_issuer)?;
            if let Some(said) = &read.anonymous {
                if auth.anonymous_auth.is_some() {
                    bail!("--anonymous-auth cannot be set when {} says who may come anonymously", path.display());
                }
                anonymous = said.clone();
                filed = Some(said.clone());
            }
            configuration = Some(read.issuers);
        } else if let Some(url) = &auth.oidc.oidc_issuer_url {
            let algorithms: Vec<&str> = auth.oidc.oidc_signing_algs.iter().map(String::as_str).collect();
            let algorithms = if algorithms.is_empty() { vec!["RS256"] } else { algorithms };
            if let Some(bad) = algorithms.iter().find(|a| !oidc::ALGORITHMS.contains(a)) {
                bail!("--oidc-signing-algs: unsupported signing alg: {bad:?}");
            }
            let file = value!({"jwt": [of_flags(url, &auth.oidc)?]});
            let read = Configuration::of(&file, &auth.service_account_issuer, &algorithms);
            configuration = Some(read.map_err(|e| anyhow!("failed to understand --oidc-*: {e}"))?.issuers);
        }
        let all = configuration.map(|issuers| Arc::new(oidc::Issuers::new(issuers)));
        Ok(Issuers { all, anonymous, filed, text })
    }

    pub fn authenticators(&self) -> Vec<Arc<dyn TokenAuthenticator>> {
        self.all.iter().map(|all| all.clone() as Arc<dyn TokenAuthenticator>).collect()
    }

    /// Reads the file again when it changes. What cannot be used changes nothing.
    pub fn follow(&self, server: &Arc<Server>, auth: &AuthArgs, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let (Some(path), Some(all)) = (auth.authentication_config.clone(), self.all.clone()) else { return };
        server.metrics.authentication_config.began(&self.text);
        let (own, filed) = (auth.service_account_issuer.clone(), self.filed.clone());
        let (server, handle, ended) = (Arc::downgrade(server), tasks.clone(), shutdown.clone());
        tasks.spawn(reload::follow(vec![path.clone()], shutdown.clone(), move || {
            let Some(server) = server.upgrade() else { return };
            let read = parse(&path, &own).and_then(|(read, text)| match read.anonymous == filed {
                true => Ok((read.issuers, text)),
                false => Err(anyhow!("anonymous: Forbidden: changed from initial configuration file")),
            });
            let (all, ended) = (all.clone(), ended.clone());
            handle.spawn(async move {
                let replaced = async {
                    let (issuers, text) = read?;
                    all.replace(issuers, &server.outgoing, PATIENCE).await.map_err(anyhow::Error::msg)?;
                    Ok::<_, anyhow::Error>(text)
                };
                tokio::select! {
                    () = ended.cancelled() => {}
                    replaced = replaced => match replaced {
                        Ok(text) => {
                            server.metrics.authentication_config.again(Some(&text), System.now());
                            tracing::info!("the authentication configuration was read again");
                        }
                        Err(error) => {
                            server.metrics.authentication_config.again(None, System.now());
                            tracing::error!(error = format!("{error:#}"), "the old authentication configuration stays");
                        }
                    }
                }
            });
        }));
    }
}

/// What the file says, and its text.
fn parse(path: &Path, own: &[String]) -> Result<(Configuration, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let read = Configuration::parse(&text, own);
    Ok((read.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?, text))
}

/// What a file would say, as upstream maps the flags.
fn of_flags(url: &str, flags: &OidcArgs) -> Result<Value> {
    let mut issuer = value!({"url": url, "audiences": [flags.oidc_client_id.as_deref().unwrap_or_default()]});
    if let Some(path) = &flags.oidc_ca_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        issuer.set("certificateAuthority", text);
    }
    let claim = flags.oidc_username_claim.as_deref().unwrap_or("sub");
    let prefix = match flags.oidc_username_prefix.as_deref().unwrap_or_default() {
        "" if claim != "email" => format!("{url}#"),
        "-" => String::new(),
        prefix => prefix.into(),
    };
    let mut mappings = value!({"username": {"claim": claim, "prefix": prefix}});
    if let Some(groups) = flags.oidc_groups_claim.as_deref().filter(|g| !g.is_empty()) {
        let prefix = flags.oidc_groups_prefix.as_deref().unwrap_or_default();
        mappings.set("groups", value!({"claim": groups, "prefix": prefix}));
    }
    let mut rules = Vec::new();
    for required in &flags.oidc_required_claim {
        let (claim, wanted) =
            required.split_once('=').ok_or_else(|| anyhow!("--oidc-required-claim: {required:?} is not KEY=VALUE"))?;
        rules.push(value!({"claim": claim.trim(), "requiredValue": wanted.trim()}));
    }
    Ok(value!({"issuer": issuer, "claimMappings": mappings, "claimValidationRules": Value::Array(rules)}))
}

#[cfg(test)]
mod tests {
    use crate::cli::UpArgs;
    use clap::{Args, FromArgMatches};

    fn read(flags: &[&str]) -> Result<String, String> {
        let command = UpArgs::augment_args(clap::Command::new("up"));
        let parsed = command.try_get_matches_from([&["up"], flags].concat()).map_err(|e| e.kind().to_string())?;
        let args = UpArgs::from_arg_matches(&parsed).map_err(|e| e.to_string())?;
        let oidc = &args.auth.oidc;
        let tree = super::of_flags(oidc.oidc_issuer_url.as_deref().unwrap_or_default(), oidc);
        Ok(canopus_api::json::to_string(&tree.map_err(|e| e.to_string())?["claimMappings"]))
    }

    #[test]
    fn flags_as_upstream_maps_them() {
        let base = ["--oidc-issuer-url=https://x", "--oidc-client-id=me"];
        let with = |more: &[&'static str]| read(&[&base[..], more].concat());
        let username =
            |claim: &str, prefix: &str| format!(r#"{{"username":{{"claim":"{claim}","prefix":"{prefix}"}}}}"#);
        assert_eq!(with(&[]), Ok(username("sub", "https://x#")));
        assert_eq!(with(&["--oidc-username-claim=email"]), Ok(username("email", "")));
        assert_eq!(with(&["--oidc-username-prefix=-"]), Ok(username("sub", "")));
        assert_eq!(with(&["--oidc-username-prefix=p:"]), Ok(username("sub", "p:")));
        let groups = r#"{"groups":{"claim":"g","prefix":""},"username":{"claim":"sub","prefix":"https://x#"}}"#;
        assert_eq!(with(&["--oidc-groups-claim=g"]), Ok(groups.into()));
        assert!(with(&["--oidc-required-claim=x"]).is_err());
        assert!(with(&["--authentication-config=/x"]).is_err(), "either or");
        assert!(read(&["--oidc-issuer-url=https://x"]).is_err(), "both or none");
    }
}
