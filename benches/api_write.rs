//! `api-write`: durable creates, updates and gets of pods of about 3 KB through HTTPS, by 1, 16, 64 and 256 clients, each
//! waiting for an answer before it sends the next request. Server and load generator share the machine.

use anyhow::Result;
use bytes::Bytes;
use canopus_benches::load::Load;
use canopus_benches::objects::{PendingPod, turned};
use canopus_benches::{Bench, Report, run, seconds, usage};
use http::Method;
use std::cell::Cell;

/// As many clients share a connection.
const SHARE: usize = 8;

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("api-write");
        let bench = Bench::started().await?;
        let (server, time) = (bench.pid()?, seconds(4));
        let pod = PendingPod::new()?;
        let mut api = bench.connect().await?;
        for clients in [1_usize, 16, 64, 256] {
            let namespace = format!("clients-{clients}");
            bench.namespace(&mut api, &namespace).await?;
            let pods = format!("/api/v1/namespaces/{namespace}/pods");
            let mut connections = Vec::new();
            for _ in 0..clients.div_ceil(SHARE) {
                connections.push(bench.connect().await?);
            }
            let (pods, connections, pod) = (&pods, &connections, &pod);
            let connection = |client: usize| connections[client / SHARE].clone();

            let next = &Cell::new(0);
            let creates = Load::drive(server, clients, time, async |client, turns| {
                let mut api = connection(client);
                while turns.more() {
                    let body = pod.number(next.replace(next.get() + 1));
                    turns.time(api.call(Method::POST, pods, body)).await?;
                }
                Ok(())
            });
            creates.await?.report(&report, "create", clients, (clients == 64).then_some((8000.0, 30.0)));

            let updates = Load::drive(server, clients, time, async |client, turns| {
                let mut api = connection(client);
                let path = format!("{pods}/{}", PendingPod::name(client));
                let mut object = api.get(&path).await?;
                for turn in 1.. {
                    if !turns.more() {
                        break;
                    }
                    let body = turned(&object, turn)?;
                    object = turns.time(api.call(Method::PUT, &path, body)).await?;
                }
                Ok(())
            });
            updates.await?.report(&report, "update", clients, None);

            let gets = Load::drive(server, clients, time / 2, async |client, turns| {
                let mut api = connection(client);
                for turn in 0.. {
                    if !turns.more() {
                        break;
                    }
                    let path = format!("{pods}/{}", PendingPod::name((client + turn * clients) % next.get()));
                    turns.time(api.call(Method::GET, &path, Bytes::new())).await?;
                }
                Ok(())
            });
            gets.await?.report(&report, "get", clients, None);
        }
        report.figure("server_rss", usage::memory(server).rss, "MB");
        Ok(())
    })
}
