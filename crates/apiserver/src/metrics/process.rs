//! `process_*` and `kubernetes_build_info`, read when somebody asks.

use super::family::{Head, labels, sample};

/// How many ticks a second the kernel counts processor time in, on every architecture that Linux runs on today.
const TICKS: f64 = 100.0;

fn gauge(name: &'static str, help: &'static str, value: Option<f64>, kind: &str, out: &mut String) {
    if let Some(value) = value {
        Head { name, help, stability: "STABLE" }.write(kind, out);
        sample(name, "", value, out);
    }
}

/// The fields of `/proc/self/stat` behind the name of the program, which may contain anything.
fn stat() -> Vec<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    // The first is the state, a letter.
    rest.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect()
}

/// A size that `/proc/self/status` gives in kilobytes.
fn size(name: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes: f64 =
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_files() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// When the process was started, in seconds since 1970.
pub fn started() -> Option<f64> {
    let ticks = stat().get(19).copied()?;
    Some(boot_time()? + ticks / TICKS)
}

pub fn write(out: &mut String) {
    let stat = stat();
    let field = |i: usize| stat.get(i).copied();
    // proc(5) counts from 1, and these begin with its third.
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / TICKS);
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu, "counter", out);
    gauge("process_max_fds", "Maximum number of open file descriptors.", max_files(), "gauge", out);
    gauge("process_open_fds", "Number of open file descriptors.", files, "gauge", out);
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", size("VmRSS:"), "gauge", out);
    let help = "Start time of the process since unix epoch in seconds.";
    gauge("process_start_time_seconds", help, started(), "gauge", out);
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", size("VmSize:"), "gauge", out);
    build_info(out);
}

fn build_info(out: &mut String) {
    let version = crate::discovery::version();
    let named = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let help = "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.";
    Head { name: "kubernetes_build_info", help, stability: "ALPHA" }.write("gauge", out);
    let values = named.map(|(_, field)| version[field].str());
    sample("kubernetes_build_info", &labels(&named.map(|(name, _)| name), &values), 1, out);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_knows_itself() {
        let mut out = String::new();
        super::write(&mut out);
        let value = |name: &str| -> f64 {
            let line = out.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
            line.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 2.0);
        assert!(value("process_start_time_seconds") > 1.6e9 && value("process_max_fds") > 10.0);
        assert!(out.contains("minor=\"36\""), "{out}");
    }
}
