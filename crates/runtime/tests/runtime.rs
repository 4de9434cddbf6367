//! The runtime against the real kernel. Needs root and `/bin/busybox`.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use canopus_runtime::cgroups::Resources;
use canopus_runtime::spec::{ExecSpec, LogConfig, Mount, MountKind, PidMode, Propagation, User};
use canopus_runtime::{Code, ContainerState, Error, Runtime, RuntimeEvent, SandboxState};
use support::{Node, exec_spec, wait_for};

#[test]
fn a_container_prints_exits_and_is_remembered() {
    let node = Node::new();
    let events = node.runtime.events();
    let pod = node.sandbox(|_| {});
    let id = node.run(&pod, node.spec("a", "echo out; echo err >&2; printf tail; exit 7"));
    assert_eq!(node.wait_exit(&id), 7);
    let text = fs::read_to_string(node.log_path("a")).unwrap();
    let mut kinds: Vec<_> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["stderr F err", "stdout F out", "stdout P tail"]);
    assert!(text.lines().all(|l| l.len() > 31 && &l[29..31] == "Z " && &l[10..11] == "T"), "{text}");
    let status = node.runtime.container_status(&id).unwrap();
    let exit = status.exit.unwrap();
    assert!(exit.started_at >= status.created_at && exit.finished_at >= exit.started_at);
    assert_eq!((exit.signal, exit.oom_killed), (None, false));
    let seen: Vec<_> = [events.recv().unwrap(), events.recv().unwrap()].into();
    assert!(matches!(&seen[0], RuntimeEvent::Started { container, .. } if *container == id), "{seen:?}");
    assert!(matches!(&seen[1], RuntimeEvent::Exited { exit, .. } if exit.code == 7), "{seen:?}");
    node.runtime.remove_container(&id).unwrap();
    assert!(node.runtime.container_status(&id).unwrap_err().is_not_found());
    assert!(node.log_path("a").exists(), "logs belong to the caller");
}

#[test]
fn containers_of_a_pod_share_what_pods_share() {
    let node = Node::new();
    let pod = node.sandbox(|s| {
        s.sysctls = [("net.core.somaxconn".to_owned(), "333".to_owned())].into();
    });
    let script = "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; \
                  cat /proc/sys/net/core/somaxconn; ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1; \
                  ps | grep -c sh; cat /etc/hostname; touch /dev/shm/mark$1; ls /dev/shm";
    let script = script.replace("readlink", "busybox readlink").replace("touch", "busybox touch");
    let (code, first) = node.run_script(&pod, "a", &format!("set -- 1 1; {script}"));
    let (_, second) = node.run_script(&pod, "b", &format!("set -- 2 2; {script}"));
    assert_eq!(code, 0, "{first:?}");
    assert_eq!(first[0], "pod-a");
    assert_eq!(first[4], "333");
    assert_eq!(first[6], "1");
    assert_eq!(first[8], "pod-a");
    assert_eq!(first[..7], second[..7]);
    assert_eq!(second[9..], ["mark1", "mark2"], "memory is shared");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(first[1], own.to_str().unwrap());
    let other = node.sandbox(|_| {});
    let (_, third) = node.run_script(&other, "c", &script);
    assert!((1..4).all(|i| third[i] != first[i]), "{third:?}");
    let netns = node.runtime.sandbox_status(&pod).unwrap().netns.unwrap();
    let status = std::process::Command::new("nsenter").arg(format!("--net={}", netns.display())).arg("true").status();
    assert!(status.unwrap().success());
}

