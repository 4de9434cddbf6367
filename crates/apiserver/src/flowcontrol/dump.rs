//! `/debug/api_priority_and_fairness/…` and the metrics of levels.

use super::level::{Request, Seats, State};
use super::queues::Work;
use super::{FlowControl, measures};
use canopus_api::Time;
use std::fmt::Write;

type Row = Vec<String>;

/// Aligned columns, separated by a comma and what the alignment takes (Go's tabwriter, as upstream uses it).
fn table(rows: &[Row]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let last = i + 1 == row.len();
            let _ = match last {
                true => writeln!(out, "{cell}"),
                false => write!(out, "{:<1$}", format!("{cell},"), widths[i]),
            };
        }
    }
    out
}

fn row(cells: &[&str]) -> Row {
    cells.iter().map(ToString::to_string).collect()
}

const LEVELS: &[&str] = &[
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: &[&str] = &["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

impl FlowControl {
    /// The dump of this name. `now` is the time of day.
    pub fn dump(&self, name: &str, details: bool, now: Time) -> Option<String> {
        match name {
            "dump_priority_levels" => Some(self.dump_levels()),
            "dump_queues" => Some(self.dump_queues()),
            "dump_requests" => Some(self.dump_requests(details, now)),
            _ => None,
        }
    }

    fn dump_levels(&self) -> String {
        let config = self.config();
        let mut rows = vec![row(LEVELS)];
        for (name, level) in &config.levels {
            let state = level.state.lock();
            let active = state.set.view().iter().filter(|queue| !queue.waiting.is_empty()).count();
            rows.push(vec![
                name.to_string(),
                active.to_string(),
                state.set.is_idle().to_string(),
                state.quiescing.to_string(),
                state.set.waiting.to_string(),
                state.set.executing.to_string(),
                state.set.dispatched.to_string(),
                state.set.refused.to_string(),
                "0".into(),
                state.set.timed_out.to_string(),
            ]);
        }
        table(&rows)
    }

    fn dump_queues(&self) -> String {
        let config = self.config();
        let mut rows = vec![row(QUEUES)];
        for (name, level) in &config.levels {
            for (i, queue) in level.state.lock().set.view().iter().enumerate() {
                rows.push(vec![
                    name.to_string(),
                    i.to_string(),
                    queue.waiting.len().to_string(),
                    queue.executing.to_string(),
                    queue.seats.to_string(),
                    format!("{:.8}ss", queue.next),
                    queue.first_seats.to_string(),
                    queue.most_seats.to_string(),
                    format!("{:.8}ss", queue.work),
                ]);
            }
        }
        table(&rows)
    }

    fn dump_requests(&self, details: bool, now: Time) -> String {
        let config = self.config();
        let more = if details { DETAILS } else { &[] };
        let mut rows = vec![row(&[REQUESTS, more].concat())];
        let clock = self.clock.now();
        let day = |at: f64| Time(now.0 - ((clock - at) * 1e6) as i64).rfc3339_micro();
        for (name, level) in &config.levels {
            let state = level.state.lock();
            let mut add = |queue: i64, place: i64, work: Work, request: &Request, started: Option<f64>| {
                let mut cells = vec![
                    name.to_string(),
                    request.schema.name.to_string(),
                    queue.to_string(),
                    place.to_string(),
                    request.distinguisher.to_string(),
                    day(request.arrived),
                    work.first.to_string(),
                    work.after.to_string(),
                    format!("{}s", work.linger),
                    started.map_or_else(|| "0001-01-01T00:00:00Z".into(), day),
                ];
                if details {
                    cells.extend(detail(request));
                }
                rows.push(cells);
            };
            for (queue, place, work, ticket) in state.set.waiting() {
                add(queue as i64, place as i64, work, &ticket.request, None);
            }
            for (request, slot) in state.running.values() {
                add(slot.queue().map_or(-1, |queue| queue as i64), -1, slot.work, request, Some(slot.started()));
            }
        }
        table(&rows)
    }

    /// The metrics, by level and schema and by level.
    pub fn render(&self, out: &mut String) {
        let config = self.config();
        let all = config.schemas.iter().map(|schema| (&*schema.level.name, &*schema.name, &*schema.measures));
        measures::render(all, out);
        for (name, help, value) in SEATS {
            measures::head(name, "gauge", help, out);
            for (level, state) in config.levels.iter().map(|(name, level)| (name, level.state.lock())) {
                let value = value(&state.seats, &state);
                let _ = writeln!(out, "apiserver_flowcontrol_{name}{{priority_level=\"{level}\"}} {value}");
            }
        }
        let help = "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it";
        measures::head("seat_fair_frac", "gauge", help, out);
        let _ = writeln!(out, "apiserver_flowcontrol_seat_fair_frac {}", *config.fair.lock());
    }
}

type Of = fn(&Seats, &State) -> f64;

const SEATS: &[(&str, &str, Of)] = &[
    ("nominal_limit_seats", "[BETA] Nominal number of execution seats configured for each priority level", |s, _| {
        s.nominal.into()
    }),
    (
        "lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        |s, _| s.least.into(),
    ),
    (
        "upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        |s, _| s.most.into(),
    ),
    (
        "current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        |s, _| s.current.into(),
    ),
    ("demand_seats_high_watermark", "[ALPHA] High watermark, over last adjustment period, of demand_seats", |s, _| {
        s.seen.most
    }),
    ("demand_seats_average", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats", |s, _| {
        s.seen.average
    }),
    (
        "demand_seats_stdev",
        "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
        |s, _| s.seen.deviation,
    ),
    ("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", |s, _| s.smoothed),
    ("target_seats", "[ALPHA] Seat allocation targets", |s, _| s.target),
];

fn detail(request: &Request) -> Row {
    let target = &request.target;
    let path = match request.path.as_str() {
        "" => {
            let root = if target.gvr.group.is_empty() { "/api" } else { "/apis" };
            let mut path = format!("{root}/{}", target.gvr.api_version());
            if !target.namespace.is_empty() {
                let _ = write!(path, "/namespaces/{}", target.namespace);
            }
            for part in [&target.gvr.resource, &target.name, &target.subresource] {
                if !part.is_empty() {
                    let _ = write!(path, "/{part}");
                }
            }
            path
        }
        path => path.to_owned(),
    };
    vec![
        request.user.name.to_string(),
        request.verb.to_string(),
        path,
        target.namespace.to_string(),
        target.name.to_string(),
        target.gvr.api_version().to_string(),
        target.gvr.resource.to_string(),
        target.subresource.to_string(),
    ]
}
