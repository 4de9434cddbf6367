use super::*;
use crate::context::condition;
use canopus_api::value;

fn deployment(replicas: i64, image: &str) -> Value {
    value!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}}},
    })
}

fn run(deployment: &Value, sets: &[Value]) -> Plan {
    let sets: Vec<Arc<Value>> = sets.iter().cloned().map(Arc::new).collect();
    plan(&Observed { deployment, sets: &sets, busy: &BTreeSet::new(), now: Time::from_unix(1000) })
}

/// The set that `deployment` would create, with all `ready` of its `replicas` pods available.
fn set_of(deployment: &Value, replicas: i64, ready: i64, revision: i64) -> Value {
    let mut set = run(deployment, &[]).create.expect("nothing is there");
    set.set_path(&["spec", "replicas"], replicas);
    set.set_path(&["metadata", "annotations", revision::REVISION], revision.to_string());
    set.set_path(&["metadata", "creationTimestamp"], Time::from_unix(revision));
    set.set("status", value!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready}));
    set
}

#[test]
fn a_new_deployment_gets_its_set() {
    let plan = run(&deployment(3, "a"), &[]);
    let set = plan.create.expect("created");
    let hash = set["metadata"]["labels"]["pod-template-hash"].str();
    assert_eq!(set["metadata"]["name"].str(), format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"]["pod-template-hash"].str(), hash);
    assert_eq!(set["spec"]["replicas"].int(), 3);
    assert_eq!(plan.events, [format!("Scaled up replica set web-{hash} from 0 to 3")]);
    assert_eq!(plan.revision.as_deref(), Some("1"));
    assert_eq!(condition(&plan.status, "Available")["reason"].str(), "MinimumReplicasUnavailable");
}

#[test]
fn rolls_within_surge_and_unavailable() {
    // Old size and availability, new size and availability; sizes then. The last has yet to delete two available pods.
    let table = [
        (10, 10, 0, 0, 10, 3),
        (10, 10, 3, 0, 8, 3),
        (8, 8, 5, 0, 8, 5),
        (8, 8, 5, 2, 6, 5),
        (10, 6, 3, 0, 8, 3),
        (8, 10, 5, 2, 6, 5),
    ];
    let (before, after) = (deployment(10, "a"), deployment(10, "b"));
    for (old, old_ready, new, new_ready, old_then, new_then) in table {
        let sets = [set_of(&before, old, old_ready, 1), set_of(&after, new, new_ready, 2)];
        let plan = run(&after, &sets);
        let size = |set: &Value| {
            let same = |u: &&Value| u["metadata"]["name"] == set["metadata"]["name"];
            plan.update.iter().find(same).unwrap_or(set)["spec"]["replicas"].int()
        };
        assert_eq!((size(&sets[0]), size(&sets[1])), (old_then, new_then), "{old}/{old_ready} {new}/{new_ready}");
    }
}

#[test]
fn a_rollback_takes_the_old_set_with_a_new_revision() {
    let (before, after) = (deployment(1, "a"), deployment(1, "b"));
    let plan = run(&before, &[set_of(&before, 0, 0, 1), set_of(&after, 1, 1, 2)]);
    assert_eq!(plan.create, None);
    assert_eq!(plan.revision.as_deref(), Some("3"));
    let annotations = &plan.update[0]["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"].str(), "1");
    assert_eq!(plan.update[0]["spec"]["replicas"].int(), 1);
}

#[test]
fn a_paused_deployment_scales_in_proportion() {
    let mut after = deployment(20, "b");
    after.set_path(&["spec", "paused"], true);
    let sets = [set_of(&deployment(10, "a"), 8, 8, 1), set_of(&deployment(10, "b"), 5, 0, 2)];
    let plan = run(&after, &sets);
    let mut sizes: Vec<i64> = plan.update.iter().map(|set| set["spec"]["replicas"].int()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 15]);
    assert_eq!(condition(&plan.status, "Progressing")["reason"].str(), "DeploymentPaused");
}

#[test]
fn completion_and_the_deadline() {
    let mut deployment = deployment(1, "a");
    let plan = run(&deployment, &[set_of(&deployment, 1, 1, 1)]);
    assert_eq!(condition(&plan.status, "Progressing")["reason"].str(), "NewReplicaSetAvailable");
    assert_eq!(condition(&plan.status, "Available")["status"].str(), "True");
    let stuck = value!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
        "lastUpdateTime": Time::from_unix(100), "lastTransitionTime": Time::from_unix(100)});
    let set = set_of(&deployment, 1, 0, 1);
    deployment.set("status", value!({"replicas": 1, "updatedReplicas": 1, "conditions": [stuck]}));
    let plan = run(&deployment, &[set]);
    assert_eq!(condition(&plan.status, "Progressing")["reason"].str(), "ProgressDeadlineExceeded");
    assert_eq!(plan.look_again, None);
}

#[test]
fn a_recreation_waits_for_old_pods() {
    let (mut before, mut after) = (deployment(2, "a"), deployment(2, "b"));
    for d in [&mut before, &mut after] {
        d.set_path(&["spec", "strategy"], value!({"type": "Recreate"}));
    }
    let plan = run(&after, &[set_of(&before, 2, 2, 1)]);
    assert!(plan.create.is_none() && plan.update[0]["spec"]["replicas"].int() == 0);
    let plan = run(&after, &[set_of(&before, 0, 0, 1)]);
    assert_eq!(plan.create.expect("created")["spec"]["replicas"].int(), 2);
}
