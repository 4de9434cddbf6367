//! Eviction thresholds: what is kept free for the host, and below which the node says that it is under pressure
//! (upstream's `--eviction-hard`).

use std::str::FromStr;

use canopus_api::Quantity;

/// Some of a resource: so much, or a part of all there is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    Bytes(i64),
    Part(f64),
}

impl Amount {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "thresholds need not be exact")]
    fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Bytes(bytes) => bytes,
            Amount::Part(part) => (capacity as f64 * part) as i64,
        }
    }
}

impl FromStr for Amount {
    type Err = ();

    fn from_str(text: &str) -> Result<Amount, ()> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(drop)?;
            return if (0.0..=100.0).contains(&percent) { Ok(Amount::Part(percent / 100.0)) } else { Err(()) };
        }
        match Quantity::parse(text) {
            Ok(amount) if !amount.is_negative() => Ok(Amount::Bytes(amount.value())),
            _ => Err(()),
        }
    }
}

/// `memory.available<100Mi,nodefs.available<10%`: a signal that isn't named has no threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    memory: Amount,
    /// Images are on the node's file system, so that the higher of `nodefs.available` and `imagefs.available` counts.
    disk: Amount,
    inodes: Amount,
}

/// Upstream's default.
pub const DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%";

const NOTHING: Amount = Amount::Bytes(0);

impl Thresholds {
    /// Bytes of memory that pods cannot ask for.
    pub fn reserved_memory(&self, capacity: i64) -> i64 {
        self.memory.of(capacity)
    }

    pub fn memory_pressure(&self, available: i64, capacity: i64) -> bool {
        available < self.memory.of(capacity)
    }

    /// `free` and `free_inodes` are fractions; `capacity` is in bytes.
    #[expect(clippy::cast_precision_loss, reason = "thresholds need not be exact")]
    pub fn disk_pressure(&self, free: f64, free_inodes: f64, capacity: i64) -> bool {
        let inodes = match self.inodes {
            Amount::Part(part) => free_inodes < part,
            Amount::Bytes(_) => false,
        };
        free * (capacity as f64) < self.disk.of(capacity) as f64 || inodes
    }
}

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Thresholds, String> {
        let mut out = Thresholds { memory: NOTHING, disk: NOTHING, inodes: NOTHING };
        for threshold in text.split(',').filter(|t| !t.is_empty()) {
            let wrong =
                || format!("{threshold:?} is not a threshold such as memory.available<100Mi or nodefs.available<10%");
            let (signal, amount) = threshold.split_once('<').ok_or_else(wrong)?;
            let amount = amount.parse::<Amount>().map_err(|()| wrong())?;
            match signal {
                "memory.available" => out.memory = amount,
                "nodefs.available" | "imagefs.available" => {
                    // Of two that cannot be compared the later one counts.
                    out.disk = match (out.disk, amount) {
                        (Amount::Part(a), Amount::Part(b)) => Amount::Part(a.max(b)),
                        (Amount::Bytes(a), Amount::Bytes(b)) => Amount::Bytes(a.max(b)),
                        (_, later) => later,
                    }
                }
                "nodefs.inodesFree" | "imagefs.inodesFree" => match amount {
                    Amount::Part(_) => out.inodes = amount,
                    Amount::Bytes(_) => return Err(format!("{threshold:?}: inodes are given in percent")),
                },
                _ => return Err(format!("{signal:?} is not a signal this node knows")),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let defaults: Thresholds = DEFAULT.parse().unwrap();
        assert!(defaults.memory_pressure(99 << 20, 8 << 30) && !defaults.memory_pressure(101 << 20, 8 << 30));
        let pressure = |free, inodes| defaults.disk_pressure(free, inodes, 1 << 40);
        assert_eq!([pressure(0.14, 1.0), pressure(0.16, 1.0), pressure(0.5, 0.04)], [true, false, true]);
    }

    #[test]
    fn amounts_and_mistakes() {
        let none: Thresholds = "".parse().unwrap();
        assert!(!none.disk_pressure(0.0, 0.0, 1 << 40) && !none.memory_pressure(0, 1 << 30));
        let bytes: Thresholds = "nodefs.available<1Gi".parse().unwrap();
        assert!(bytes.disk_pressure(0.0005, 1.0, 1 << 40) && !bytes.disk_pressure(0.002, 1.0, 1 << 40));
        for wrong in [
            "memory.available",
            "memory.available<",
            "memory.available<x",
            "nodefs.available<101%",
            "pid.available<1%",
            "nodefs.inodesFree<5",
        ] {
            assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
        }
    }
}