#[test]
fn process_namespaces() {
    let node = Node::new();
    let own = node.sandbox(|_| {});
    let (_, log) = node.run_script(&own, "own", "echo $$");
    assert_eq!(log, ["1"]);
    let shared = node.sandbox(|s| s.pid = PidMode::Pod);
    let sleeper = node.run(&shared, node.spec("s1", "busybox setsid sleep 4321 & exec sleep 1234"));
    let (_, log) = node.run_script(&shared, "s2", "ps -o pid,args; echo $$");
    assert!(log.iter().any(|l| l.contains("1 ") && l.contains("canopus")), "{log:?}");
    assert!(log.iter().any(|l| l.contains("sleep 1234")), "{log:?}");
    node.runtime.stop_container(&sleeper, Duration::ZERO, None).unwrap();
    let (_, log) = node.run_script(&shared, "s3", "ps -o args");
    assert!(!log.iter().any(|l| l.contains("sleep 4321")), "a container's processes end with it: {log:?}");
    let host = node.sandbox(|s| {
        s.pid = PidMode::Host;
        s.host_network = true;
        s.host_ipc = true;
    });
    let (_, log) = node.run_script(
        &host,
        "h",
        "busybox readlink /proc/self/ns/pid; busybox readlink /proc/self/ns/net; busybox readlink /proc/self/ns/uts",
    );
    for (line, ns) in log.iter().zip(["pid", "net", "uts"]) {
        assert_eq!(line, fs::read_link(format!("/proc/self/ns/{ns}")).unwrap().to_str().unwrap());
    }
}

#[test]
fn exec_with_pipes() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let mut spec = node.spec("a", "sleep 1000");
    spec.env = vec![("GREETING".to_owned(), "hello".to_owned())];
    let id = node.run(&pod, spec);
    let mut cat = ExecSpec { stdin: true, ..exec_spec("echo $GREETING $MORE; cat; echo bad >&2; exit 5") };
    cat.env = vec![("MORE".to_owned(), "more".to_owned())];
    let mut session = node.runtime.exec(&id, &cat).unwrap();
    session.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    session.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("hello more\nthrough\n", "bad\n"));
    assert_eq!(session.wait().unwrap(), 5);
    let mut as_user = exec_spec("id -u; id -G; busybox pwd");
    as_user.user = Some(User { uid: 1000, gid: 1000, supplementary_groups: vec![2000] });
    as_user.cwd = Some("/tmp".to_owned());
    let mut session = node.runtime.exec(&id, &as_user).unwrap();
    let mut out = String::new();
    session.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "1000\n1000 2000\n/tmp\n");
    let missing = ExecSpec { args: vec!["nothing".to_owned()], ..ExecSpec::default() };
    match node.runtime.exec(&id, &missing) {
        Err(Error::Shim { code: Code::Exec, message }) => {
            assert_eq!(message, "exec: \"nothing\": executable file not found in $PATH");
        }
        other => panic!("{other:?}"),
    }
    let lost = node.runtime.exec(&id, &exec_spec("sleep 999")).unwrap();
    let pid = lost.pid;
    drop(lost);
    wait_for("the abandoned process to die", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(
        fs::read_dir(node.dir.join(format!("state/sandboxes/{pod}/containers/{id}")))
            .unwrap()
            .flatten()
            .all(|e| { !e.file_name().to_string_lossy().starts_with("exec-") })
    );
}

#[test]
fn exec_on_a_terminal() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let id = node.run(&pod, node.spec("a", "sleep 1000"));
    let spec = ExecSpec { tty: true, stdin: true, ..exec_spec("read x; stty size; echo got $x $TERM; exit 3") };
    let mut session = node.runtime.exec(&id, &spec).unwrap();
    session.resize(132, 43).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"line\n").unwrap();
    let mut out = Vec::new();
    // A terminal whose other side is gone reads as an error.
    let _ = session.stdout.take().unwrap().read_to_end(&mut out);
    let out = String::from_utf8_lossy(&out).replace("\r\n", "\n");
    assert!(out.contains("43 132\n") && out.contains("got line xterm"), "{out}");
    assert_eq!(session.wait().unwrap(), 3);
}

#[test]
fn input_and_terminals_of_containers() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let mut spec = node.spec("in", "cat; echo end");
    (spec.stdin, spec.stdin_once) = (true, true);
    let id = node.run(&pod, spec);
    let mut session = node.runtime.attach(&id, true, true, false).unwrap();
    session.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let mut seen = String::new();
    session.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "typed\nend\n");
    assert_eq!(node.wait_exit(&id), 0);
    assert_eq!(node.log("in"), ["typed", "end"]);
    let mut spec = node.spec("tty", "read x; stty size; echo got $x");
    (spec.tty, spec.stdin) = (true, true);
    let id = node.run(&pod, spec);
    node.runtime.resize(&id, 100, 30).unwrap();
    let mut session = node.runtime.attach(&id, true, true, false).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hi\n").unwrap();
    assert_eq!(node.wait_exit(&id), 0);
    let log = node.log("tty").join("\n").replace('\r', "");
    assert!(log.contains("30 100") && log.contains("got hi"), "{log}");
}

