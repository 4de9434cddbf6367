//! One `canopus up` on a host of its own.

use crate::host::{Host, must};
use crate::stream::Stream;
use crate::{eventually, leaks, tool};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Stopped, reset and removed when dropped.
pub struct Cluster {
    host: Host,
    binary: PathBuf,
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// More for `canopus up`.
    pub arguments: Vec<String>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cluster {
    /// A host and a data directory; nothing runs yet.
    pub fn new(binary: &Path) -> Cluster {
        let dir = tempfile::Builder::new().prefix("canopus-e2e").tempdir().expect("a temporary directory");
        // A copy: the file may be built anew while the test runs.
        let copy = dir.path().join("canopus");
        fs::copy(binary, &copy).unwrap_or_else(|e| panic!("failed to copy {}: {e}", binary.display()));
        Cluster { host: Host::new(), binary: copy, dir, process: None, arguments: Vec::new() }
    }

    /// Starts `binary up` and waits until the API server is ready.
    pub fn start(binary: &Path) -> Cluster {
        let mut cluster = Cluster::new(binary);
        cluster.up();
        cluster
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn cgroup_root(&self) -> String {
        format!("e2e-{}", self.host.name())
    }

    /// Waits until nothing is left of pods that are gone from the API.
    #[track_caller]
    pub fn no_pods_left(&self) {
        eventually(Duration::from_secs(30), || {
            let left = leaks::of_pods(&self.data_dir(), &self.cgroup_root(), &self.host);
            if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}\n{}", self.log_tail())) }
        });
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The process id of `canopus up`, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the process (again), and does not wait.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let errors = log.try_clone().expect("a log file");
        let mut command = self.host.command(&self.binary);
        command.args(["up", "--node-name", "node-1", "--node-ip", self.host.ip()]);
        // Tests must run on a disk that is nearly full, too.
        command.args(["--eviction-hard", ""]);
        command.arg("--cgroup-root").arg(self.cgroup_root());
        command.arg("--data-dir").arg(self.data_dir()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.process = Some(command.spawn().expect("canopus starts"));
    }

    /// Starts the process (again) and waits until the API server is ready.
    pub fn up(&mut self) {
        self.launch();
        eventually(Duration::from_secs(60), || {
            let out = self.kubectl(&["get", "--raw", "/readyz"]);
            if out.stdout == "ok" { Ok(()) } else { Err(format!("not ready: {out:?}\n{}", self.log_tail())) }
        });
        // The node's agent serves logs and exec a moment later.
        eventually(Duration::from_secs(60), || {
            let connected = std::net::TcpStream::connect((self.host.ip(), 10250));
            connected.map(drop).map_err(|e| format!("the node's agent: {e}\n{}", self.log_tail()))
        });
    }

    /// The end of the server's log, for messages.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = process.wait();
        }
    }

    /// Packs busybox as `name` and imports it.
    pub fn import_busybox(&self, name: &str) {
        let archive = self.dir.path().join("busybox.tar");
        must(Command::new(&self.binary).args(["image", "busybox", "--name", name, "--output"]).arg(&archive));
        must(Command::new(&self.binary).args(["image", "import", "--data-dir"]).arg(self.data_dir()).arg(&archive));
    }

    /// Runs kubectl on the cluster's host.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "")
    }

    /// Runs kubectl with something on standard input.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = self.command(tool("kubectl"));
        command.args(args);
        run(command, stdin)
    }

    /// Any program on the cluster's host, with the administrator's kubeconfig.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.host.command(program);
        command.env("KUBECONFIG", self.data_dir().join("kubeconfig")).env("TMPDIR", self.dir.path());
        command.env("KUBECACHEDIR", self.dir.path().join("cache")).env("HOME", self.dir.path());
        command
    }

    /// Starts kubectl and leaves it running.
    pub fn stream(&self, args: &[&str]) -> Stream {
        let mut command = self.command(tool("kubectl"));
        command.args(args);
        Stream::start(command)
    }

    /// kubectl that must succeed; answers what it printed.
    #[track_caller]
    pub fn k(&self, args: &[&str]) -> String {
        let out = self.kubectl(args);
        assert_eq!(out.code, 0, "kubectl {args:?}: {}{}\n{}", out.stdout, out.stderr, self.log_tail());
        out.stdout
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        let out = self.kubectl_with(&["apply", "-f", "-"], yaml);
        assert_eq!(out.code, 0, "apply: {}{}\n{}", out.stdout, out.stderr, self.log_tail());
        out.stdout
    }

    /// Waits until `kubectl get … -o jsonpath=…` prints `wanted`.
    #[track_caller]
    pub fn wait_for(&self, what: &str, jsonpath: &str, wanted: &str) {
        let path = format!("jsonpath={jsonpath}");
        let mut args: Vec<&str> = vec!["get"];
        args.extend(what.split(' '));
        args.extend(["-o", &path]);
        eventually(Duration::from_secs(120), || {
            let out = self.kubectl(&args);
            if out.code == 0 && out.stdout == wanted {
                Ok(())
            } else {
                Err(format!("{what} {jsonpath}: {out:?}\n{}", self.log_tail()))
            }
        });
    }
}

/// Runs a command to its end with something on standard input.
pub fn run(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    if let Some(mut pipe) = child.stdin.take() {
        // A command that does not read its input is fine.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().expect("the command ends");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let mut reset = self.host.command(&self.binary);
        reset.args(["reset", "--yes", "--data-dir"]).arg(self.data_dir());
        reset.arg("--cgroup-root").arg(self.cgroup_root());
        let done = run(reset, "");
        if !std::thread::panicking() {
            assert_eq!(done.code, 0, "reset failed: {done:?}");
            // The kernel takes down the devices of pods' network namespaces when it gets to it.
            eventually(Duration::from_secs(10), || {
                let left = leaks::all(&self.data_dir(), &self.cgroup_root(), &self.host);
                if left.is_empty() { Ok(()) } else { Err(format!("left behind after reset: {left:#?}")) }
            });
        }
    }
}
