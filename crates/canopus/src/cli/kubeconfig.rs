//! `canopus kubeconfig`: how clients reach the cluster.

use super::{DataDir, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::ErrorKind;

/// Print the administrator's kubeconfig of this host's cluster
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubeconfig > ~/.kube/config
  export KUBECONFIG=$(canopus kubeconfig --path)")]
pub struct KubeconfigArgs {
    #[command(flatten)]
    data: DataDir,
    /// Print the file's path instead of its contents
    #[arg(long)]
    path: bool,
}

pub fn run(args: &KubeconfigArgs) -> Result<()> {
    let path = args.data.join("kubeconfig");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no cluster in {} yet: start one with `canopus up`", args.data.data_dir.display())
        }
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    };
    if args.path {
        return output::print(&format!("{}\n", path.display()));
    }
    output::print(&text)
}
