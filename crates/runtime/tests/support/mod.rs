//! A runtime in a directory and a cgroup of its own, and a root file system made of busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use canopus_runtime::spec::{ContainerSpec, ExecSpec, LogConfig, SandboxSpec};
use canopus_runtime::{Config, ContainerState, Runtime};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Cleans up and checks that nothing is left when dropped.
pub struct Node {
    pub runtime: Runtime,
    pub dir: PathBuf,
    pub config: Config,
}

impl Node {
    pub fn new() -> Self {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "these tests need /bin/busybox: apt-get install busybox-static");
        // SAFETY: geteuid has no arguments and cannot fail.
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root");
        let name = format!("canopus-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        let bin = dir.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in [
            "sh", "echo", "cat", "sleep", "id", "ls", "hostname", "ip", "ps", "kill", "dd", "tail", "stty", "seq",
            "mknod", "grep", "wc", "tr",
        ] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        for sub in ["etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(dir.join("rootfs").join(sub)).unwrap();
        }
        let config = Config {
            state_dir: dir.join("state"),
            shim_path: env!("CARGO_BIN_EXE_canopus-shim").into(),
            child_path: env!("CARGO_BIN_EXE_canopus-runtime-child").into(),
            cgroup_root: name,
        };
        Self { runtime: Runtime::open(config.clone()).unwrap(), dir, config }
    }

    pub fn sandbox(&self, change: impl FnOnce(&mut SandboxSpec)) -> String {
        let mut spec = SandboxSpec {
            hostname: "pod-a".to_owned(),
            cgroup_parent: format!("kubepods/burstable/pod{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            labels: [("uid".to_owned(), "u1".to_owned())].into(),
            ..SandboxSpec::default()
        };
        change(&mut spec);
        self.runtime.run_sandbox(spec).unwrap().id
    }

    /// A container that runs a shell script.
    pub fn spec(&self, name: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            rootfs: self.dir.join("rootfs"),
            log: Some(LogConfig { path: self.log_path(name), max_size: None, max_files: None }),
            capabilities: canopus_runtime::oci::DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            ..ContainerSpec::default()
        }
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name).join("0.log")
    }

    pub fn run(&self, sandbox: &str, spec: ContainerSpec) -> String {
        let id = self.runtime.create_container(sandbox, spec).unwrap();
        self.runtime.start_container(&id).unwrap();
        id
    }

    /// Runs a script to its end; its exit code and log texts.
    pub fn run_script(&self, sandbox: &str, name: &str, script: &str) -> (i32, Vec<String>) {
        let id = self.run(sandbox, self.spec(name, script));
        let code = self.wait_exit(&id);
        (code, self.log(name))
    }

    pub fn wait_exit(&self, id: &str) -> i32 {
        wait_for("the container's end", || {
            let status = self.runtime.container_status(id).unwrap();
            (status.state == ContainerState::Exited).then(|| status.exit.unwrap().code)
        })
    }

    /// Texts of a log's entries.
    pub fn log(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.log_path(name)).unwrap_or_default();
        text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
    }

    pub fn wait_log(&self, name: &str, line: &str) {
        wait_for("a log line", || self.log(name).iter().any(|l| l == line).then_some(()));
    }

    /// Everything this node has made the kernel hold.
    fn leftovers(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.to_str().unwrap();
        let mut left: Vec<String> = mounts.lines().filter(|l| l.contains(dir)).map(str::to_owned).collect();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(dir) && entry.file_name().to_str() != Some(&std::process::id().to_string()) {
                left.push(format!("process {command}"));
            }
        }
        let cgroups = self.runtime.cgroups();
        left.extend(cgroups.pids(&self.config.cgroup_root).iter().map(|p| format!("process {p} in a cgroup")));
        let pods = self.runtime.cgroup_path("kubepods/burstable");
        let sub = |root: &str| fs::read_dir(format!("/sys/fs/cgroup/{root}/{pods}")).into_iter().flatten().flatten();
        let groups = ["memory", "cpu", "unified", ""].into_iter().flat_map(sub);
        left.extend(groups.filter(|e| e.path().is_dir()).map(|e| e.path().display().to_string()));
        left
    }

    /// Groups of this node in whatever hierarchy, which a reset must have removed.
    fn groups_left(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
        points.map(|p| Path::new(p).join(&self.config.cgroup_root)).filter(|p| p.exists()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let removed: Vec<_> = match self.runtime.list_sandboxes() {
            Ok(list) => list.iter().map(|s| self.runtime.remove_sandbox(&s.id)).collect(),
            Err(e) => vec![Err(e)],
        };
        let left = self.leftovers();
        self.runtime.cgroups().kill_and_wait(&self.config.cgroup_root, Duration::from_secs(5));
        let reset = self.runtime.reset();
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(removed.iter().all(Result::is_ok), "{removed:?}");
            assert!(left.is_empty(), "left behind: {left:#?}");
            reset.unwrap();
            let groups = self.groups_left();
            assert!(groups.is_empty(), "left behind: {groups:?}");
        }
    }
}

pub fn exec_spec(script: &str) -> ExecSpec {
    ExecSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        stdout: true,
        stderr: true,
        ..ExecSpec::default()
    }
}

/// Polls until there is an answer.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
