//! The tokens controller: Secrets of type `kubernetes.io/service-account-token` are given a token of their service account, and go with it.

use crate::context::{Context, Signer, queue_changes, target, writes};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Api, DeleteOptions, Gvr, Object, Status, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

struct Tokens {
    api: Arc<dyn Api>,
    secrets: Arc<Informer>,
    accounts: Arc<Informer>,
    root_ca: String,
    sign: Signer,
}

pub(crate) async fn run(context: Arc<Context>) {
    // Who has no key leaves tokens to somebody who has.
    let Some(sign) = context.config.token_signer.clone() else { return };
    let secrets = context.informer("", "v1", "secrets");
    let accounts = context.informer("", "v1", "serviceaccounts");
    let queue = Arc::new(Queue::default());
    queue_changes(&secrets, &queue);
    let (all, changed) = (secrets.clone(), queue.clone());
    accounts.on_change(move |change| {
        let account = change.object();
        // Updates of an account change nothing about its tokens.
        if change.old.is_some() && change.new.is_some() {
            return;
        }
        for secret in View::list(&*all, account.namespace()) {
            if account_of(&secret).is_some_and(|name| name == account.name()) {
                changed.add(secret.key());
            }
        }
    });
    let root_ca = context.config.root_ca.clone();
    // Upstream's does this as kube-controller-manager itself, which may write Secrets.
    let api = context.own_api();
    context.work(queue, 2, Arc::new(Tokens { api, secrets, accounts, root_ca, sign })).await;
}

fn account_of(secret: &Object) -> Option<String> {
    let value = secret.value();
    let name = value["metadata"]["annotations"][NAME].str();
    (value["type"].str() == TYPE && !name.is_empty()).then(|| name.into())
}

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Delete,
    /// The secret with all that it should have but the token, and whether it needs one.
    Fill(Value, bool),
}

fn plan(secret: &Value, account: Option<&Value>, root_ca: &str) -> Plan {
    let annotations = &secret["metadata"]["annotations"];
    let uid = annotations[UID].str();
    let Some(account) = account.filter(|a| uid.is_empty() || a["metadata"]["uid"].str() == uid) else {
        return Plan::Delete;
    };
    let data = &secret["data"];
    let mut wanted = secret.clone();
    let ca = STANDARD.encode(root_ca);
    if !root_ca.is_empty() && data["ca.crt"].str() != ca {
        wanted.set_path(&["data", "ca.crt"], ca);
    }
    if data["namespace"].str().is_empty() {
        wanted.set_path(&["data", "namespace"], STANDARD.encode(account["metadata"]["namespace"].str()));
    }
    wanted.set_path(&["metadata", "annotations", UID], &account["metadata"]["uid"]);
    let needs_token = data["token"].str().is_empty();
    if wanted == *secret && !needs_token { Plan::Nothing } else { Plan::Fill(wanted, needs_token) }
}

fn claims(secret: &Value, account: &Value) -> Value {
    let (secret, account) = (&secret["metadata"], &account["metadata"]);
    let (namespace, name) = (account["namespace"].str(), account["name"].str());
    value!({
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret["name"].str(),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account["uid"].str(),
    })
}

#[async_trait]
impl Reconcile for Tokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(secret) = self.secrets.by_key(key).filter(|s| !s.facts.deleting) else { return Ok(Outcome::Done) };
        let Some(name) = account_of(&secret) else { return Ok(Outcome::Done) };
        let secrets = Gvr::new("", "v1", "secrets");
        let value = secret.value();
        let mut account = View::get(&*self.accounts, secret.namespace(), &name).map(|o| o.value());
        if account.is_none() {
            // The view may be behind: a secret is not deleted for that.
            let target = canopus_api::Target::new(&Gvr::new("", "v1", "serviceaccounts"), secret.namespace(), &name);
            account = match self.api.get(&target).await {
                Ok(found) => Some(found.value()),
                Err(missing) if missing.is_not_found() => None,
                Err(error) => return Err(error),
            };
        }
        match plan(&value, account.as_deref(), &self.root_ca) {
            Plan::Nothing => {}
            Plan::Delete => {
                let exactly = DeleteOptions { uid: Some(secret.facts.uid.clone()), ..DeleteOptions::default() };
                match self.api.delete(&target(&secrets, &value), &exactly).await {
                    Err(gone) if gone.is_not_found() || gone.is_conflict() => {}
                    done => drop(done?),
                }
            }
            Plan::Fill(mut wanted, needs_token) => {
                if let Some(account) = account.filter(|_| needs_token) {
                    let token = self.sign.sign(&claims(&value, &account)).map_err(Status::internal)?;
                    wanted.set_path(&["data", "token"], STANDARD.encode(token));
                }
                let written = self.api.update(&target(&secrets, &wanted), wanted, &writes()).await?;
                self.secrets.reached(written.revision).await;
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let account = value!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u1"}});
        let secret = value!({"type": TYPE, "metadata": {"name": "s", "namespace": "ns", "annotations": {NAME: "sa"}}});
        let Plan::Fill(mut filled, true) = plan(&secret, Some(&account), "pem") else { panic!("it is empty") };
        assert_eq!(filled["metadata"]["annotations"][UID].str(), "u1");
        assert_eq!(filled["data"], value!({"ca.crt": STANDARD.encode("pem"), "namespace": STANDARD.encode("ns")}));
        filled.set_path(&["data", "token"], "dG9rZW4=");
        assert_eq!(plan(&filled, Some(&account), "pem"), Plan::Nothing);
        assert!(matches!(plan(&filled, Some(&account), "new"), Plan::Fill(_, false)));
        assert_eq!(plan(&filled, None, "pem"), Plan::Delete);
        let reborn = value!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u2"}});
        assert_eq!(plan(&filled, Some(&reborn), "pem"), Plan::Delete);
        assert_eq!(claims(&secret, &account)["sub"].str(), "system:serviceaccount:ns:sa");
    }
}
