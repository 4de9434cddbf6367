//! Pods in real containers.

use crate::IMAGE;
use crate::space::{Space, has_lines};
use canopus_testkit::{Cluster, Stream, eventually, run, tool};
use std::fs;
use std::time::Duration;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: 'IMAGE', command: [sh, -c, 'echo made > /scratch/by-init'], volumeMounts: [{name: scratch, mountPath: /scratch}]}
  containers:
  - name: main
    image: 'IMAGE'
    command: [sh, -c, 'echo start $GREETING $(NAME); exec sleep 3600']
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    resources: {limits: {memory: 32Mi, cpu: 500m}}
    volumeMounts: [{name: scratch, mountPath: /scratch}, {name: config, mountPath: /config}, {name: secret, mountPath: /secret}]
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: hidden}}
";

/// A pod of one container with a shell script.
fn script(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
{more}
  containers:
  - {{name: c, image: '{IMAGE}', command: [sh, -c, \"{script}\"]}}
"
    )
}

pub fn live_volumes(c: &Cluster) {
    let s = Space::new(c, "volumes");
    s.k(&["create", "configmap", "settings", "--from-literal=greeting=hello", "--from-literal=file.txt=one"]);
    s.k(&["create", "secret", "generic", "hidden", "--from-literal=key=one"]);
    s.apply(&POD.replace("IMAGE", IMAGE));
    s.ready("p");
    assert_eq!(s.k(&["logs", "p"]).trim(), "start hello p");
    assert_eq!(s.k(&["exec", "p", "--", "cat", "/scratch/by-init"]).trim(), "made");
    let ended = s.kubectl(&["exec", "p", "-c", "first", "--", "true"]).stderr;
    assert!(ended.contains("container not found (\"first\")") && !ended.contains("Internal error"), "{ended}");
    assert_eq!(s.see("pod p", "{.status.qosClass}"), "Burstable");
    s.k(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"file.txt":"two"}}"#]);
    s.k(&["patch", "secret", "hidden", "--type=merge", "-p", r#"{"stringData":{"key":"two"}}"#]);
    s.inside("p", "cat /config/file.txt /secret/key", |text| text == "twotwo");
}

pub fn logs(c: &Cluster) {
    let s = Space::new(c, "logs");
    let text = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; done; while [ ! -e /go ]; do sleep 0.1; done; echo last; exec sleep 3600";
    let two = format!("  - {{name: d, image: '{IMAGE}', command: [sh, -c, 'echo other; exec sleep 3600']}}\n");
    s.apply(&(script("p", text, "") + &two));
    s.ready("p");
    let first = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    eventually(Duration::from_secs(10), || {
        let now = s.k(&["logs", "p", "-c", "c"]);
        if now == first { Ok(()) } else { Err(now) }
    });
    assert_eq!(s.k(&["logs", "p", "--tail=2"]), "line 4\nline 5\n");
    assert_eq!(s.k(&["logs", "p", "--limit-bytes=6"]), "line 1");
    assert_eq!(s.k(&["logs", "p", "--since=1h", "--tail=1"]), "line 5\n");
    assert_eq!(s.k(&["logs", "p", "--since-time=2100-01-01T00:00:00Z"]), "");
    let stamped = s.k(&["logs", "p", "--tail=1", "--timestamps"]);
    let (time, line) = stamped.split_once(' ').unwrap_or_default();
    assert!(time.len() > 20 && time.contains('T') && line == "line 5\n", "{stamped}");
    has_lines(&s.k(&["logs", "-l", "app=p", "--all-containers", "--prefix"]), &["[pod/p/c] line 5", "[pod/p/d] other"]);
    assert_eq!(s.k(&["logs", "p", "-c", "d"]), "other\n");
    let follow = s.stream(&["logs", "-f", "p", "--tail=1"]);
    follow.shows("line 5");
    s.k(&["exec", "p", "-c", "c", "--", "touch", "/go"]);
    follow.shows("last");
    s.refused(&["logs", "p", "-c", "nope"], "", "container nope is not valid for pod p");
    s.refused(&["logs", "p", "--previous"], "", r#"previous terminated container "c" in pod "p" not found"#);
    s.k(&["delete", "pod", "p"]);
    assert_eq!(follow.ends(), 0);
}

pub fn exec_and_cp(c: &Cluster) {
    let s = Space::new(c, "exec");
    s.apply(&script("p", "exec sleep 3600", ""));
    s.ready("p");
    let failed = s.kubectl(&["exec", "p", "--", "sh", "-c", "echo oops >&2; exit 7"]);
    assert_eq!((failed.code, failed.stderr.as_str()), (7, "oops\ncommand terminated with exit code 7\n"), "{failed:?}");
    let piped = s.kubectl_with(&["exec", "-i", "p", "--", "cat"], "through");
    assert_eq!(piped.stdout, "through", "{piped:?}");
    s.refused(&["exec", "p", "--", "nothing-here"], "", "nothing-here");

    // A real terminal: its size arrives, what is typed is read, the exit code comes back.
    let kubectl = tool("kubectl");
    let typed = format!("stty rows 33 cols 77; exec {} -n exec exec -it p -- sh", kubectl.display());
    let mut terminal = c.command("script");
    terminal.args(["-qec", &typed, "/dev/null"]);
    let out = run(terminal, "echo $((6*7)) $(stty size) $TERM; tty\nexit 3\n");
    assert_eq!(out.code, 3, "{out:?}");
    has_lines(&out.stdout, &["42 33 77 xterm", "/dev/pts/0"]);

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir_all(path("tree/below")).expect("a directory");
    fs::write(path("tree/below/big"), &big).expect("a file");
    fs::write(path("tree/small"), "small").expect("a file");
    s.k(&["cp", &path("tree/small"), "p:/tmp/small"]);
    assert_eq!(s.k(&["exec", "p", "--", "cat", "/tmp/small"]), "small");
    s.k(&["cp", &path("tree"), "exec/p:/tmp/tree"]);
    s.k(&["cp", "p:/tmp/tree", &path("back")]);
    assert!(fs::read(path("back/below/big")).expect("the file came back") == big);
    s.k(&["cp", "p:/tmp/small", &path("small-back"), "-c", "c"]);
    assert_eq!(fs::read_to_string(path("small-back")).expect("the file came back"), "small");
}

pub fn attach(c: &Cluster) {
    let s = Space::new(c, "attach");
    let image = format!("--image={IMAGE}");
    let talk = "echo ready; while read line; do echo got $line; done; echo end; sleep 1";
    let run = ["run", "talk", &image, "--restart=Never", "-i", "--rm", "--quiet", "--", "sh", "-c", talk];
    let out = s.kubectl_with(&run, "one\ntwo\n");
    assert!(out.code == 0 && out.stdout.contains("got one\ngot two\nend\n"), "{out:?}");
    // Input that is left open is there for the next to attach.
    let open =
        ["run", "open", &image, "--restart=Never", "-i", "--leave-stdin-open", "--quiet", "--", "sh", "-c", talk];
    let out = s.kubectl_with(&open, "one\n");
    assert_eq!(out.code, 0, "{out:?}");
    let logs = s.stream(&["logs", "-f", "open"]);
    logs.shows("got one");
    let out = s.kubectl_with(&["attach", "open", "-i"], "two\n");
    assert_eq!(out.code, 0, "{out:?}");
    logs.shows("got two");
    assert!(!logs.lines().contains(&"end".to_string()));
    s.apply(&script("loud", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done", ""));
    s.ready("loud");
    let attached = s.stream(&["attach", "loud"]);
    attached.shows("line");
    s.k(&["delete", "pod", "loud", "--grace-period=0", "--force"]);
    attached.ends();
    s.refused(&["attach", "nobody"], "", r#"pods "nobody" not found"#);
}

/// What kubectl does without WebSockets.
pub fn spdy(c: &Cluster) {
    let s = Space::new(c, "spdy");
    s.apply(&script("p", "httpd -p 8080; exec sleep 3600", ""));
    s.ready("p");
    let kubectl = |args: &[&str]| {
        let mut command = c.command(tool("kubectl"));
        command.args(["-n", "spdy"]).args(args);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        command
    };
    let both = "cat; echo error >&2; exit 3";
    let out = run(kubectl(&["exec", "-i", "p", "--", "sh", "-c", both]), "said\n");
    assert_eq!((out.code, &*out.stdout), (3, "said\n"), "{out:?}");
    assert!(out.stderr.starts_with("error\n"), "{out:?}");
    let many = run(kubectl(&["exec", "p", "--", "sh", "-c", "dd if=/dev/zero bs=1000 count=1000 | tr '\\0' x"]), "");
    assert_eq!((many.code, many.stdout.len()), (0, 1_000_000));
    let forwarded = Stream::start(kubectl(&["port-forward", "p", ":8080"]));
    forwarded.shows("Forwarding from 127.0.0.1:");
    let lines = forwarded.lines();
    let port = lines.iter().find_map(|l| l.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next());
    let url = format!("http://127.0.0.1:{}/", port.expect("kubectl says the port"));
    let out = c.host().command("curl").args(["-s", "-m", "5", &url]).output().expect("curl runs");
    assert!(String::from_utf8_lossy(&out.stdout).contains("404 Not Found"), "{out:?} {:?}", forwarded.lines());
}

pub fn run_and_wait(c: &Cluster) {
    let s = Space::new(c, "run");
    let image = format!("--image={IMAGE}");
    assert_eq!(
        s.k(&["run", "once", &image, "--restart=Never", "--", "sh", "-c", "echo done; exit 0"]),
        "pod/once created\n"
    );
    s.k(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=60s"]);
    assert_eq!(s.k(&["logs", "once"]), "done\n");
    has_lines(&s.k(&["get", "pod", "once"]), &["once 0/1 Completed 0"]);
    s.k(&[
        "run",
        "stay",
        &image,
        "--labels=a=b",
        "--env=X=y",
        "--port=80",
        "--expose",
        "--command",
        "--",
        "sleep",
        "3600",
    ]);
    s.k(&["wait", "--for=condition=Ready", "pod", "-l", "a=b", "--timeout=60s"]);
    assert_eq!(s.k(&["exec", "stay", "--", "sh", "-c", "echo $X"]), "y\n");
    assert_eq!(s.see("service stay", "{.spec.ports[0].port}"), "80");
    let late = s.kubectl(&["wait", "--for=condition=Nothing", "pod/stay", "--timeout=1s"]);
    assert_eq!((late.code, late.stderr.trim()), (1, "error: timed out waiting for the condition on pods/stay"));
    has_lines(
        &s.k(&["events", "--for=pod/stay"]),
        &["LAST SEEN TYPE REASON OBJECT MESSAGE", "Normal Started Pod/stay"],
    );
    let forced = s.kubectl(&["delete", "pod", "stay", "--grace-period=0", "--force"]);
    assert_eq!(forced.stdout, "pod \"stay\" force deleted from run namespace\n");
    assert!(forced.stderr.contains("Immediate deletion does not wait for confirmation"), "{forced:?}");
    let metrics = s.kubectl(&["top", "pods"]);
    assert_eq!((metrics.code, metrics.stderr.trim()), (1, "error: Metrics API not available"));
}

/// A container is killed behind the agent's back.
pub fn killed_from_outside(c: &Cluster) {
    let s = Space::new(c, "killed");
    // The file system of a container is its own: a second run knows itself by the volume.
    // By this number its process is known among those of the whole machine.
    let seconds = format!("2718{}", std::process::id());
    let text = format!("echo run $(ls /mark | wc -l); date > /mark/$(date +%s%N); exec sleep {seconds}");
    let volume = "  volumes: [{name: mark, emptyDir: {}}]";
    let pod =
        script("p", &text, volume).replace("name: c,", "name: c, volumeMounts: [{name: mark, mountPath: /mark}],");
    s.apply(&pod);
    s.ready("p");
    let id = s.see("pod p", "{.status.containerStatuses[0].containerID}");
    let victim = eventually(Duration::from_secs(10), || {
        process(&format!("sleep\0{seconds}\0")).ok_or("no such process".to_string())
    });
    nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("killed");
    s.wait_for("pod p", "{.status.containerStatuses[0].restartCount}", "1");
    s.ready("p");
    let last = "{.status.containerStatuses[0].lastState.terminated['exitCode','reason','containerID']}";
    assert_eq!(s.see("pod p", last), format!("137 Error {id}"));
    assert_eq!(s.k(&["logs", "p", "--previous"]), "run 0\n");
    eventually(Duration::from_secs(10), || {
        let now = s.k(&["logs", "p"]);
        if now == "run 1\n" { Ok(()) } else { Err(now) }
    });
    has_lines(&s.k(&["get", "pod", "p"]), &["p 1/1 Running 1 ("]);
    has_lines(&s.k(&["describe", "pod", "p"]), &["Last State: Terminated", "Exit Code: 137", "Restart Count: 1"]);
}

fn process(cmdline: &str) -> Option<nix::unistd::Pid> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let is_it = fs::read(entry.path().join("cmdline")).is_ok_and(|c| c == cmdline.as_bytes());
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        is_it.then(|| nix::unistd::Pid::from_raw(pid))
    })
}

pub fn crash_loop(c: &Cluster) {
    let s = Space::new(c, "crash");
    s.apply(&script("p", "echo once more; exit 3", ""));
    s.wait_for("pod p", "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff");
    let message = s.see("pod p", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=p_crash("), "{message}");
    eventually(Duration::from_secs(20), || {
        let events = s.k(&["events", "--for=pod/p"]);
        let wanted = "Back-off restarting failed container c in pod p_crash(";
        if events.contains(wanted) { Ok(()) } else { Err(events) }
    });
}

pub fn missing_image(c: &Cluster) {
    let s = Space::new(c, "image");
    s.k(&["run", "m", "--image=nowhere.example/none:1"]);
    let seen = s.stream(&[
        "get",
        "pod",
        "m",
        "--watch",
        "-o",
        "jsonpath={.status.containerStatuses[0].state.waiting.reason}{\"\\n\"}",
    ]);
    seen.shows("ErrImagePull");
    seen.shows("ImagePullBackOff");
    let message = s.see("pod m", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(
        message.starts_with(r#"Back-off pulling image "nowhere.example/none:1": "#) || message.contains("none:1"),
        "{message}"
    );
    eventually(Duration::from_secs(20), || {
        let events = s.k(&["events", "--for=pod/m"]);
        let wanted = [
            "Pulling image \"nowhere.example/none:1\"",
            "Failed to pull image \"nowhere.example/none:1\":",
            "Error: ErrImagePull",
            "Back-off pulling image \"nowhere.example/none:1\"",
            "Error: ImagePullBackOff",
        ];
        if wanted.iter().all(|w| events.contains(w)) { Ok(()) } else { Err(events) }
    });
    let never = format!("--image={IMAGE}-never");
    s.k(&["run", "n", &never, "--image-pull-policy=Never"]);
    s.wait_for("pod n", "{.status.containerStatuses[0].state.waiting.reason}", "ErrImageNeverPull");
}

pub fn impossible(c: &Cluster) {
    let s = Space::new(c, "impossible");
    let big = script("big", "sleep 1", "").replace("name: c,", "name: c, resources: {requests: {cpu: 1k}},");
    s.apply(&big);
    s.apply(&script("picky", "sleep 1", "  nodeSelector: {nowhere: 'yes'}"));
    let reason = "{.status.phase} {.status.conditions[?(@.type==\"PodScheduled\")]['status','reason']}";
    let wanted = [
        ("big", "0/1 nodes are available: 1 Insufficient cpu."),
        ("picky", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
    ];
    for (pod, message) in wanted {
        s.wait_for(&format!("pod {pod}"), reason, "Pending False Unschedulable");
        let said = s.see(&format!("pod {pod}"), "{.status.conditions[?(@.type==\"PodScheduled\")].message}");
        assert!(said.starts_with(message), "{said}");
        eventually(Duration::from_secs(10), || {
            let events = s.k(&["events", &format!("--for=pod/{pod}")]);
            if events.contains("FailedScheduling") && events.contains(message) { Ok(()) } else { Err(events) }
        });
    }
    // It is not forgotten: when the node can take it, it runs.
    c.k(&["label", "node", "node-1", "nowhere=yes"]);
    s.wait_for("pod picky", "{.spec.nodeName}", "node-1");
    c.k(&["label", "node", "node-1", "nowhere-"]);
}

/// The real kubectl inside a pod, by the pod's own token.
pub fn token_in_a_pod(c: &Cluster) {
    let s = Space::new(c, "token");
    let kubectl = tool("kubectl").canonicalize().expect("the tool's path");
    let volume = format!("  volumes: [{{name: k, hostPath: {{path: '{}', type: File}}}}]", kubectl.display());
    let mount = "name: c, volumeMounts: [{name: k, mountPath: /kubectl, readOnly: true}],";
    s.apply(&script("p", "exec sleep 3600", &volume).replace("name: c,", mount));
    s.ready("p");
    let who = s.k(&["exec", "p", "--", "/kubectl", "auth", "whoami"]);
    has_lines(&who, &["Username system:serviceaccount:token:default", "authentication.kubernetes.io/pod-name [p]"]);
    let denied = s.kubectl(&["exec", "p", "--", "/kubectl", "get", "pods"]);
    let forbidden = r#"Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:token:default" cannot list resource "pods" in API group "" in the namespace "token""#;
    assert!(denied.code == 1 && denied.stderr.contains(forbidden), "{denied:?}");
    s.k(&["create", "rolebinding", "see", "--clusterrole=view", "--serviceaccount=token:default"]);
    s.inside("p", "/kubectl get pods --no-headers", |text| text.starts_with("p "));
}
