//! `canopus version`.

use anyhow::Result;
use clap::Args;

/// The version of the Kubernetes API that is served.
pub const KUBERNETES: &str = "v1.36.2";

/// Print the version
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus version
  canopus version --short")]
pub struct VersionArgs {
    /// Print nothing but Canopus's own version
    #[arg(long)]
    short: bool,
}

/// This program's own version.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

pub fn run(args: &VersionArgs) -> Result<()> {
    super::output::print(&text(args.short))
}

fn text(short: bool) -> String {
    if short {
        return format!("{OWN}\n");
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("canopus {OWN} (Kubernetes {KUBERNETES}, {os}/{arch})\n")
}