#[test]
fn stopping_is_graceful_and_then_not() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let polite = node.run(&pod, node.spec("p", "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.01; done"));
    node.wait_log("p", "up");
    node.runtime.stop_container(&polite, Duration::from_secs(20), None).unwrap();
    assert_eq!(node.wait_exit(&polite), 9);
    assert_eq!(node.log("p"), ["up", "bye"]);
    let stubborn = node.run(&pod, node.spec("s", "trap '' TERM; echo up; sleep 1000"));
    node.wait_log("s", "up");
    node.runtime.stop_container(&stubborn, Duration::from_millis(50), None).unwrap();
    let exit = node.runtime.container_status(&stubborn).unwrap().exit.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    node.runtime.stop_container(&stubborn, Duration::from_secs(1), None).unwrap();
    let mut spec = node.spec("q", "trap 'exit 4' USR1; echo up; while :; do sleep 0.01; done");
    spec.stop_signal = Some(libc::SIGUSR1);
    let other = node.run(&pod, spec);
    node.wait_log("q", "up");
    node.runtime.stop_container(&other, Duration::from_secs(20), None).unwrap();
    assert_eq!(node.wait_exit(&other), 4);
}

#[test]
fn commands_that_cannot_run() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    fs::write(node.dir.join("rootfs/bin/garbage"), b"\x7fELFnot really").unwrap();
    let chmod = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(node.dir.join("rootfs/bin/garbage"), chmod).unwrap();
    for (command, message) in [
        ("nothing", "exec: \"nothing\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/bin/garbage", "exec /bin/garbage: exec format error"),
    ] {
        let mut spec = node.spec("x", "");
        spec.args = vec![command.to_owned()];
        let id = node.runtime.create_container(&pod, spec).unwrap();
        assert_eq!(node.runtime.container_status(&id).unwrap().state, ContainerState::Created);
        match node.runtime.start_container(&id) {
            Err(Error::Shim { code: Code::Exec, message: said }) => assert_eq!(said, message),
            other => panic!("{command}: {other:?}"),
        }
        let exit = node.runtime.container_status(&id).unwrap().exit.unwrap();
        assert_eq!((exit.code, exit.message.as_deref()), (128, Some(message)));
        node.runtime.remove_container(&id).unwrap();
    }
}

#[test]
fn the_oom_killer_is_told_of() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let mut spec = node.spec("o", "x=a; while :; do x=$x$x; done");
    spec.resources = Resources { memory_limit: Some(24 << 20), ..Resources::default() };
    let id = node.run(&pod, spec);
    assert_eq!(node.wait_exit(&id), 137);
    assert!(node.runtime.container_status(&id).unwrap().exit.unwrap().oom_killed);
}

#[test]
fn limits_and_figures() {
    let node = Node::new();
    let limits = Resources { memory_limit: Some(256 << 20), cpu_shares: Some(204), ..Resources::default() };
    let pod = node.sandbox(|s| s.resources = limits.clone());
    let mut spec = node.spec("l", "echo up; sleep 1000");
    spec.resources = Resources { memory_limit: Some(64 << 20), pids_limit: Some(50), ..Resources::default() };
    let id = node.run(&pod, spec);
    node.wait_log("l", "up");
    let stats = node.runtime.container_stats(&id).unwrap();
    assert_eq!((stats.memory.limit, stats.pids_limit), (Some(64 << 20), Some(50)));
    assert!(stats.memory.working_set > 0 && stats.cpu.usage_ns > 0 && stats.pids >= 1, "{stats:?}");
    assert_eq!(node.runtime.sandbox_stats(&pod).unwrap().memory.limit, Some(256 << 20));
    let more = Resources { memory_limit: Some(128 << 20), ..Resources::default() };
    node.runtime.update_container_resources(&id, &more).unwrap();
    assert_eq!(node.runtime.container_stats(&id).unwrap().memory.limit, Some(128 << 20));
    let kept = node.runtime.container_status(&id).unwrap().spec.resources;
    assert_eq!((kept.memory_limit, kept.pids_limit), (Some(128 << 20), Some(50)));
}

