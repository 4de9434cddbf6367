//! `canopus uninstall`: takes away what `canopus install` put there.

use super::install::{UNIT, UNIT_PATH, has_systemd, systemctl};
use super::output;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::Path;

/// Stop the cluster and remove its systemd unit; containers and data stay (see `canopus reset`)
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus uninstall
  canopus uninstall && canopus reset")]
pub struct UninstallArgs {}

pub fn run(_: &UninstallArgs) -> Result<()> {
    if !Path::new(UNIT_PATH).exists() {
        return output::print(&format!("{UNIT_PATH} is not there: nothing to do\n"));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("removing a systemd unit needs root");
    }
    if has_systemd() {
        systemctl(&["disable", "--now", UNIT])?;
    }
    fs::remove_file(UNIT_PATH).with_context(|| format!("failed to remove {UNIT_PATH}"))?;
    output::print(&format!("removed {UNIT_PATH}\n"))?;
    if has_systemd() {
        systemctl(&["daemon-reload"])?;
    }
    output::print("containers and data are untouched; `canopus reset` removes them\n")
}
