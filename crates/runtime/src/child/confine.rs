//! The container's seccomp profile for exec sessions, which libcontainer leaves without one.
//!
//! Without no-new-privileges a filter takes CAP_SYS_ADMIN to install, so the process keeps that
//! (and CAP_SETPCAP, to give it up again) until right before its command is executed.

use std::fs;
use std::io;
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::{capabilities, seccomp};
use serde::Deserialize;
use serde_json::{Value, json};

/// What remains to be done by the process itself.
#[derive(Clone)]
pub(super) struct Confinement {
    seccomp: LinuxSeccomp,
    /// What to come down to, if more was kept.
    capabilities: Option<LinuxCapabilities>,
}

impl Confinement {
    /// Reads the container's profile from the `config.json` beside a process description; adjusts
    /// the description if need be.
    pub(super) fn of_exec(process_file: &Path) -> io::Result<Option<Self>> {
        let config: Value = serde_json::from_slice(&fs::read(process_file.with_file_name("config.json"))?)?;
        let Some(profile) = config.pointer("/linux/seccomp") else { return Ok(None) };
        let seccomp = LinuxSeccomp::deserialize(profile)?;
        let mut process: Value = serde_json::from_slice(&fs::read(process_file)?)?;
        if process["noNewPrivileges"] == json!(true) {
            return Ok(Some(Self { seccomp, capabilities: None }));
        }
        let wanted = LinuxCapabilities::deserialize(&process["capabilities"])?;
        for set in ["bounding", "effective", "permitted"] {
            if let Some(list) = process["capabilities"][set].as_array_mut() {
                for more in ["CAP_SYS_ADMIN", "CAP_SETPCAP"].map(Value::from) {
                    if !list.contains(&more) {
                        list.push(more);
                    }
                }
            }
        }
        fs::write(process_file, serde_json::to_vec(&process)?)?;
        Ok(Some(Self { seccomp, capabilities: Some(wanted) }))
    }

    /// In the process, right before its command.
    pub(super) fn apply(&self) -> Result<(), String> {
        match seccomp::initialize_seccomp(&self.seccomp) {
            Ok(None) => {}
            Ok(Some(_)) => return Err("seccomp notification is not supported for exec".to_owned()),
            Err(e) => return Err(format!("failed to install the seccomp filter: {}", super::error_chain(&e))),
        }
        if let Some(wanted) = &self.capabilities {
            let dropped = capabilities::drop_privileges(wanted, create_syscall().as_ref());
            dropped.map_err(|e| format!("failed to drop capabilities: {}", super::error_chain(&e)))?;
        }
        Ok(())
    }
}
