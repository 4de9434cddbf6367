//! Making sandboxes and containers for a worker.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use canopus_api::{Gvr, Target, Value};
use canopus_client::now;
use canopus_images::Image;
use canopus_runtime::spec::{ContainerSpec, Mount, SandboxSpec, Seccomp, User};
use tokio::io::AsyncReadExt;

use crate::Error;
use crate::container::{self, Parts};
use crate::devices;
use crate::env::{self, References};
use crate::mounts::fs_group;
use crate::node::Node;
use crate::planner::{Observed, State};
use crate::pod;
use crate::status::Waiting;
use crate::volumes;
use crate::worker::Worker;

const RETRY: Duration = Duration::from_secs(5);
const FIRST_PULL_RETRY: Duration = Duration::from_secs(10);
const MAX_PULL_RETRY: Duration = Duration::from_secs(300);

/// Why a container could not be made: a waiting reason and its message.
struct Refusal {
    reason: &'static str,
    message: String,
}

fn refuse(reason: &'static str) -> impl Fn(String) -> Refusal {
    move |message| Refusal { reason, message }
}

const CONFIG: &str = "CreateContainerConfigError";
const CREATE: &str = "CreateContainerError";

impl Worker {
    pub(crate) async fn create_sandbox(&mut self, pod: &Value, attempt: u32) -> Result<bool, Error> {
        match self.try_sandbox(pod, attempt).await {
            Ok(()) => {
                self.sandbox_failures = 0;
                self.memory.sandbox_retry = None;
                Ok(true)
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", chain(&error));
                self.node.recorder.warning(pod, "FailedCreatePodSandBox", message);
                self.sandbox_failures = (self.sandbox_failures + 1).min(4);
                let pause = Duration::from_secs(1 << self.sandbox_failures);
                self.memory.sandbox_retry = Some(now().plus(pause));
                Ok(false)
            }
        }
    }

