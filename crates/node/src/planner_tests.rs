use super::*;
use canopus_api::value;

const NOW: Time = Time(1_000_000_000);

fn run(name: &str, attempt: u32, state: State, exit_code: i32) -> Instance {
    Instance {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        current: true,
        state,
        created_at: Time(NOW.0 - 5_000_000),
        started_at: Some(Time(NOW.0 - 5_000_000)),
        finished_at: (state == State::Exited).then_some(Time(NOW.0 - 1_000_000)),
        exit_code,
        signal: None,
        oom_killed: false,
        start_error: None,
        message: String::new(),
        image_id: String::new(),
        image: String::new(),
        user: (0, 0, Vec::new()),
    }
}

fn observed(instances: Vec<Instance>) -> Observed {
    Observed { sandbox: Some(Sandbox { id: "s".into(), attempt: 0, ready: true }), instances }
}

fn spec(policy: &str) -> Value {
    value!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {
            "restartPolicy": policy, "terminationGracePeriodSeconds": 30,
            "initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        },
    })
}

fn decide(pod: &Value, observed: &Observed, memory: &Memory) -> Plan {
    plan(pod, false, observed, &ProbeResults::default(), memory, NOW)
}

fn describe(plan: &Plan) -> String {
    let text = |a: &Action| match a {
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::Start { name, attempt } => format!("start {name} {attempt}"),
        Action::Kill { id, grace, .. } => format!("kill {id} {}s", grace.as_secs()),
        Action::Finish { id } => format!("finish {id}"),
        Action::StopSandbox { .. } => "stop sandbox".into(),
    };
    let mut parts: Vec<String> = plan.actions.iter().map(text).collect();
    parts.extend(plan.crash_loops.iter().map(|c| format!("crashloop {} {}s", c.name, c.delay.as_secs())));
    if plan.over {
        parts.push("over".into());
    }
    parts.join(", ")
}

#[test]
fn the_way_up() {
    use State::*;
    let pod = spec("Always");
    let cases = [
        (Observed::default(), "sandbox 0"),
        (observed(vec![]), "start i1 0"),
        (observed(vec![run("i1", 0, Running, 0)]), ""),
        (observed(vec![run("i1", 0, Exited, 1)]), "start i1 1"),
        (observed(vec![run("i1", 0, Exited, 0)]), "start side 0"),
        (observed(vec![run("i1", 0, Exited, 0), run("side", 0, Running, 0)]), "start a 0, start b 0"),
        (observed(vec![run("side", 0, Running, 0), run("a", 0, Running, 0)]), "start b 0"),
        (
            observed(vec![run("side", 0, Exited, 0), run("a", 0, Running, 0), run("b", 0, Exited, 0)]),
            "start side 1, start b 1",
        ),
    ];
    for (seen, wanted) in cases {
        assert_eq!(describe(&decide(&pod, &seen, &Memory::default())), wanted, "{seen:?}");
    }
}

#[test]
fn policies() {
    use State::*;
    let over = |a: i32, b: i32, side: State| {
        observed(vec![run("i1", 0, Exited, 0), run("side", 0, side, 0), run("a", 0, Exited, a), run("b", 0, Exited, b)])
    };
    let cases = [
        ("Never", over(0, 1, Running), "kill side-0 30s"),
        ("OnFailure", over(0, 1, Running), "start b 1"),
        ("OnFailure", over(0, 0, Running), "kill side-0 30s"),
        ("Always", over(0, 0, Running), "start a 1, start b 1"),
        ("Never", observed(vec![run("i1", 0, Exited, 1)]), "stop sandbox"),
    ];
    for (policy, seen, wanted) in cases {
        assert_eq!(describe(&decide(&spec(policy), &seen, &Memory::default())), wanted, "{policy} {seen:?}");
    }
}

#[test]
fn backoff_grows_and_is_forgotten() {
    let mut backoff = None;
    let delays: Vec<u64> = (0..7)
        .map(|_| {
            backoff = Some(Backoff::next(backoff, NOW));
            backoff.map_or(0, |b: Backoff| b.delay.as_secs())
        })
        .collect();
    assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    let later = NOW.plus(Duration::from_secs(601));
    assert_eq!(Backoff::next(backoff, later).delay.as_secs(), 10);

    let mut pod = spec("Always");
    pod["spec"].is_null();
    pod.set_path(&["spec", "initContainers"], Value::Array(vec![]));
    let seen = observed(vec![run("a", 1, State::Exited, 1), run("b", 0, State::Running, 0)]);
    let mut memory = Memory::default();
    memory.backoff.insert("a".into(), Backoff { delay: Duration::from_secs(10), updated: NOW });
    let plan = decide(&pod, &seen, &memory);
    assert_eq!(describe(&plan), "crashloop a 10s");
    assert_eq!(plan.wake, Some(Time(NOW.0 + 9_000_000)));
}

