//! The command line: one file per command, with its arguments, its help and what it does.

pub mod auth;
mod completion;
mod image;
mod install;
mod kubeconfig;
mod kubectl;
mod output;
mod reset;
mod uninstall;
mod up;
mod version;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub use output::print as say;
pub use reset::ResetArgs;
pub use up::UpArgs;
pub use version::OWN as VERSION;

/// Where everything Canopus keeps is, unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/canopus";
/// The control group with the pods, unless told otherwise.
pub const CGROUP_ROOT: &str = "canopus";

/// Kubernetes in one binary: API server, scheduler, controllers, node agent, containers, network and DNS.
#[derive(Parser)]
#[command(
    name = "canopus",
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
To begin, as root:
  canopus up                        in one terminal
  canopus kubectl get pods -A       in another

Every command has examples: canopus COMMAND --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(Box<up::UpArgs>),
    Reset(reset::ResetArgs),
    Image(image::ImageArgs),
    Kubeconfig(kubeconfig::KubeconfigArgs),
    Kubectl(kubectl::KubectlArgs),
    Install(install::InstallArgs),
    Uninstall(uninstall::UninstallArgs),
    Completion(completion::CompletionArgs),
    Version(version::VersionArgs),
}

/// The option that nearly every command has.
#[derive(Args, Clone, Debug)]
pub struct DataDir {
    /// Directory with everything Canopus keeps
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "CANOPUS_DATA_DIR", hide_env_values = true)]
    pub data_dir: PathBuf,
}

impl DataDir {
    pub fn join(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }
}

/// Reads the command line and carries it out. Exit status: 0 all is well, 1 it failed, 2 wrong usage (of kubectl, 1); of
/// `kubectl exec` the command's own.
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let result = match cli.command {
        Command::Up(args) => up::run(*args),
        Command::Reset(args) => reset::run(args),
        Command::Image(args) => image::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Kubectl(args) => return kubectl::run(args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Version(args) => version::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (Command::Up(args), Some((name, matches))) = (&mut cli.command, matches.subcommand()) {
        args.flags = command.find_subcommand(name).map(|up| flags(up, matches)).unwrap_or_default();
    }
    Ok(cli)
}

/// What every flag of a command is set to; "" if it is not.
fn flags(command: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let value = |arg: &clap::Arg| {
        let name = arg.get_long()?;
        let id = arg.get_id().as_str();
        let all = matches.try_get_raw(id).ok()?.into_iter().flatten().map(|value| value.to_string_lossy());
        Some((name.to_string(), all.collect::<Vec<_>>().join(",")))
    };
    command.get_arguments().filter(|arg| arg.get_id() != "help").filter_map(value).collect()
}

/// Says what is wrong with the command line, or what help was asked for. kubectl's exit status for wrong usage is 1.
fn misused(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a terminal that is gone.
    let _ = error.print();
    let kubectl = std::env::args_os().nth(1).is_some_and(|verb| verb == "kubectl");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if kubectl => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

/// The whole command line, for completion scripts.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// The arguments of `canopus up LINE`.
    pub fn up_args(line: &str) -> UpArgs {
        let line = ["canopus", "up"].into_iter().chain(line.split_whitespace());
        match parse(line.map(OsString::from)).unwrap().command {
            Command::Up(args) => *args,
            _ => unreachable!("the line begins with up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_they_are_set() {
        let args = testing::up_args("--secure-port 7443 --feature-gates A=true,B=false --tls-san x");
        let shown = |name: &str| args.flags[name].as_str();
        let set = ["secure-port", "feature-gates", "tls-san", "service-node-port-range", "node-name"].map(shown);
        assert_eq!(set, ["7443", "A=true,B=false", "x", "30000-32767", ""]);
    }

    /// Every command, by its full name.
    fn all(command: &clap::Command, prefix: &str, out: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands() {
            let name = format!("{prefix}{}", sub.get_name());
            out.push((name.clone(), sub.clone()));
            all(sub, &format!("{name} "), out);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_gives_examples() {
        let mut commands = Vec::new();
        all(&command(), "", &mut commands);
        for (name, command) in commands {
            assert!(command.get_about().is_some(), "{name}");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = examples.contains(&format!("canopus {name}"));
            assert!(examples.starts_with("Examples:\n") && own, "{name}: {examples}");
        }
    }

    /// The help of what people meet first, as it is in help.txt. After a change: CANOPUS_UPDATE=1 cargo test -p canopus
    #[test]
    fn help_reads_as_it_should() {
        let mut commands = Vec::new();
        let mut whole = command().term_width(100);
        whole.build();
        all(&whole, "", &mut commands);
        let mut text = format!("$ canopus -h\n{}", whole.render_help());
        // That of `up` changes with every component.
        for (name, command) in commands.iter().filter(|(name, _)| name != "up" && !name.contains("help")) {
            text += &format!("\n$ canopus {name} -h\n{}", command.clone().render_help());
        }
        let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let file = "src/cli/help.txt";
        if std::env::var_os("CANOPUS_UPDATE").is_some() {
            std::fs::write(file, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(file).unwrap());
    }

    #[test]
    fn the_data_directory_is_the_same_everywhere() {
        for line in ["canopus image ls", "canopus kubeconfig", "canopus install"] {
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            let mut at = &matches;
            while let Some((_, deeper)) = at.subcommand() {
                at = deeper;
            }
            assert_eq!(at.get_one::<PathBuf>("data_dir").unwrap(), &PathBuf::from(DATA_DIR), "{line}");
        }
    }

    #[test]
    fn kubectl_takes_its_options_before_and_after_the_verb() {
        for line in [
            "canopus kubectl -n ns get pods,svc -o wide",
            "canopus kubectl get pods -n ns -A -l app=x -o jsonpath={.items[*].metadata.name}",
            "canopus kubectl wait --for=condition=Ready node --all --timeout=60s",
            "canopus kubectl exec -it x -c y -- sh -c ls",
            "canopus kubectl logs -f --previous x -c y --tail=3",
            "canopus kubectl apply -f a -f - --kubeconfig k",
            "canopus kubectl delete -f a --ignore-not-found --wait=false",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in
            ["canopus kubectl get pods -o xml", "canopus kubectl wait pod/x", "canopus kubectl apply", "canopus"]
        {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