#[test]
fn confinement() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let probe = "grep CapEff /proc/self/status; echo x > /probe && echo wrote; \
                 mknod /tmp/disk b 254 0 && cat /tmp/disk > /dev/null && echo read; echo x > /proc/sys/kernel/domainname; \
                 cat /proc/keys | wc -c; grep -c ' /sys sysfs ro' /proc/mounts; grep NoNewPrivs /proc/self/status; true";
    let mut spec = node.spec("c", probe);
    (spec.readonly_rootfs, spec.no_new_privileges) = (true, true);
    spec.mounts.push(Mount {
        destination: "/tmp".into(),
        kind: MountKind::Tmpfs { size: Some(1 << 20) },
        readonly: false,
        recursive_readonly: false,
        propagation: Propagation::Private,
        options: vec!["mode=1777".to_owned()],
    });
    let id = node.run(&pod, spec);
    assert_eq!(node.wait_exit(&id), 0);
    let log = node.log("c");
    assert!(log.iter().any(|l| l == "CapEff:\t00000000a80425fb"), "{log:?}");
    assert!(!log.iter().any(|l| l == "wrote" || l == "read"), "{log:?}");
    assert!(log.iter().any(|l| l == "NoNewPrivs:\t1"), "{log:?}");
    let mut spec = node.spec("u", "id -u; id -G; busybox pwd; cat /data/file; echo x > /data/file");
    spec.user = User { uid: 1001, gid: 1002, supplementary_groups: vec![7] };
    spec.cwd = "/made/for/it".to_owned();
    fs::write(node.dir.join("file"), "content\n").unwrap();
    spec.mounts.push(Mount::bind(node.dir.join("file"), "/data/file", true));
    let id = node.run(&pod, spec);
    assert_eq!(node.wait_exit(&id), 1);
    assert_eq!(node.log("u")[..4], ["1001", "1002 7", "/made/for/it", "content"]);
    let mut spec = node.spec("p", "echo 77 > /proc/sys/net/core/somaxconn && cat /proc/sys/net/core/somaxconn");
    spec.privileged = true;
    let id = node.run(&pod, spec);
    assert_eq!((node.wait_exit(&id), node.log("p")), (0, vec!["77".to_owned()]));
}

#[test]
fn mounts_of_the_host_reach_containers_that_ask() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let shared = node.dir.join("shared");
    fs::create_dir(&shared).unwrap();
    let mount = |args: &[&str]| {
        assert!(std::process::Command::new(args[0]).args(&args[1..]).arg(&shared).status().unwrap().success());
    };
    mount(&["mount", "--bind", shared.to_str().unwrap()]);
    mount(&["mount", "--make-rshared"]);
    let mut ids = Vec::new();
    for (name, propagation) in [("slave", Propagation::HostToContainer), ("private", Propagation::Private)] {
        let mut spec = node.spec(name, "echo up; while [ ! -e /go ]; do sleep 0.01; done; ls /data/late");
        spec.mounts.push(Mount { propagation, ..Mount::bind(&shared, "/data", false) });
        ids.push(node.run(&pod, spec));
        node.wait_log(name, "up");
    }
    let late = shared.join("late");
    fs::create_dir(&late).unwrap();
    let bound = std::process::Command::new("mount").arg("--bind").arg(node.dir.join("rootfs/bin")).arg(&late).status();
    assert!(bound.unwrap().success());
    fs::write(node.dir.join("rootfs/go"), "").unwrap();
    for id in &ids {
        node.wait_exit(id);
    }
    mount(&["umount", "-R"]);
    assert!(node.log("slave").iter().any(|l| l == "busybox"), "{:?}", node.log("slave"));
    assert_eq!(node.log("private"), ["up"]);
}

#[test]
fn seccomp_profiles_are_in_force() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let probe =
        "grep -E '^(Seccomp|CapEff|CapBnd):' /proc/self/status; busybox unshare -U true && echo unshared; echo fine";
    for (name, nnp) in [("s1", false), ("s2", true)] {
        let mut spec = node.spec(name, &format!("{probe}; sleep 1000"));
        spec.seccomp = canopus_runtime::spec::Seccomp::RuntimeDefault;
        spec.no_new_privileges = nnp;
        let id = node.run(&pod, spec);
        node.wait_log(name, "fine");
        let mut session = node.runtime.exec(&id, &exec_spec(probe)).unwrap();
        let mut out = String::new();
        session.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let from_exec: Vec<_> = out.lines().map(str::to_owned).collect();
        for log in [node.log(name), from_exec] {
            for line in ["Seccomp:\t2", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "fine"] {
                assert!(log.contains(&line.to_owned()), "{line} in {log:?}");
            }
            assert!(!log.contains(&"unshared".to_owned()), "{log:?}");
        }
    }
}