#[test]
fn the_way_down() {
    use State::*;
    let mut pod = spec("Always");
    pod.set_path(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    pod.set_path(&["metadata", "deletionGracePeriodSeconds"], 5);
    let mut memory = Memory::default();
    let all = observed(vec![run("side", 0, Running, 0), run("a", 0, Running, 0), run("b", 0, Exited, 0)]);
    assert_eq!(describe(&decide(&pod, &all, &memory)), "kill a-0 5s");
    memory.stopping.insert("a-0".into(), NOW.plus(Duration::from_secs(5)));
    let waits = decide(&pod, &all, &memory);
    assert_eq!((describe(&waits).as_str(), waits.wake), ("", Some(NOW.plus(Duration::from_secs(5)))));
    let late = NOW.plus(Duration::from_secs(5));
    let finish = plan(&pod, false, &all, &ProbeResults::default(), &memory, late);
    assert_eq!(describe(&finish), "finish a-0");
    pod.set_path(&["metadata", "deletionGracePeriodSeconds"], 1);
    assert_eq!(describe(&decide(&pod, &all, &memory)), "kill a-0 1s");
    assert_eq!(describe(&decide(&pod, &observed(vec![run("side", 0, Running, 0)]), &memory)), "kill side-0 1s");
    assert_eq!(describe(&decide(&pod, &observed(vec![]), &memory)), "stop sandbox");
    assert_eq!(describe(&decide(&pod, &Observed::default(), &memory)), "over");
    let forced = spec("Always");
    let decide = |o: &Observed| plan(&forced, true, o, &ProbeResults::default(), &Memory::default(), NOW);
    assert_eq!(describe(&decide(&all)), "kill a-0 30s");
    assert_eq!(describe(&decide(&Observed::default())), "over");
}

#[test]
fn a_failed_liveness_probe_kills() {
    let mut pod = spec("Always");
    pod.set_path(&["spec", "initContainers"], Value::Array(vec![]));
    let seen = observed(vec![run("a", 0, State::Running, 0), run("b", 0, State::Running, 0)]);
    let mut probes = ProbeResults::default();
    probes.failed.insert("a-0".into(), "liveness");
    let plan = plan(&pod, false, &seen, &probes, &Memory::default(), NOW);
    assert_eq!(describe(&plan), "kill a-0 30s");
}

#[test]
fn a_start_under_way_is_waited_for() {
    let mut pod = spec("Always");
    pod.set_path(&["spec", "initContainers"], Value::Array(vec![]));
    let seen = observed(vec![run("a", 0, State::Starting, 0), run("b", 0, State::Running, 0)]);
    let plan = decide(&pod, &seen, &Memory::default());
    assert_eq!((describe(&plan).as_str(), plan.wake.is_some()), ("", true));
    pod.set_path(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    let alone = observed(vec![run("a", 0, State::Starting, 0)]);
    assert_eq!(describe(&decide(&pod, &alone, &Memory::default())), "");
}

#[test]
fn a_changed_image_restarts() {
    let mut pod = spec("Never");
    pod.set_path(&["spec", "initContainers"], Value::Array(vec![]));
    pod.set_path(&["spec", "containers"], value!([{"name": "a", "image": "new"}]));
    let mut seen = observed(vec![run("a", 0, State::Running, 0)]);
    seen.instances[0].image = "old".into();
    assert_eq!(describe(&decide(&pod, &seen, &Memory::default())), "kill a-0 30s");
    seen.instances[0].state = State::Exited;
    assert_eq!(describe(&decide(&pod, &seen, &Memory::default())), "start a 1");
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let mut seen = observed(vec![run("i1", 0, State::Exited, 0), run("a", 0, State::Unknown, 0)]);
    seen.sandbox = Some(Sandbox { id: "s".into(), attempt: 0, ready: false });
    assert_eq!(describe(&decide(&spec("Always"), &seen, &Memory::default())), "sandbox 1");
    seen.sandbox = Some(Sandbox { id: "t".into(), attempt: 1, ready: true });
    seen.instances.iter_mut().for_each(|i| i.current = false);
    assert_eq!(describe(&decide(&spec("Always"), &seen, &Memory::default())), "start i1 1");
}
