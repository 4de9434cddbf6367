use super::*;
use crate::local::LocalApi;
use crate::testing::server;
use canopus_api::Api;

fn of(group: &str, plural: &str, name: &str) -> Target {
    Target::new(&Gvr::new(group, "v1", plural), "default", name)
}

/// Pods `a` and `b`, running, `a` also ready; and a budget with this status for both.
async fn cluster(spec: Value, status: Value) -> Arc<dyn Api> {
    let api = LocalApi::shared(server().await, User::new("tester", &[MASTERS]), "tests");
    let options = WriteOptions::default();
    let put = async |target: Target, body: Value, status: Value| {
        api.create(&target, body.clone(), &options).await.unwrap();
        let mut body = body;
        body.set("status", status);
        body.set_path(&["metadata", "resourceVersion"], api.get(&target).await.unwrap().revision.to_string());
        api.update(&target.subresource("status"), body, &options).await.unwrap();
    };
    put(
        Target::new(&Gvr::new("", "v1", "serviceaccounts"), "default", "default"),
        value!({"metadata": {"name": "default"}}),
        Value::Null,
    )
    .await;
    for (name, ready) in [("a", "True"), ("b", "False")] {
        let pod = value!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "i"}]}});
        let conditions = value!([{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        put(of("", "pods", name), pod, value!({"phase": "Running", "conditions": conditions})).await;
    }
    let mut budget =
        value!({"metadata": {"name": "p"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 1}});
    spec.entries().for_each(|(field, value)| budget.set_path(&["spec", field], value));
    put(of("policy", "poddisruptionbudgets", "p"), budget, status).await;
    api
}

async fn evict(api: &Arc<dyn Api>, pod: &str) -> std::result::Result<(), Status> {
    let body = value!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    api.create(&of("", "pods", pod).subresource("eviction"), body, &WriteOptions::default()).await.map(|_| ())
}

#[tokio::test]
async fn a_budget_is_spent_and_then_refuses() {
    let status = value!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1});
    let api = cluster(value!({}), status).await;
    evict(&api, "a").await.unwrap();
    let pod = api.get(&of("", "pods", "a")).await.unwrap().value();
    assert!(!pod["metadata"]["deletionTimestamp"].is_null());
    let condition = pod["status"]["conditions"].items().iter().find(|c| c["type"].str() == "DisruptionTarget").unwrap();
    assert_eq!(condition["reason"].str(), "EvictionByEvictionAPI");
    let budget = api.get(&of("policy", "poddisruptionbudgets", "p")).await.unwrap().value();
    assert_eq!(budget["status"]["disruptionsAllowed"].int(), 0);
    assert!(budget["status"]["disruptedPods"]["a"].as_str().is_some());
    // It is on its way already: no budget matters.
    evict(&api, "a").await.unwrap();
}

#[tokio::test]
async fn refusals_say_why() {
    let status = value!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2});
    let api = cluster(value!({}), status).await;
    for pod in ["a", "b"] {
        let refused = evict(&api, pod).await.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, REFUSED), "{pod}");
        let cause = &refused.details.as_ref().unwrap().causes[0];
        assert_eq!(cause.reason, CAUSE);
        assert_eq!(cause.message, "The disruption budget p needs 2 healthy pods and has 1 currently");
    }
    let other = evict(&api, "zzz").await.unwrap_err();
    assert!(other.is_not_found(), "{other}");
}

#[tokio::test]
async fn unhealthy_pods_may_always_go_if_the_budget_says_so() {
    let status = value!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2});
    let api = cluster(value!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), status).await;
    assert_eq!(evict(&api, "a").await.unwrap_err().code, 429);
    evict(&api, "b").await.unwrap();
}

#[test]
fn a_budget_that_is_not_up_to_date_is_not_spent() {
    let mut budget = value!({"metadata": {"name": "p", "generation": 2}, "status": {"observedGeneration": 1, "disruptionsAllowed": 5}});
    let refused = take_one(&mut budget, "a", Time(0)).unwrap_err();
    assert_eq!(refused.details.unwrap().retry_after_seconds, 10);
}
