use super::*;
use crate::testing::{cells, context, create, update};
use canopus_api::value;

/// A good Job with these fields of its spec changed.
fn with(spec: Value) -> Value {
    let mut object = value!({"metadata": {"name": "j", "uid": "u"}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
    spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
    object
}

/// The same as the server keeps it.
fn stored(spec: Value) -> Value {
    let mut object = with(spec);
    Job.default(&mut object);
    Job.prepare_create(&mut object, &context(""));
    object
}

#[test]
fn defaults_and_selectors() {
    let job = stored(value!({}));
    let spec = &job["spec"];
    assert_eq!(["completions", "parallelism", "backoffLimit"].map(|f| spec[f].int()), [1, 1, 6]);
    assert_eq!(
        (spec["completionMode"].str(), spec["podReplacementPolicy"].str()),
        ("NonIndexed", "TerminatingOrFailed")
    );
    assert_eq!(spec["selector"], value!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        value!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j", "controller-uid": "u", "job-name": "j"})
    );
    assert!(stored(value!({"parallelism": 2}))["spec"]["completions"].is_null());
    assert_eq!(Job.facts(&value!({"status": {"succeeded": 2}})).field("status.successful"), Some("2"));
    assert_eq!(Job.facts(&job).field("status.successful"), Some("0"));
}

#[test]
fn creation() {
    let codes =
        |values: Value| value!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}}]});
    let cases: Vec<(Value, &[&str])> = vec![
        (value!({}), &[]),
        (
            value!({"parallelism": (-1), "maxFailedIndexes": 1, "managedBy": "x", "completionMode": "X"}),
            &[
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                r#"spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")"#,
                r#"spec.completionMode: Unsupported value: "X": supported values: "NonIndexed", "Indexed""#,
            ],
        ),
        (
            value!({"completionMode": "Indexed", "parallelism": 200000}),
            &[
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 200000: must be less than or equal to 100000 when completion mode is Indexed",
            ],
        ),
        (
            value!({"backoffLimitPerIndex": 1}),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (value!({"podFailurePolicy": codes(value!([1, 2]))}), &[]),
        (
            value!({"podFailurePolicy": codes(value!([2, 0, 2]))}),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
            ],
        ),
        (
            value!({"podFailurePolicy": {"rules": [{}]}, "podReplacementPolicy": "TerminatingOrFailed"}),
            &[
                r#"spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#,
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                r#"spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed""#,
            ],
        ),
        (
            value!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "0,5"}, {"succeededCount": 4}, {}]}}),
            &[
                r#"spec.successPolicy.rules[0].succeededIndexes: Invalid value: "0,5": error parsing succeededIndexes: too large index: "5""#,
                "spec.successPolicy.rules[1].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
                "spec.successPolicy.rules[2]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ],
        ),
        (
            value!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
            &[r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#],
        ),
        (
            value!({"selector": {"matchLabels": {"a": "b"}}}),
            &[
                r#"spec.selector: Invalid value: {"matchLabels":{"a":"b","batch.kubernetes.io/controller-uid":"u"}}: `selector` not auto-generated"#,
                r#"spec.template.metadata.labels: Invalid value: {"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"j"}: `selector` does not match template `labels`"#,
            ],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(&Job, with(spec)), expected);
    }
}

#[test]
fn updates() {
    let changed = |path: &[&str], to: Value| {
        let mut job = stored(value!({}));
        job.set_path(path, to);
        job
    };
    let update = |old: Value, new: Value| update(&Job, "", old, new);
    assert_eq!(update(stored(value!({})), changed(&["spec", "parallelism"], 3.into())), [""; 0]);
    assert_eq!(
        update(stored(value!({})), changed(&["spec", "completions"], 3.into())),
        ["spec.completions: Invalid value: 3: field is immutable"]
    );
    let selector = &["spec", "template", "spec", "nodeSelector"];
    let refused = update(stored(value!({})), changed(selector, value!({"a": "b"})));
    assert!(refused[0].starts_with("spec.template: Invalid value: "), "{refused:?}");
    let mut new = stored(value!({"suspend": true}));
    new.set_path(selector, value!({"a": "b"}));
    new.set_path(&["spec", "template", "spec", "affinity"], value!({"nodeAffinity": {}}));
    assert_eq!(update(stored(value!({"suspend": true})), new), [""; 0]);
    let indexed = |count: i64, parallel: i64| {
        stored(value!({"completionMode": "Indexed", "completions": count, "parallelism": parallel}))
    };
    assert_eq!(update(indexed(2, 2), indexed(3, 3)), [""; 0]);
    assert_eq!(
        update(indexed(2, 2), indexed(3, 2)),
        ["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]
    );
}

#[test]
fn statuses() {
    let condition =
        |kinds: &[&str]| -> Value { kinds.iter().map(|kind| value!({"type": (*kind), "status": "True"})).collect() };
    let done = |status: Value| {
        let mut job = stored(value!({}));
        job.set("status", status);
        job
    };
    let start = "2026-01-01T00:00:00Z";
    let good = value!({"startTime": start, "completionTime": start, "succeeded": 1, "conditions": condition(&["Complete", "SuccessCriteriaMet"])});
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (value!({}), good.clone(), &[]),
        (
            value!({}),
            value!({"conditions": condition(&["Complete"]), "active": 1}),
            &[
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.startTime: Required value: startTime is required for finished job",
            ],
        ),
        (
            good,
            value!({"startTime": start}),
            &[
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        ),
        (
            value!({}),
            value!({"completedIndexes": "0", "failedIndexes": "0", "ready": 1}),
            &[
                "status.ready: Invalid value: 1: cannot set more ready pods than active",
                r#"status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode"#,
                r#"status.failedIndexes: Invalid value: "0": cannot set non-null failedIndexes when backoffLimitPerIndex is null"#,
                r#"status.failedIndexes: Invalid value: "0": failedIndexes and completedIndexes overlap at index: 0"#,
            ],
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(update(&Job, "status", done(old), done(new)), expected);
    }
}

#[test]
fn rows() {
    let mut job = with(value!({"completions": 3, "selector": {"matchLabels": {"a": "b"}}}));
    assert_eq!(cells(&Job, &job), ["j", "Running", "0/3", "", "<unknown>", "c", "i:1", "a=b"]);
    job.set(
        "status",
        value!({"succeeded": 3, "startTime": "2025-12-31T00:00:00Z", "completionTime": "2025-12-31T00:01:30Z",
        "conditions": [{"type": "Complete", "status": "True"}]}),
    );
    assert_eq!(cells(&Job, &job)[1..4], ["Complete", "3/3", "90s"]);
}