    async fn try_sandbox(&mut self, pod: &Value, attempt: u32) -> Result<(), Error> {
        let dns = container::dns(pod, self.node.cluster_dns, &self.node.cluster_domain, &self.node.host_dns);
        let hostname = container::hostname(pod, &self.node.cluster_domain);
        if hostname.len() > 64 {
            let (length, which) = (hostname.len(), format!("FQDN {hostname} is too long"));
            return Err(Error::Volume(format!(
                "Failed to construct FQDN from pod hostname and cluster domain, {which} (64 characters is the max, \
                 {length} characters requested)"
            )));
        }
        let mut spec = container::sandbox(pod, attempt, dns, hostname);
        spec.id = random_id().await?;
        let id = spec.id.clone();
        // Before it is made, so that none of its events is missed.
        self.node.wakers.lock().insert(id.clone(), self.notify.clone());
        self.sandboxes.push(id.clone());
        let (uid, older, pod) = (self.uid.clone(), self.sandboxes.clone(), pod.clone());
        let made = self.node.blocking(move |node| make_sandbox(node, &pod, &uid, spec, &older)).await?;
        match made {
            Ok(ips) => self.pod_ips = ips,
            Err(error) => {
                self.sandboxes.retain(|s| *s != id);
                self.node.wakers.lock().remove(&id);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes and starts a container; whether something runs that didn't.
    pub(crate) async fn start(
        &mut self,
        pod: &Value,
        observed: &Observed,
        name: &str,
        attempt: u32,
    ) -> Result<bool, Error> {
        let Some(spec) = pod::container(pod, name) else { return Ok(false) };
        self.forget_old_runs(observed, name).await?;
        let Some(image) = self.image(pod, spec, name).await? else { return Ok(false) };
        match self.make(pod, spec, &image, observed, attempt).await? {
            Ok(()) => {
                self.memory.retry.remove(name);
                self.waiting.remove(name);
                Ok(true)
            }
            Err(refusal) => {
                self.event(pod, "Warning", "Failed", format!("Error: {}", refusal.message), name);
                let started = refusal.reason == "RunContainerError";
                let waiting = Waiting { reason: refusal.reason.to_owned(), message: refusal.message };
                self.waiting.insert(name.to_owned(), waiting);
                if !started {
                    self.memory.retry.insert(name.to_owned(), now().plus(RETRY));
                }
                // One that could not be executed counts as a run, and backs off as such.
                Ok(started)
            }
        }
    }

    /// Keeps one run beside the one to come.
    async fn forget_old_runs(&self, observed: &Observed, name: &str) -> Result<(), Error> {
        let latest = observed.latest(name).map(|i| i.id.clone());
        let old = observed.instances.iter().filter(|i| i.name == name && i.state != State::Running);
        for id in old.filter(|i| Some(&i.id) != latest.as_ref()).map(|i| i.id.clone()) {
            self.node
                .blocking(move |node| -> Result<(), Error> {
                    let status = node.runtime.container_status(&id)?;
                    node.runtime.remove_container(&id)?;
                    node.images.store().release(&id)?;
                    if let Some(log) = status.spec.log {
                        remove_logs(&log.path);
                    }
                    Ok(())
                })
                .await??;
        }
        Ok(())
    }

    /// The container's image, if it is in the store; otherwise says why the container waits.
    async fn image(&mut self, pod: &Value, spec: &Value, name: &str) -> Result<Option<Image>, Error> {
        let wanted = spec["image"].str();
        let found = match self.node.images.resolve(wanted).await {
            Ok(found) => found,
            Err(canopus_images::ImageError::Name(error)) => {
                let message = format!(
                    "Failed to apply default image tag {wanted:?}: couldn't parse image name {wanted:?}: {error}"
                );
                self.event(pod, "Warning", "InspectFailed", message.clone(), name);
                self.event(pod, "Warning", "Failed", "Error: InvalidImageName".to_owned(), name);
                self.wait(name, "InvalidImageName", message, FIRST_PULL_RETRY);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(image) = found {
            let message = match spec["imagePullPolicy"].str() {
                "Always" => format!(
                    "Container image {wanted:?} already present on machine and used as it is: no registry is configured"
                ),
                _ => format!("Container image {wanted:?} already present on machine and can be accessed by the pod"),
            };
            self.event(pod, "Normal", "Pulled", message, name);
            self.pulls.remove(name);
            return Ok(Some(image));
        }
        self.image_missing(pod, spec, name, wanted);
        Ok(None)
    }

    fn image_missing(&mut self, pod: &Value, spec: &Value, name: &str, wanted: &str) {
        if spec["imagePullPolicy"].str() == "Never" {
            let message = format!("Container image {wanted:?} is not present with pull policy of Never");
            self.event(pod, "Warning", "ErrImageNeverPull", message.clone(), name);
            self.event(pod, "Warning", "Failed", "Error: ErrImageNeverPull".to_owned(), name);
            return self.wait(name, "ErrImageNeverPull", message, FIRST_PULL_RETRY);
        }
        let why =
            format!("image {wanted:?} is not in this node's image store and no registry is configured: not found");
        match self.pulls.get(name).copied() {
            Some((_, due)) if due > now() => {
                let message = format!("Back-off pulling image {wanted:?}");
                self.event(pod, "Normal", "BackOff", message.clone(), name);
                self.event(pod, "Warning", "Failed", "Error: ImagePullBackOff".to_owned(), name);
                let message = format!("{message}: ErrImagePull: {why}");
                self.wait(name, "ImagePullBackOff", message, due.since(now()));
            }
            previous => {
                self.event(pod, "Normal", "Pulling", format!("Pulling image {wanted:?}"), name);
                self.event(pod, "Warning", "Failed", format!("Failed to pull image {wanted:?}: {why}"), name);
                self.event(pod, "Warning", "Failed", "Error: ErrImagePull".to_owned(), name);
                let delay = previous.map_or(FIRST_PULL_RETRY, |(d, _)| (d * 2).min(MAX_PULL_RETRY));
                self.pulls.insert(name.to_owned(), (delay, now().plus(delay)));
                // Shortly after, the back-off shows.
                self.wait(name, "ErrImagePull", why, Duration::from_secs(2));
            }
        }
    }

    fn wait(&mut self, name: &str, reason: &str, message: String, retry: Duration) {
        self.waiting.insert(name.to_owned(), Waiting { reason: reason.to_owned(), message });
        self.memory.retry.insert(name.to_owned(), now().plus(retry));
    }

    async fn make(
        &mut self,
        pod: &Value,
        spec: &Value,
        image: &Image,
        observed: &Observed,
        attempt: u32,
    ) -> Result<Result<(), Refusal>, Error> {
        let name = spec["name"].str().to_owned();
        let Some(sandbox) = observed.sandbox.as_ref().map(|s| s.id.clone()) else { return Ok(Ok(())) };
        let id = random_id().await?;
        let made = match self.specify(pod, spec, image, &id, attempt).await? {
            Ok(container) => self
                .node
                .blocking(move |node| node.runtime.create_container(&sandbox, container))
                .await?
                .map_err(|e| refuse(CREATE)(chain(&e))),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = made {
            self.node.images.release(&id).await?;
            return Ok(Err(refusal));
        }
        self.event(pod, "Normal", "Created", "Container created".to_owned(), &name);
        let started = self.node.blocking(move |node| node.runtime.start_container(&id)).await?;
        if let Err(error) = started {
            return Ok(Err(refuse("RunContainerError")(chain(&error))));
        }
        self.event(pod, "Normal", "Started", "Container started".to_owned(), &name);
        Ok(Ok(()))
    }

    async fn specify(
        &mut self,
        pod: &Value,
        spec: &Value,
        image: &Image,
        id: &str,
        attempt: u32,
    ) -> Result<Result<ContainerSpec, Refusal>, Error> {
        let refs = self.references(spec).await?;
        let services = self.node.service_env(pod);
        let env = match env::environment(spec, &self.facts(pod), &refs, &services) {
            Ok(env) => env,
            Err(message) => return Ok(Err(refuse(CONFIG)(message))),
        };
        let rootfs = match self.node.images.rootfs(image.clone(), id, false).await {
            Ok(rootfs) => rootfs,
            Err(error) => return Ok(Err(refuse(CREATE)(chain(&error)))),
        };
        let (user, home) = match self.user(pod, spec, image, &rootfs).await {
            Ok(user) => user,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let seccomp = match self.seccomp(pod, &spec["securityContext"]).await {
            Ok(seccomp) => seccomp,
            Err(message) => return Ok(Err(refuse(CREATE)(message))),
        };
        let (name, dir) = (spec["name"].str(), self.node.pod_dir(&self.uid));
        let logs = self.node.pod_logs(&self.namespace, &self.name, &self.uid).join(name);
        let termination_log = dir.join("containers").join(name).join(&id[..8.min(id.len())]);
        let (owned_pod, owned, env_pairs) = (pod.clone(), spec.clone(), env.clone());
        let termination = termination_log.clone();
        let mounts = self.node.blocking(move |_| mounts(&owned_pod, &owned, &dir, &termination, &env_pairs)).await?;
        let mounts = match mounts {
            Ok(mounts) => mounts,
            Err(message) => return Ok(Err(refuse(CONFIG)(message))),
        };
        Ok(Ok(container::container(Parts {
            pod,
            container: spec,
            id: id.to_owned(),
            attempt,
            image_id: image.repo_digests.first().unwrap_or(&image.id).clone(),
            image: &image.config,
            rootfs,
            user,
            home,
            seccomp,
            hostname: container::hostname(pod, &self.node.cluster_domain),
            devices: if spec["securityContext"]["privileged"].bool() { devices::all() } else { Vec::new() },
            env,
            mounts,
            log: logs.join(format!("{attempt}.log")),
            termination_log,
            memory_capacity: self.node.memory_capacity,
        })))
    }

    /// The profile a container is confined by; a local one is read from the node's `seccomp` directory.
    async fn seccomp(&self, pod: &Value, security: &Value) -> Result<Seccomp, String> {
        let own = &security["seccompProfile"];
        let profile = if own.is_null() { &pod["spec"]["securityContext"]["seccompProfile"] } else { own };
        match profile["type"].str() {
            _ if security["privileged"].bool() => Ok(Seccomp::Unconfined),
            "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
            "Localhost" => {
                let name = profile["localhostProfile"].str();
                let clean = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
                let path = self.node.state_dir.join("seccomp").join(name);
                if !clean || name.is_empty() {
                    return Err(format!("invalid seccomp profile path {name:?}"));
                }
                let text = tokio::fs::read_to_string(&path).await;
                text.map(Seccomp::Profile)
                    .map_err(|e| format!("cannot load seccomp profile {:?}: {e}", path.display().to_string()))
            }
            _ => Ok(Seccomp::Unconfined),
        }
    }

    /// The ConfigMaps and Secrets that the container's environment is made of.
    async fn references(&self, spec: &Value) -> Result<References, Error> {
        let mut refs = References::new();
        let from = spec["envFrom"].items().iter().map(|s| (&s["configMapRef"], &s["secretRef"]));
        let keys = spec["env"].items().iter().map(|v| &v["valueFrom"]);
        let keys = keys.map(|s| (&s["configMapKeyRef"], &s["secretKeyRef"]));
        for (map, secret) in from.chain(keys) {
            for (kind, plural, reference) in [("ConfigMap", "configmaps", map), ("Secret", "secrets", secret)] {
                let name = reference["name"].str();
                let key = (kind, name.to_owned());
                if reference.is_null() || refs.contains_key(&key) {
                    continue;
                }
                let target = Target::new(&Gvr::new("", "v1", plural), &self.namespace, name);
                match self.node.api.get(&target).await {
                    Ok(object) => {
                        refs.insert(key, (*object.value()).clone());
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(refs)
    }

    /// Who the container runs as, and their home directory.
    async fn user(&self, pod: &Value, spec: &Value, image: &Image, rootfs: &Path) -> Result<(User, String), Refusal> {
        let shared = &pod["spec"]["securityContext"];
        let own = &spec["securityContext"];
        let number = |field: &str| {
            let value = own[field].as_i64().or_else(|| shared[field].as_i64());
            value.and_then(|v| u32::try_from(v).ok())
        };
        let wanted = number("runAsUser").map_or_else(|| image.config.user.clone(), |uid| uid.to_string());
        let resolved = self.node.images.user(rootfs, &wanted).await.map_err(|e| refuse(CREATE)(chain(&e)))?;
        let non_root = own["runAsNonRoot"].as_bool().or_else(|| shared["runAsNonRoot"].as_bool());
        if non_root == Some(true)
            && let Some(why) = container::root_refusal(number("runAsUser"), &image.config.user)
        {
            let who = format!("(pod: {:?}, container: {})", pod::format(pod), spec["name"].str());
            return Err(refuse(CONFIG)(format!("{why} {who}")));
        }
        let mut groups: Vec<u32> = match shared["supplementalGroupsPolicy"].str() {
            "Strict" => Vec::new(),
            _ => resolved.additional_gids.clone(),
        };
        groups.extend(shared["supplementalGroups"].items().iter().filter_map(|g| u32::try_from(g.int()).ok()));
        groups.extend(fs_group(pod));
        groups.sort_unstable();
        groups.dedup();
        let gid = number("runAsGroup").unwrap_or(resolved.gid);
        Ok((User { uid: resolved.uid, gid, supplementary_groups: groups }, resolved.home))
    }
}

/// Makes the sandbox, its network and its hosts file, and marks it complete. Blocks.
fn make_sandbox(
    node: &Node,
    pod: &Value,
    uid: &str,
    spec: SandboxSpec,
    older: &[String],
) -> Result<Vec<IpAddr>, Error> {
    let (id, mut annotations) = (spec.id.clone(), spec.annotations.clone());
    for old in older.iter().filter(|old| **old != id) {
        retire(node, old)?;
    }
    let status = node.runtime.run_sandbox(spec)?;
    let finish = || -> Result<Vec<IpAddr>, Error> {
        let ips = match &status.netns {
            None => Vec::new(),
            Some(netns) => {
                node.network.detach(uid)?;
                node.network.attach(netns, uid)?.ips
            }
        };
        let shown: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        let host = pod["spec"]["hostNetwork"].bool().then(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
        let hosts = container::etc_hosts(pod, &ips, &node.cluster_domain, host.as_deref());
        let dir = node.pod_dir(uid);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("etc-hosts"), hosts)?;
        annotations.insert(container::POD_IPS.to_owned(), shown.join(","));
        node.runtime.annotate_sandbox(&id, annotations)?;
        Ok(if status.netns.is_none() { vec![node.ip] } else { ips })
    };
    finish().inspect_err(|_| {
        // A sandbox without a network is no use; the first error is the one to tell.
        if let Err(error) = node.runtime.remove_sandbox(&status.id) {
            tracing::warn!(%error, "failed to remove an unfinished sandbox");
        }
    })
}

/// Stops a former sandbox, which stays only to tell how its containers ended.
fn retire(node: &Node, sandbox: &str) -> Result<(), Error> {
    let gone = |result: canopus_runtime::Result<()>| match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    gone(node.runtime.stop_sandbox(sandbox))?;
    match node.runtime.list_containers(Some(sandbox)) {
        Ok(containers) if containers.is_empty() => Ok(gone(node.runtime.remove_sandbox(sandbox))?),
        _ => Ok(()),
    }
}

/// The container's mounts. Blocks.
fn mounts(
    pod: &Value,
    spec: &Value,
    dir: &Path,
    termination_log: &Path,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut list = Vec::new();
    for (index, mount) in spec["volumeMounts"].items().iter().enumerate() {
        let name = mount["name"].str();
        let volume = pod["spec"]["volumes"].items().iter().find(|v| v["name"].str() == name);
        let volume = volume.ok_or_else(|| format!("volume {name:?} is not in the pod"))?;
        let mut source = volumes::path(dir, volume);
        let lookup = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let sub = match mount["subPathExpr"].str() {
            "" => mount["subPath"].str().to_owned(),
            expression => env::expand(expression, lookup),
        };
        if volumes::kind(volume) == "hostPath" && !source.exists() {
            // As upstream's runtimes: a host path without a type is made.
            std::fs::create_dir_all(&source).map_err(|e| format!("failed to create {}: {e}", source.display()))?;
        }
        if !sub.is_empty() {
            let target = dir.join("volume-subpaths").join(name).join(spec["name"].str()).join(index.to_string());
            volumes::subpath::bind(&source, &sub, &target)?;
            source = target;
        }
        list.push(container::volume_mount(mount, &source, volumes::has_payload(volume)));
    }
    let taken = |list: &[Mount], path: &str| list.iter().any(|m| m.destination == Path::new(path));
    if !taken(&list, "/etc/hosts") {
        list.push(Mount::bind(dir.join("etc-hosts"), "/etc/hosts", false));
    }
    let inside = match spec["terminationMessagePath"].str() {
        "" => "/dev/termination-log",
        path => path,
    };
    let failed = |e: std::io::Error| format!("failed to create {}: {e}", termination_log.display());
    if let Some(parent) = termination_log.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(termination_log, "").map_err(failed)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(termination_log, open).map_err(failed)?;
    if !taken(&list, inside) {
        list.push(Mount::bind(termination_log, inside, false));
    }
    Ok(list)
}

/// A log and what rotation has made of it. Logs are only logs: what cannot be removed goes with the pod.
fn remove_logs(path: &Path) {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return };
    let name = name.to_string_lossy().into_owned();
    let rotated: Vec<PathBuf> = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()).collect();
    for file in rotated {
        let own = file.file_name().is_some_and(|f| f.to_string_lossy().starts_with(&name));
        if own && let Err(error) = std::fs::remove_file(&file) {
            tracing::debug!(%error, file = %file.display(), "failed to remove a log");
        }
    }
}

/// 64 hexadecimal digits.
async fn random_id() -> std::io::Result<String> {
    let mut bytes = [0_u8; 32];
    tokio::fs::File::open("/dev/urandom").await?.read_exact(&mut bytes).await?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// An error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}
