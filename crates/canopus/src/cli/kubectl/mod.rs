//! `canopus kubectl`: a small client of the cluster's API, for hosts that have no kubectl. Names, options and output are
//! kubectl's; what it does not have, kubectl has.

mod apply;
mod columns;
mod delete;
mod discovery;
mod error;
mod exec;
mod files;
mod get;
mod logs;
mod pods;
mod print;
mod select;
mod session;
mod terminal;
mod until;
mod wait;
mod watch;
mod websocket;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use session::Session;
use std::path::PathBuf;
use std::process::ExitCode;

/// Talk to a cluster: a small built-in kubectl
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl get pods -A -o wide
  canopus kubectl apply -f app.yaml
  canopus kubectl wait --for=condition=Available deployment/hello
  canopus kubectl logs -f deployment/hello
  canopus kubectl exec -it hello-0 -- sh
  canopus kubectl delete -f app.yaml")]
pub struct KubectlArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

/// Which cluster, and where in it.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// Path of the kubeconfig [default: the first there is of $KUBECONFIG, ~/.kube/config, /var/lib/canopus/kubeconfig]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace [default: that of the kubeconfig]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
}

#[derive(Subcommand)]
enum Verb {
    Get(get::GetArgs),
    Apply(apply::ApplyArgs),
    Delete(delete::DeleteArgs),
    Logs(logs::LogsArgs),
    Exec(exec::ExecArgs),
    Wait(wait::WaitArgs),
}

pub fn run(args: KubectlArgs) -> ExitCode {
    match execute(args) {
        Ok(code) => code,
        Err(error) => {
            error::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn execute(args: KubectlArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the async runtime")?;
    let code = runtime.block_on(async {
        let session = Session::open(&args.connection)?;
        match args.verb {
            Verb::Get(args) => get::run(&session, &args).await,
            Verb::Apply(args) => apply::run(&session, &args).await,
            Verb::Delete(args) => delete::run(&session, &args).await,
            Verb::Logs(args) => logs::run(&session, &args).await,
            Verb::Exec(args) => exec::run(&session, &args).await,
            Verb::Wait(args) => wait::run(&session, &args).await,
        }
    });
    // A thread may still be reading standard input; nobody waits for it.
    runtime.shutdown_background();
    code
}
