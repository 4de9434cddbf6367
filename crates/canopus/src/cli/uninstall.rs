//! `canopus uninstall`: takes away what `canopus install` put there.

use super::install::{Root, UNIT, systemctl};
use super::output;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;

/// Stop the cluster and remove its systemd unit; containers and data stay (see `canopus reset`)
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus uninstall
  canopus uninstall && canopus reset")]
pub struct UninstallArgs {
    #[command(flatten)]
    root: Root,
}

pub fn run(args: &UninstallArgs) -> Result<()> {
    let path = args.root.unit();
    if !path.exists() {
        return output::print(&format!("{} is not there: nothing to do\n", path.display()));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("removing a systemd unit needs root (try it with sudo)");
    }
    if args.root.has_systemd() {
        systemctl(&["disable", "--now", UNIT])?;
    }
    fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    output::print(&format!("removed {}\n", path.display()))?;
    if args.root.has_systemd() {
        systemctl(&["daemon-reload"])?;
    }
    output::print("containers and data are untouched; `canopus reset` removes them\n")
}