#[test]
fn logs_rotate_without_loss() {
    let node = Node::new();
    let pod = node.sandbox(|_| {});
    let mut spec = node.spec("r", "seq 1 20000");
    spec.log = Some(LogConfig { path: node.log_path("r"), max_size: Some(100_000), max_files: Some(1000) });
    let id = node.run(&pod, spec);
    node.wait_exit(&id);
    node.runtime.rotate_log(&id).unwrap();
    let dir = node.log_path("r").parent().unwrap().to_owned();
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    let current = files.remove(0);
    assert_eq!(fs::metadata(current).unwrap().len(), 0);
    let text: String = files.iter().map(|f| fs::read_to_string(f).unwrap()).collect();
    let numbers: Vec<u32> = text.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=20000).collect::<Vec<_>>());
    fs::rename(node.log_path("r"), node.dir.join("moved")).unwrap();
    node.runtime.reopen_log(&id).unwrap();
    assert!(node.log_path("r").exists());
}

#[test]
fn another_runtime_takes_over() {
    let mut node = Node::new();
    let pod = node.sandbox(|s| {
        s.annotations.insert("restarts".to_owned(), "3".to_owned());
    });
    let mut spec = node
        .spec("t", "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo line $i; done; echo $i > /tmp/count; exit 42");
    fs::create_dir(node.dir.join("tmp")).unwrap();
    spec.mounts.push(Mount::bind(node.dir.join("tmp"), "/tmp", false));
    spec.labels.insert("name".to_owned(), "t".to_owned());
    let id = node.run(&pod, spec);
    node.wait_log("t", "line 5");
    node.runtime = Runtime::open(node.config.clone()).unwrap();
    let events = node.runtime.events();
    let status = node.runtime.container_status(&id).unwrap();
    assert_eq!((status.state, status.spec.labels["name"].as_str()), (ContainerState::Running, "t"));
    let sandboxes = node.runtime.list_sandboxes().unwrap();
    assert_eq!((sandboxes.len(), sandboxes[0].state), (1, SandboxState::Ready));
    assert_eq!(
        (sandboxes[0].spec.annotations["restarts"].as_str(), sandboxes[0].spec.labels["uid"].as_str()),
        ("3", "u1")
    );
    fs::write(node.dir.join("tmp/stop"), "").unwrap();
    assert_eq!(node.wait_exit(&id), 42);
    assert!(matches!(events.recv().unwrap(), RuntimeEvent::Exited { exit, .. } if exit.code == 42));
    let count: usize = fs::read_to_string(node.dir.join("tmp/count")).unwrap().trim().parse().unwrap();
    let expected: Vec<_> = (1..=count).map(|i| format!("line {i}")).collect();
    assert!(node.log("t") == expected, "{} lines of {count}", node.log("t").len());
    node.runtime.stop_sandbox(&pod).unwrap();
    assert!(matches!(events.recv().unwrap(), RuntimeEvent::SandboxStopped { .. }));
    let status = node.runtime.container_status(&id).unwrap();
    assert_eq!(status.exit.unwrap().code, 42, "kept in a file");
    assert_eq!(node.runtime.sandbox_status(&pod).unwrap().state, SandboxState::NotReady);
}

/// The part of [`a_killed_client_loses_nothing`] that runs in a process of its own.
const VICTIM: &str = "CANOPUS_TEST_VICTIM";

