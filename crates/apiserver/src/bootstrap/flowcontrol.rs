//! The FlowSchemas and PriorityLevelConfigurations that every cluster has: made when they are missing, and kept up to date
//! unless their annotation says not to (upstream `flowcontrol/ensurer`).

use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{Gvr, Object, Result, Target, Value, WriteOptions};
use canopus_resources::flowcontrol::{AUTO_UPDATE, bootstrap};
use std::sync::Arc;

/// Makes and mends them, as the server's caches have them.
pub(crate) async fn ensure(server: &Arc<Server>) -> Result<()> {
    let ensured = bootstrap::objects().map(|(kind, wanted)| ensure_one(server, kind, wanted));
    futures::future::join_all(ensured).await.into_iter().collect()
}

async fn ensure_one(server: &Arc<Server>, kind: &str, wanted: Value) -> Result<()> {
    let user = User::new("system:apiserver", &[MASTERS]);
    let options = WriteOptions {
        field_manager: "api-priority-and-fairness-config-producer-v1".into(),
        ..WriteOptions::default()
    };
    let plural = if kind == "FlowSchema" { "flowschemas" } else { "prioritylevelconfigurations" };
    let gvr = Gvr::new("flowcontrol.apiserver.k8s.io", "v1", plural);
    let name = wanted["metadata"]["name"].str().to_owned();
    let target = Target::new(&gvr, "", &name);
    let existing = server.served(&gvr)?.cache()?.by_key(&name);
    let done = match existing {
        None => server.create(&user, &target, wanted, &options).await.map(drop),
        Some(existing) => match mended(&existing, &wanted, bootstrap::is_mandatory(&name)) {
            Some(mended) => server.update(&user, &target, mended, &options).await.map(drop),
            None => Ok(()),
        },
    };
    match done {
        // Another server was at it, or an administrator: a change that will be looked at again.
        Err(raced) if raced.is_conflict() || raced.is_already_exists() || raced.is_not_found() => Ok(()),
        done => done,
    }
}

/// What the object should be, if it isn't.
fn mended(existing: &Object, wanted: &Value, mandatory: bool) -> Option<Value> {
    let tree = existing.value();
    let auto = match tree["metadata"]["annotations"][AUTO_UPDATE].str() {
        "true" => true,
        "" => existing.facts.generation == 1,
        _ => false,
    };
    if !auto && !mandatory {
        return None;
    }
    let mut spec = wanted["spec"].clone();
    if mandatory && !tree["spec"]["exempt"].is_null() && !(auto && spec["exempt"].is_null()) {
        // The administrator's to change.
        spec.set("exempt", &tree["spec"]["exempt"]);
    }
    let annotated = tree["metadata"]["annotations"][AUTO_UPDATE] == wanted["metadata"]["annotations"][AUTO_UPDATE];
    if canopus_resources::semantic::equal(&tree["spec"], &spec) && (annotated || !mandatory) {
        return None;
    }
    let mut mended = (*tree).clone();
    mended.set("spec", spec);
    mended.set_path(&["metadata", "annotations", AUTO_UPDATE], "true");
    Some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn of(kind: &str, name: &str) -> Value {
        bootstrap::objects().find(|(k, o)| *k == kind && o["metadata"]["name"].str() == name).unwrap().1
    }

    #[test]
    fn what_is_mended() {
        let level = "PriorityLevelConfiguration";
        type Case = (&'static str, &'static str, fn(&mut Value), bool);
        let cases: &[Case] = &[
            (level, "system", |_| {}, false),
            (level, "system", |o| o.set_path(&["spec", "limited", "lendablePercent"], 1), true),
            (
                level,
                "system",
                |o| {
                    o.set_path(&["spec", "limited", "lendablePercent"], 1);
                    o.set_path(&["metadata", "annotations", AUTO_UPDATE], "false");
                },
                false,
            ),
            (
                level,
                "system",
                |o| {
                    o.set_path(&["spec", "limited", "lendablePercent"], 1);
                    o.remove_path(&["metadata", "annotations"]);
                    o.set_path(&["metadata", "generation"], 2);
                },
                false,
            ),
            (level, "exempt", |o| o.set_path(&["spec", "exempt", "nominalConcurrencyShares"], 9), false),
            (level, "catch-all", |o| o.set_path(&["metadata", "annotations", AUTO_UPDATE], "false"), true),
            ("FlowSchema", "exempt", |o| o.set_path(&["spec", "rules"], value!([])), true),
        ];
        for (kind, name, change, expected) in cases {
            let wanted = of(kind, name);
            let mut tree = wanted.clone();
            tree.set_path(&["metadata", "generation"], 1);
            change(&mut tree);
            let existing = Object::from_value(tree, &[], 5);
            let mended = mended(&existing, &wanted, bootstrap::is_mandatory(name));
            assert_eq!(mended.is_some(), *expected, "{kind} {name}");
        }
    }
}
