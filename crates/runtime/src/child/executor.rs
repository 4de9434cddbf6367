//! Executing a container's command, with runc's messages when that fails.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use super::confine::Confinement;

/// Writes why a command cannot be executed to a pipe that closes when it is.
#[derive(Clone)]
pub(super) struct CommandExecutor {
    pipe: Arc<File>,
    confinement: Option<Confinement>,
}

impl CommandExecutor {
    pub(super) fn new(pipe: OwnedFd, confinement: Option<Confinement>) -> Self {
        Self { pipe: Arc::new(File::from(pipe)), confinement }
    }

    fn say(&self, message: &str) {
        // Nobody is left to tell if this fails.
        let _ = (&*self.pipe).write_all(message.as_bytes());
    }
}

fn args(spec: &Spec) -> Option<&Vec<String>> {
    spec.process().as_ref().and_then(|p| p.args().as_ref())
}

impl Executor for CommandExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = args(spec).ok_or(ExecutorError::InvalidArg)?;
        let text = |s: &String| CString::new(s.as_bytes()).map_err(|_| ExecutorError::InvalidArg);
        let argv = args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let path = find(&args[0], std::env::var("PATH").unwrap_or_default().as_str());
        let path = path.unwrap_or_else(|_| PathBuf::from(&args[0]));
        let program = text(&path.to_string_lossy().into_owned())?;
        if let Some(Err(message)) = self.confinement.as_ref().map(Confinement::apply) {
            self.say(&message);
            return Err(ExecutorError::Other(message));
        }
        let failed = nix::unistd::execv(&program, &argv).unwrap_err();
        let message = format!("exec {}: {}", path.display(), reason(&io::Error::from(failed)));
        self.say(&message);
        Err(ExecutorError::Other(message))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refuse = |message: String| {
            self.say(&message);
            Err(ExecutorValidationError::ArgValidationError(message))
        };
        let Some(name) = args(spec).and_then(|a| a.first()) else {
            return refuse("no command specified".to_owned());
        };
        let env = spec.process().as_ref().and_then(|p| p.env().as_ref());
        let path = env.into_iter().flatten().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
        match find(name, path) {
            Ok(_) => Ok(()),
            Err(why) => refuse(format!("exec: {name:?}: {why}")),
        }
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        let old: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
        // SAFETY: this process has one thread.
        old.iter().for_each(|name| unsafe { std::env::remove_var(name) });
        for (name, value) in envs.iter().filter(|(name, _)| !name.is_empty()) {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(name, value) };
        }
        Ok(())
    }
}

/// Where a command is, as a shell would look it up.
fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    let found = dirs.map(|dir| Path::new(dir).join(name)).find(|p| executable(p).is_ok());
    found.ok_or_else(|| "executable file not found in $PATH".to_owned())
}

fn executable(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|e| format!("stat {}: {}", path.display(), reason(&e)))?;
    match (meta.is_dir(), meta.permissions().mode() & 0o111) {
        (true, _) => Err("is a directory".to_owned()),
        (false, 0) => Err("permission denied".to_owned()),
        _ => Ok(()),
    }
}

/// An errno in Go's spelling.
fn reason(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_or_the_reason_given() {
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("no-such", "/bin").unwrap_err(), "executable file not found in $PATH");
        assert_eq!(find("/no/such", "").unwrap_err(), "stat /no/such: no such file or directory");
        assert_eq!(find("/etc", "").unwrap_err(), "is a directory");
        assert_eq!(find("/etc/passwd", "").unwrap_err(), "permission denied");
    }
}
