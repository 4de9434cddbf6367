//! A namespace in which one story plays, so that stories can play side by side.

use canopus_testkit::{Cluster, Output, Stream, eventually, run, tool};
use std::time::Duration;

pub struct Space<'a> {
    pub c: &'a Cluster,
    pub name: String,
}

impl<'a> Space<'a> {
    /// Makes the namespace and waits until pods can be made in it.
    pub fn new(c: &'a Cluster, name: &str) -> Space<'a> {
        c.k(&["create", "namespace", name]);
        let space = Space { c, name: name.into() };
        space.wait_for("serviceaccounts", "{.items[*].metadata.name}", "default");
        space
    }

    fn args<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.name.as_str()], args].concat()
    }

    /// kubectl that must succeed; answers what it printed.
    #[track_caller]
    pub fn k(&self, args: &[&str]) -> String {
        self.c.k(&self.args(args))
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.c.kubectl(&self.args(args))
    }

    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Output {
        self.c.kubectl_with(&self.args(args), stdin)
    }

    /// kubectl with an editor that runs a sed script on the file.
    pub fn edit(&self, what: &[&str], script: &str) -> Output {
        let mut command = self.c.command(tool("kubectl"));
        command.args(self.args(&["edit"])).args(what).env("KUBE_EDITOR", format!("sed -i {script}"));
        run(command, "")
    }

    pub fn stream(&self, args: &[&str]) -> Stream {
        self.c.stream(&self.args(args))
    }

    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        let out = self.kubectl_with(&["apply", "-f", "-"], yaml);
        assert_eq!(out.code, 0, "apply: {out:?}\n{}", self.c.log_tail());
        out.stdout
    }

    /// Asserts that kubectl fails and says `message`.
    #[track_caller]
    pub fn refused(&self, args: &[&str], stdin: &str, message: &str) {
        let out = self.kubectl_with(args, stdin);
        assert!(out.code != 0 && out.stderr.contains(message), "{args:?}: wanted {message:?} in {out:?}");
    }

    /// What a jsonpath says of an object.
    #[track_caller]
    pub fn see(&self, what: &str, jsonpath: &str) -> String {
        let mut args = vec!["get"];
        args.extend(what.split(' '));
        let path = format!("jsonpath={jsonpath}");
        args.extend(["-o", &path]);
        self.k(&args)
    }

    /// The names of the pods that nobody has deleted.
    #[track_caller]
    pub fn living_pods(&self) -> Vec<String> {
        let template = "{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}";
        let names = self.k(&["get", "pods", "-o", &format!("go-template={template}")]);
        names.split_whitespace().map(String::from).collect()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, jsonpath: &str, wanted: &str) {
        self.c.wait_for(&format!("-n {} {what}", self.name), jsonpath, wanted);
    }

    #[track_caller]
    pub fn ready(&self, pod: &str) {
        let out = self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
        if out.code != 0 {
            panic!("{pod}: {out:?}\n{}\n{}", self.k(&["describe", "pod", pod]), self.c.log_tail());
        }
    }

    /// What a shell script prints in a pod, once it succeeds and prints what `wanted` accepts.
    #[track_caller]
    pub fn inside(&self, pod: &str, script: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(Duration::from_secs(20), || {
            let out = self.kubectl(&["exec", pod, "--", "sh", "-c", script]);
            if out.code == 0 && wanted(&out.stdout) { Ok(out.stdout) } else { Err(format!("{script}: {out:?}")) }
        })
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        // After a failure the objects stay, for the other stories' messages do not depend on them.
        if !std::thread::panicking() {
            self.c.k(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

/// Asserts that each of the lines is in the text, whatever the space between words.
#[track_caller]
pub fn has_lines(text: &str, lines: &[&str]) {
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let all: Vec<String> = text.lines().map(squeeze).collect();
    for line in lines {
        assert!(all.iter().any(|l| l.contains(line)), "{line:?} is not in\n{text}");
    }
}
