//! Clients that each send one request after the other, for a while.

use crate::{Connection, Report, Samples, progress, usage};
use anyhow::Result;
use bytes::Bytes;
use http::Method;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Until when a client goes on, and how long each of its requests took.
pub struct Turns {
    end: Instant,
    took: RefCell<Vec<Duration>>,
}

impl Turns {
    /// Whether there is time for another request.
    pub fn more(&self) -> bool {
        Instant::now() < self.end
    }

    pub async fn time<T>(&self, request: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = request.await;
        self.took.borrow_mut().push(began.elapsed());
        answer
    }
}

/// What a load came to.
pub struct Load {
    pub samples: Samples,
    pub took: Duration,
    pub server: Duration,
    pub generator: Duration,
}

impl Load {
    /// Runs `clients` of them for `time` against the server with process id `server`.
    pub async fn drive<C>(
        server: u32,
        clients: usize,
        time: Duration,
        client: impl Fn(usize, std::rc::Rc<Turns>) -> C,
    ) -> Result<Load>
    where
        C: Future<Output = Result<()>>,
    {
        let (server_before, own_before, began) = (usage::cpu(server)?, usage::own_cpu()?, Instant::now());
        let turns = std::rc::Rc::new(Turns { end: began + time, took: RefCell::default() });
        futures::future::try_join_all((0..clients).map(|number| client(number, turns.clone()))).await?;
        Ok(Load {
            took: began.elapsed(),
            server: usage::cpu(server)? - server_before,
            generator: usage::own_cpu()? - own_before,
            samples: turns.took.take().into_iter().collect(),
        })
    }

    /// Creates objects at `path`, a client on each connection: `body` makes the one of each number.
    pub async fn fill(
        connections: &[Connection],
        path: &str,
        numbers: Range<usize>,
        body: impl Fn(usize) -> Bytes,
    ) -> Result<()> {
        let (next, body) = (&Cell::new(numbers.start), &body);
        let clients = connections.iter().map(|connection| async move {
            let mut api = connection.clone();
            while next.get() < numbers.end {
                api.call(Method::POST, path, body(next.replace(next.get() + 1))).await?;
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(clients).await?;
        Ok(())
    }

    pub fn per_second(&self) -> f64 {
        self.samples.len() as f64 / self.took.as_secs_f64()
    }

    /// Prints the figures of `verb` by so many clients; goals for the rate and the 99th percentile, if there are.
    pub fn report(&self, report: &Report, verb: &str, clients: usize, goals: Option<(f64, f64)>) {
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / self.samples.len() as f64;
        let rate = format!("{verb}s_{clients}_clients");
        let named = |what: &str| format!("{verb}_{what}_{clients}_clients");
        match goals {
            Some((goal, _)) => report.goal(&rate, self.per_second(), "1/s", goal),
            None => report.figure(&rate, self.per_second(), "1/s"),
        }
        report.figure(&named("p50"), self.samples.ms(50), "ms");
        match goals {
            Some((_, goal)) => report.goal(&named("p99"), self.samples.ms(99), "ms", goal),
            None => report.figure(&named("p99"), self.samples.ms(99), "ms"),
        }
        report.figure(&named("server_cpu"), each(self.server), "us");
        report.figure(&named("generator_cpu"), each(self.generator), "us");
        progress!("{verb}, {clients} clients: {:.0} in {:?}", self.samples.len(), self.took);
    }
}
