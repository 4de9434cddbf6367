use super::*;
use crate::request_info::parse;
use canopus_api::{Object, Value, value};

fn flow(levels: &[Value], schemas: &[Value], millis: u64) -> FlowControl {
    let settings = Settings {
        max_requests_inflight: 8,
        max_mutating_requests_inflight: 4,
        request_timeout: Duration::from_millis(millis * 4),
        ..Settings::default()
    };
    let flow = FlowControl::new(&settings);
    let objects = |values: &[Value]| -> Vec<Arc<Object>> {
        values.iter().map(|value| Arc::new(Object::from_value(value.clone(), &[], 1))).collect()
    };
    flow.configure(&objects(levels), &objects(schemas));
    flow
}

fn level(name: &str, shares: i64, queuing: Value) -> Value {
    let response = match queuing.is_null() {
        true => value!({"type": "Reject"}),
        false => value!({"type": "Queue", "queuing": queuing}),
    };
    value!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}")},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "limitResponse": response}},
    })
}

fn schema(name: &str, level: &str, precedence: i64, user: &str) -> Value {
    value!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}")},
        "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
            }],
        },
    })
}

async fn enter(flow: &FlowControl, user: &str, groups: &[&str]) -> (Classified, Result<Seat, Overload>) {
    let info = parse("GET", "/api/v1/namespaces/a/pods/p", "");
    flow.enter(&info, &Query::parse(""), &User::new(user, groups), None).await
}

#[tokio::test]
async fn only_the_level_that_is_full_refuses() {
    let queuing = value!({"queues": 1, "handSize": 1, "queueLengthLimit": 1});
    let levels = [level("small", 1, queuing), level("large", 6, Value::Null)];
    let schemas =
        [schema("ann", "small", 10, "ann"), schema("bob", "large", 20, "bob"), schema("lost", "nowhere", 5, "ann")];
    let flow = flow(&levels, &schemas, 20);
    // One of twelve seats, and its neighbours' shares.
    let (class, first) = enter(&flow, "ann", &[]).await;
    let first = first.unwrap();
    assert_eq!((&*class.schema_uid, &*class.level_uid), ("uid-of-ann", "uid-of-small"));
    // The second waits, and in vain; the third finds the queue full.
    let (second, third) = tokio::join!(enter(&flow, "ann", &[]), enter(&flow, "ann", &[]));
    assert_eq!(second.1.err(), Some(Overload { retry_after: 1 }));
    assert_eq!(third.1.err(), Some(Overload { retry_after: 1 }));
    assert!(enter(&flow, "bob", &[]).await.1.is_ok(), "others don't notice");
    assert!(enter(&flow, "root", &["system:masters"]).await.1.is_ok(), "nor do administrators");
    drop(first);
    assert!(enter(&flow, "ann", &[]).await.1.is_ok());
    let mut text = String::new();
    flow.render(&mut text);
    let of = "flow_schema=\"ann\",priority_level=\"small\"";
    for line in [
        format!("apiserver_flowcontrol_dispatched_requests_total{{{of}}} 2"),
        format!("apiserver_flowcontrol_rejected_requests_total{{{of},reason=\"queue-full\"}} 1"),
        format!("apiserver_flowcontrol_rejected_requests_total{{{of},reason=\"time-out\"}} 1"),
        format!("apiserver_flowcontrol_current_inqueue_requests{{{of}}} 0"),
        format!("apiserver_flowcontrol_current_executing_seats{{{of}}} 0"),
        format!("apiserver_flowcontrol_request_wait_duration_seconds_count{{{of},execute=\"false\"}} 1"),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"small\"} 1".into(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn who_waits_gets_the_seat_that_is_given_back() {
    let queuing = value!({"queues": 4, "handSize": 2, "queueLengthLimit": 10});
    let flow = Arc::new(flow(&[level("small", 1, queuing)], &[schema("ann", "small", 10, "ann")], 60_000));
    let mut seats = Vec::new();
    let now = Duration::from_millis(10);
    while let Ok((_, seat)) = tokio::time::timeout(now, enter(&flow, "ann", &[])).await {
        seats.push(seat.unwrap());
    }
    let waiting = tokio::spawn({
        let flow = flow.clone();
        async move { enter(&flow, "ann", &[]).await.1.is_ok() }
    });
    let dump = |name: &str| flow.dump(name, true, canopus_api::Time::from_unix(0)).unwrap();
    let active = |line: &str| line.starts_with("small,") && line.split(',').nth(1).map(str::trim) == Some("1");
    let queued = async {
        while !dump("dump_priority_levels").lines().any(active) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), queued).await.expect("it is in a queue");
    let requests = dump("dump_requests");
    let line = requests.lines().find(|line| line.contains(" 0001-01-01T00:00:00Z,")).unwrap();
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!((cells[0], cells[1], cells[4], cells[6]), ("small", "ann", "ann", "1"));
    assert_eq!(cells[10..], ["ann", "get", "/api/v1/namespaces/a/pods/p", "a", "p", "v1", "pods", ""]);
    assert_eq!(dump("dump_queues").lines().count(), 5);
    assert!(flow.dump("dump_secrets", false, canopus_api::Time::from_unix(0)).is_none());
    seats.pop();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn levels_come_and_go_under_their_requests() {
    let flow = flow(&[level("small", 1, Value::Null)], &[schema("ann", "small", 10, "ann")], 20);
    let (_, seat) = enter(&flow, "ann", &[]).await;
    flow.configure(&[], &[]);
    assert!(flow.config().levels.contains_key("small"), "it is still busy");
    // Nobody's request belongs there any more.
    assert_eq!(enter(&flow, "ann", &[]).await.0, Classified::default());
    drop(seat);
    flow.configure(&[], &[]);
    assert_eq!(flow.config().levels.keys().collect::<Vec<_>>(), ["catch-all", "exempt"]);
}

#[tokio::test]
async fn seats_are_lent_to_who_needs_them() {
    let lending = |name: &str, lendable: i64| {
        let mut level = level(name, 5, Value::Null);
        level.set_path(&["spec", "limited", "lendablePercent"], lendable);
        level
    };
    let flow = flow(&[lending("idle", 100), lending("busy", 0)], &[schema("ann", "busy", 10, "ann")], 20);
    let current = |name: &str| flow.config().levels[name].state.lock().seats.current;
    // Of twelve seats each of three levels has four; what the idle one lends, the others share.
    assert_eq!((current("idle"), current("busy")), (0, 6));
    let mut seats = Vec::new();
    while let Ok(seat) = enter(&flow, "ann", &[]).await.1 {
        seats.push(seat);
    }
    assert_eq!(seats.len(), 6);
}
