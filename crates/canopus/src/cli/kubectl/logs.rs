//! `kubectl logs`.

use super::session::{Session, with_query};
use super::{pods, until};
use crate::cli::output;
use anyhow::{Context, Result, bail};
use canopus_api::{Gvr, Status, Target};
use canopus_client::remote;
use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use std::process::ExitCode;

/// Show what a container printed
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl logs hello
  canopus kubectl logs -f deployment/hello -c web --tail=20
  canopus kubectl logs hello --previous")]
pub struct LogsArgs {
    /// A pod's name, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD|TYPE/NAME")]
    pod: String,
    /// The container
    container: Option<String>,
    /// The container
    #[arg(short = 'c', long = "container", value_name = "NAME", conflicts_with = "container")]
    named: Option<String>,
    /// Go on as more is printed
    #[arg(short, long)]
    follow: bool,
    /// Of the container's previous run
    #[arg(short, long)]
    previous: bool,
    /// How many of the newest lines; negative: all
    #[arg(long, value_name = "LINES", default_value_t = -1, allow_hyphen_values = true)]
    tail: i64,
    /// Only what is newer than this, like 5m
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only what is newer than this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// Lines begin with their times
    #[arg(long)]
    timestamps: bool,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
}

pub async fn run(session: &Session, args: &LogsArgs) -> Result<ExitCode> {
    let pod = pods::find(session, &args.pod).await?;
    let (container, note) = pods::container(&pod, args.named.as_deref().or(args.container.as_deref()))?;
    if let Some(note) = note {
        eprintln!("{note}");
    }
    let metadata = &pod["metadata"];
    let pods = Gvr::new("", "v1", "pods");
    let target = Target::new(&pods, metadata["namespace"].str(), metadata["name"].str()).subresource("log");
    let path = path(&target, &container, args)?;
    let response = session.api.raw(Method::GET, &path, "*/*", "", Vec::new()).await?;
    if !response.status().is_success() {
        let status = remote::answer(response).await.err();
        return Err(status.unwrap_or_else(|| Status::internal("the server answered no logs")).into());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("failed to read the logs")?.into_data() {
            output::write_stdout(&data)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(target: &Target, container: &str, args: &LogsArgs) -> Result<String> {
    let flag = |on: bool| if on { "true" } else { "" };
    let tail = if args.tail >= 0 { args.tail.to_string() } else { String::new() };
    let since = match args.since.as_deref().map(until::duration).transpose()? {
        None => String::new(),
        Some(None) => bail!("--since must be greater than 0"),
        // Rounded up: what is asked for is not left out.
        Some(Some(since)) => (since.as_millis().div_ceil(1000)).to_string(),
    };
    let limit = args.limit_bytes.map(|n| n.to_string()).unwrap_or_default();
    let query = [
        ("container", container),
        ("follow", flag(args.follow)),
        ("previous", flag(args.previous)),
        ("tailLines", tail.as_str()),
        ("sinceSeconds", since.as_str()),
        ("sinceTime", args.since_time.as_deref().unwrap_or("")),
        ("timestamps", flag(args.timestamps)),
        ("limitBytes", limit.as_str()),
    ];
    Ok(with_query(&target.url_path(), &query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LogsArgs,
    }

    #[test]
    fn options_become_a_query() {
        let target = Target::new(&Gvr::new("", "v1", "pods"), "ns", "p").subresource("log");
        for (line, query) in [
            ("p", "container=c"),
            ("-f --previous p --tail 0", "container=c&follow=true&previous=true&tailLines=0"),
            ("p --tail=-1 --since 90s --timestamps", "container=c&sinceSeconds=90&timestamps=true"),
            ("p --since-time 2026-01-01T00:00:00Z", "container=c&sinceTime=2026-01-01T00%3A00%3A00Z"),
        ] {
            let args = Line::try_parse_from(std::iter::once("logs").chain(line.split_whitespace())).unwrap().args;
            assert_eq!(
                path(&target, "c", &args).unwrap(),
                format!("/api/v1/namespaces/ns/pods/p/log?{query}"),
                "{line}"
            );
        }
    }
}
