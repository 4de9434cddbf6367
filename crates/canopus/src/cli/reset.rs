//! `canopus reset`: as if Canopus had never run here.

use super::DataDir;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{IsTerminal, Write};

/// Stop all containers and remove everything Canopus made on this host, data included
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  canopus reset
  canopus reset --yes --data-dir /srv/canopus")]
pub struct ResetArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// Name of the control group with the pods [default: the one that `canopus up` was given]
    #[arg(long, value_name = "NAME")]
    pub cgroup_root: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

pub fn run(args: ResetArgs) -> Result<()> {
    if !args.yes && !confirmed(&args)? {
        bail!("nothing was removed");
    }
    crate::up::reset(args)
}

fn confirmed(args: &ResetArgs) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!(
            "this removes all containers and {}: say --yes to do it without a terminal",
            args.data.data_dir.display()
        );
    }
    eprint!("This stops all of Canopus's containers and removes {}. Go on? [y/N] ", args.data.data_dir.display());
    std::io::stderr().flush().context("failed to write to the terminal")?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).context("failed to read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
