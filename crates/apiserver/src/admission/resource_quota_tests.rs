use crate::local::LocalApi;
use crate::testing::server;
use crate::user::{MASTERS, User};
use canopus_api::{Api, Gvr, Target, Value, WriteOptions, value};
use std::sync::Arc;

fn of(plural: &str, name: &str) -> Target {
    Target::new(&Gvr::new("", "v1", plural), "default", name)
}

/// A server whose namespace `default` has a quota with this status.
async fn with_quota(hard: Value, used: Value) -> Arc<dyn Api> {
    let api = LocalApi::shared(server().await, User::new("tester", &[MASTERS]), "tests");
    let options = WriteOptions::default();
    let quota = value!({"metadata": {"name": "q"}, "spec": {"hard": (&hard)}});
    api.create(&of("resourcequotas", "q"), quota.clone(), &options).await.unwrap();
    let mut counted = quota;
    counted.set("status", value!({"hard": hard, "used": used}));
    api.update(&of("resourcequotas", "q").subresource("status"), counted, &options).await.unwrap();
    api
}

async fn used(api: &Arc<dyn Api>) -> Value {
    api.get(&of("resourcequotas", "q")).await.unwrap().value()["status"]["used"].clone()
}

fn config_map(name: &str) -> Value {
    value!({"metadata": {"name": name}})
}

#[tokio::test]
async fn many_at_once_get_no_more_than_there_is() {
    let api = with_quota(
        value!({"configmaps": "5", "count/secrets": "1"}),
        value!({"configmaps": "1", "count/secrets": "0"}),
    )
    .await;
    let make = |i: usize| {
        let (api, name) = (api.clone(), format!("m{i}"));
        async move { api.create(&of("configmaps", &name), config_map(&name), &WriteOptions::default()).await }
    };
    let made = futures::future::join_all((0..10).map(make)).await;
    let refused: Vec<String> = made.into_iter().filter_map(|made| made.err().map(|e| e.message)).collect();
    assert_eq!(refused.len(), 6, "{refused:?}");
    let why = "is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5";
    assert!(refused.iter().all(|message| message.ends_with(why)), "{refused:?}");
    assert_eq!(used(&api).await, value!({"configmaps": "5", "count/secrets": "0"}));
}

#[tokio::test]
async fn a_trial_pays_nothing() {
    let api = with_quota(value!({"configmaps": "1"}), value!({"configmaps": "0"})).await;
    let trial = WriteOptions { dry_run: true, ..WriteOptions::default() };
    api.create(&of("configmaps", "m"), config_map("m"), &trial).await.unwrap();
    assert_eq!(used(&api).await, value!({"configmaps": "0"}));
}
