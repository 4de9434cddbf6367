//! `canopus completion`: scripts for shells.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus completion bash > /etc/bash_completion.d/canopus
  source <(canopus completion zsh)
  canopus completion fish > ~/.config/fish/completions/canopus.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_parser = clap::builder::EnumValueParser::<Supported>::new())]
    shell: Supported,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &CompletionArgs) -> Result<()> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "canopus", &mut script);
    super::output::write_stdout(&script)
}
