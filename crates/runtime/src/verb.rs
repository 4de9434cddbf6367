//! How a shim speaks to a runtime child: what both need to know.

use std::os::fd::RawFd;

/// `argv[0]` by which a program knows that it is to be a runtime child.
pub(crate) const CHILD_NAME: &str = "canopus-runtime-child";
/// Socket for the report; the standard streams follow.
pub(crate) const FIRST_FD: RawFd = 3;

/// What a runtime child does. Arguments: libcontainer's root, container, cgroup, and a bundle
/// (start) or a process description (exec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    StartTty,
    Exec,
    ExecTty,
}

impl Verb {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::StartTty, Self::Exec, Self::ExecTty];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::StartTty => "start-tty",
            Self::Exec => "exec",
            Self::ExecTty => "exec-tty",
        }
    }

    pub(crate) fn tty(self) -> bool {
        matches!(self, Self::StartTty | Self::ExecTty)
    }
}