#[test]
fn a_killed_client_loses_nothing() {
    if let Ok(config) = std::env::var(VICTIM) {
        return be_killed(&config);
    }
    let node = Node::new();
    let config = [&node.config.state_dir, &node.dir].map(|p| p.to_str().unwrap().to_owned()).join("|");
    for round in 0..5u32 {
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_client_loses_nothing", "--nocapture"])
            .env(VICTIM, format!("{config}|{}", node.config.cgroup_root))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for("containers", || {
            let running = node.runtime.list_containers(None).unwrap();
            let running = running.iter().filter(|c| c.state == ContainerState::Running).count();
            (running > round as usize).then_some(())
        });
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    let before = node.runtime.list_containers(None).unwrap();
    let running: Vec<_> = before.iter().filter(|c| c.state == ContainerState::Running).collect();
    assert!(running.len() >= 5);
    fs::write(node.dir.join("rootfs/go"), "").unwrap();
    for container in &running {
        assert_eq!(node.wait_exit(&container.id), 11);
        let log = fs::read_to_string(&container.spec.log.as_ref().unwrap().path).unwrap();
        let texts: Vec<_> = log.lines().map(|l| l.rsplit(' ').next().unwrap()).collect();
        assert_eq!(texts, ["start", "end"]);
    }
}

fn be_killed(config: &str) {
    let [state, dir, cgroup_root]: [&str; 3] = config.split('|').collect::<Vec<_>>().try_into().unwrap();
    let config = canopus_runtime::Config {
        state_dir: state.into(),
        shim_path: env!("CARGO_BIN_EXE_canopus-shim").into(),
        child_path: env!("CARGO_BIN_EXE_canopus-runtime-child").into(),
        cgroup_root: cgroup_root.to_owned(),
    };
    let dir = std::path::Path::new(dir);
    let runtime = Runtime::open(config).unwrap();
    for i in 0u32.. {
        let name = format!("{}-{i}", std::process::id());
        let sandbox = canopus_runtime::spec::SandboxSpec {
            cgroup_parent: format!("kubepods/burstable/pod{name}"),
            ..Default::default()
        };
        let pod = runtime.run_sandbox(sandbox).unwrap().id;
        let spec = canopus_runtime::spec::ContainerSpec {
            args: ["/bin/sh", "-c", "echo start; while [ ! -e /go ]; do sleep 0.05; done; echo end; exit 11"]
                .map(str::to_owned)
                .to_vec(),
            rootfs: dir.join("rootfs"),
            log: Some(LogConfig { path: dir.join("logs").join(&name), max_size: None, max_files: None }),
            ..Default::default()
        };
        let id = runtime.create_container(&pod, spec).unwrap();
        runtime.start_container(&id).unwrap();
    }
}

#[test]
fn a_dead_shim_is_noticed_and_cleaned_up() {
    let node = Node::new();
    let events = node.runtime.events();
    let pod = node.sandbox(|_| {});
    let done = node.run(&pod, node.spec("d", "exit 3"));
    assert_eq!(node.wait_exit(&done), 3);
    let id = node.run(&pod, node.spec("a", "sleep 1000"));
    let shim = node.runtime.sandbox_status(&pod).unwrap().pid.unwrap();
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    wait_for("the news", || {
        matches!(events.recv().unwrap(), RuntimeEvent::SandboxStopped { sandbox } if sandbox == pod).then_some(())
    });
    assert_eq!(node.runtime.sandbox_status(&pod).unwrap().state, SandboxState::NotReady);
    assert_eq!(node.runtime.container_status(&id).unwrap().state, ContainerState::Unknown);
    assert_eq!(node.runtime.container_status(&done).unwrap().exit.unwrap().code, 3);
    assert!(matches!(node.runtime.start_container(&id), Err(Error::NotReady(_))));
    node.runtime.remove_container(&id).unwrap();
    node.runtime.remove_sandbox(&pod).unwrap();
}

#[test]
fn a_sandbox_without_a_record_is_listed_and_removed_like_others() {
    let node = Node::new();
    // What a process leaves that is killed just after it made the directory.
    let dir = node.config.state_dir.join("sandboxes").join("half");
    fs::create_dir_all(&dir).unwrap();
    assert_eq!(node.runtime.list_sandboxes().unwrap()[0].id, "half");
    assert_eq!(node.runtime.list_containers(Some("half")).unwrap().len(), 0);
    assert!(node.runtime.list_containers(Some("none")).is_err_and(|e| e.is_not_found()));
    node.runtime.stop_sandbox("half").unwrap();
    node.runtime.remove_sandbox("half").unwrap();
    assert!(!dir.exists());
}
