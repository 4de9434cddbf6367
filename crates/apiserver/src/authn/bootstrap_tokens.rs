//! Tokens that new nodes join with: Secrets `bootstrap-token-ID` in kube-system (upstream `token/bootstrap`).

use super::{Authenticator, Credentials, Reviewed, Unauthenticated};
use crate::surroundings::Surroundings;
use crate::user::User;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Time, Value, View};
use compact_str::{CompactString, format_compact};
use std::sync::Arc;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

pub struct BootstrapTokens {
    pub secrets: Arc<dyn View>,
    pub clock: Arc<dyn Surroundings>,
}

impl BootstrapTokens {
    fn find(&self, token: &str) -> Option<Arc<User>> {
        let (id, secret) = parse(token)?;
        let object = self.secrets.get("kube-system", &format!("bootstrap-token-{id}"))?;
        if object.facts.deleting {
            return None;
        }
        let found = object.value();
        let data = |key: &str| text(&found["data"][key]);
        let expired = || {
            let at = data("expiration");
            // What cannot be read as a time has run out, as upstream.
            !at.is_empty() && Time::parse(&at).is_none_or(|at| at.unix() <= self.clock.now().unix())
        };
        let same =
            aws_lc_rs::constant_time::verify_slices_are_equal(data("token-secret").as_bytes(), secret.as_bytes());
        let good = found["type"].str() == TYPE
            && same.is_ok()
            && data("token-id") == id
            && data("usage-bootstrap-authentication") == "true"
            && !expired();
        if !good {
            tracing::debug!(id, "a bootstrap token is not good any more, or never was");
            return None;
        }
        let name = format_compact!("system:bootstrap:{id}");
        Some(Arc::new(User { name, groups: groups(&data("auth-extra-groups"))?, ..User::default() }.authenticated()))
    }
}

/// `abcdef.0123456789abcdef`.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let good = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (good(id, 6) && good(secret, 16)).then_some((id, secret))
}

fn text(data: &Value) -> String {
    STANDARD.decode(data.str()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// None: one of the further groups is not for bootstrapping.
fn groups(extra: &str) -> Option<Vec<CompactString>> {
    let mut groups = vec![CompactString::from(GROUP)];
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        let rest = group.strip_prefix("system:bootstrappers:").filter(|r| !r.is_empty() && r.len() <= 256)?;
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !rest.bytes().all(|b| letter(b) || b":-".contains(&b)) || !rest.bytes().next_back().is_some_and(letter) {
            return None;
        }
        groups.push(group.into());
    }
    groups.sort();
    groups.dedup();
    Some(groups)
}

impl Authenticator for BootstrapTokens {
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        Ok(credentials.token.and_then(|token| self.find(token)))
    }

    fn review(&self, token: &str, _: &[String]) -> Result<Option<Reviewed>, Unauthenticated> {
        Ok(self.find(token).map(|user| (user, Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{At, Objects};
    use canopus_api::value;

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut data = value!({});
        let good = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
        ];
        for (key, text) in good.iter().chain(change) {
            data.set(key, STANDARD.encode(text));
        }
        let metadata = value!({"namespace": "kube-system", "name": "bootstrap-token-abcdef"});
        value!({"metadata": metadata, "type": TYPE, "data": data})
    }

    fn ask(secret: Value, token: &str) -> Option<Arc<User>> {
        BootstrapTokens { secrets: Arc::new(Objects::new(&[secret])), clock: Arc::new(At(1_800_000_000)) }.find(token)
    }

    #[test]
    fn who_may_join() {
        let token = "abcdef.0123456789abcdef";
        let user = ask(secret(&[]), token).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        let groups =
            ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
        assert_eq!(user.groups, groups);
        assert!(ask(secret(&[("expiration", "2030-01-01T00:00:00Z")]), token).is_some());
        let bad = [
            ("token-secret", "0123456789abcdeg"),
            ("token-id", "abcdeg"),
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "2020-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
        ];
        for change in bad {
            assert_eq!(ask(secret(&[change]), token), None, "{change:?}");
        }
        let mut opaque = secret(&[]);
        opaque.set("type", "Opaque");
        assert_eq!(ask(opaque, token), None);
        for token in ["abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"] {
            assert_eq!(ask(secret(&[]), token), None, "{token}");
        }
    }
}
