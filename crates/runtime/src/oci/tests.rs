use super::*;
use crate::spec::{Mount, Rlimit};

fn context() -> Context {
    Context {
        net: Some("/run/net".into()),
        ipc: Some("/proc/7/ns/ipc".into()),
        uts: Some("/proc/7/ns/uts".into()),
        cgroup: "canopus/kubepods/pod1/c1".to_owned(),
        shm: "/run/shm".into(),
        hostname_file: "/run/hostname".into(),
        resolv_conf: "/run/resolv.conf".into(),
        host_capabilities: CAPABILITIES.iter().filter(|c| **c != "CAP_SYS_RESOURCE").map(|c| (*c).to_owned()).collect(),
        ..Context::default()
    }
}

fn spec() -> ContainerSpec {
    ContainerSpec { args: vec!["/bin/true".to_owned()], rootfs: "/rootfs".into(), ..ContainerSpec::default() }
}

#[test]
fn an_ordinary_container() {
    let config = config(&spec(), &context()).unwrap();
    assert_eq!(config["process"]["cwd"], "/");
    assert_eq!(config["process"]["capabilities"]["bounding"], json!([]));
    assert!(config["process"].get("noNewPrivileges").is_none());
    assert_eq!(config["linux"]["cgroupsPath"], "/canopus/kubepods/pod1/c1");
    assert_eq!(config["linux"]["rootfsPropagation"], "private");
    assert_eq!(
        config["linux"]["namespaces"],
        json!([
            {"type": "mount"}, {"type": "cgroup"}, {"type": "network", "path": "/run/net"},
            {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "uts", "path": "/proc/7/ns/uts"}, {"type": "pid"},
        ])
    );
    assert!(config["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    let destinations: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|m| &m["destination"]).collect();
    assert_eq!(destinations[..2], ["/proc", "/dev"]);
    assert!(destinations.contains(&&json!("/etc/resolv.conf")));
    libcontainer::oci_spec::runtime::Spec::deserialize(&config).unwrap();
}

#[test]
fn a_privileged_one_gets_what_the_host_can_give() {
    let config = config(&ContainerSpec { privileged: true, ..spec() }, &context()).unwrap();
    let caps = config["process"]["capabilities"]["effective"].as_array().unwrap();
    assert_eq!(caps.len(), CAPABILITIES.len() - 1);
    assert!(config["linux"].get("maskedPaths").is_none());
    let sys = config["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/sys").unwrap();
    assert!(sys["options"].as_array().unwrap().contains(&json!("rw")));
}

#[test]
fn what_the_host_refuses_is_left_out() {
    let asked = ContainerSpec {
        oom_score_adj: -997,
        capabilities: vec!["CAP_SYS_RESOURCE".to_owned(), "CAP_CHOWN".to_owned()],
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), soft: 1 << 20, hard: 1 << 20 }],
        ..spec()
    };
    let config = config(&asked, &context()).unwrap();
    assert_eq!(config["process"]["oomScoreAdj"], 0);
    assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
    assert_eq!(config["process"]["rlimits"], json!([]));
    let mut able = context();
    able.host_capabilities.insert("CAP_SYS_RESOURCE".to_owned());
    assert_eq!(super::config(&asked, &able).unwrap()["process"]["oomScoreAdj"], -997);
}

#[test]
fn environment_keeps_order_and_the_last_value() {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let env = vec![pair("A", "1"), pair("PATH", "/x"), pair("A", "2")];
    assert_eq!(environment(&ContainerSpec { env, tty: true, ..spec() }), ["PATH=/x", "TERM=xterm", "A=2"]);
}

#[test]
fn mounts_come_parents_first_and_replace_fixed_ones() {
    let mounts = vec![
        Mount::bind("/a", "/data/deep", true),
        Mount::bind("/b", "/data", false),
        Mount::bind("/c", "/etc/hostname", false),
        Mount { propagation: Propagation::HostToContainer, ..Mount::bind("/d", "/dev/shm", false) },
    ];
    let config = config(&ContainerSpec { mounts, ..spec() }, &context()).unwrap();
    let list = config["mounts"].as_array().unwrap();
    let at =
        |d: &str| list.iter().enumerate().filter(|(_, m)| m["destination"] == d).map(|(i, _)| i).collect::<Vec<_>>();
    assert!(at("/data") < at("/data/deep"));
    assert_eq!((at("/etc/hostname").len(), at("/dev/shm").len()), (1, 1));
    assert_eq!(list[at("/data/deep")[0]]["options"], json!(["rbind", "ro"]));
    assert_eq!(config["linux"]["rootfsPropagation"], "slave");
}

#[test]
fn nonsense_is_refused() {
    let bad: [fn(&mut ContainerSpec); 5] = [
        |s| s.args.clear(),
        |s| s.args.push("a\0b".to_owned()),
        |s| s.env.push(("A=B".to_owned(), String::new())),
        |s| s.cwd = "relative".to_owned(),
        |s| s.mounts.push(Mount::bind("/a", "relative", false)),
    ];
    for (i, spoil) in bad.iter().enumerate() {
        let mut spec = spec();
        spoil(&mut spec);
        assert!(matches!(config(&spec, &context()), Err(Error::Invalid(_))), "case {i}");
    }
}

#[test]
fn seccomp_profiles() {
    let with = |seccomp| config(&ContainerSpec { seccomp, ..spec() }, &context()).unwrap()["linux"]["seccomp"].clone();
    assert_eq!(with(Seccomp::Unconfined), Value::Null);
    let default = with(Seccomp::RuntimeDefault);
    let allowed = default["syscalls"][0]["names"].as_array().unwrap();
    assert!(allowed.contains(&json!("openat")) && !allowed.contains(&json!("mount")));
    let own = r#"{"defaultAction": "SCMP_ACT_LOG"}"#.to_owned();
    assert_eq!(with(Seccomp::Profile(own))["defaultAction"], "SCMP_ACT_LOG");
    let broken = ContainerSpec { seccomp: Seccomp::Profile("{".to_owned()), ..spec() };
    assert!(config(&broken, &context()).is_err());
}

#[test]
fn exec_takes_over_the_containers_process() {
    let exec = ExecSpec { args: vec!["ls".to_owned()], tty: true, ..ExecSpec::default() };
    let container = ContainerSpec { no_new_privileges: true, cwd: "/srv".to_owned(), ..spec() };
    let process = exec_process(&container, &exec, &context()).unwrap();
    assert_eq!((&process["args"], &process["cwd"]), (&json!(["ls"]), &json!("/srv")));
    assert_eq!((&process["terminal"], &process["noNewPrivileges"]), (&json!(true), &json!(true)));
}

use serde::Deserialize;
