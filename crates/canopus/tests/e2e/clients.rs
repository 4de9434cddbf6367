//! Clients that others wrote: kubectl of three versions, helm, Python's.

use crate::space::Space;
use crate::{IMAGE, web};
use canopus_testkit::{Cluster, Output, run, tool};

/// Upstream promises that a kubectl fits servers one version older and newer.
pub fn other_kubectls(c: &Cluster) {
    for version in ["1.35", "1.37"] {
        let s = Space::new(c, &format!("kubectl-{}", version.replace('.', "-")));
        let binary = tool(&format!("kubectl-{version}"));
        let kubectl = |args: &[&str], stdin: &str| {
            let mut command = c.command(&binary);
            command.args(["-n", &s.name]).args(args);
            let out = run(command, stdin);
            assert_eq!(out.code, 0, "kubectl {version} {args:?}: {out:?}");
            out.stdout
        };
        let web = web("web", 1, "one");
        assert_eq!(kubectl(&["apply", "-f", "-"], &web), "deployment.apps/web created\n");
        kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"], "");
        assert!(kubectl(&["exec", "deployment/web", "--", "cat", "/tmp/w/index.html"], "").starts_with("one web-"));
        kubectl(&["logs", "deployment/web"], "");
        assert_eq!(
            kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &web).trim(),
            "deployment.apps/web serverside-applied"
        );
        assert_eq!(kubectl(&["diff", "-f", "-"], &web), "");
        assert!(kubectl(&["scale", "deployment/web", "--replicas=0"], "").contains("scaled"));
        assert!(kubectl(&["get", "deployments,pods,nodes", "-o", "wide"], "").contains("web"));
        assert!(kubectl(&["api-resources"], "").contains("deployments"));
        assert!(kubectl(&["explain", "pod.spec.containers.image"], "").contains("FIELD: image <string>"));
        assert!(kubectl(&["describe", "deployment", "web"], "").contains("ScalingReplicaSet"));
        assert!(kubectl(&["events"], "").contains("Deployment/web"));
        kubectl(&["delete", "-f", "-", "--wait"], &web);
    }
}

/// Installing a chart that brings a kind, a hook and a test; upgrading; rolling back; taking it away.
pub fn helm(c: &Cluster) {
    let s = Space::new(c, "helm");
    let chart = std::path::absolute("tests/clients/chart").expect("a folder");
    let chart = chart.to_string_lossy();
    let helm = |args: &[&str]| -> Output {
        let mut command = c.command(tool("helm"));
        command.args(["-n", &s.name]).args(args);
        run(command, "")
    };
    let done = |args: &[&str]| {
        let out = helm(args);
        assert_eq!(out.code, 0, "helm {args:?}: {out:?}\n{}", c.log_tail());
        out.stdout
    };
    let greeting = || s.k(&["get", "configmap", "stall", "-o", "jsonpath={.data.greeting} {.data.revision}"]);
    let image = format!("image={IMAGE}");

    done(&["install", "stall", &chart, "--set", &image, "--wait", "--timeout", "90s"]);
    assert_eq!(greeting(), "hello 1");
    assert!(s.k(&["get", "fruits"]).contains("green"), "the chart's own kind");
    assert!(s.k(&["logs", "stall-before"]).contains("before 1"), "the hook ran first");
    assert!(done(&["test", "stall", "--timeout", "60s"]).contains("Phase:          Succeeded"));

    done(&[
        "upgrade",
        "stall",
        &chart,
        "--set",
        &image,
        "--set",
        "greeting=welcome,replicas=2",
        "--wait",
        "--timeout",
        "90s",
    ]);
    assert_eq!(greeting(), "welcome 2");
    s.wait_for("deployment stall", "{.status.readyReplicas}", "2");
    let bad = helm(&["upgrade", "stall", &chart, "--set", "replicas=many"]);
    assert!(bad.code != 0 && bad.stderr.contains("replicas"), "{bad:?}");

    done(&["rollback", "stall", "1", "--wait", "--timeout", "90s"]);
    assert!(greeting().starts_with("hello"));
    let history = done(&["history", "stall", "-o", "json"]);
    assert!(history.contains("Rollback to 1"), "{history}");
    assert!(done(&["list"]).contains("deployed"));
    assert!(done(&["get", "manifest", "stall"]).contains("kind: Fruit"));

    done(&["uninstall", "stall", "--wait", "--timeout", "90s"]);
    assert_eq!(s.k(&["get", "deployments,services,fruits", "-o", "name"]), "");
    // Helm leaves the kinds that charts bring.
    s.k(&["delete", "crd", "fruits.market.example.org"]);
}

pub fn python(c: &Cluster) {
    let s = Space::new(c, "python");
    let program = std::path::absolute("tests/clients/workflows.py").expect("a folder");
    let mut command = c.command("python3");
    command.arg(program).args([s.name.as_str(), IMAGE]).env("PYTHONPATH", tool("python"));
    let out = run(command, "");
    assert_eq!(out.code, 0, "{}{}\n{}", out.stdout, out.stderr, c.log_tail());
}
