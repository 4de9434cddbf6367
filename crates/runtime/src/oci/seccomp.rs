//! Seccomp profiles as OCI's `linux.seccomp`.

use serde_json::{Value, json};

use super::Context;
use crate::error::{Error, Result};
use crate::spec::{ContainerSpec, Seccomp};

mod syscalls;

/// The native architecture and those whose programs it also runs.
const ARCHITECTURES: &[&str] = if cfg!(target_arch = "aarch64") {
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
} else {
    &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
};

/// Errors of calls that exist but are refused, and of calls unknown to the profile's kernel.
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

pub(super) fn profile(spec: &ContainerSpec, ctx: &Context) -> Result<Option<Value>> {
    if !super::confined(spec) {
        return Ok(None);
    }
    match &spec.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(runtime_default(&super::capabilities(spec, ctx)))),
        Seccomp::Profile(text) => {
            let profile: Value =
                serde_json::from_str(text).map_err(|e| Error::Invalid(format!("seccomp profile: {e}")))?;
            match profile.get("defaultAction").is_some_and(Value::is_string) {
                true => Ok(Some(profile)),
                false => Err(Error::Invalid("seccomp profile: no defaultAction".to_owned())),
            }
        }
    }
}

/// What container runtimes refuse by default: kernel modules, keyrings, mounts, tracing, clocks,
/// new namespaces and the like, each allowed again by the capability that governs it.
fn runtime_default(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|c| c == name);
    let mut names: Vec<&str> = syscalls::ALLOWED.to_vec();
    for (capability, calls) in syscalls::BY_CAPABILITY {
        if has(capability) {
            names.extend(calls.iter());
        }
    }
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // Personalities a program may ask for without changing how memory is laid out or checked.
    for value in [0u64, 8, 0x20000, 0x20008, 0xffff_ffff] {
        rules.push(json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        }));
    }
    // Any address family but AF_VSOCK, which reaches the hypervisor.
    rules.push(json!({
        "names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}],
    }));
    if !has("CAP_SYS_ADMIN") {
        // clone without any CLONE_NEW* flag. clone3 passes flags in memory, out of a filter's sight.
        rules.push(json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES,
        "syscalls": rules,
    })
}
