//! Distributed claims (OpenID Connect Core 1.0, section 5.6.2): a token may say where the user's groups are to be asked for; what comes back
//! is another token, perhaps of another issuer.

use super::Issuer;
use super::claims::Mapping;
use super::keys::{RemoteKeys, get};
use crate::authn::jwt;
use crate::outgoing::Outgoing;
use canopus_api::Value;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Issuers of such claims that one issuer of tokens may name.
const MAX_ISSUERS: usize = 32;

/// The keys of those who have issued claims.
#[derive(Default)]
pub struct Others(Mutex<BTreeMap<String, Arc<RemoteKeys>>>);

impl Others {
    fn keys(&self, issuer: &Issuer, named: &str) -> Result<Arc<RemoteKeys>, String> {
        let mut known = self.0.lock();
        if let Some(keys) = known.get(named) {
            return Ok(keys.clone());
        }
        if known.len() >= MAX_ISSUERS {
            return Err(format!("verifying untrusted issuer {named} failed: too many issuers"));
        }
        let keys = Arc::new(RemoteKeys::new(named, "", issuer.settings.trust.clone()));
        known.insert(named.into(), keys.clone());
        Ok(keys)
    }
}

/// Puts the groups among the claims if they are elsewhere.
pub async fn expand(issuer: &Issuer, outgoing: &Outgoing, claims: &mut Value, now: i64) -> Result<(), String> {
    let Some(Mapping::Claim { name, .. }) = &issuer.settings.claims.groups else { return Ok(()) };
    let Some((url, token)) = source(claims, name)? else { return Ok(()) };
    let of = |e: String| format!("while getting distributed claim {name:?}: {e}");
    let answer = get(outgoing, &url, &issuer.settings.trust, token).await.map_err(of)?;
    let answer = String::from_utf8_lossy(&answer);
    let unverified = jwt::unverified_claims(&answer).ok_or_else(|| {
        format!("getting untrusted issuer from endpoint {url} failed for claim {name:?}: malformed token")
    })?;
    let keys = issuer.others.keys(issuer, super::issuer_of(&unverified))?;
    let verified = issuer.verify(&keys, outgoing, &answer, now).await;
    let verified = verified.map_err(|e| format!("verify distributed claim token: {e}"))?;
    let value = verified
        .get(name)
        .ok_or_else(|| format!("jwt returned by distributed claim endpoint {url:?} did not contain claim: {name}"))?;
    claims.set(name, value.clone());
    Ok(())
}

/// Where a claim is to be asked for, and the token that this takes. None: it is here, or nowhere.
fn source(claims: &Value, claim: &str) -> Result<Option<(String, Option<String>)>, String> {
    let names = &claims["_claim_names"];
    if claims.get(claim).is_some() || names.is_null() {
        return Ok(None);
    }
    if names.as_object().is_none() || names.entries().any(|(_, source)| source.as_str().is_none()) {
        return Err("oidc: error parsing distributed claim names: they are no texts by name".into());
    }
    let sources = &claims["_claim_sources"];
    if sources.is_null() {
        return Err("oidc: no claim sources".into());
    }
    if sources.as_object().is_none() {
        return Err("oidc: could not parse claim sources: they are no objects by name".into());
    }
    let Some(source) = names.get(claim).map(Value::str) else { return Ok(None) };
    let Some(found) = sources.get(source) else {
        return Err(format!("id token _claim_names contained a source {source} missing in _claims_sources"));
    };
    let text = |field: &str| found[field].as_str().filter(|text| !text.is_empty()).map(String::from);
    // Without an endpoint it may be an aggregated claim, which nobody here reads.
    Ok(text("endpoint").map(|url| (url, text("access_token"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn sources() {
        let names = || value!({"groups": "a"});
        let at = |url: &str| value!({"a": {"endpoint": url, "access_token": "t"}});
        for (claims, expected) in [
            (value!({}), Ok(None)),
            (value!({"groups": ["x"], "_claim_names": names(), "_claim_sources": at("https://a")}), Ok(None)),
            (value!({"_claim_names": {"other": "a"}, "_claim_sources": {}}), Ok(None)),
            (value!({"_claim_names": names(), "_claim_sources": {"a": {"JWT": "x"}}}), Ok(None)),
            (
                value!({"_claim_names": names(), "_claim_sources": at("https://a")}),
                Ok(Some(("https://a".to_string(), Some("t".to_string())))),
            ),
            (value!({"_claim_names": names()}), Err("no claim sources")),
            (value!({"_claim_names": names(), "_claim_sources": {}}), Err("missing in _claims_sources")),
            (value!({"_claim_names": ["groups"], "_claim_sources": {}}), Err("error parsing distributed claim names")),
            (value!({"_claim_names": names(), "_claim_sources": 7}), Err("could not parse claim sources")),
        ] {
            match (source(&claims, "groups"), expected) {
                (Err(said), Err(why)) => assert!(said.contains(why), "{said}"),
                (found, expected) => assert_eq!(found.ok(), expected.ok(), "{claims:?}"),
            }
        }
    }
}
